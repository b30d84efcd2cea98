"""Sign, Verify and GetPublicKey.

https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html and its neighbours
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from envfs.errors import UnsupportedOperation
from envfs.kms.audit.record import Call
from envfs.kms.catalogue import Key
from envfs.kms.material import signatures
from envfs.kms.material.signatures import RAW, check_message
from envfs.kms.material.specs import (
    ENCAPSULATE_DECAPSULATE,
    KEY_AGREEMENT,
    SIGN_VERIFY,
    SPECS,
    algorithms_of,
)
from envfs.kms.model import ENCRYPT_DECRYPT, NO_FACTS, Principal, PublicKeyInfo, RequestFacts, Signed, Verified
from envfs.kms.operations.use import KeyUse
from envfs.kms.policy.request import ConditionValue, alias_fact


class SigningOperations(KeyUse):
    """Signatures of RSA, ECC, Ed25519 and ML-DSA keys."""

    def sign(
        self,
        principal: Principal,
        key_id: str,
        message: bytes,
        algorithm: str,
        message_type: str = RAW,
        facts: RequestFacts = NO_FACTS,
    ) -> Signed:
        """A signature of `message`: 1 to 4,096 bytes (RAW), its digest (DIGEST), or the mu of ML-DSA (EXTERNAL_MU)."""
        with self._signing("Sign", principal, key_id, message, algorithm, message_type, facts) as (call, key):
            self._stop_dry_run(call)
            signature = signatures.sign(self._private_key(key), algorithm, message, message_type)
        return Signed(signature, key.arn, algorithm)

    def verify(
        self,
        principal: Principal,
        key_id: str,
        message: bytes,
        signature: bytes,
        algorithm: str,
        message_type: str = RAW,
        facts: RequestFacts = NO_FACTS,
    ) -> Verified:
        """InvalidSignature unless `signature` is one of `message` under this key and algorithm."""
        with self._signing("Verify", principal, key_id, message, algorithm, message_type, facts) as (call, key):
            self._stop_dry_run(call)
            signatures.verify(self._public_key(key), algorithm, message, signature, message_type)
        return Verified(key.arn, algorithm)

    @contextmanager
    def _signing(
        self,
        event: str,
        principal: Principal,
        key_id: str,
        message: bytes,
        algorithm: str,
        message_type: str,
        facts: RequestFacts,
    ) -> Iterator[tuple[Call, Key]]:
        parameters = {"messageType": message_type, "signingAlgorithm": algorithm}
        extra: Mapping[str, ConditionValue] = {"kms:messagetype": message_type, "kms:signingalgorithm": algorithm}
        with self._use(event, principal, key_id, facts, SIGN_VERIFY, algorithm, parameters, extra) as (call, key):
            check_message(algorithm, message, message_type)
            yield call, key

    def get_public_key(self, principal: Principal, key_id: str, facts: RequestFacts = NO_FACTS) -> PublicKeyInfo:
        """The public key of an asymmetric key, and what it is for. UnsupportedOperation for other keys."""
        with self._recorded("GetPublicKey", principal, facts, {"requestedKeyId": key_id}) as call:
            key = self._catalogue.resolve(key_id)
            self._authorise_key(call, key, extra=alias_fact(key_id))
            spec, usage = key.row.spec, key.row.usage
            if not SPECS[spec].is_asymmetric:
                raise UnsupportedOperation(f"{key.arn} has no public key: its key spec is {spec}")
            self._stop_dry_run(call)
            der = self._material_row(key).public_key
        algorithms = {usage: algorithms_of(spec, usage)}
        return PublicKeyInfo(
            key.arn,
            der,
            spec,
            usage,
            encryption_algorithms=algorithms.get(ENCRYPT_DECRYPT, ()),
            signing_algorithms=algorithms.get(SIGN_VERIFY, ()),
            key_agreement_algorithms=algorithms.get(KEY_AGREEMENT, ()),
            encapsulation_algorithms=algorithms.get(ENCAPSULATE_DECAPSULATE, ()),
        )
