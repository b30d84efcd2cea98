from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from envfs.crypto.aead import Suite
from envfs.errors import FormatError, IntegrityError, Truncated, UnsupportedVersion
from envfs.format.context import encode_context
from envfs.format.header import (
    SLOT_SIZE,
    Slot,
    content_key,
    dek_context,
    header_key,
    parse_header_area,
    peek_file_id,
    verify_slot,
    volume_context,
)
from envfs.format.place import ROOT, Kind, PlaceKey

DEK, FILE_ID = bytes(range(32)), b"f" * 16
KEY = header_key(DEK, FILE_ID)
SLOT = Slot(Suite.AES_256_GCM, 14, 1, FILE_ID, 0, 0, 0, 0, b"blob")
PLACE = PlaceKey(bytes(32)).pack(Kind.FILE, FILE_ID, ROOT)


def test_a_slot_comes_back() -> None:
    slot = replace(SLOT, labels=encode_context({"a": "b"}), length_bound=7, sealed_blocks=9, hole_start=1, hole_end=4)
    raw = slot.seal(KEY)
    assert len(raw) == SLOT_SIZE
    assert Slot.parse(raw) == slot
    assert verify_slot(raw, KEY)
    assert not verify_slot(raw, bytes(32))


@pytest.mark.parametrize(
    "change",
    [
        {"block_log2": 11},
        {"block_log2": 17},
        {"sequence": 0},
        {"sequence": 2**64},
        {"file_id": b"short"},
        {"length_bound": -1},
        {"length_bound": 2**64},
        {"sealed_blocks": 2**64},
        {"sealed_blocks": -1},
        {"hole_start": 1},
        {"hole_start": 3, "hole_end": 3},
        {"hole_start": 4, "hole_end": 3},
        {"hole_end": 2**64},
        {"hole_start": -1, "hole_end": 3},
        {"blob": b""},
        {"blob": b"b" * 343},
        {"labels": b""},
        {"labels": b"\0\0\0"},
        {"labels": encode_context({"envfs:file": ""})},
        {"labels": encode_context({"k": "v" * 400})},
    ],
    ids=str,
)
def test_what_a_slot_cannot_hold_is_never_encoded(change: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        replace(SLOT, **change)


def test_blob_and_labels_share_344_bytes() -> None:
    labels = encode_context({"k": "v" * 100})
    slot = replace(SLOT, labels=labels, blob=b"b" * (344 - len(labels)))
    assert Slot.parse(slot.seal(KEY)) == slot


def test_keys_depend_on_file_and_suite() -> None:
    keys = {content_key(DEK, file_id, suite) for suite in Suite for file_id in (FILE_ID, b"g" * 16)}
    keys |= {header_key(DEK, file_id) for file_id in (FILE_ID, b"g" * 16)}
    assert len(keys) == 8


def test_encryption_contexts() -> None:
    assert volume_context(b"\xab" * 16) == {"envfs:volume": "ab" * 16}
    context = dek_context(b"\xab" * 16, b"\xcd" * 16, {"project": "apollo"})
    assert context == {"envfs:volume": "ab" * 16, "envfs:file": "cd" * 16, "project": "apollo"}


def test_labels_cannot_replace_the_ids_in_a_context() -> None:
    context = dek_context(b"\xab" * 16, b"\xcd" * 16, {"envfs:file": "00", "envfs:volume": "00"})
    assert context == {"envfs:volume": "ab" * 16, "envfs:file": "cd" * 16}


def area(first: Slot | None, second: Slot | None) -> bytes:
    return PLACE + b"".join(slot.seal(KEY) if slot else bytes(SLOT_SIZE) for slot in (first, second))


def test_slots_come_in_the_order_in_which_they_are_tried() -> None:
    older, newer = SLOT, replace(SLOT, sequence=2)
    for raw, positions in ((area(older, newer), [1, 0]), (area(newer, older), [0, 1]), (area(older, older), [0, 1])):
        parsed = parse_header_area(raw)
        assert [slot.position for slot in parsed.slots] == positions
        assert parsed.place_raw == PLACE
        assert parsed.file_id == FILE_ID
        assert not parsed.is_absent
        assert all(slot.verify(KEY) for slot in parsed.slots)


@pytest.mark.parametrize("length", [0, 1, 127, 128, 300, 576, 1023, 1024])
def test_zeros_are_no_header(length: int) -> None:
    parsed = parse_header_area((PLACE + bytes(896))[:length])
    assert parsed.is_absent
    assert parsed.file_id is None
    assert parsed.place_raw == PLACE[:length]


def test_a_torn_rewrite_leaves_the_slot_before() -> None:
    """However much of the new slot has arrived, the old one is found."""
    newer = replace(SLOT, sequence=2).seal(KEY)
    for arrived in range(SLOT_SIZE):
        raw = PLACE + SLOT.seal(KEY) + newer[:arrived] + bytes(SLOT_SIZE - arrived)
        in_force = next(slot for slot in parse_header_area(raw).slots if slot.verify(KEY))
        assert in_force.slot == SLOT


def test_slots_of_two_files_are_refused() -> None:
    with pytest.raises(IntegrityError):
        parse_header_area(area(SLOT, replace(SLOT, file_id=b"g" * 16)))


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (PLACE + SLOT.seal(KEY)[:100], Truncated),
        (PLACE + b"ENVF\0\2" + bytes(442), UnsupportedVersion),
        (PLACE + b"x" * 896, FormatError),
    ],
    ids=["cut", "other version", "no slot"],
)
def test_something_that_is_no_slot_is_not_absent(raw: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        parse_header_area(raw)


def test_the_slot_that_follows_keeps_file_suite_and_dek() -> None:
    after = SLOT.changed(sequence=2, length_bound=3, sealed_blocks=4, hole_start=5, hole_end=6)
    assert after == replace(SLOT, sequence=2, length_bound=3, sealed_blocks=4, hole_start=5, hole_end=6)


def test_peeking_finds_the_file_id_wherever_a_slot_begins() -> None:
    assert peek_file_id(area(SLOT, None)) == peek_file_id(area(None, SLOT)) == FILE_ID
    assert peek_file_id(area(SLOT, None)[:160]) == FILE_ID
    for raw in (b"", PLACE, PLACE + bytes(896), area(SLOT, None)[:159], PLACE + b"x" * 896):
        assert peek_file_id(raw) is None


def test_every_buffer_is_read() -> None:
    raw = area(SLOT, None)
    assert parse_header_area(bytearray(raw)) == parse_header_area(raw)
