"""Symlink targets (FORMAT.md section 7). The payload carries its own place, since a symlink has no header."""

from __future__ import annotations

import hmac
import re
from typing import Final

from envfs.crypto.b64 import decode_bytes, encode_bytes
from envfs.crypto.siv import SIV_SIZE, Siv
from envfs.errors import FormatError, IntegrityError, Truncated
from envfs.format.fields import ID_SIZE, check_id
from envfs.format.names import LINK_FILE_PREFIX
from envfs.format.place import ANYWHERE, Kind, PlaceKey, Where

TAG_SIZE: Final = 16
#: Bytes of a payload beyond the target: link id, two tags, SIV.
PAYLOAD_OVERHEAD: Final = ID_SIZE + 2 * TAG_SIZE + SIV_SIZE
TARGET_MAX: Final = 4095
TEXT_MAX: Final = 4095

_TAGS_END: Final = ID_SIZE + 2 * TAG_SIZE
_NO_TAG: Final = bytes(TAG_SIZE)
_LINK_FILE: Final = re.compile(re.escape(LINK_FILE_PREFIX) + rb"[0-9a-f]{32}")


class SymlinkCipher:
    """Seals and opens targets under the volume's symlink key (64 bytes) and place key."""

    __slots__ = ("_place_key", "_siv")

    def __init__(self, key: bytes, place_key: PlaceKey) -> None:
        self._siv = Siv(key)
        self._place_key = place_key

    def forget(self) -> None:
        """Lets go of the key: nothing can be done until another one is adopted."""
        self._siv.forget()

    def adopt(self, other: SymlinkCipher) -> None:
        """The key of another one."""
        self._siv.adopt(other._siv)

    def seal(self, link_id: bytes, target: bytes, current: Where, previous: Where | None = None) -> bytes:
        """The payload of a symlink to `target` (1 to 4,095 bytes) with the random `link_id` (16 bytes)."""
        check_id(link_id, "link id")
        _check_target(target)
        return link_id + self._tags(link_id, current, previous) + self._siv.encrypt(target, link_id)

    def open(self, payload: bytes, where: Where) -> bytes:
        """The target. IntegrityError for damage, or for a symlink that does not belong to `where`."""
        check_payload(payload)
        link_id = payload[:ID_SIZE]
        if not self._is_at(payload, where) and not self._is_at(payload, ANYWHERE):
            raise IntegrityError("a symlink stands where it does not belong")
        target = self._siv.decrypt(payload[_TAGS_END:], link_id)
        _check_target(target)
        return target

    def retag(self, payload: bytes, current: Where, previous: Where | None = None) -> bytes:
        """The same symlink at another place."""
        check_payload(payload)
        link_id = payload[:ID_SIZE]
        return link_id + self._tags(link_id, current, previous) + payload[_TAGS_END:]

    def _tags(self, link_id: bytes, current: Where, previous: Where | None) -> bytes:
        return self._tag(link_id, current) + (_NO_TAG if previous is None else self._tag(link_id, previous))

    def _tag(self, link_id: bytes, where: Where) -> bytes:
        return self._place_key.mac(Kind.SYMLINK, link_id, *where)[:TAG_SIZE]

    def _is_at(self, payload: bytes, where: Where) -> bool:
        wanted = self._tag(payload[:ID_SIZE], where)
        current, previous = payload[ID_SIZE : ID_SIZE + TAG_SIZE], payload[ID_SIZE + TAG_SIZE : _TAGS_END]
        return hmac.compare_digest(current, wanted) or hmac.compare_digest(previous, wanted)


def _check_target(target: bytes) -> None:
    if not 0 < len(target) <= TARGET_MAX or b"\0" in target:
        raise FormatError("no target of a symlink")


def check_payload(payload: bytes) -> None:
    if len(payload) <= PAYLOAD_OVERHEAD:
        raise Truncated(f"symlink: a payload of {len(payload)} bytes holds no target")
    if len(payload) > PAYLOAD_OVERHEAD + TARGET_MAX:
        raise FormatError(f"symlink: a payload of {len(payload)} bytes")


def to_text(payload: bytes) -> bytes | None:
    """The target that the lower symlink gets, or None if it would be longer than 4,095 characters."""
    text = encode_bytes(payload)
    return text if len(text) <= TEXT_MAX else None


def parse_text(text: bytes) -> bytes:
    """The payload in a lower symlink's target. FormatError or Truncated if it is none."""
    if len(text) > TEXT_MAX:
        raise FormatError(f"symlink: a text of {len(text)} characters")
    payload = decode_bytes(text)
    check_payload(payload)
    return payload


def plain_length(text_length: int) -> int:
    """Length of the target behind a text of `text_length` characters, which is what lstat(2) reports; never below 0."""
    return max(0, text_length * 3 // 4 - PAYLOAD_OVERHEAD)


def link_file_for(link_id: bytes) -> bytes:
    """The name of the file that holds the payload of a symlink with a long target; also the lower symlink's target."""
    check_id(link_id, "link id")
    return LINK_FILE_PREFIX + link_id.hex().encode("ascii")


def is_link_file(text: bytes) -> bool:
    """Whether the text of a lower symlink is the name of a link file: exactly that, and so no path to anywhere else."""
    return _LINK_FILE.fullmatch(text) is not None


def parse_link_file(name: bytes, content: bytes) -> bytes:
    """The payload in the link file `name`. IntegrityError if it belongs to another symlink."""
    check_payload(content)
    if link_file_for(content[:ID_SIZE]) != name:
        raise IntegrityError("a link file holds another symlink's target")
    if to_text(content) is not None:
        raise FormatError("link file: the target is not long enough to be stored so")
    return content
