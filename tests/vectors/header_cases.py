"""Vectors of section 2: slots and header areas."""

from __future__ import annotations

from dataclasses import replace

from envfs.crypto.aead import Suite
from envfs.crypto.mac import mac
from envfs.format.context import encode_context
from envfs.format.header import Slot, header_key
from envfs.format.place import ROOT, Kind, PlaceKey
from tests.vectors.material import (
    FORMAT_ERROR,
    INTEGRITY_ERROR,
    TRUNCATED,
    UNSUPPORTED_VERSION,
    Given,
    VectorFile,
    fails,
    fixed,
    flip,
    gives,
    identifier,
    patch,
)

DEK = fixed("DEK")
FILE_ID = identifier("file id")
KEY = header_key(DEK, FILE_ID)
PLAIN = Slot(Suite.AES_256_GCM, 14, 1, FILE_ID, 0, 0, 0, 0, fixed("wrapped DEK", 116))


def _fields(slot: Slot) -> Given:
    return {
        "suite": slot.suite.label,
        "block_size": 1 << slot.block_log2,
        "sequence": slot.sequence,
        "file_id": slot.file_id.hex(),
        "length_bound": slot.length_bound,
        "sealed_blocks": slot.sealed_blocks,
        "holes": [slot.hole_start, slot.hole_end],
        "blob": slot.blob.hex(),
        "labels": slot.labels.hex(),
        "previous": slot.previous.hex(),
    }


def _given(raw: bytes, dek: bytes = DEK) -> Given:
    return {"dek": dek.hex(), "raw": raw.hex()}


def resealed(raw: bytes, offset: int, new: bytes) -> bytes:
    """A slot with other bytes and an authentic MAC: what is wrong with it is not the MAC."""
    body = patch(raw, offset, new)[:416]
    return body + mac(KEY, body)


def _slot() -> VectorFile:
    labels = encode_context({"project": "apollo", "tier": "gold"})
    good = {
        "as it is created": PLAIN,
        "AES-256-GCM-SIV, 4 KiB": replace(PLAIN, suite=Suite.AES_256_GCM_SIV, block_log2=12),
        "ChaCha20-Poly1305, 64 KiB": replace(PLAIN, suite=Suite.CHACHA20_POLY1305, block_log2=16),
        "labels": replace(PLAIN, labels=labels),
        "holes from the start": replace(PLAIN, hole_start=0, hole_end=7, length_bound=100_000, sealed_blocks=9),
        "the largest numbers": replace(
            PLAIN,
            sequence=2**64 - 1,
            length_bound=2**64 - 1,
            sealed_blocks=2**64 - 1,
            hole_start=2**64 - 2,
            hole_end=2**64 - 1,
        ),
        "blob of one byte": replace(PLAIN, blob=b"B"),
        "no room left": replace(PLAIN, blob=fixed("large blob", 342)),
        "blob and labels fill the slot": replace(PLAIN, blob=fixed("large blob", 344 - len(labels)), labels=labels),
        "a previous key": replace(PLAIN, labels=labels, previous=fixed("previous key", 50)),
    }
    cases = [gives(name, _given(slot.seal(KEY)), _fields(slot)) for name, slot in good.items()]
    raw = PLAIN.seal(KEY)
    full = good["no room left"].seal(KEY)
    two_bytes_more = resealed(full, 66, (343).to_bytes(2, "big"))
    refused = {
        "nothing": (TRUNCATED, b""),
        "five bytes": (TRUNCATED, raw[:5]),
        "one byte missing": (TRUNCATED, raw[:-1]),
        "one byte left over": (FORMAT_ERROR, raw + b"\0"),
        "all zero": (FORMAT_ERROR, bytes(448)),
        "another magic": (FORMAT_ERROR, resealed(raw, 0, b"ENVP")),
        "version 0": (UNSUPPORTED_VERSION, resealed(raw, 4, b"\x00\x00")),
        "version 2": (UNSUPPORTED_VERSION, resealed(raw, 4, b"\x00\x02")),
        "version 2 and longer": (UNSUPPORTED_VERSION, patch(raw, 4, b"\x00\x02") + b"\0"),
        "version 257": (UNSUPPORTED_VERSION, resealed(raw, 4, b"\x01\x01")),
        "suite 0": (FORMAT_ERROR, resealed(raw, 6, b"\x00")),
        "suite 4": (FORMAT_ERROR, resealed(raw, 6, b"\x04")),
        "blocks of 2 KiB": (FORMAT_ERROR, resealed(raw, 7, b"\x0b")),
        "blocks of 128 KiB": (FORMAT_ERROR, resealed(raw, 7, b"\x11")),
        "sequence number 0": (FORMAT_ERROR, resealed(raw, 8, bytes(8))),
        "hole range ends before it starts": (FORMAT_ERROR, resealed(raw, 48, (5).to_bytes(8, "big"))),
        "empty hole range that is not zero": (FORMAT_ERROR, resealed(raw, 48, (5).to_bytes(8, "big") * 2)),
        "a flag": (FORMAT_ERROR, resealed(raw, 64, b"\x00\x01")),
        "the other flag byte": (FORMAT_ERROR, resealed(raw, 64, b"\x80\x00")),
        "no blob": (FORMAT_ERROR, resealed(resealed(raw, 66, bytes(2)), 72, bytes(118))),
        "blob longer than the slot": (FORMAT_ERROR, two_bytes_more),
        "no labels": (TRUNCATED, resealed(raw, 68, bytes(2))),
        "labels longer than the slot": (FORMAT_ERROR, resealed(raw, 68, b"\xff\xff")),
        "labels cut": (TRUNCATED, replace_labels(raw, labels[:-1])),
        "a previous key of one byte": (FORMAT_ERROR, resealed(raw, 70, b"\x00\x01")),
        "a previous key longer than the slot": (FORMAT_ERROR, resealed(full, 70, b"\x00\x32")),
        "bytes behind the labels": (FORMAT_ERROR, resealed(raw, 415, b"\x01")),
        "a reserved label": (
            FORMAT_ERROR,
            replace_labels(raw, encode_context({"envfs:file": "00"})),
        ),
        "another reserved label": (FORMAT_ERROR, replace_labels(raw, encode_context({"aws:x": ""}))),
        "labels not sorted": (FORMAT_ERROR, replace_labels(raw, b"\x00\x02\x00\x01b\x00\x00\x00\x01a\x00\x00")),
        "MAC, first bit": (INTEGRITY_ERROR, flip(raw, 416, 0x80)),
        "MAC, last bit": (INTEGRITY_ERROR, flip(raw, -1)),
        "another suite": (INTEGRITY_ERROR, patch(raw, 6, b"\x02")),
        "another block size": (INTEGRITY_ERROR, patch(raw, 7, b"\x0c")),
        "another sequence number": (INTEGRITY_ERROR, flip(raw, 15, 2)),
        "another file id": (INTEGRITY_ERROR, flip(raw, 16)),
        "a raised length bound": (INTEGRITY_ERROR, flip(raw, 39)),
        "another count of blocks": (INTEGRITY_ERROR, flip(raw, 47)),
        "a widened hole range": (INTEGRITY_ERROR, flip(raw, 63)),
        "another blob": (INTEGRITY_ERROR, flip(raw, 72)),
    }
    cases += [fails(name, failure, _given(broken)) for name, (failure, broken) in refused.items()]
    cases.append(fails("another DEK", INTEGRITY_ERROR, _given(raw, fixed("another DEK"))))
    cases.append(fails("a DEK of 16 bytes", FORMAT_ERROR, _given(raw, fixed("short DEK", 16))))
    return VectorFile("slot", "2.1", "one header slot and whether it is authentic", cases)


