"""Records of the journal: one encoding, and a name for each way to be wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from envfs.crypto.mac import Mac
from envfs.errors import EnvfsError, FormatError, IntegrityError, Truncated, UnsupportedVersion
from envfs.format.journal import ALIGNMENT, Entry, Record, record_size

KEY = Mac(bytes(range(32)))
BLOCK = bytes(range(1, 125)) + b"b" * 4000
RECORD = Record(
    epoch=b"e" * 16,
    number=3,
    boot_id=b"b" * 16,
    file_id=b"f" * 16,
    inode=7,
    path=b"one/two",
    entries=[
        Entry(5, b"n" * 12, 4124, BLOCK),
        Entry(6, b"o" * 12, 4124, bytes(4124)),
        Entry(1 << 40, b"p" * 12, 30, b"short"),
    ],
)


def raw_of(record: Record, key: Mac = KEY) -> bytes:
    return b"".join(record.serialise(key))


@pytest.mark.parametrize("record", [RECORD, replace(RECORD, path=b""), replace(RECORD, entries=RECORD.entries[1:2])])
def test_it_comes_back_as_it_was(record: Record) -> None:
    raw = raw_of(record)
    assert len(raw) % ALIGNMENT == 0
    assert Record.parse(raw + b"the next one", KEY) == (record, len(raw))


def test_holes_take_no_space() -> None:
    holes = replace(RECORD, entries=[Entry(index, b"n" * 12, 4124, bytes(4124)) for index in range(100)])
    assert len(raw_of(holes)) < 4096


def test_the_estimate_is_never_too_small() -> None:
    old = sum(len(entry.old) for entry in RECORD.entries)
    assert record_size(len(RECORD.path), len(RECORD.entries), old) >= len(raw_of(RECORD))


def test_no_byte_that_means_something_can_be_changed() -> None:
    raw = raw_of(RECORD)
    meaning = len(raw.rstrip(b"\0"))
    for position in [*range(400), *range(400, meaning, 37), meaning - 1]:
        broken = bytearray(raw)
        broken[position] ^= 1
        with pytest.raises((FormatError, IntegrityError, Truncated)):
            Record.parse(bytes(broken), KEY)


@pytest.mark.parametrize(
    ("raw", "failure"),
    [
        (b"", Truncated),
        (bytes(512), FormatError),
        (raw_of(RECORD)[:50], Truncated),
        (raw_of(RECORD)[:-1], Truncated),
        (b"ENVJ\0\2" + raw_of(RECORD)[6:], UnsupportedVersion),
        (raw_of(RECORD, Mac(bytes(32))), IntegrityError),
        (raw_of(replace(RECORD, entries=[Entry(1, b"n" * 12, 0, b"old")])), FormatError),
        (raw_of(replace(RECORD, entries=[Entry(1, b"n" * 12, 50, b"")])), FormatError),
    ],
)
def test_what_is_no_record_is_refused(raw: bytes, failure: type[EnvfsError]) -> None:
    with pytest.raises(failure):
        Record.parse(raw, KEY)
