"""The AEADs of file content. Nonces are the caller's affair: the argument why one is unique stands beside the call."""

from __future__ import annotations

import enum
from typing import Final, Protocol, Self, TypeAlias

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV, ChaCha20Poly1305

from envfs.errors import ConfigError

Buffer: TypeAlias = bytes | bytearray | memoryview

NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16


class BlockCipher(Protocol):
    """What the AEAD classes of `cryptography` share. Decryption raises its `InvalidTag`.

    `decrypt_into` has already written to `buf` when it raises: what stands there then is not authentic.
    """

    def encrypt(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None) -> bytes: ...

    def decrypt(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None) -> bytes: ...

    def encrypt_into(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer) -> int: ...

    def decrypt_into(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer) -> int: ...


class Suite(enum.IntEnum):
    """The suites of FORMAT.md section 1: key 32 bytes, nonce 12, tag 16."""

    AES_256_GCM = 1
    AES_256_GCM_SIV = 2
    CHACHA20_POLY1305 = 3

    @property
    def label(self) -> str:
        """The name on the command line, `aes-256-gcm`."""
        return self.name.lower().replace("_", "-")

    @classmethod
    def from_name(cls, name: str) -> Self:
        """The suite called `name`; ConfigError if there is none."""
        for suite in cls:
            if suite.label == name:
                return suite
        known = ", ".join(suite.label for suite in cls)
        raise ConfigError(f"no suite is called {name!r}", hint=f"choose one of {known}")


_CIPHERS: Final[dict[Suite, type[AESGCM | AESGCMSIV | ChaCha20Poly1305]]] = {
    Suite.AES_256_GCM: AESGCM,
    Suite.AES_256_GCM_SIV: AESGCMSIV,
    Suite.CHACHA20_POLY1305: ChaCha20Poly1305,
}


def new_cipher(suite: Suite, key: Buffer) -> BlockCipher:
    """The AEAD of `suite` under `key` (32 bytes)."""
    if len(key) != 32:
        raise ValueError("every suite takes a key of 32 bytes")
    return _CIPHERS[suite](key)