def replace_labels(raw: bytes, labels: bytes) -> bytes:
    """A slot whose labels an encoder would refuse."""
    return resealed(resealed(raw, 68, len(labels).to_bytes(2, "big")), 72 + 116, labels)


def _header_area() -> VectorFile:
    place = PlaceKey(fixed("place key")).pack(Kind.FILE, FILE_ID, ROOT)
    first, second = PLAIN.seal(KEY), replace(PLAIN, sequence=2, length_bound=5).seal(KEY)
    third = replace(PLAIN, sequence=3).seal(KEY)
    other_id = identifier("another file id")
    foreign = replace(PLAIN, file_id=other_id, sequence=2).seal(header_key(DEK, other_id))
    none = bytes(448)
    good: dict[str, tuple[bytes, Given]] = {
        "no bytes": (b"", {"empty": True}),
        "a place alone": (place, {"empty": True}),
        "half a place": (place[:64], {"empty": True}),
        "zero slots": (place + none + none, {"empty": True}),
        "some zeros": (place + bytes(100), {"empty": True}),
        "one slot": (place + first + none, {"slot": 0, "sequence": 1}),
        "one slot, the rest missing": (place + first, {"slot": 0, "sequence": 1}),
        "second slot newer": (place + first + second, {"slot": 1, "sequence": 2}),
        "first slot newer": (place + third + second, {"slot": 0, "sequence": 3}),
        "newer slot torn": (place + first + second[:200] + bytes(248), {"slot": 0, "sequence": 1}),
        "newer slot cut": (place + first + second[:200], {"slot": 0, "sequence": 1}),
        "newer slot not authentic": (place + first + flip(second, 39), {"slot": 0, "sequence": 1}),
        "newer slot of another version": (place + first + patch(second, 4, b"\0\x02"), {"slot": 0, "sequence": 1}),
        "older slot torn": (place + bytes(200) + first[200:] + second, {"slot": 1, "sequence": 2}),
        "equal sequence numbers": (place + first + first, {"slot": 0, "sequence": 1}),
        "no place": (bytes(128) + first + none, {"slot": 0, "sequence": 1}),
    }
    cases = [gives(name, _given(raw), result) for name, (raw, result) in good.items()]
    version2 = patch(first, 4, b"\0\x02")
    refused = {
        "neither slot authentic": (INTEGRITY_ERROR, place + flip(first, -1) + flip(second, -1)),
        "the only slot not authentic": (INTEGRITY_ERROR, place + flip(first, 100) + none),
        "two file ids": (INTEGRITY_ERROR, place + first + foreign),
        "the only slot cut": (TRUNCATED, place + first[:447]),
        "the only slot of another version": (UNSUPPORTED_VERSION, place + version2 + none),
        "other versions in both": (UNSUPPORTED_VERSION, place + version2 + version2),
        "no slot at all": (FORMAT_ERROR, place + b"X" * 896),
        "first failure counts": (FORMAT_ERROR, place + b"X" * 448 + version2),
        "zero slot does not count": (UNSUPPORTED_VERSION, place + none + version2),
    }
    cases += [fails(name, failure, _given(raw)) for name, (failure, raw) in refused.items()]
    return VectorFile("header_area", "2", "the slot in force among the first 1,024 bytes of a file", cases)


def vector_files() -> list[VectorFile]:
    return [_slot(), _header_area()]
