"""Extended attributes (FORMAT.md section 7): a sealed name, and a sealed value that is bound to its object and name.

A sealed name that would be longer than 255 bytes is stored by its hash, and stands itself before the sealed value.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from envfs.crypto.b64 import decode_bytes, encode_bytes
from envfs.crypto.siv import SIV_SIZE, Siv
from envfs.errors import FormatError, IntegrityError, Truncated

LOWER_PREFIX: Final = b"user.envfs."
#: Before the hash of a sealed name that is too long; no other one holds a second dot.
LONG_PREFIX: Final = LOWER_PREFIX + b"long."
VALUE_OVERHEAD: Final = SIV_SIZE
XATTR_NAME_MAX: Final = 255
_LENGTH: Final = struct.Struct(">H")
#: Attributes that the lower filesystem itself must understand.
PASSED_THROUGH: Final = frozenset({b"system.posix_acl_access", b"system.posix_acl_default"})


class XattrCipher:
    """Seals names and values of attributes under the volume's xattr key (64 bytes)."""

    __slots__ = ("_siv",)

    def __init__(self, key: bytes) -> None:
        self._siv = Siv(key)

    def forget(self) -> None:
        """Lets go of the key: nothing can be done until another one is adopted."""
        self._siv.forget()

    def adopt(self, other: XattrCipher) -> None:
        """The key of another one."""
        self._siv.adopt(other._siv)

    def name(self, object_id: bytes, name: bytes) -> bytes:
        """The attribute's name in the lower directory: by its hash for names above 167 bytes. FormatError: no name."""
        _check_name(name)
        return _lower_name(self._seal_name(object_id, name))

    def open_name(self, object_id: bytes, lower_name: bytes) -> bytes | None:
        """The name behind `lower_name`, or None if this object has no such attribute of ours.

        A long one does not say its name: see `open_long_name`.
        """
        if not lower_name.startswith(LOWER_PREFIX) or lower_name.startswith(LONG_PREFIX):
            return None
        try:
            return self._open_name(object_id, decode_bytes(lower_name[len(LOWER_PREFIX) :]))
        except (FormatError, IntegrityError):
            return None

    def open_long_name(self, object_id: bytes, lower_name: bytes, stored: bytes) -> bytes | None:
        """The same for a `lower_name` that begins with LONG_PREFIX, from what is stored under it."""
        try:
            sealed_name, _ = _split(stored)
            if _lower_name(sealed_name) != lower_name:
                return None
            return self._open_name(object_id, sealed_name)
        except (FormatError, IntegrityError):
            return None

    def seal(self, object_id: bytes, name: bytes, value: bytes) -> bytes:
        """What is stored for `value` (may be empty): 16 bytes longer, or by the sealed name, too, if that is long."""
        sealed = self._siv.encrypt(value, object_id, b"value", name)
        sealed_name = self._seal_name(object_id, name)
        return _LENGTH.pack(len(sealed_name)) + sealed_name + sealed if _is_long(sealed_name) else sealed

    def open(self, object_id: bytes, name: bytes, stored: bytes) -> bytes:
        """The value; Truncated or IntegrityError if it is damaged or another attribute's."""
        sealed_name = self._seal_name(object_id, name)
        if _is_long(sealed_name):
            stored_name, stored = _split(stored)
            if stored_name != sealed_name:
                raise IntegrityError("an extended attribute holds another one's name")
        return self._siv.decrypt(stored, object_id, b"value", name)

    def _seal_name(self, object_id: bytes, name: bytes) -> bytes:
        return self._siv.encrypt(name, object_id, b"name")

    def _open_name(self, object_id: bytes, sealed_name: bytes) -> bytes:
        name = self._siv.decrypt(sealed_name, object_id, b"name")
        _check_name(name)
        return name


def _is_long(sealed_name: bytes) -> bool:
    return len(LOWER_PREFIX) + (len(sealed_name) * 4 + 2) // 3 > XATTR_NAME_MAX


def _lower_name(sealed_name: bytes) -> bytes:
    text = encode_bytes(sealed_name)
    return LONG_PREFIX + encode_bytes(hashlib.sha256(text).digest()) if _is_long(sealed_name) else LOWER_PREFIX + text


def _split(stored: bytes) -> tuple[bytes, bytes]:
    """(sealed name, sealed value) of what is stored for a long name."""
    if len(stored) < _LENGTH.size:
        raise Truncated("an extended attribute with a long name is cut off")
    end = _LENGTH.size + _LENGTH.unpack_from(stored)[0]
    if len(stored) < end:
        raise Truncated("an extended attribute with a long name is cut off")
    return stored[_LENGTH.size : end], stored[end:]


def _check_name(name: bytes) -> None:
    if not 0 < len(name) <= XATTR_NAME_MAX or b"\0" in name:
        raise FormatError("no name of an extended attribute")
