"""ReEncrypt: from one key, algorithm or encryption context to another, and the plaintext never leaves.

https://docs.aws.amazon.com/kms/latest/APIReference/API_ReEncrypt.html
"""

from __future__ import annotations

from collections.abc import Mapping

from envfs.crypto.secret import Secret
from envfs.errors import AccessDenied
from envfs.format.blob import blob_ids
from envfs.kms.audit.record import Call
from envfs.kms.catalogue import Key
from envfs.kms.model import NO_FACTS, SYMMETRIC_DEFAULT, Principal, ReEncrypted, RequestFacts
from envfs.kms.operations.symmetric import NOT_THIS_BLOB, SymmetricOperations
from envfs.kms.operations.use import encode_request_context
from envfs.kms.policy.request import ConditionValue, alias_fact


class ReEncryptOperations(SymmetricOperations):
    def re_encrypt(
        self,
        principal: Principal,
        blob: bytes,
        destination_key_id: str,
        *,
        source_context: Mapping[str, str],
        destination_context: Mapping[str, str],
        source_key_id: str | None = None,
        source_algorithm: str = SYMMETRIC_DEFAULT,
        destination_algorithm: str = SYMMETRIC_DEFAULT,
        facts: RequestFacts = NO_FACTS,
    ) -> ReEncrypted:
        """Needs kms:ReEncryptFrom on the key that `blob` is under, and kms:ReEncryptTo on the other, which may be the
        same one. Keys are named by id, ARN, alias or alias ARN.
        """
        plaintext, answer = self._re_encrypt(
            principal,
            blob,
            destination_key_id,
            source_context,
            destination_context,
            source_key_id,
            source_algorithm,
            destination_algorithm,
            facts,
        )
        plaintext.wipe()
        return answer

    def re_encrypt_data_key(
        self,
        principal: Principal,
        blob: bytes,
        destination_key_id: str,
        *,
        source_context: Mapping[str, str],
        destination_context: Mapping[str, str],
        facts: RequestFacts,
    ) -> tuple[Secret, bytes]:
        """The same for the filesystem, which keeps the DEK for the moment that it takes to authenticate the new header;
        the principal, who needs no kms:Decrypt, does not get it. (DEK, new blob).
        """
        plaintext, answer = self._re_encrypt(
            principal,
            blob,
            destination_key_id,
            source_context,
            destination_context,
            None,
            SYMMETRIC_DEFAULT,
            SYMMETRIC_DEFAULT,
            facts,
        )
        return plaintext, answer.blob

    def has_key_of(self, blob: bytes) -> bool:
        """Whether there is the key that a blob says it is under; for envfs itself, since strangers must not know."""
        return self._catalogue.find(blob_ids(blob)[0]) is not None

    def current_material(self, key_arn: str) -> tuple[bytes, bytes]:
        """Key id and backing key id of what is encrypted now under a key, as blobs have them; for envfs itself, which
        finds out so what is already under the newest material. NotFound if there is no such key.
        """
        self._refresh()
        row = self._catalogue.resolve_key(key_arn).row
        return row.key_id, row.backing_key_id

    def _re_encrypt(
        self,
        principal: Principal,
        blob: bytes,
        destination_key_id: str,
        source_context: Mapping[str, str],
        destination_context: Mapping[str, str],
        source_key_id: str | None,
        source_algorithm: str,
        destination_algorithm: str,
        facts: RequestFacts,
    ) -> tuple[Secret, ReEncrypted]:
        plaintext: Secret | None = None
        parameters = {
            "sourceEncryptionAlgorithm": source_algorithm,
            "sourceEncryptionContext": dict(source_context),
            "destinationKeyId": destination_key_id,
            "destinationEncryptionAlgorithm": destination_algorithm,
            "destinationEncryptionContext": dict(destination_context),
        }
        if source_key_id is not None:
            parameters["sourceKeyId"] = source_key_id
        try:
            with self._recorded("ReEncrypt", principal, facts, parameters) as call:
                source_bytes = destination_bytes = encode_request_context(source_context)
                if destination_context != source_context:
                    destination_bytes = encode_request_context(destination_context)
                # First, so that what is said of the destination does not depend on whether there is the source.
                destination = self._catalogue.resolve(destination_key_id)
                source = self._key_behind(blob, source_key_id, source_algorithm)
                is_same = source is not None and source.row.key_id == destination.row.key_id
                facts_of_both = {"kms:reencryptonsamekey": "true" if is_same else "false"}
                source = self._authorise_source(
                    call,
                    source,
                    {"kms:encryptionalgorithm": source_algorithm, **alias_fact(source_key_id or ""), **facts_of_both},
                    source_context,
                )
                self._authorise_key(
                    call,
                    destination,
                    action="kms:ReEncryptTo",
                    extra={
                        "kms:encryptionalgorithm": destination_algorithm,
                        **alias_fact(destination_key_id),
                        **facts_of_both,
                    },
                    context=destination_context,
                )
                if source_key_id is not None:
                    self._insist(source, source_key_id)
                call.other_arn = "" if is_same else source.arn
                plaintext, source_material_id = self._decrypt_under(source, blob, source_algorithm, source_bytes)
                made, material_id = self._encrypt_under(
                    destination, plaintext.expose(), destination_algorithm, destination_bytes
                )
                self._stop_dry_run(call)
        except BaseException:
            if plaintext is not None:
                plaintext.wipe()
            raise
        answer = ReEncrypted(
            made, source.arn, destination.arn, source_algorithm, destination_algorithm, source_material_id, material_id
        )
        return plaintext, answer

    def _authorise_source(
        self,
        call: Call,
        key: Key | None,
        extra: Mapping[str, ConditionValue],
        context: Mapping[str, str],
    ) -> Key:
        if key is None:
            raise AccessDenied(NOT_THIS_BLOB)
        try:
            self._authorise_key(call, key, action="kms:ReEncryptFrom", extra=extra, context=context)
        except AccessDenied:
            raise AccessDenied(NOT_THIS_BLOB) from None
        return key
