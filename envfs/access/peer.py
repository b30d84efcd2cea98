"""Who is at the other end of a Unix socket."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Any

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
