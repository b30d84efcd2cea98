"""Whether SRC and DST are what they should be, before anything is touched."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from envfs.errors import ConfigError
from envfs.format.names import VOLUME_FILE
from envfs.service import client, mountinfo
from envfs.service.errors import MountError

if TYPE_CHECKING:
    from envfs.service.mountinfo import MountEntry


def check_import(source: Path, target: Path) -> int:
    """The device (st_dev) of the mount that DST lies in. ConfigError, MountError, OSError."""
    _check_directory(source)
    _refuse_lower(source)
    with client.open_path(Path(os.path.realpath(_existing(target)))) as opened:
        entry, device = opened.envfs_mount, os.fstat(opened.descriptor).st_dev
    if entry is None:
        _refuse_lower(_existing(target))
        raise MountError(
            f"{target} does not lie in an envfs mount: what is copied there would not be encrypted",
            hint="mount the volume first (envfs mount LOWER MOUNTPOINT) and name a directory in MOUNTPOINT",
        )
    _check_apart(source, target, entry)
    return device


def check_export(source: Path, target: Path) -> None:
    """ConfigError, MountError, OSError."""
    _check_directory(source)
    entry = _mount_of(source)
    if entry is None:
        _refuse_lower(source)
        raise MountError(
            f"{source} does not lie in an envfs mount: it is plaintext already",
            hint="mount the volume first (envfs mount LOWER MOUNTPOINT) and name a directory in MOUNTPOINT",
        )
    _refuse_lower(_existing(target))
    _check_apart(source, target, entry)


def _check_directory(path: Path) -> None:
    with client.open_path(path) as opened:
        # A symlink is no directory here: it is not followed below SRC either.
        if not Path(f"/proc/self/fd/{opened.descriptor}").is_dir():
            raise ConfigError(f"{path} is not a directory", hint="name the directory whose content is to be copied")


def _existing(target: Path) -> Path:
    """DST, or the directory in which it is to be made."""
    if os.path.lexists(target):
        _check_directory(target)
        return target
    parent = target.absolute().parent
    if not parent.is_dir():
        raise ConfigError(f"the directory {parent} does not exist", hint=f"mkdir -p {parent}")
    return parent


def _mount_of(path: Path) -> MountEntry | None:
    with client.open_path(Path(os.path.realpath(path))) as opened:
        return opened.envfs_mount


def _refuse_lower(path: Path) -> None:
    real = Path(os.path.realpath(path))
    lower = next((one for one in (real, *real.parents) if os.path.lexists(one / os.fsdecode(VOLUME_FILE))), None)
    if lower is not None:
        mounts = [entry.mountpoint for entry in mountinfo.envfs_mounts() if entry.source == os.fspath(lower)]
        hint = f"it is mounted at {mounts[-1]}" if mounts else f"envfs mount {lower} MOUNTPOINT"
        raise ConfigError(f"{path} lies in the lower directory {lower}, which holds ciphertext", hint=hint)


def _check_apart(source: Path, target: Path, entry: MountEntry) -> None:
    place = _existing(target)
    for inner, outer, what in ((source, place, "SRC lies in DST"), (place, source, "DST lies in SRC")):
        if inner is source and place is not target:
            continue  # DST is new, so nothing lies in it
        if _is_within(inner, outer):
            raise ConfigError(f"{what}: {target} and {source}", hint="name two directories apart from each other")
    lower = Path(entry.source)
    for path in (source, *((target,) if place is target else ())):
        if lower.is_dir() and _is_within(lower, path) and entry.mountpoint != os.fspath(path):
            raise ConfigError(
                f"{path} contains {lower}, the lower directory of the mount", hint="name a directory without it"
            )


def _is_within(path: Path, directory: Path) -> bool:
    """By identity of the directories, so bind mounts count."""
    wanted = directory.stat()
    real = Path(os.path.realpath(path))
    for candidate in (real, *real.parents):
        try:
            if os.path.samestat(candidate.stat(), wanted):
                return True
        except PermissionError:
            continue
    return False
