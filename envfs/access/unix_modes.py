"""What the Unix modes and POSIX ACLs along a path let a user do: the kernel's rules, for explanations.

https://man7.org/linux/man-pages/man5/acl.5.html (ACCESS CHECK ALGORITHM). The kernel decides; this tells why. A process
can have other groups than the user database says, and capabilities: what is told here is what a login would get.
"""

from __future__ import annotations

import shlex
import struct
from typing import Final, NamedTuple

READ: Final = 4
WRITE: Final = 2
EXECUTE: Final = 1  # of a directory: search

ACL_XATTR: Final = "system.posix_acl_access"

_VERSION: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")  # tag, permissions, uid or gid
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20


class Login(NamedTuple):
    """A user as the kernel sees him after a login. `gids`: all of them, the primary one included."""

    name: str
    uid: int
    gids: frozenset[int]


class Inode(NamedTuple):
    """One directory or file on a path. `acl`: the raw extended attribute, None where there is none (that counts)."""

    path: str
    mode: int
    uid: int
    gid: int
    acl: bytes | None = None


def permitted(inode: Inode, login: Login, wanted: int = READ | WRITE | EXECUTE) -> int:
    """The permission bits (READ, WRITE, EXECUTE) that the user has on the inode, where he wants these."""
    if login.uid == 0:
        return READ | WRITE | EXECUTE
    entries = None if inode.acl is None else parse_acl(inode.acl)
    if entries is not None:
        return _by_acl(entries, inode, login, wanted)
    if login.uid == inode.uid:
        return inode.mode >> 6 & 7
    return (inode.mode >> 3 if inode.gid in login.gids else inode.mode) & 7


def missing(inode: Inode, login: Login, wanted: int) -> int:
    """Which of the bits in `wanted` the user lacks."""
    return wanted & ~permitted(inode, login, wanted)


def letters(bits: int) -> str:
    """`rw` for READ | WRITE."""
    return "".join(letter for letter, bit in (("r", READ), ("w", WRITE), ("x", EXECUTE)) if bits & bit)


def remedies(inode: Inode, login: Login, lacking: int, *, acls: bool) -> list[str]:
    """Commands that would give the user the bits, the one that gives the least to others first. `acls`: whether the
    filesystem takes ACLs.
    """
    what, path = letters(lacking), shlex.quote(inode.path)
    if acls and login.uid != inode.uid:
        return [f"setfacl -m u:{login.name}:{letters(lacking | permitted(inode, login))} {path}"]
    if login.uid == inode.uid:
        return [f"chmod u+{what} {path}"]
    if inode.gid in login.gids:
        return [f"chmod g+{what} {path}"]
    return [f"chgrp GROUP {path} && chmod g+{what} {path}", f"chmod o+{what} {path}"]


def parse_acl(raw: bytes) -> list[tuple[int, int, int]] | None:
    """(tag, permissions, id) of each entry; None if it is no ACL of version 2."""
    if len(raw) < _VERSION.size or (len(raw) - _VERSION.size) % _ENTRY.size or _VERSION.unpack_from(raw) != (2,):
        return None
    return list(_ENTRY.iter_unpack(raw[_VERSION.size :]))


def _by_acl(entries: list[tuple[int, int, int]], inode: Inode, login: Login, wanted: int) -> int:
    mask = next((bits for tag, bits, _ in entries if tag == _MASK), 7)
    if login.uid == inode.uid:
        return next((bits for tag, bits, _ in entries if tag == _USER_OBJ), 0)
    for tag, bits, who in entries:
        if tag == _USER and who == login.uid:
            return bits & mask
    of_groups = [
        bits & mask
        for tag, bits, who in entries
        if (tag == _GROUP_OBJ and inode.gid in login.gids) or (tag == _GROUP and who in login.gids)
    ]
    if of_groups:
        # One entry must have all that is wanted: two that have it together are not enough.
        return max(of_groups, key=lambda bits: (bits & wanted).bit_count())
    return next((bits for tag, bits, _ in entries if tag == _OTHER), 0)
