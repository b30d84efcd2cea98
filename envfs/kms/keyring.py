"""Backing keys: wrapped in the store, unwrapped once for each process (FORMAT.md 9.4)."""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from envfs.crypto.kdf import Label, derive
from envfs.crypto.secret import Secret
from envfs.errors import IntegrityError
from envfs.kms.schema import BackingKeyRow, encode_fields

BACKING_KEY_SIZE: Final = 32
_ZERO_NONCE: Final = bytes(12)


class Keyring:
    """Wraps and unwraps backing keys under the root key, and keeps those that were unwrapped until `wipe`."""

    def __init__(self, root_key: Secret, store_id: bytes) -> None:
        self._root_key = root_key
        self._store_id = store_id
        self._unwrapped: dict[bytes, tuple[bytes, Secret]] = {}

    def new_backing_key(self, key_id: bytes, version: int, spec: str, created: int) -> BackingKeyRow:
        """A random backing key, wrapped."""
        backing_key_id = os.urandom(16)
        cipher = AESGCM(derive(self._root_key, Label.BACKING_KEY, backing_key_id))
        with Secret.random(BACKING_KEY_SIZE) as key:
            # A fixed nonce is unique here: the id has just been drawn, so the derived key encrypts nothing else.
            wrapped = cipher.encrypt(_ZERO_NONCE, key.expose(), self._fields(key_id, version, spec))
        return BackingKeyRow(backing_key_id, key_id, version, spec, wrapped, created)

    def cached(self, key_id: bytes, backing_key_id: bytes) -> Secret | None:
        """The backing key, if it was unwrapped before and belongs to the key `key_id`."""
        found = self._unwrapped.get(backing_key_id)
        return found[1] if found is not None and found[0] == key_id else None

    def unwrap(self, row: BackingKeyRow) -> Secret:
        """The backing key of an authentic row; the keyring keeps it and wipes it. IntegrityError if it does not
        unwrap.
        """
        cipher = AESGCM(derive(self._root_key, Label.BACKING_KEY, row.backing_key_id))
        try:
            plain = cipher.decrypt(_ZERO_NONCE, row.wrapped, self._fields(row.key_id, row.version, row.spec))
        except InvalidTag:
            raise IntegrityError(
                f"table backing_keys of the KMS's store: {row.backing_key_id.hex()} does not unwrap",
                hint="restore the KMS from a backup",
            ) from None
        secret = Secret(plain)
        self._unwrapped[row.backing_key_id] = (row.key_id, secret)
        return secret

    def forget(self) -> None:
        """Wipes the unwrapped backing keys; they are unwrapped anew when they are needed."""
        for _, secret in self._unwrapped.values():
            secret.wipe()
        self._unwrapped.clear()

    def wipe(self) -> None:
        """Wipes everything, the root key included."""
        self.forget()
        self._root_key.wipe()

    def _fields(self, key_id: bytes, version: int, spec: str) -> bytes:
        return encode_fields(("backing key", self._store_id, key_id, version, spec))
