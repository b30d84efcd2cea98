"""Where an object stands, so that ciphertext that was moved, swapped or copied is noticed (FORMAT.md section 4)."""

from __future__ import annotations

import enum
import hmac
import struct
from typing import Final, NamedTuple

from envfs.crypto.aead import Buffer
from envfs.crypto.mac import MAC_SIZE, Mac
from envfs.errors import FormatError
from envfs.format.fields import ID_SIZE, ONES_ID, VERSION, ZERO_ID, check_id, check_length, check_start

PLACE_SIZE: Final = 128
MAGIC: Final = b"ENVP"

_LAYOUT: Final = struct.Struct(">4sHH16s32s16s32s24s")
_U16: Final = struct.Struct(">H")
_NO_MAC: Final = bytes(MAC_SIZE)
_NO_REST: Final = bytes(24)

assert _LAYOUT.size == PLACE_SIZE


class Kind(bytes, enum.Enum):
    """What stands there; part of the MAC."""

    FILE = b"F"
    DIRECTORY = b"D"
    SYMLINK = b"L"


class Where(NamedTuple):
    """Directory id of the parent (16 bytes) and the cipher name in it, before it is shortened."""

    parent_id: bytes
    cipher_name: bytes


ROOT: Final = Where(ZERO_ID, b"")
ANYWHERE: Final = Where(ONES_ID, b"")


class RawPlace(NamedTuple):
    """The fields of a place, not authenticated; `previous_mac` is zero where there is no previous place."""

    current_parent: bytes
    current_mac: bytes
    previous_parent: bytes
    previous_mac: bytes

    @property
    def has_previous(self) -> bool:
        return self.previous_parent != ZERO_ID or self.previous_mac != _NO_MAC


def parse_place(raw: bytes) -> RawPlace:
    """The fields of the 128 bytes in `raw`. Truncated, UnsupportedVersion or FormatError."""
    check_start(raw, MAGIC, "place")
    check_length(raw, PLACE_SIZE, "place")
    _, _, flags, current_parent, current_mac, previous_parent, previous_mac, rest = _LAYOUT.unpack(raw)
    if flags or rest != _NO_REST:
        raise FormatError("place: reserved bits are set")
    return RawPlace(current_parent, current_mac, previous_parent, previous_mac)


class PlaceKey:
    """Makes and checks places under the volume's place key (32 bytes)."""

    __slots__ = ("_mac",)

    def __init__(self, key: Buffer) -> None:
        self._mac = Mac(key)

    def forget(self) -> None:
        """Lets go of the key: nothing can be done until another one is adopted."""
        self._mac.forget()

    def adopt(self, other: PlaceKey) -> None:
        """The key of another one."""
        self._mac.adopt(other._mac)

    def mac(self, kind: Kind, object_id: bytes, parent_id: bytes, cipher_name: bytes) -> bytes:
        """The 32-byte MAC of one place."""
        if len(object_id) != ID_SIZE or len(parent_id) != ID_SIZE:
            raise FormatError(f"place: an id that has not {ID_SIZE} bytes")
        return self._mac.tag(kind.value + object_id + parent_id + _U16.pack(len(cipher_name)) + cipher_name)

    def pack(self, kind: Kind, object_id: bytes, current: Where, previous: Where | None = None) -> bytes:
        """The 128 bytes: it belongs at `current`, and until the rename that follows, it may be at `previous`."""
        check_id(object_id, "place: object id")
        previous_parent, previous_mac = ZERO_ID, _NO_MAC
        if previous is not None:
            previous_parent, previous_mac = previous.parent_id, self.mac(kind, object_id, *previous)
        current_mac = self.mac(kind, object_id, *current)
        return _LAYOUT.pack(MAGIC, VERSION, 0, current.parent_id, current_mac, previous_parent, previous_mac, _NO_REST)

    def check(self, raw: bytes, kind: Kind, object_id: bytes, where: Where) -> bool:
        """Whether the object may be found at `where`: its current place, its previous one, or anywhere.

        Truncated, UnsupportedVersion or FormatError if `raw` is no place.
        """
        place = parse_place(raw)
        candidates = ((place.current_parent, place.current_mac), (place.previous_parent, place.previous_mac))
        wanted = self.mac(kind, object_id, *where)
        for parent_id, mac in candidates:
            if parent_id == where.parent_id and hmac.compare_digest(mac, wanted):
                return True
        return ONES_ID in (place.current_parent, place.previous_parent) and self._is_anywhere(place, kind, object_id)

    def moved(self, raw: bytes, kind: Kind, object_id: bytes, old: Where, new: Where) -> bytes | None:
        """The 128 bytes for an object that is about to go from `old` to `new`; None if it does not belong to `old`."""
        place = parse_place(raw)
        old_mac = self.mac(kind, object_id, *old)
        if not (
            (place.current_parent == old.parent_id and hmac.compare_digest(place.current_mac, old_mac))
            or (place.previous_parent == old.parent_id and hmac.compare_digest(place.previous_mac, old_mac))
            or self._is_anywhere(place, kind, object_id)
        ):
            return None
        new_mac = self.mac(kind, object_id, *new)
        return _LAYOUT.pack(MAGIC, VERSION, 0, new.parent_id, new_mac, old.parent_id, old_mac, _NO_REST)

    def is_anywhere(self, raw: bytes, kind: Kind, object_id: bytes) -> bool:
        """Whether the object has, or had until now, several hard links, so that it belongs wherever it is found."""
        place = parse_place(raw)
        return ONES_ID in (place.current_parent, place.previous_parent) and self._is_anywhere(place, kind, object_id)

    def _is_anywhere(self, place: RawPlace, kind: Kind, object_id: bytes) -> bool:
        wanted = self.mac(kind, object_id, *ANYWHERE)
        for parent_id, mac in ((place.current_parent, place.current_mac), (place.previous_parent, place.previous_mac)):
            if parent_id == ONES_ID and hmac.compare_digest(mac, wanted):
                return True
        return False
