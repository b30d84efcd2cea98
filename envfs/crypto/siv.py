"""Deterministic authenticated encryption, AES-256-SIV (RFC 5297): for what must be found again by its ciphertext."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from envfs.errors import IntegrityError, KeyUnavailable

SIV_KEY_SIZE: Final = 64
SIV_SIZE: Final = 16


def refuse_without_key(*_: object) -> bytes:
    """In place of a cipher that has let go of its key."""
    raise KeyUnavailable("the key was wiped from memory")


class Siv:
    """AES-256-SIV under one 64-byte key. Takes no nonce: equal input under equal associated data gives equal output,
    and nothing else is given away (RFC 5297 section 1.3.2).
    """

    __slots__ = ("_decrypt", "_encrypt")

    def __init__(self, key: bytes) -> None:
        if len(key) != SIV_KEY_SIZE:
            raise ValueError(f"AES-256-SIV takes a key of {SIV_KEY_SIZE} bytes")
        cipher = AESSIV(key)
        self._encrypt: Callable[..., bytes] = cipher.encrypt
        self._decrypt: Callable[..., bytes] = cipher.decrypt

    def forget(self) -> None:
        """Lets go of the key: nothing can be done until another one is adopted."""
        self._encrypt = self._decrypt = refuse_without_key

    def adopt(self, other: Siv) -> None:
        """The key of another one."""
        self._encrypt, self._decrypt = other._encrypt, other._decrypt

    def encrypt(self, data: bytes, *associated: bytes) -> bytes:
        """The SIV (16 bytes) and as many bytes of ciphertext as `data` has. The order of `associated` counts."""
        return self._encrypt(data, list(associated))

    def decrypt(self, data: bytes, *associated: bytes) -> bytes:
        """The plaintext; IntegrityError if it was not made by `encrypt` under this key and this associated data."""
        try:
            return self._decrypt(data, list(associated))
        except InvalidTag:
            raise IntegrityError("the SIV is wrong") from None
