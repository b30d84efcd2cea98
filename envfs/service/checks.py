"""What must hold before a mount is tried, each refusal with its next step; and the lock on the volume."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from envfs.errors import ConfigError
from envfs.format.names import VOLUME_FILE
from envfs.service import mountinfo
from envfs.service.errors import MountError

if TYPE_CHECKING:
    from envfs.service.config import MountOptions

_DEVICE = Path("/dev/fuse")
_FUSE_CONFIGURATION = Path("/etc/fuse.conf")


def check_mountpoint(path: Path, lower: Path) -> Path:
    """The mountpoint as the kernel will name it: an empty directory, apart from `lower`, with nothing mounted on it."""
    mounted = mountinfo.at_mountpoint(path)
    if mounted is not None:
        raise _mounted_already(path, mounted)
    if not path.is_dir():
        exists = os.path.lexists(path)
        raise MountError(
            f"the mountpoint {path} {'is not a directory' if exists else 'does not exist'}",
            hint="mount on an empty directory" if exists else f"mkdir {path}",
        )
    _check_apart(lower, path.resolve())
    try:
        entries = os.listdir(path)  # noqa: PTH208  (their number is wanted, not their paths)
    except PermissionError:
        raise MountError(f"the mountpoint {path} cannot be read", hint="choose a directory of yours") from None
    if entries:
        raise MountError(
            f"the mountpoint {path} is not empty: {len(entries)} {'entry' if len(entries) == 1 else 'entries'}"
            " would be hidden",
            hint="mount on an empty directory",
        )
    if os.geteuid() != 0 and not os.access(path, os.W_OK):
        raise MountError(f"the mountpoint {path} is not writable for you", hint="choose a directory of yours")
    return path.resolve()


def _mounted_already(path: Path, entry: mountinfo.MountEntry) -> MountError:
    if entry.fstype != mountinfo.FILESYSTEM_TYPE:
        return MountError(f"{path} is a mountpoint already ({entry.fstype})", hint="mount on an empty directory")
    try:
        os.stat(path)  # noqa: PTH116
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            return MountError(
                f"{path} is a dead mount: its daemon has ended without unmounting", hint=f"envfs umount {path}"
            )
    return MountError(f"{path} is mounted already (from {entry.source})", hint=f"envfs umount {path}")


def _check_apart(lower: Path, mountpoint: Path) -> None:
    """Neither may lie in the other: the volume would contain its own mount, or vanish below it."""
    if _is_within(mountpoint, lower):
        raise ConfigError(
            f"the mountpoint {mountpoint} lies in the lower directory {lower}", hint="mount somewhere outside it"
        )
    if _is_within(lower, mountpoint):
        raise ConfigError(
            f"the lower directory {lower} lies in the mountpoint {mountpoint}, which would hide it",
            hint="mount somewhere else",
        )


def _is_within(path: Path, directory: Path) -> bool:
    """Whether `path` is `directory` or below it, by identity of the directories, so bind mounts count."""
    wanted = directory.stat()
    return any(os.path.samestat(candidate.stat(), wanted) for candidate in (path, *path.parents))


def check_fuse(options: MountOptions) -> None:
    """FUSE is there and this user may use it as the options ask."""
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        missing = not _DEVICE.exists()
        raise MountError(
            f"{_DEVICE} is missing" if missing else f"{_DEVICE} is not accessible for you",
            hint="modprobe fuse; in a container, start it with --device /dev/fuse --cap-add SYS_ADMIN"
            if missing
            else f"its mode is usually 0666: chmod 0666 {_DEVICE}, as root",
        )
    if os.geteuid() == 0:
        return
    if shutil.which("fusermount3") is None:
        raise MountError("fusermount3 is not installed, and only root can mount without it", hint="apt install fuse3")
    if options.others_allowed(os.geteuid()) and not _others_permitted():
        raise ConfigError(
            "allow_other is not permitted to ordinary users here",
            hint=f"have root write the line user_allow_other into {_FUSE_CONFIGURATION}, or mount without allow_other",
        )


def _others_permitted() -> bool:
    try:
        lines = _FUSE_CONFIGURATION.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def lock_volume(lower: Path, *, shared: bool) -> int:
    """Lock the volume for one daemon and return the descriptor that holds the lock, for the caller to keep and close.

    flock(2) on the volume file: it ends with the process, however that ends. Read-only mounts share it; two that write
    would each trust caches that the other makes wrong. MountError if it is taken. See `lock_directory`.
    """
    path = lower / os.fsdecode(VOLUME_FILE)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, _how(shared=shared))
        # The name may have been given to another file since: then the lock protects nothing.
        if not os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False)):
            raise MountError(f"{path} was just replaced", hint="try again")
    except BlockingIOError:
        os.close(descriptor)
        raise _locked(lower) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def lock_directory(lower: Path, *, shared: bool) -> int:
    """The same on the lower directory itself: both are needed.

    The volume file may be replaced while a mount runs, by its copy or from a backup; and directories cannot be locked
    for other hosts on network filesystems.
    """
    descriptor = os.open(lower, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, _how(shared=shared))
    except BlockingIOError:
        os.close(descriptor)
        raise _locked(lower) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _how(*, shared: bool) -> int:
    return (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB


def _locked(lower: Path) -> MountError:
    where = [entry.mountpoint for entry in mountinfo.envfs_mounts() if entry.source == os.fspath(lower)]
    return MountError(
        f"the volume {lower} is in use by another envfs process" + (f", mounted at {where[-1]}" if where else ""),
        hint=f"envfs umount {where[-1]}" if where else "wait until it has ended; envfs status lists the mounts",
    )
