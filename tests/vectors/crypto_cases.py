"""Vectors of sections 1 and 3: key derivation, base64url, string pairs."""

from __future__ import annotations

import struct

from envfs.crypto.b64 import encode
from envfs.crypto.kdf import Label, derive
from envfs.format.context import encode_context
from tests.vectors.material import FORMAT_ERROR, TRUNCATED, VectorFile, fails, fixed, gives, repeated

FILE_ID = fixed("file id", 16)


def _derive() -> VectorFile:
    key = fixed("any key")
    contexts = {
        Label.FILE_HEADER: FILE_ID,
        Label.FILE_CONTENT: FILE_ID + b"\x01",
        Label.FILE_GENERATIONS: FILE_ID,
        Label.BOUND_FILE: fixed("file binding"),
        Label.CIPHERTEXT_BLOB: fixed("salt"),
        Label.BACKING_KEY: fixed("backing key id", 16),
        Label.ROOT_SLOT: fixed("slot id", 16),
    }
    lengths = {Label.NAMES: 64, Label.SYMLINK: 64, Label.XATTR: 64}
    cases = []
    for label in Label:
        context, length = contexts.get(label, b""), lengths.get(label, 32)
        given = {"key": key.hex(), "label": label.value, "context": context.hex(), "length": length}
        cases.append(gives(label.value, given, {"output": derive(key, label, context, length).hex()}))
    for size in (0, 16, 31, 33):
        given = {"key": bytes(size).hex(), "label": "place", "context": "", "length": 32}
        cases.append(fails(f"key of {size} bytes", FORMAT_ERROR, given))
    return VectorFile("derive", "1", "derive(key, label, context, length)", cases)


def _base64url() -> VectorFile:
    cases = [
        gives(f"{length} bytes", {"text": encode(fixed("text", length))}, {"raw": fixed("text", length).hex()})
        for length in (0, 1, 2, 3, 4, 31, 32)
    ]
    cases.append(gives("both special characters", {"text": "-_-_"}, {"raw": "fbffbf"}))
    refused = {
        "padding": "QQ==",
        "one character": "Q",
        "a length of 5": "QUFBQ",
        "bits beyond the last byte": "QR",
        "bits beyond the last two bytes": "QUF",
        "plus sign": "+_-_",
        "slash": "-/-_",
        "space": "QU FB",
        "line feed": "QUFB\n",
        "padding inside": "QQ==QQ",
        "equals sign alone": "=",
        "not ASCII": "QUF\u00c9",
    }
    cases += [fails(name, FORMAT_ERROR, {"text": text}) for name, text in refused.items()]
    return VectorFile("base64url", "top of the page", "text to bytes", cases)


def _pair(key: bytes, value: bytes) -> bytes:
    return struct.pack(">H", len(key)) + key + struct.pack(">H", len(value)) + value


def _context() -> VectorFile:
    cases = []
    examples: dict[str, dict[str, str]] = {
        "none": {},
        "one pair": {"project": "apollo"},
        "empty value": {"flag": ""},
        "sorted by bytes, not by code points of UTF-16": {"\U0001f511": "key", "\uff5e": "tilde", "z": "1", "Z": "2"},
        "no run-together, left": {"a": "bc"},
        "no run-together, right": {"ab": "c"},
        "a key that begins another": {"aa": "2", "a": "1"},
    }
    for name, pairs in examples.items():
        ordered = [[key, pairs[key]] for key in sorted(pairs, key=lambda text: text.encode())]
        cases.append(gives(name, {"raw": encode_context(pairs).hex()}, {"pairs": ordered}))
    largest = {"k": "v" * (8192 - 2 - 5)}
    cases.append(
        gives(
            "8,192 bytes",
            {"raw": repeated((b"\x00\x01\x00\x01k" + struct.pack(">H", 8185), 1), (b"v", 8185))},
            {"pairs": [[key, value] for key, value in largest.items()]},
        )
    )
    two = struct.pack(">H", 2)
    one = struct.pack(">H", 1)
    a, b = _pair(b"a", b"1"), _pair(b"b", b"2")
    refused = {
        "nothing": (TRUNCATED, b""),
        "half a count": (TRUNCATED, b"\x00"),
        "a pair is missing": (TRUNCATED, two + a),
        "ends in a length": (TRUNCATED, one + a[:-2]),
        "ends in a value": (TRUNCATED, one + a[:-1]),
        "a length beyond the end": (TRUNCATED, one + b"\xff\xffabc"),
        "bytes left over": (FORMAT_ERROR, one + a + b"\x00"),
        "bytes left over behind no pair": (FORMAT_ERROR, b"\x00\x00\x00"),
        "not sorted": (FORMAT_ERROR, two + b + a),
        "a key twice": (FORMAT_ERROR, two + a + a),
        "an empty key": (FORMAT_ERROR, one + _pair(b"", b"1")),
        "key not UTF-8": (FORMAT_ERROR, one + _pair(b"\xff", b"1")),
        "value not UTF-8": (FORMAT_ERROR, one + _pair(b"a", b"\xc3")),
        "surrogate": (FORMAT_ERROR, one + _pair(b"a", b"\xed\xa0\x80")),
        "overlong": (FORMAT_ERROR, one + _pair(b"a", b"\xc0\xaf")),
    }
    cases += [fails(name, failure, {"raw": raw.hex()}) for name, (failure, raw) in refused.items()]
    too_long = repeated((b"\x00\x01\x00\x01k" + struct.pack(">H", 8186), 1), (b"v", 8186))
    cases.append(fails("8,193 bytes", FORMAT_ERROR, {"raw": too_long}))
    return VectorFile("context", "3", "string pairs: encryption contexts and labels", cases)


def vector_files() -> list[VectorFile]:
    return [_derive(), _base64url(), _context()]
