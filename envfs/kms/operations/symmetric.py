"""GenerateDataKey, Encrypt and Decrypt: the operations that a filesystem lives on.

https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html and its neighbours
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from envfs.crypto.secret import Secret
from envfs.errors import (
    AccessDenied,
    EnvfsError,
    FormatError,
    IncorrectKey,
    IntegrityError,
    InvalidCiphertext,
    InvalidKeyUsage,
    Validation,
)
from envfs.format.blob import MAX_BLOB_SIZE, MAX_PLAINTEXT_SIZE, SALT_SIZE, Blob, open_blob, seal_blob
from envfs.format.context import encode_context
from envfs.kms.audit.record import Call
from envfs.kms.catalogue import Key
from envfs.kms.core import Core
from envfs.kms.model import ENCRYPT_DECRYPT, NO_FACTS, SYMMETRIC_DEFAULT, DataKey, Principal, RequestFacts
from envfs.kms.policy.request import ConditionValue, alias_fact

MAX_DATA_KEY_SIZE: Final = 1024

# One text for a key that is not there and for one that the caller may not use: he cannot find out which keys exist.
_NOT_THIS_BLOB: Final = "the ciphertext refers to a key that does not exist, or that you are not allowed to use"
_ALGORITHM: Final[Mapping[str, ConditionValue]] = {"kms:encryptionalgorithm": SYMMETRIC_DEFAULT}


class SymmetricOperations(Core):
    """No plaintext leaves before its audit record is written."""

    def generate_data_key(
        self,
        principal: Principal,
        key_id: str,
        context: Mapping[str, str],
        facts: RequestFacts = NO_FACTS,
        number_of_bytes: int = 32,
    ) -> DataKey:
        """A random data key of 1 to 1,024 bytes, in plaintext and as a blob under `key_id` (id, ARN, alias or alias
        ARN).
        """
        self._refresh()
        call = Call("GenerateDataKey", principal, facts, context, {"numberOfBytes": number_of_bytes})
        try:
            data_key = self._generate_data_key(call, key_id, number_of_bytes)
        except EnvfsError as error:
            self._record(call, error)
            raise
        self._release(call, data_key.plaintext)
        return data_key

    def _generate_data_key(self, call: Call, key_id: str, number_of_bytes: int) -> DataKey:
        context_bytes = _encode_context(call.context)
        if not 1 <= number_of_bytes <= MAX_DATA_KEY_SIZE:
            raise Validation(f"a data key has 1 to {MAX_DATA_KEY_SIZE} bytes, not {number_of_bytes}")
        key = self._resolve_for_encryption(call, key_id)
        self._authorise_key(call, key, extra=alias_fact(key_id))
        plaintext = Secret.random(number_of_bytes)
        return DataKey(plaintext, self._seal(key, plaintext.expose(), context_bytes), key.arn)

    def encrypt(
        self,
        principal: Principal,
        key_id: str,
        plaintext: Secret | bytes,
        context: Mapping[str, str],
        facts: RequestFacts = NO_FACTS,
    ) -> bytes:
        """The blob of 1 to 4,096 bytes under `key_id` (id, ARN, alias or alias ARN)."""
        self._refresh()
        call = Call("Encrypt", principal, facts, context)
        try:
            context_bytes = _encode_context(context)
            if not 1 <= len(plaintext) <= MAX_PLAINTEXT_SIZE:
                raise Validation(f"1 to {MAX_PLAINTEXT_SIZE} bytes can be encrypted, not {len(plaintext)}")
            key = self._resolve_for_encryption(call, key_id)
            self._authorise_key(call, key, extra={**_ALGORITHM, **alias_fact(key_id)})
            raw = plaintext.expose() if isinstance(plaintext, Secret) else plaintext
            blob = self._seal(key, raw, context_bytes)
        except EnvfsError as error:
            self._record(call, error)
            raise
        self._record(call, None)
        return blob

    def decrypt(
        self,
        principal: Principal,
        blob: bytes,
        context: Mapping[str, str],
        facts: RequestFacts = NO_FACTS,
        also: tuple[str, ...] = (),
        key_id: str | None = None,
    ) -> Secret:
        """The plaintext of `blob`, if it was made under the same `context`.

        `also`: further actions (`kms:GenerateDataKey`) that must be allowed on the key in the same request. `key_id`:
        the key that the blob has to be of, else IncorrectKey. InvalidCiphertext, without a message, for damage and for
        another context.
        """
        self._refresh()
        call = Call("Decrypt", principal, facts, context, {"also": also} if also else None)
        try:
            plaintext = self._decrypt(call, blob, also, key_id)
        except EnvfsError as error:
            self._record(call, error)
            raise
        self._release(call, plaintext)
        return plaintext

    def _decrypt(self, call: Call, raw: bytes, also: tuple[str, ...], key_id: str | None) -> Secret:
        context_bytes = _encode_context(call.context)
        if not 1 <= len(raw) <= MAX_BLOB_SIZE:
            raise InvalidCiphertext
        try:
            blob = Blob.parse(raw)
        except FormatError:
            raise InvalidCiphertext from None
        key = self._catalogue.find(blob.key_id)
        if key is None:
            raise AccessDenied(_NOT_THIS_BLOB)
        try:
            self._authorise_key(call, key, also=also, extra=_ALGORITHM)
        except AccessDenied:
            raise AccessDenied(_NOT_THIS_BLOB) from None
        if key_id is not None and self._catalogue.resolve(key_id).arn != key.arn:
            raise IncorrectKey("the ciphertext was made under another key than the one that is named")
        backing_key = self._backing_key(blob.key_id, blob.backing_key_id)
        if backing_key is None:
            raise InvalidCiphertext
        try:
            return open_blob(backing_key, blob, context_bytes)
        except IntegrityError:
            raise InvalidCiphertext from None

    def _resolve_for_encryption(self, call: Call, key_id: str) -> Key:
        call.parameters = {**(call.parameters or {}), "requestedKeyId": key_id}
        key = self._catalogue.resolve(key_id)
        if key.row.usage != ENCRYPT_DECRYPT:
            raise InvalidKeyUsage(f"{key.arn} is for {key.row.usage}")
        return key

    def _seal(self, key: Key, plaintext: bytes | bytearray, context_bytes: bytes) -> bytes:
        backing_key_id = key.row.backing_key_id
        backing_key = self._backing_key(key.row.key_id, backing_key_id)
        if backing_key is None:
            raise IntegrityError(
                f"table keys of the KMS's store: the backing key of {key.arn} is missing",
                hint="restore the KMS from a backup",
            )
        # The salt is drawn here, for this call alone: that is what keeps the blob's key from being used twice.
        return seal_blob(backing_key, key.row.key_id, backing_key_id, plaintext, context_bytes, os.urandom(SALT_SIZE))

    def _backing_key(self, key_id: bytes, backing_key_id: bytes) -> Secret | None:
        """The backing key, if there is one with this id and it belongs to the key."""
        secret = self._keyring.cached(key_id, backing_key_id)
        if secret is not None:
            return secret
        row = self._catalogue.backing_key(backing_key_id)
        return None if row is None or row.key_id != key_id else self._keyring.unwrap(row)

    def _release(self, call: Call, plaintext: Secret) -> None:
        """Writes the record; without it nobody gets the plaintext."""
        try:
            self._record(call, None)
        except BaseException:
            plaintext.wipe()
            raise

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
        parsed = Blob.parse(blob)
        row = self._catalogue.owned_key()
        backing_key = self._backing_key(row.key_id, parsed.backing_key_id) if parsed.key_id == row.key_id else None
        if backing_key is None:
            raise InvalidCiphertext
        try:
            return open_blob(backing_key, parsed, encode_context(context))
        except IntegrityError:
            raise InvalidCiphertext from None


def _encode_context(context: Mapping[str, str]) -> bytes:
    try:
        return encode_context(context)
    except FormatError as error:
        raise Validation(f"encryption {error.message}") from None
