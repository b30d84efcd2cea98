"""What all decoders share: the order of the checks, and exact lengths.

A decoder looks at magic and version first, then at the length, then at the fields, and at the MAC last (FORMAT.md,
top), so that each way in which bytes can be wrong has one name.
"""

from __future__ import annotations

import struct
from typing import Final

from envfs.crypto.aead import Suite
from envfs.errors import FormatError, Truncated, UnsupportedVersion

VERSION: Final = 1
ID_SIZE: Final = 16
ZERO_ID: Final = bytes(ID_SIZE)
ONES_ID: Final = b"\xff" * ID_SIZE

MIN_BLOCK_LOG2: Final = 12
MAX_BLOCK_LOG2: Final = 16

U64_MAX: Final = 2**64 - 1
_U16: Final = struct.Struct(">H")


def check_start(raw: bytes, magic: bytes, what: str, offset: int = 0) -> None:
    """Magic and the u16 version after it, at `offset`."""
    end = offset + len(magic)
    if len(raw) < end + 2:
        raise Truncated(f"{what}: {len(raw)} bytes do not even hold its start")
    if raw[offset:end] != magic:
        raise FormatError(f"not a {what}: it does not begin with {magic.decode('ascii')}")
    (version,) = _U16.unpack_from(raw, end)
    if version != VERSION:
        raise UnsupportedVersion(
            f"{what} of format version {version}; this release reads version {VERSION}",
            hint="use the release of envfs that wrote it, or a newer one",
        )


def check_length(raw: bytes, length: int, what: str) -> None:
    """`raw` has exactly `length` bytes."""
    if len(raw) < length:
        raise Truncated(f"{what}: {len(raw)} of {length} bytes")
    if len(raw) > length:
        raise FormatError(f"{what}: {len(raw) - length} bytes are left over")


def check_id(value: bytes, what: str) -> None:
    if len(value) != ID_SIZE:
        raise FormatError(f"{what}: {len(value)} bytes instead of {ID_SIZE}")


def check_directory_id(value: bytes) -> None:
    """A directory's own id; all zero bits and all one bits stand for the two special places."""
    check_id(value, "directory id")
    if value in (ZERO_ID, ONES_ID):
        raise FormatError("directory id: all bits equal, which no directory has")


def check_range(value: int, low: int, high: int, what: str) -> None:
    if not low <= value <= high:
        raise FormatError(f"{what}: {value} is not between {low} and {high}")


def to_suite(number: int) -> Suite:
    try:
        return Suite(number)
    except ValueError:
        raise FormatError(f"suite: {number} is none") from None


def decode_text(raw: bytes, what: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError(f"{what}: not UTF-8") from None


def encode_text(text: str, what: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise FormatError(f"{what}: not UTF-8") from None
