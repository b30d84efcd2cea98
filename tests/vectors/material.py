"""What the cases of the test vectors are made of: fixed keys, and ways to say what a decoder must give or refuse."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, TypeAlias

#: In a vector, bytes are hex, or a list of [hex, times] where something repeats.
Bytes: TypeAlias = str | list[list[Any]]
Given: TypeAlias = dict[str, Any]

TRUNCATED = "Truncated"
UNSUPPORTED_VERSION = "UnsupportedVersion"
FORMAT_ERROR = "FormatError"
INTEGRITY_ERROR = "IntegrityError"


@dataclass(frozen=True)
class VectorFile:
    """One JSON file: the examples of one decoder."""

    name: str
    section: str
    says: str
    cases: list[Given]


def fixed(label: str, length: int = 32) -> bytes:
    """Bytes that look random and are the same for ever."""
    return hashlib.shake_256(b"envfs test vectors: " + label.encode()).digest(length)


def identifier(label: str) -> bytes:
    return fixed(label, 16)


def gives(name: str, given: Given, result: Given) -> Given:
    return {"name": name, "given": given, "gives": result}


def fails(name: str, failure: str, given: Given, **more: Any) -> Given:
    """`more` is what the error says beside its name: the index of the damaged block."""
    return {"name": name, "given": given, "failure": failure, **more}


def flip(raw: bytes, offset: int, mask: int = 1) -> bytes:
    """`raw` with bits of one byte flipped; a negative offset counts from the end."""
    changed = bytearray(raw)
    changed[offset] ^= mask
    return bytes(changed)


def patch(raw: bytes, offset: int, new: bytes) -> bytes:
    return raw[:offset] + new + raw[offset + len(new) :]


def repeated(*pieces: tuple[bytes, int]) -> list[list[Any]]:
    return [[piece.hex(), times] for piece, times in pieces]


def to_bytes(value: Bytes) -> bytes:
    """The bytes that a vector means."""
    if isinstance(value, str):
        return bytes.fromhex(value)
    return b"".join(bytes.fromhex(piece) * times for piece, times in value)
