"""Extended attributes (FORMAT.md section 7): a sealed name, and a sealed value that is bound to its object and name."""

from __future__ import annotations

from typing import Final

from envfs.crypto.b64 import decode_bytes, encode_bytes
from envfs.crypto.siv import SIV_SIZE, Siv
from envfs.errors import FormatError, IntegrityError

LOWER_PREFIX: Final = b"user.envfs."
VALUE_OVERHEAD: Final = SIV_SIZE
XATTR_NAME_MAX: Final = 255
#: Attributes that the lower filesystem itself must understand.
PASSED_THROUGH: Final = frozenset({b"system.posix_acl_access", b"system.posix_acl_default"})


class XattrCipher:
    """Seals names and values of attributes under the volume's xattr key (64 bytes)."""

    __slots__ = ("_siv",)

    def __init__(self, key: bytes) -> None:
        self._siv = Siv(key)

    def name(self, object_id: bytes, name: bytes) -> bytes:
        """The attribute's name in the lower directory. A name above 167 bytes gives one above 255, which it refuses."""
        _check_name(name)
        return LOWER_PREFIX + encode_bytes(self._siv.encrypt(name, object_id, b"name"))

    def open_name(self, object_id: bytes, lower_name: bytes) -> bytes | None:
        """The name behind `lower_name`, or None if this object has no such attribute of ours."""
        if not lower_name.startswith(LOWER_PREFIX):
            return None
        try:
            name = self._siv.decrypt(decode_bytes(lower_name[len(LOWER_PREFIX) :]), object_id, b"name")
            _check_name(name)
        except (FormatError, IntegrityError):
            return None
        return name

    def seal(self, object_id: bytes, name: bytes, value: bytes) -> bytes:
        """What is stored for `value` (may be empty): 16 bytes longer."""
        return self._siv.encrypt(value, object_id, b"value", name)

    def open(self, object_id: bytes, name: bytes, sealed: bytes) -> bytes:
        """The value; IntegrityError if it is damaged or another attribute's."""
        return self._siv.decrypt(sealed, object_id, b"value", name)


def _check_name(name: bytes) -> None:
    if not 0 < len(name) <= XATTR_NAME_MAX or b"\0" in name:
        raise FormatError("no name of an extended attribute")
