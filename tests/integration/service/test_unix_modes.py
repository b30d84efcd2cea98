"""What `envfs explain` says of Unix modes and ACLs is what the kernel does."""

from __future__ import annotations

import itertools
import os
import struct
from typing import TYPE_CHECKING, Any

import pytest

from envfs.access.unix_modes import ACL_XATTR, Inode, Login, permitted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.users import UnixUser


def acl(mode: int, mask: int, user: tuple[int, int], group: tuple[int, int]) -> bytes:
    entries = [
        (0x01, mode >> 6, 0xFFFFFFFF),
        (0x02, user[1], user[0]),
        (0x04, mode >> 3 & 7, 0xFFFFFFFF),
        (0x08, group[1], group[0]),
        (0x10, mask, 0xFFFFFFFF),
        (0x20, mode & 7, 0xFFFFFFFF),
    ]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def test_modes_and_lists_are_read_as_the_kernel_reads_them(
    unix_users: Callable[..., list[UnixUser]],
    unix_group: Callable[..., str],
    directory: Callable[..., Path],
    run_as: Callable[..., Any],
) -> None:
    alice, bob = unix_users("alice", "bob")
    unix_group("staff", alice)
    staff = next(gid for gid in alice.groups if gid != alice.gid)
    place = directory("modes")
    cases: list[tuple[Path, Inode]] = []
    for number, (owner, group, mode) in enumerate(
        itertools.product((0, alice.uid), (0, staff), (0o000, 0o124, 0o421, 0o750, 0o057, 0o607))
    ):
        cases.append(make(place / f"mode{number}", owner, group, mode, None))
    try:
        for number, (mask, who, bits, of_group) in enumerate(
            itertools.product((7, 4), (alice.uid, bob.uid), (0, 6), (0, 5))
        ):
            raw = acl(0o641, mask, (who, bits), (staff, of_group))
            cases.append(make(place / f"list{number}", 0, 0, 0o641, raw))
    except OSError:
        pytest.skip("this filesystem takes no ACLs")
    for user in (alice, bob):
        login = Login(user.name, user.uid, frozenset(user.groups))
        actual = run_as(user, lambda: [[os.access(path, bit) for bit in (4, 2, 1)] for path, _ in cases])
        for (_, inode), granted in zip(cases, actual, strict=True):
            told = [bool(permitted(inode, login, bit) & bit) for bit in (4, 2, 1)]
            assert told == granted, (user.name, inode)


def make(path: Path, owner: int, group: int, mode: int, raw: bytes | None) -> tuple[Path, Inode]:
    path.touch()
    os.chown(path, owner, group)
    path.chmod(mode)
    if raw is not None:
        os.setxattr(path, ACL_XATTR, raw)
    status = path.stat()
    return path, Inode(str(path), status.st_mode & 0o7777, status.st_uid, status.st_gid, raw)
