"""String pairs in their one encoding: encryption contexts and labels (FORMAT.md section 3).

Every part carries its length, so {"a": "bc"} and {"ab": "c"} never authenticate alike.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from envfs.errors import FormatError, Truncated
from envfs.format.fields import decode_text

MAX_CONTEXT_SIZE: Final = 8192
EMPTY_CONTEXT: Final = b"\0\0"
RESERVED_LABEL_PREFIXES: Final = ("envfs:", "aws:")

_U16: Final = struct.Struct(">H")


def encode_context(pairs: Mapping[str, str]) -> bytes:
    """`pairs` as bytes. FormatError for an empty key, text that is not UTF-8, or more than 8,192 bytes."""
    if not pairs:
        return EMPTY_CONTEXT
    try:
        encoded = sorted([(key.encode("utf-8"), value.encode("utf-8")) for key, value in pairs.items()])
    except UnicodeEncodeError:
        raise FormatError("context: not UTF-8") from None
    if not encoded[0][0]:
        raise FormatError("context: an empty key")
    size = 2 + sum([4 + len(key) + len(value) for key, value in encoded])
    if size > MAX_CONTEXT_SIZE:
        raise FormatError(f"context: {size} bytes, more than {MAX_CONTEXT_SIZE}")
    pack = _U16.pack
    parts = [pack(len(encoded))]
    for key, value in encoded:
        parts += (pack(len(key)), key, pack(len(value)), value)
    return b"".join(parts)


def decode_context(raw: bytes) -> dict[str, str]:
    """The pairs in `raw`, sorted by key. Truncated or FormatError for what `encode_context` never writes."""
    if raw == EMPTY_CONTEXT:
        return {}
    if len(raw) > MAX_CONTEXT_SIZE:
        raise FormatError(f"context: {len(raw)} bytes, more than {MAX_CONTEXT_SIZE}")
    count, offset = _take_u16(raw, 0)
    pairs: dict[str, str] = {}
    last = b""
    for _ in range(count):
        key, offset = _take_string(raw, offset)
        value, offset = _take_string(raw, offset)
        if key <= last:  # also refuses an empty key
            raise FormatError("context: the keys are empty, repeated or not sorted")
        last = key
        pairs[decode_text(key, "context key")] = decode_text(value, "context value")
    if offset != len(raw):
        raise FormatError(f"context: {len(raw) - offset} bytes are left over")
    return pairs


def validate_labels(labels: Mapping[str, str]) -> None:
    """FormatError if `labels` cannot be the labels of a directory or file."""
    for key in labels:
        if key.startswith(RESERVED_LABEL_PREFIXES):
            raise FormatError(
                f"label {key!r}: the prefix is reserved",
                hint="choose a key that begins with neither 'envfs:' nor 'aws:'",
            )
    encode_context(labels)


def decode_labels(raw: bytes) -> dict[str, str]:
    """The labels in `raw`; FormatError also for reserved keys."""
    if raw == EMPTY_CONTEXT:
        return {}
    labels = decode_context(raw)
    for key in labels:
        if key.startswith(RESERVED_LABEL_PREFIXES):
            raise FormatError(f"label {key!r}: the prefix is reserved")
    return labels


def _take_u16(raw: bytes, offset: int) -> tuple[int, int]:
    if len(raw) < offset + 2:
        raise Truncated("context: it ends in the middle of a length")
    (value,) = _U16.unpack_from(raw, offset)
    return value, offset + 2


def _take_string(raw: bytes, offset: int) -> tuple[bytes, int]:
    length, start = _take_u16(raw, offset)
    end = start + length
    if len(raw) < end:
        raise Truncated("context: it ends in the middle of a string")
    return raw[start:end], end
