"""What the operations share that use the material of a key: the checks before, and the key itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from envfs.crypto.secret import Secret
from envfs.errors import FormatError, IntegrityError, NotFound, Validation
from envfs.format.context import encode_context
from envfs.kms.audit.record import Call
from envfs.kms.catalogue import Key
from envfs.kms.material.generate import PrivateKey, PublicKey
from envfs.kms.material.keys import load_public_key
from envfs.kms.material.specs import check_use
from envfs.kms.model import Principal, RequestFacts
from envfs.kms.operations.on_key import OnKey
from envfs.kms.policy.request import ConditionValue, alias_fact
from envfs.kms.schema import BackingKeyRow


class KeyUse(OnKey):
    """Base of the cryptographic operations on keys whose material never changes: asymmetric and HMAC keys."""

    @contextmanager
    def _use(
        self,
        event: str,
        principal: Principal,
        key_id: str,
        facts: RequestFacts,
        usage: str,
        algorithm: str,
        parameters: Mapping[str, object],
        extra: Mapping[str, ConditionValue],
    ) -> Iterator[tuple[Call, Key]]:
        """A call that uses a key (named by id, ARN, alias or alias ARN) for `usage`: authorised, and the key is for
        that. InvalidKeyUsage if it is not.
        """
        with self._recorded(event, principal, facts, {"requestedKeyId": key_id, **parameters}) as call:
            key = self._catalogue.resolve(key_id)
            self._authorise_key(call, key, extra={**alias_fact(key_id), **extra})
            # After the decision: what a key is for is nothing that a stranger should learn.
            check_use(key.row.spec, key.row.usage, usage, algorithm, key.arn)
            yield call, key

    def _material_row(self, key: Key) -> BackingKeyRow:
        """The row of the material that the key has now."""
        row = self._catalogue.backing_key(key.row.backing_key_id)
        if row is None or row.key_id != key.row.key_id or row.spec != key.row.spec:
            raise IntegrityError(
                f"table keys of the KMS's store: the backing key of {key.arn} is missing",
                hint="restore the KMS from a backup",
            )
        return row

    def _private_key(self, key: Key) -> PrivateKey:
        found = self._keyring.cached_private_key(key.row.key_id, key.row.backing_key_id)
        return self._keyring.private_key(self._material_row(key)) if found is None else found

    def _public_key(self, key: Key) -> PublicKey:
        row = self._material_row(key)
        try:
            return load_public_key(row.spec, row.public_key)
        except FormatError as error:
            raise IntegrityError(
                f"table backing_keys of the KMS's store: {row.backing_key_id.hex()}: {error.message}",
                hint="restore the KMS from a backup",
            ) from None

    def _raw_key(self, key: Key) -> Secret:
        """The bytes of an HMAC key; they stay the keyring's."""
        found = self._keyring.cached(key.row.key_id, key.row.backing_key_id)
        return self._keyring.unwrap(self._material_row(key)) if found is None else found

    def _authorise_later(self, call: Call, key: Key) -> Key:
        """The key as it is now, some time after the call was authorised, while other calls were served: authorised once
        more.
        """
        self._refresh()
        current = self._catalogue.find(key.row.key_id)
        if current is None:
            raise NotFound(f"there is no key {key.arn} any more")
        self._authorise_key_again(call, current)
        return current

    def _hand_out(self, call: Call, secret: Secret) -> None:
        """Writes the record of a call whose outcome is `secret`; without it nobody gets it."""
        try:
            self._record(call, None)
        except BaseException:
            secret.wipe()
            raise
        call.is_recorded = True


def encode_request_context(context: Mapping[str, str]) -> bytes:
    """The encryption context of a request as it is authenticated. Validation for one that cannot be."""
    try:
        return encode_context(context)
    except FormatError as error:
        raise Validation(f"encryption {error.message}") from None
