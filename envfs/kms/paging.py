"""Pages of a list: how many items, and the markers with which callers go on (AWS's Limit, Marker and NextMarker)."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import TypeVar

from envfs.errors import InvalidMarker, Validation
from envfs.kms.schema import Value

Item = TypeVar("Item")


def check_limit(limit: int, largest: int) -> None:
    """Validation unless 1 <= limit <= largest."""
    if not 1 <= limit <= largest:
        raise Validation(f"the limit must be between 1 and {largest}, not {limit}")


def make_marker(*key: Value) -> str:
    """An opaque text that stands for the primary key of the last item of a page."""
    parts = []
    for value in key:
        kind, raw = _encode(value)
        parts.append(f"{kind}{urlsafe_b64encode(raw).decode('ascii').rstrip('=')}")
    return ".".join(parts)


def read_marker(marker: str | None, *kinds: type[Value]) -> tuple[Value, ...] | None:
    """The primary key in `marker`, whose columns have the types `kinds`; None for no marker. InvalidMarker if it is
    none of ours.
    """
    if marker is None:
        return None
    parts = marker.split(".")
    try:
        values = tuple(_decode(part) for part in parts)
    except (ValueError, binascii.Error):
        raise _invalid(marker) from None
    if tuple(type(value) for value in values) != kinds or make_marker(*values) != marker:
        raise _invalid(marker)
    return values


def cut(items: Sequence[Item], limit: int) -> tuple[tuple[Item, ...], bool]:
    """The first `limit` of `items`, and whether there are more."""
    return tuple(items[:limit]), len(items) > limit


def _invalid(marker: str) -> InvalidMarker:
    return InvalidMarker(f"{marker!r} is no marker of this list", hint="pass the NextMarker of the previous answer")


def _encode(value: Value) -> tuple[str, bytes]:
    if isinstance(value, bytes):
        return "b", value
    return ("t", value.encode("utf-8")) if isinstance(value, str) else ("i", str(value).encode("ascii"))


def _decode(part: str) -> Value:
    kind, text = part[:1], part[1:]
    raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    if kind == "b":
        return raw
    if kind == "t":
        return raw.decode("utf-8")
    if kind == "i":
        return int(raw)
    raise ValueError(kind)
