"""Names in the lower directory (FORMAT.md section 6)."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import sha256
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from envfs.crypto.b64 import decode_bytes, encode_bytes
from envfs.crypto.siv import SIV_KEY_SIZE, refuse_without_key
from envfs.errors import FormatError, IntegrityError

RESERVED_PREFIX: Final = b"envfs."
LONG_PREFIX: Final = b"envfs.long."
NAME_FILE_PREFIX: Final = b"envfs.name."
LINK_FILE_PREFIX: Final = b"envfs.link."
TEMPORARY_PREFIX: Final = b"envfs.tmp."
DIRECTORY_FILE: Final = b"envfs.dir"
VOLUME_FILE: Final = b"envfs.volume"
VOLUME_BACKUP: Final = b"envfs.volume.backup"

NAME_MAX: Final = 255
#: The longest cipher name there is: that of a name of 255 bytes.
CIPHER_NAME_MAX: Final = 362


class CipherName(NamedTuple):
    """`full` is what is authenticated and hashed, `lower` the name in the lower directory; equal unless `is_long`."""

    full: bytes
    lower: bytes
    is_long: bool


class NameCipher:
    """Encrypts names under the volume's names key (64 bytes). Every lookup and every line of a listing comes here."""

    __slots__ = ("_decrypt", "_encrypt")

    def __init__(self, key: bytes) -> None:
        if len(key) != SIV_KEY_SIZE:
            raise ValueError(f"the names key has {SIV_KEY_SIZE} bytes")
        # The cipher itself rather than Siv: two calls fewer for each name.
        cipher = AESSIV(key)
        self._encrypt: Callable[..., bytes] = cipher.encrypt
        self._decrypt: Callable[..., bytes] = cipher.decrypt

    def forget(self) -> None:
        """Lets go of the key: nothing can be done until another one is adopted."""
        self._encrypt = self._decrypt = refuse_without_key

    def adopt(self, other: NameCipher) -> None:
        """The key of another one."""
        self._encrypt, self._decrypt = other._encrypt, other._decrypt

    def encrypt(self, dir_id: bytes, name: bytes) -> CipherName:
        """The cipher name of `name` (1 to 255 bytes, no component of a path but a name) in the directory `dir_id`."""
        _check_name(name)
        full = encode_bytes(self._encrypt(name, [dir_id]))
        if len(full) <= NAME_MAX:
            return CipherName(full, full, False)
        return CipherName(full, LONG_PREFIX + _name_hash(full), True)

    def decrypt(self, dir_id: bytes, full_cipher_name: bytes) -> bytes:
        """The name behind a cipher name in its full length.

        FormatError if it is no cipher name or hides something that is no name; IntegrityError if it was not made
        for `dir_id`.
        """
        sealed = decode_bytes(full_cipher_name)
        try:
            name = self._decrypt(sealed, [dir_id])
        except InvalidTag:
            raise IntegrityError("a name that does not belong to its directory") from None
        _check_name(name)
        return name


def _check_name(name: bytes) -> None:
    """Even a name that is authentic must not lead out of its directory."""
    if not 0 < len(name) <= NAME_MAX or b"/" in name or b"\0" in name or name in {b".", b".."}:
        raise FormatError("no name of a directory entry")


def _name_hash(full_cipher_name: bytes) -> bytes:
    return encode_bytes(sha256(full_cipher_name).digest())


def name_file_for(lower_long_name: bytes) -> bytes:
    """The name of the file beside `lower_long_name` that holds its cipher name."""
    if not lower_long_name.startswith(LONG_PREFIX):
        raise FormatError("not the lower name of a long name")
    return NAME_FILE_PREFIX + lower_long_name[len(LONG_PREFIX) :]


def check_name_file(lower_long_name: bytes, content: bytes) -> bytes:
    """The full cipher name in a name file.

    FormatError for a wrong size, IntegrityError unless it hashes to the name of the entry beside it.
    """
    if not NAME_MAX < len(content) <= CIPHER_NAME_MAX:
        raise FormatError(f"name file: a cipher name of {len(content)} bytes is not stored so")
    if not hmac.compare_digest(LONG_PREFIX + _name_hash(content), lower_long_name):
        raise IntegrityError("a name file does not belong to the entry beside it")
    return content
