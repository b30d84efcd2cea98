"""What stands under a name and is no directory: symlinks, attributes; files are `content`'s."""

from __future__ import annotations

import os

from envfs.errors import EnvfsError, IntegrityError
from envfs.format.place import Where
from envfs.format.symlink import is_link_file, parse_link_file, parse_text
from envfs.format.volume_keys import VolumeKeys
from envfs.format.xattr import LONG_PREFIX
from envfs.fs import lower
from envfs.fsck.findings import Finding, Problem, Spot, describe

_LARGEST_LINK_FILE = 8192


def check_symlink(keys: VolumeKeys, dir_fd: int, spot: Spot, where: Where, found: list[Finding]) -> None:
    """Its text, its link file if it has one, its target and its place."""
    try:
        text = os.fsencode(os.readlink(spot.name, dir_fd=dir_fd))
        if is_link_file(text):
            try:
                payload = parse_link_file(text, lower.read_small_file(dir_fd, text, _LARGEST_LINK_FILE))
            except FileNotFoundError:
                raise IntegrityError("it has lost its link file") from None
        else:
            payload = parse_text(text)
        keys.symlinks.open(payload, where)
    except (EnvfsError, OSError) as error:
        found.append(spot.finding(Problem.SYMLINK, describe(error)))


def check_xattrs(keys: VolumeKeys, fd: int, object_id: bytes, spot: Spot, found: list[Finding]) -> None:
    """The attributes whose names are of this object: each value must be, too."""
    path = lower.proc_path(fd)
    try:
        names = [os.fsencode(name) for name in os.listxattr(path)]
    except OSError:
        return  # the lower filesystem has none
    for lower_name in names:
        try:
            if lower_name.startswith(LONG_PREFIX):
                stored = os.getxattr(path, lower_name)
                name = keys.xattrs.open_long_name(object_id, lower_name, stored)
            else:
                name = keys.xattrs.open_name(object_id, lower_name)
            if name is not None:
                keys.xattrs.open(object_id, name, os.getxattr(path, lower_name))
        except (EnvfsError, OSError) as error:
            found.append(spot.finding(Problem.XATTR, f"{os.fsdecode(lower_name)}: {describe(error)}"))
