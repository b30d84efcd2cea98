"""The head of the undo record: one encoding, and a name for each way to be wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from envfs.crypto.mac import Mac
from envfs.errors import FormatError, IntegrityError, Truncated, UnsupportedVersion
from envfs.format.undo import UndoHead

KEY = Mac(bytes(range(32)))
HEAD = UndoHead(
    boot_id=b"b" * 16,
    file_id=b"f" * 16,
    inode=7,
    offset=1024,
    end=1024 + 4124,
    old_size=5148,
    new_size=5148,
    tail=b"t" * 16,
    old_length=4124,
    cuts=False,
    path=b"one/two",
)


@pytest.mark.parametrize("head", [HEAD, replace(HEAD, cuts=True), replace(HEAD, old_length=0, path=b"x" * 300)])
def test_it_comes_back_as_it_was(head: UndoHead) -> None:
    raw = head.serialise(KEY)
    assert UndoHead.parse(raw + b"what follows means nothing", KEY) == head
    assert UndoHead.parse(raw, KEY).serialise(KEY) == raw


@pytest.mark.parametrize("position", range(len(HEAD.serialise(KEY))))
def test_no_bit_can_be_changed(position: int) -> None:
    raw = bytearray(HEAD.serialise(KEY))
    raw[position] ^= 1
    with pytest.raises((FormatError, IntegrityError)):
        UndoHead.parse(bytes(raw), KEY)


@pytest.mark.parametrize(
    ("raw", "failure"),
    [
        (b"", Truncated),
        (bytes(200), FormatError),
        (HEAD.serialise(KEY)[:50], Truncated),
        (HEAD.serialise(KEY)[:-1], Truncated),
        (b"ENVU\0\2" + HEAD.serialise(KEY)[6:], UnsupportedVersion),
        (HEAD.serialise(KEY)[:6] + b"\0\2" + HEAD.serialise(KEY)[8:], FormatError),
        (HEAD.serialise(KEY)[:102] + b"\0\1" + HEAD.serialise(KEY)[104:], FormatError),
        (HEAD.serialise(Mac(bytes(32))), IntegrityError),
        (replace(HEAD, end=1030).serialise(KEY), FormatError),
        (replace(HEAD, path=b"").serialise(KEY), FormatError),
    ],
)
def test_what_is_no_record_is_refused(raw: bytes, failure: type[Exception]) -> None:
    with pytest.raises(failure) as caught:
        UndoHead.parse(raw, KEY)
    assert caught.type is failure
