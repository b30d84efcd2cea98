"""GenerateDataKeyPair and GenerateDataKeyPairWithoutPlaintext. The private key comes back through Decrypt.

https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKeyPair.html and its neighbour
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from envfs.kms.audit.record import Call
from envfs.kms.catalogue import Key
from envfs.kms.material.generate import Material, generate
from envfs.kms.material.specs import check_pair_spec, check_use
from envfs.kms.model import (
    ENCRYPT_DECRYPT,
    NO_FACTS,
    SYMMETRIC_DEFAULT,
    DataKeyPair,
    DataKeyPairBlob,
    Principal,
    RequestFacts,
)
from envfs.kms.operations.symmetric import SymmetricOperations
from envfs.kms.operations.use import KeyUse, encode_request_context
from envfs.kms.policy.request import alias_fact


class PairOperations(SymmetricOperations, KeyUse):
    """Making an RSA pair takes seconds; who may use the key is decided before, and once more after that."""

    def generate_data_key_pair(
        self,
        principal: Principal,
        key_id: str,
        pair_spec: str,
        context: Mapping[str, str],
        facts: RequestFacts = NO_FACTS,
    ) -> DataKeyPair:
        """A key pair of the key spec `pair_spec`, the private key in plaintext and as a blob under `key_id`, which is
        symmetric.
        """
        event = "GenerateDataKeyPair"
        with self._pair_call(event, principal, key_id, pair_spec, context, facts) as (call, key):
            material = generate(pair_spec)
            blob = self._seal_pair(call, key, material)
            self._hand_out(call, material.private)
        return DataKeyPair(material.private, *blob)

    def generate_data_key_pair_without_plaintext(
        self,
        principal: Principal,
        key_id: str,
        pair_spec: str,
        context: Mapping[str, str],
        facts: RequestFacts = NO_FACTS,
    ) -> DataKeyPairBlob:
        """As `generate_data_key_pair`, and nobody sees the private key."""
        event = "GenerateDataKeyPairWithoutPlaintext"
        with self._pair_call(event, principal, key_id, pair_spec, context, facts) as (call, key):
            material = generate(pair_spec)
            with material.private:
                blob = self._seal_pair(call, key, material)
        return DataKeyPairBlob(*blob)

    @contextmanager
    def _pair_call(
        self,
        event: str,
        principal: Principal,
        key_id: str,
        pair_spec: str,
        context: Mapping[str, str],
        facts: RequestFacts,
    ) -> Iterator[tuple[Call, Key]]:
        """A call that has passed every check."""
        parameters = {"requestedKeyId": key_id, "keyPairSpec": pair_spec}
        with self._recorded(event, principal, facts, parameters) as call:
            call.context = context
            encode_request_context(context)
            key = self._catalogue.resolve(key_id)
            extra = {
                "kms:datakeypairspec": pair_spec,
                "kms:encryptionalgorithm": SYMMETRIC_DEFAULT,
                **alias_fact(key_id),
            }
            self._authorise_key(call, key, extra=extra)
            check_use(key.row.spec, key.row.usage, ENCRYPT_DECRYPT, SYMMETRIC_DEFAULT, key.arn)
            check_pair_spec(pair_spec)
            self._stop_dry_run(call)
            yield call, key

    def _seal_pair(self, call: Call, key: Key, material: Material) -> tuple[bytes, bytes, str, str, str]:
        """The pair, the private key sealed, as the fields of `DataKeyPairBlob`."""
        try:
            current = self._authorise_later(call, key)
            blob = self._seal(current, material.private.expose(), encode_request_context(call.context))
            material_id = self._material_row(current).material_id.hex()
        except BaseException:
            material.private.wipe()
            raise
        parameters = call.parameters or {}
        return blob, material.public_key, current.arn, str(parameters["keyPairSpec"]), material_id
