"""GenerateDataKey, Encrypt, Decrypt, ReEncrypt and GenerateRandom: the operations that a filesystem lives on.

https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html and its neighbours
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from envfs.crypto.secret import Secret
from envfs.errors import AccessDenied, DryRunOperation, EnvfsError, IncorrectKey, Validation
from envfs.kms.audit.record import Call
from envfs.kms.catalogue import Key
from envfs.kms.model import (
    NO_FACTS,
    SYMMETRIC_DEFAULT,
    DataKey,
    DataKeyBlob,
    Decrypted,
    Encrypted,
    Principal,
    RequestFacts,
)
from envfs.kms.operations.ciphers import Ciphers, parse_blob
from envfs.kms.operations.use import encode_request_context
from envfs.kms.policy.request import ConditionValue, alias_fact

MAX_DATA_KEY_SIZE: Final = 1024

# One text for a key that is not there and for one that the caller may not use: he cannot find out which keys exist.
NOT_THIS_BLOB: Final = "the ciphertext refers to a key that does not exist, or that you are not allowed to use"
_ALGORITHM: Final[Mapping[str, ConditionValue]] = {"kms:encryptionalgorithm": SYMMETRIC_DEFAULT}


class SymmetricOperations(Ciphers):
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
            plaintext, blob = self._generate_data_key(call, key_id, number_of_bytes)
        except EnvfsError as error:
            self._record(call, error)
            raise
        self._release(call, plaintext)
        return DataKey(plaintext, blob.blob, blob.key_arn, blob.material_id)

    def generate_data_key_without_plaintext(
        self,
        principal: Principal,
        key_id: str,
        context: Mapping[str, str],
        facts: RequestFacts = NO_FACTS,
        number_of_bytes: int = 32,
    ) -> DataKeyBlob:
        """As `generate_data_key`, for whoever shall store the data key and not see it."""
        parameters = {"numberOfBytes": number_of_bytes}
        with self._recorded("GenerateDataKeyWithoutPlaintext", principal, facts, parameters) as call:
            call.context = context
            plaintext, blob = self._generate_data_key(call, key_id, number_of_bytes)
            plaintext.wipe()
            self._stop_dry_run(call)
        return blob

    def _generate_data_key(self, call: Call, key_id: str, number_of_bytes: int) -> tuple[Secret, DataKeyBlob]:
        context_bytes = encode_request_context(call.context)
        if not 1 <= number_of_bytes <= MAX_DATA_KEY_SIZE:
            raise Validation(f"a data key has 1 to {MAX_DATA_KEY_SIZE} bytes, not {number_of_bytes}")
        key = self._resolve_for_encryption(call, key_id, SYMMETRIC_DEFAULT)
        plaintext = Secret.random(number_of_bytes)
        blob, material_id = self._encrypt_under(key, plaintext.expose(), SYMMETRIC_DEFAULT, context_bytes)
        return plaintext, DataKeyBlob(blob, key.arn, material_id)

    def encrypt(
        self,
        principal: Principal,
        key_id: str,
        plaintext: Secret | bytes,
        context: Mapping[str, str],
        facts: RequestFacts = NO_FACTS,
        algorithm: str = SYMMETRIC_DEFAULT,
    ) -> Encrypted:
        """The ciphertext of 1 to 4,096 bytes (fewer with RSA) under `key_id` (id, ARN, alias or alias ARN)."""
        parameters = {"encryptionAlgorithm": algorithm}
        with self._recorded("Encrypt", principal, facts, parameters) as call:
            call.context = context
            context_bytes = encode_request_context(context)
            key = self._resolve_for_encryption(call, key_id, algorithm)
            raw = plaintext.expose() if isinstance(plaintext, Secret) else plaintext
            blob, _ = self._encrypt_under(key, raw, algorithm, context_bytes)
            self._stop_dry_run(call)
        return Encrypted(blob, key.arn, algorithm)

    def decrypt(
        self,
        principal: Principal,
        blob: bytes,
        context: Mapping[str, str],
        facts: RequestFacts = NO_FACTS,
        also: tuple[str, ...] = (),
        key_id: str | None = None,
    ) -> Secret:
        """The plaintext of `blob`, which is under a symmetric key, if it was made under the same `context`.

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

    def decrypt_request(
        self,
        principal: Principal,
        blob: bytes,
        context: Mapping[str, str],
        facts: RequestFacts = NO_FACTS,
        key_id: str | None = None,
        algorithm: str = SYMMETRIC_DEFAULT,
    ) -> Decrypted:
        """Decrypt as a client asks for it, who also wants to know the key. Ciphertext of an asymmetric key does not
        name its key: it needs `key_id` (id, ARN, alias or alias ARN).
        """
        self._refresh()
        call = Call("Decrypt", principal, facts, context, {"encryptionAlgorithm": algorithm})
        try:
            decrypted = self._decrypt_request(call, blob, key_id, algorithm)
        except EnvfsError as error:
            self._record(call, error)
            raise
        self._release(call, decrypted.plaintext)
        return decrypted

    def _decrypt(self, call: Call, raw: bytes, also: tuple[str, ...], key_id: str | None) -> Secret:
        context_bytes = encode_request_context(call.context)
        blob = parse_blob(raw)
        key = self._authorise_blob(call, self._catalogue.find(blob.key_id), _ALGORITHM, also)
        if key_id is not None:
            self._insist(key, key_id)
        return self._open_blob(key, blob, context_bytes)

    def _decrypt_request(self, call: Call, raw: bytes, key_id: str | None, algorithm: str) -> Decrypted:
        context_bytes = encode_request_context(call.context)
        extra: Mapping[str, ConditionValue] = {"kms:encryptionalgorithm": algorithm}
        if key_id is not None:
            call.parameters = {"requestedKeyId": key_id, "encryptionAlgorithm": algorithm}
            extra = {**extra, **alias_fact(key_id)}
        key = self._authorise_blob(call, self._key_behind(raw, key_id, algorithm), extra)
        if key_id is not None:
            self._insist(key, key_id)
        plaintext, material_id = self._decrypt_under(key, raw, algorithm, context_bytes)
        return Decrypted(plaintext, key.arn, algorithm, material_id)

    def _key_behind(self, raw: bytes, key_id: str | None, algorithm: str) -> Key | None:
        """The key that ciphertext is under: it says so itself, or else the caller does. None if there is no such
        key.
        """
        if algorithm == SYMMETRIC_DEFAULT:
            return self._catalogue.find(parse_blob(raw).key_id)
        if key_id is None:
            raise Validation(
                "the ciphertext of an asymmetric key does not name its key", hint="give the key id as well"
            )
        return self._catalogue.resolve(key_id)

    def _authorise_blob(
        self, call: Call, key: Key | None, extra: Mapping[str, ConditionValue], also: tuple[str, ...] = ()
    ) -> Key:
        if key is None:
            raise AccessDenied(NOT_THIS_BLOB)
        try:
            self._authorise_key(call, key, also=also, extra=extra)
        except AccessDenied:
            raise AccessDenied(NOT_THIS_BLOB) from None
        return key

    def _insist(self, key: Key, key_id: str) -> None:
        if self._catalogue.resolve(key_id).arn != key.arn:
            raise IncorrectKey("the ciphertext was made under another key than the one that is named")

    def _resolve_for_encryption(self, call: Call, key_id: str, algorithm: str) -> Key:
        """The key that a caller names, authorised for the call."""
        call.parameters = {**(call.parameters or {}), "requestedKeyId": key_id}
        key = self._catalogue.resolve(key_id)
        self._authorise_key(call, key, extra={"kms:encryptionalgorithm": algorithm, **alias_fact(key_id)})
        return key

    def generate_random(self, principal: Principal, number_of_bytes: int, facts: RequestFacts = NO_FACTS) -> Secret:
        """1 to 1,024 bytes of the kernel's random generator; the caller wipes them."""
        self._refresh()
        call = Call("GenerateRandom", principal, facts, parameters={"numberOfBytes": number_of_bytes})
        try:
            self._authorise(call, "kms:GenerateRandom")
            if not 1 <= number_of_bytes <= MAX_DATA_KEY_SIZE:
                raise Validation(f"1 to {MAX_DATA_KEY_SIZE} random bytes can be had, not {number_of_bytes}")
            plaintext = Secret.random(number_of_bytes)
        except EnvfsError as error:
            self._record(call, error)
            raise
        self._release(call, plaintext)
        return plaintext

    def _release(self, call: Call, plaintext: Secret) -> None:
        """Writes the record; without it nobody gets the plaintext. A dry run ends here."""
        try:
            self._stop_dry_run(call)
            self._record(call, None)
        except BaseException as error:
            plaintext.wipe()
            if isinstance(error, DryRunOperation):
                self._record(call, error)
            raise
