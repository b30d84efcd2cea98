"""Backing keys: wrapped in the store, unwrapped once for each process (FORMAT.md 9.4)."""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from envfs.crypto.kdf import Label, derive
from envfs.crypto.mac import Mac, mac
from envfs.crypto.secret import Secret
from envfs.errors import FormatError, IntegrityError, InvalidImportToken
from envfs.kms.material.generate import PrivateKey
from envfs.kms.material.keys import load_private_key
from envfs.kms.material.token import SALT_SIZE as TOKEN_SALT_SIZE
from envfs.kms.material.token import ImportToken, open_token, seal_token
from envfs.kms.schema import AccessKeyRow, BackingKeyRow, encode_fields

BACKING_KEY_SIZE: Final = 32
# Reading a private key takes about as long as using it, and a parsed one has some kilobytes.
_MAX_PRIVATE_KEYS: Final = 1_000
ACCESS_KEY_SALT_SIZE: Final = 32
_ZERO_NONCE: Final = bytes(12)


class Keyring:
    """Wraps and unwraps backing keys under the root key, and keeps those that were unwrapped until `wipe`."""

    def __init__(self, root_key: Secret, store_id: bytes) -> None:
        self._root_key = root_key
        self._store_id = store_id
        self._unwrapped: dict[bytes, tuple[bytes, Secret]] = {}
        self._private_keys: dict[bytes, tuple[bytes, PrivateKey]] = {}
        self._material_ids: dict[bytes, str] = {}  # of those that are unwrapped

    def new_backing_key(self, key_id: bytes, version: int, spec: str, created: int) -> BackingKeyRow:
        """A random backing key of 32 bytes, wrapped."""
        with Secret.random(BACKING_KEY_SIZE) as material:
            return self.wrap(key_id, version, spec, material, created)

    def wrap(
        self, key_id: bytes, version: int, spec: str, material: Secret, created: int, public_key: bytes = b""
    ) -> BackingKeyRow:
        """`material` (raw bytes of a symmetric key, PKCS #8 in DER of a private one) as a new backing key."""
        backing_key_id = os.urandom(16)
        cipher = AESGCM(derive(self._root_key, Label.BACKING_KEY, backing_key_id))
        # A fixed nonce is unique here: the id has just been drawn, so the derived key encrypts nothing else.
        wrapped = cipher.encrypt(_ZERO_NONCE, material.expose(), self._fields(key_id, version, spec))
        material_id = self.material_id(key_id, material)
        return BackingKeyRow(
            backing_key_id, key_id, version, spec, wrapped, created, public_key=public_key, material_id=material_id
        )

    def wrap_again(self, row: BackingKeyRow, material: Secret) -> BackingKeyRow:
        """`row`, whose material is gone, with the same material once more. ValueError if it is another."""
        if self.material_id(row.key_id, material) != row.material_id:
            raise ValueError("other material than the backing key had")
        cipher = AESGCM(derive(self._root_key, Label.BACKING_KEY, row.backing_key_id))
        # Key and nonce meet again, but with the very same plaintext and associated data: the outcome is the same bytes.
        wrapped = cipher.encrypt(_ZERO_NONCE, material.expose(), self._fields(row.key_id, row.version, row.spec))
        return row._replace(wrapped=wrapped)

    def material_id(self, key_id: bytes, material: Secret) -> bytes:
        """32 bytes that name the material and tell nothing of it, however few bits it may have."""
        key = derive(self._root_key, Label.MATERIAL_ID, self._store_id)
        return mac(key, encode_fields(("material", key_id, bytes(material.expose()))))

    def mac(self, label: Label) -> Mac:
        """MACs of this store under a key of their own, which `label` names."""
        return Mac(derive(self._root_key, label, self._store_id))

    def cached(self, key_id: bytes, backing_key_id: bytes) -> Secret | None:
        """The backing key, if it was unwrapped before and belongs to the key `key_id`."""
        found = self._unwrapped.get(backing_key_id)
        return found[1] if found is not None and found[0] == key_id else None

    def unwrap(self, row: BackingKeyRow) -> Secret:
        """The backing key of an authentic row; the keyring keeps it and wipes it. IntegrityError if it does not
        unwrap.
        """
        secret = self._open(row)
        self._unwrapped[row.backing_key_id] = (row.key_id, secret)
        self._material_ids[row.backing_key_id] = row.material_id.hex()
        return secret

    def cached_private_key(self, key_id: bytes, backing_key_id: bytes) -> PrivateKey | None:
        """The private key, if it was read before and belongs to the key `key_id`."""
        found = self._private_keys.get(backing_key_id)
        return found[1] if found is not None and found[0] == key_id else None

    def private_key(self, row: BackingKeyRow) -> PrivateKey:
        """The private key of an authentic row; the keyring keeps it until `forget`. IntegrityError if it does not
        unwrap, or is no key of its spec.
        """
        with self._open(row) as der:
            try:
                key = load_private_key(row.spec, der, trusted=True)
            except FormatError as error:
                raise IntegrityError(
                    f"table backing_keys of the KMS's store: {row.backing_key_id.hex()}: {error.message}",
                    hint="restore the KMS from a backup",
                ) from None
        if len(self._private_keys) >= _MAX_PRIVATE_KEYS:
            self._private_keys.clear()
        self._private_keys[row.backing_key_id] = (row.key_id, key)
        return key

    def _open(self, row: BackingKeyRow) -> Secret:
        cipher = AESGCM(derive(self._root_key, Label.BACKING_KEY, row.backing_key_id))
        try:
            plain = cipher.decrypt(_ZERO_NONCE, row.wrapped, self._fields(row.key_id, row.version, row.spec))
        except InvalidTag:
            raise IntegrityError(
                f"table backing_keys of the KMS's store: {row.backing_key_id.hex()} does not unwrap",
                hint="restore the KMS from a backup",
            ) from None
        return Secret(plain)

    def seal_import_token(self, token: ImportToken) -> bytes:
        """The token as a caller gets it; nobody else can open it."""
        # The salt is drawn here, for this token alone: that is what keeps its key from being used twice.
        return seal_token(self._root_key, self._store_id, token, os.urandom(TOKEN_SALT_SIZE))

    def open_import_token(self, raw: bytes) -> ImportToken:
        """InvalidImportToken unless this KMS sealed it. The caller looks at its time and wipes its key."""
        try:
            return open_token(self._root_key, self._store_id, raw)
        except (FormatError, IntegrityError):
            raise InvalidImportToken(
                "the import token is none of this KMS", hint="get one, with its public key, from GetParametersForImport"
            ) from None

    def wrap_access_key(self, access_key_id: str, uid: int, user: str, secret: Secret) -> bytes:
        """The secret of an access key, wrapped: 32 bytes of salt and the ciphertext (FORMAT.md 9.4)."""
        salt = os.urandom(ACCESS_KEY_SALT_SIZE)
        cipher = AESGCM(derive(self._root_key, Label.ACCESS_KEY, salt))
        # A fixed nonce is unique here: the salt has just been drawn, so the derived key encrypts nothing else.
        return salt + cipher.encrypt(_ZERO_NONCE, secret.expose(), self._access_key_fields(access_key_id, uid, user))

    def unwrap_access_key(self, row: AccessKeyRow) -> Secret:
        """The secret of an access key; the caller wipes it. IntegrityError if it does not unwrap."""
        salt, wrapped = row.wrapped[:ACCESS_KEY_SALT_SIZE], row.wrapped[ACCESS_KEY_SALT_SIZE:]
        cipher = AESGCM(derive(self._root_key, Label.ACCESS_KEY, salt))
        fields = self._access_key_fields(row.access_key_id, row.uid, row.user)
        try:
            return Secret.adopt(bytearray(cipher.decrypt(_ZERO_NONCE, wrapped, fields)))
        except InvalidTag:
            raise IntegrityError(
                f"table access_keys of the KMS's store: {row.access_key_id} does not unwrap",
                hint="restore the KMS from a backup",
            ) from None

    def material_id_of(self, backing_key_id: bytes) -> str:
        """What AWS calls the key material id (64 hexadecimal digits), of a backing key that is unwrapped."""
        return self._material_ids[backing_key_id]

    def forget(self) -> None:
        """Wipes the unwrapped backing keys, and drops the private keys (OpenSSL clears what it frees); they are
        unwrapped anew when they are needed.
        """
        for _, secret in self._unwrapped.values():
            secret.wipe()
        self._unwrapped.clear()
        self._private_keys.clear()
        self._material_ids.clear()

    def wipe(self) -> None:
        """Wipes everything, the root key included."""
        self.forget()
        self._root_key.wipe()

    def _access_key_fields(self, access_key_id: str, uid: int, user: str) -> bytes:
        return encode_fields(("access key", self._store_id, access_key_id, uid, user))

    def _fields(self, key_id: bytes, version: int, spec: str) -> bytes:
        return encode_fields(("backing key", self._store_id, key_id, version, spec))
