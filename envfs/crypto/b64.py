"""base64url without padding (RFC 4648 section 5), strictly: whatever decodes encodes back to itself."""

from __future__ import annotations

import binascii
from typing import Final

from envfs.errors import FormatError

_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL: Final = bytes.maketrans(b"-_", b"+/")
_PADDING: Final = (b"", b"===", b"==", b"=")


def encode_bytes(data: bytes) -> bytes:
    """The text as ASCII bytes, which is what file names are made of."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL).rstrip(b"=")


def decode_bytes(text: bytes) -> bytes:
    """The bytes behind `text`. FormatError for padding, foreign characters, or bits that the text need not have."""
    try:
        data = binascii.a2b_base64(text.translate(_FROM_URL) + _PADDING[len(text) & 3])
    except binascii.Error:
        raise FormatError("not base64url") from None
    # binascii skips what it does not know; only the way back shows that there was nothing to skip.
    if encode_bytes(data) != text:
        raise FormatError("not the base64url text of its bytes")
    return data


def encode(data: bytes) -> str:
    """The text of `data`."""
    return encode_bytes(data).decode("ascii")


def decode(text: str) -> bytes:
    """The bytes behind `text`; FormatError as `decode_bytes`."""
    try:
        return decode_bytes(text.encode("ascii"))
    except UnicodeEncodeError:
        raise FormatError("not base64url") from None
