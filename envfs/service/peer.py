"""Who is at the other end of a Unix socket, and which inode a descriptor that came over it stands for."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envfs.errors import ConfigError
from envfs.service import mountinfo
from envfs.service.errors import MountError

MAX_LINE = 64 << 10
"""Bytes of one request or response line, the newline included."""

_UCRED = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected (or listens), as the kernel noted it then: SO_PEERCRED of unix(7)."""

    pid: int
    uid: int
    gid: int


def peer_of(connection: Any) -> Peer:
    """The other end of a connected Unix stream socket (a `socket.socket` or trio's)."""
    raw: bytes = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Peer(*_UCRED.unpack(raw))


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
