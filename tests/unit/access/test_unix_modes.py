from __future__ import annotations

import itertools
import struct

import pytest

from envfs.access.unix_modes import EXECUTE, READ, WRITE, Inode, Login, missing, parse_acl, permitted, remedies

ALICE = Login("alice", 1001, frozenset({1001, 50}))


def acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32


@pytest.mark.parametrize(
    ("uid", "gid", "mode", "expected"),
    [
        (1001, 0, 0o700, 7),
        (1001, 50, 0o077, 0),  # the owner's own bits alone, as hard as that is
        (0, 50, 0o070, 7),
        (0, 50, 0o707, 0),
        (0, 0, 0o770, 0),
        (0, 0, 0o775, 5),
    ],
)
def test_the_class_decides_and_no_other(uid: int, gid: int, mode: int, expected: int) -> None:
    assert permitted(Inode("/x", mode, uid, gid), ALICE) == expected


def test_root_passes() -> None:
    assert permitted(Inode("/x", 0, 7, 7), Login("root", 0, frozenset({0}))) == 7


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([(OBJ, 7, 0), (USER, 4, 1001), (GROUP_OBJ, 0, 0), (MASK, 7, 0), (OTHER, 7, 0)], 4),
        ([(OBJ, 7, 0), (USER, 6, 1001), (GROUP_OBJ, 0, 0), (MASK, 4, 0), (OTHER, 7, 0)], 4),
        ([(OBJ, 7, 0), (USER, 7, 1002), (GROUP_OBJ, 0, 0), (MASK, 7, 0), (OTHER, 1, 0)], 1),
        ([(OBJ, 7, 0), (GROUP_OBJ, 7, 0), (GROUP, 5, 50), (MASK, 7, 0), (OTHER, 7, 0)], 5),
        ([(OBJ, 7, 0), (GROUP_OBJ, 7, 0), (GROUP, 0, 50), (MASK, 7, 0), (OTHER, 7, 0)], 0),
    ],
)
def test_access_control_lists(entries: list[tuple[int, int, int]], expected: int) -> None:
    assert permitted(Inode("/x", 0o770, 0, 0, acl(*entries)), ALICE) == expected


def test_two_entries_that_have_it_together_are_not_enough() -> None:
    entries = acl((OBJ, 7, 0), (GROUP_OBJ, 0, 0), (GROUP, 2, 50), (GROUP, 1, 1001), (MASK, 7, 0), (OTHER, 0, 0))
    assert missing(Inode("/x", 0o770, 0, 0, entries), ALICE, WRITE | EXECUTE)
    assert not missing(Inode("/x", 0o770, 0, 0, entries), ALICE, WRITE)


@pytest.mark.parametrize("raw", [b"", b"\2\0\0", struct.pack("<I", 1), acl()[:-1], acl((OBJ, 7, 0)) + b"x"])
def test_what_is_no_list_is_none(raw: bytes) -> None:
    assert parse_acl(raw) is None


@pytest.mark.parametrize("acls", [True, False])
def test_what_is_proposed_is_enough(acls: bool) -> None:
    for uid, gid, mode in itertools.product((0, 1001), (0, 50), (0, 0o444, 0o070)):
        inode = Inode("/a b", mode, uid, gid)
        lacking = missing(inode, ALICE, READ | WRITE)
        if lacking:
            assert all("'/a b'" in command for command in remedies(inode, ALICE, lacking, acls=acls))
