"""What comes over a control socket: lines, and descriptors that stand for inodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from envfs.errors import ConfigError
from envfs.service import mountinfo
from envfs.service.errors import MountError

MAX_LINE = 64 << 10
"""Bytes of one request or response line, the newline included."""


@dataclass(frozen=True, slots=True)
class Inode:
    """What /proc/self/fdinfo says about a descriptor: the mount through which it was opened, and st_ino."""

    mount_id: int
    number: int


def inode_of(descriptor: int) -> Inode:
    """The inode behind a descriptor, without a request to the filesystem it lies on.

    fstat(2) would be such a request: on its own mount a daemon would wait for itself. Needs Linux 5.14 (`ino:`).
    """
    fields: dict[str, str] = {}
    for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name, value.strip())
    if "ino" not in fields:
        raise ConfigError(
            "this kernel does not tell inode numbers in /proc/self/fdinfo", hint="Linux 5.14 or later does"
        )
    return Inode(int(fields["mnt_id"]), int(fields["ino"]))


def inode_in_mount(descriptor: int, device: str) -> int:
    """The st_ino behind a descriptor that must lie in the mount with this device number; MountError if it does not."""
    inode = inode_of(descriptor)
    entry = mountinfo.by_mount_id(inode.mount_id)
    if entry is None or entry.device != device:
        raise MountError("the path does not lie in this mount")
    return inode.number
