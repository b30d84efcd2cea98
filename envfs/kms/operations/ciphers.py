"""Encrypting and decrypting under one key, after everything about the call has been decided."""

from __future__ import annotations

import os
from collections.abc import Mapping

from envfs.crypto.secret import Secret
from envfs.errors import FormatError, IntegrityError, Internal, InvalidCiphertext, Validation
from envfs.format.blob import MAX_PLAINTEXT_SIZE, SALT_SIZE, SealedBlob, open_blob, read_any_blob, read_blob, seal_blob
from envfs.format.context import decode_context, encode_context
from envfs.format.foreign_blob import (
    MAX_FOREIGN_SIZE,
    SECRET_SIZE,
    ForeignBlob,
    open_foreign_blob,
    seal_foreign_blob,
)
from envfs.kms.catalogue import Key
from envfs.kms.foreign.configuration import ForeignKey
from envfs.kms.foreign.exchange import Question
from envfs.kms.foreign.material import read_material
from envfs.kms.material.specs import check_use
from envfs.kms.model import ENCRYPT_DECRYPT, ORIGIN_FOREIGN
from envfs.kms.operations.asymmetric import AsymmetricEncryption


class Ciphers(AsymmetricEncryption):
    """What Encrypt, Decrypt, ReEncrypt and the data keys share."""

    def _encrypt_under(
        self, key: Key, plaintext: bytes | bytearray, algorithm: str, context_bytes: bytes
    ) -> tuple[bytes, str]:
        """The ciphertext of 1 to 4,096 bytes (fewer with RSA) under `key`, and the id of the key material, which is
        empty for an asymmetric key. InvalidKeyUsage if the key is not for that, or not with `algorithm`.
        """
        spec = check_use(key.row.spec, key.row.usage, ENCRYPT_DECRYPT, algorithm, key.arn)
        if spec.is_asymmetric:
            return self._encrypt_asymmetric(key, algorithm, plaintext, context_bytes), ""
        if not 1 <= len(plaintext) <= MAX_PLAINTEXT_SIZE:
            raise Validation(f"1 to {MAX_PLAINTEXT_SIZE} bytes can be encrypted, not {len(plaintext)}")
        return self._seal(key, plaintext, context_bytes), self._keyring.material_id_of(key.row.backing_key_id)

    def _decrypt_under(self, key: Key, ciphertext: bytes, algorithm: str, context_bytes: bytes) -> tuple[Secret, str]:
        """The plaintext of what was encrypted under `key` with `algorithm`, and the id of the key material, which is
        empty for an asymmetric key. InvalidKeyUsage if the key is not for that; InvalidCiphertext for everything else.
        """
        spec = check_use(key.row.spec, key.row.usage, ENCRYPT_DECRYPT, algorithm, key.arn)
        if spec.is_asymmetric:
            return self._decrypt_asymmetric(key, algorithm, ciphertext, context_bytes), ""
        blob = parse_blob(ciphertext)
        if blob.key_id != key.row.key_id:
            raise InvalidCiphertext
        return self._open_blob(key, blob, context_bytes), self._keyring.material_id_of(blob.backing_key_id)

    def _seal(self, key: Key, plaintext: bytes | bytearray, context_bytes: bytes) -> bytes:
        backing_key_id = key.row.backing_key_id
        backing_key = self._backing_key(key.row.key_id, backing_key_id)
        if backing_key is None:
            raise IntegrityError(
                f"table keys of the KMS's store: the backing key of {key.arn} is missing",
                hint="restore the KMS from a backup",
            )
        if key.row.origin == ORIGIN_FOREIGN:
            return self._seal_foreign(key, backing_key, plaintext, context_bytes)
        # The salt is drawn here, for this call alone: that is what keeps the blob's key from being used twice.
        return seal_blob(backing_key, key.row.key_id, backing_key_id, plaintext, context_bytes, os.urandom(SALT_SIZE))

    def _seal_foreign(self, key: Key, material: Secret, plaintext: bytes | bytearray, context_bytes: bytes) -> bytes:
        """Asks the foreign KMS, which encrypts a fresh secret and never sees `plaintext`. KmsErrors, Pending."""
        own, place = self._read_foreign(key, material)
        question = Question("encrypt", place, _pairs(context_bytes))
        with own, self._asker.answer(question) as answer:
            assert answer.secret is not None
            if len(answer.ciphertext) > MAX_FOREIGN_SIZE:
                raise Internal(f"the ciphertext of the foreign key {place.key} is too long for a blob")
            # The secret was drawn for this answer, which is given once.
            return seal_foreign_blob(
                own, answer.secret, key.row.key_id, key.row.backing_key_id, answer.ciphertext, plaintext, context_bytes
            )

    def _open_foreign(self, key: Key, material: Secret, blob: ForeignBlob, context_bytes: bytes) -> Secret:
        own, place = self._read_foreign(key, material)
        question = Question("decrypt", place, _pairs(context_bytes), blob.foreign)
        with own, self._asker.answer(question) as answer:
            assert answer.secret is not None
            if len(answer.secret.expose()) != SECRET_SIZE:
                raise Internal(f"the foreign KMS answers what was never encrypted under {place.key}")
            try:
                return open_foreign_blob(own, answer.secret, blob, context_bytes)
            except IntegrityError:
                raise InvalidCiphertext from None

    @staticmethod
    def _read_foreign(key: Key, material: Secret) -> tuple[Secret, ForeignKey]:
        try:
            return read_material(material)
        except FormatError as error:
            raise IntegrityError(f"table backing_keys of the KMS's store: {key.arn}: {error.message}") from None

    def _open_blob(self, key: Key, blob: SealedBlob | ForeignBlob, context_bytes: bytes) -> Secret:
        backing_key = self._backing_key(key.row.key_id, blob.backing_key_id)
        is_foreign = isinstance(blob, ForeignBlob)
        if backing_key is None or is_foreign != (key.row.origin == ORIGIN_FOREIGN):
            raise InvalidCiphertext
        if isinstance(blob, ForeignBlob):
            return self._open_foreign(key, backing_key, blob, context_bytes)
        try:
            return open_blob(backing_key, blob, context_bytes)
        except IntegrityError:
            raise InvalidCiphertext from None

    def _backing_key(self, key_id: bytes, backing_key_id: bytes) -> Secret | None:
        """The backing key, if there is one with this id and it belongs to the key."""
        secret = self._keyring.cached(key_id, backing_key_id)
        if secret is not None:
            return secret
        row = self._catalogue.backing_key(backing_key_id)
        return None if row is None or row.key_id != key_id or not row.wrapped else self._keyring.unwrap(row)

    def wrap_service_owned(self, plaintext: Secret, context: Mapping[str, str]) -> bytes:
        """A blob under the CMK that belongs to envfs itself: for keys of volumes. No policy, no record, no listing."""
        self._refresh()
        context_bytes = encode_context(context)
        row = self._catalogue.owned_key()
        backing_key = self._backing_key(row.key_id, row.backing_key_id)
        if backing_key is None:
            raise IntegrityError("table keys of the KMS's store: the backing key of envfs's own key is missing")
        # The salt is drawn here, for this call alone: that is what keeps the blob's key from being used twice.
        return seal_blob(
            backing_key, row.key_id, row.backing_key_id, plaintext.expose(), context_bytes, os.urandom(SALT_SIZE)
        )

    def unwrap_service_owned(self, blob: bytes, context: Mapping[str, str]) -> Secret:
        """The plaintext of a blob that `wrap_service_owned` of this KMS made. FormatError if it is no blob,
        InvalidCiphertext for damage, another context, or another KMS.
        """
        self._refresh()
        parsed = read_blob(blob)
        row = self._catalogue.owned_key()
        backing_key = self._backing_key(row.key_id, parsed.backing_key_id) if parsed.key_id == row.key_id else None
        if backing_key is None:
            raise InvalidCiphertext
        try:
            return open_blob(backing_key, parsed, encode_context(context))
        except IntegrityError:
            raise InvalidCiphertext from None


def _pairs(context_bytes: bytes) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(decode_context(context_bytes).items()))


def parse_blob(raw: bytes) -> SealedBlob | ForeignBlob:
    """A symmetric key's ciphertext. InvalidCiphertext if it is none."""
    try:
        return read_any_blob(raw)
    except FormatError:
        raise InvalidCiphertext from None
