"""Vectors of section 8.1: records of the journal."""

from __future__ import annotations

from dataclasses import replace

from envfs.crypto.secret import Secret
from envfs.format.journal import Entry, Record
from envfs.format.volume_keys import VolumeKeys
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

VOLUME_KEY = fixed("volume key")
KEYS = VolumeKeys(Secret(VOLUME_KEY))
BODY_END = 88 + len(b"directory/file") + 2 * 28


def _raw(record: Record) -> bytes:
    return b"".join(record.serialise(KEYS.undo))


def _resealed(raw: bytes) -> bytes:
    return raw[:BODY_END] + KEYS.undo.tag(raw[:BODY_END]) + raw[BODY_END + 32 :]


def _journal_record() -> VectorFile:
    plain = Record(
        identifier("epoch"),
        7,
        identifier("boot"),
        identifier("file id"),
        4711,
        b"directory/file",
        [
            Entry(3, fixed("nonce", 12), 4124, fixed("an old block", 4124)),
            Entry(2**40, fixed("another nonce", 12), 128, fixed("an old last block", 60)),
        ],
    )
    holes = replace(plain, path=b"", entries=[Entry(index, fixed("nonce", 12), 4124, bytes(4124)) for index in (0, 1)])

    def given(raw: bytes, key: bytes = VOLUME_KEY) -> Given:
        return {"volume_key": key.hex(), "raw": raw.hex()}

    cases = [
        gives(
            name,
            given(_raw(record) + after),
            {
                "epoch": record.epoch.hex(),
                "number": record.number,
                "boot_id": record.boot_id.hex(),
                "file_id": record.file_id.hex(),
                "inode": record.inode,
                "path": record.path.decode(),
                "blocks": [[one.index, one.nonce.hex(), one.new_length, one.old.hex()] for one in record.entries],
                "size": len(_raw(record)),
            },
        )
        for name, record, after in (
            ("two blocks", plain, b""),
            ("two holes", holes, b""),
            ("followed by something", plain, b"ENVJ and more"),
        )
    ]
    raw = _raw(plain)

    def changed(offset: int, new: bytes) -> bytes:
        return _resealed(patch(raw, offset, new))

    refused = {
        "nothing": (TRUNCATED, b""),
        "its fixed part cut": (TRUNCATED, raw[:87]),
        "one byte missing": (TRUNCATED, raw[:-1]),
        "another magic": (FORMAT_ERROR, changed(0, b"ENVK")),
        "version 2": (UNSUPPORTED_VERSION, changed(4, b"\0\2")),
        "reserved bytes": (FORMAT_ERROR, changed(6, b"\0\1")),
        "reserved bytes at the end": (FORMAT_ERROR, changed(86, b"\0\1")),
        "a length that is no multiple of 512": (FORMAT_ERROR, changed(72, b"\0\0\x12\1")),
        "a length beyond the largest": (FORMAT_ERROR, changed(72, b"\0\x14\2\0")),
        "no blocks": (FORMAT_ERROR, changed(80, bytes(4))),
        "a path beyond the longest": (FORMAT_ERROR, changed(84, b"\x80\1")),
        "no new block": (FORMAT_ERROR, changed(BODY_END - 8, bytes(4))),
        "no old block": (FORMAT_ERROR, changed(BODY_END - 4, bytes(4))),
        "old blocks that end behind the record": (FORMAT_ERROR, changed(BODY_END - 4, b"\0\0\x10\0")),
        "checksum of the old blocks": (INTEGRITY_ERROR, changed(76, bytes(4))),
        "an old block changed": (INTEGRITY_ERROR, flip(raw, BODY_END + 32 + 1000)),
        "MAC changed": (INTEGRITY_ERROR, flip(raw, BODY_END + 31)),
        "path changed": (INTEGRITY_ERROR, flip(raw, 90)),
        "file id changed": (INTEGRITY_ERROR, flip(raw, 50)),
        "index changed": (INTEGRITY_ERROR, flip(raw, BODY_END - 28)),
    }
    cases += [fails(name, failure, given(broken)) for name, (failure, broken) in refused.items()]
    cases.append(fails("another volume key", INTEGRITY_ERROR, given(raw, fixed("another volume key"))))
    return VectorFile("journal_record", "8.1", "a record of the journal", cases)


def vector_files() -> list[VectorFile]:
    return [_journal_record()]
