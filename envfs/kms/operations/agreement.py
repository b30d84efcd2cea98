"""DeriveSharedSecret (ECDH), Encapsulate and Decapsulate (ML-KEM). No secret leaves before its audit record is written.

https://docs.aws.amazon.com/kms/latest/APIReference/API_DeriveSharedSecret.html and its neighbours
"""

from __future__ import annotations

from envfs.kms.material import agreement
from envfs.kms.material.specs import ECDH, ENCAPSULATE_DECAPSULATE, KEY_AGREEMENT, ML_KEM
from envfs.kms.model import NO_FACTS, Encapsulated, Principal, RequestFacts, SharedSecret
from envfs.kms.operations.use import KeyUse


class AgreementOperations(KeyUse):
    """Secrets that two sides share."""

    def derive_shared_secret(
        self,
        principal: Principal,
        key_id: str,
        public_key: bytes,
        algorithm: str = ECDH,
        facts: RequestFacts = NO_FACTS,
    ) -> SharedSecret:
        """The raw secret that the key has in common with the owner of `public_key` (SubjectPublicKeyInfo in DER), which
        is on the same curve. Validation if it is not.
        """
        parameters = {"keyAgreementAlgorithm": algorithm}
        extra = {"kms:keyagreementalgorithm": algorithm}
        with self._use("DeriveSharedSecret", principal, key_id, facts, KEY_AGREEMENT, algorithm, parameters, extra) as (
            call,
            key,
        ):
            peer = agreement.load_peer(key.row.spec, public_key)
            self._stop_dry_run(call)
            secret = agreement.derive_shared_secret(self._private_key(key), peer)
            self._hand_out(call, secret)
        return SharedSecret(secret, key.arn, algorithm, key.row.origin)

    def encapsulate(
        self, principal: Principal, key_id: str, algorithm: str = ML_KEM, facts: RequestFacts = NO_FACTS
    ) -> Encapsulated:
        """A fresh secret of 32 bytes, in plaintext and for whoever may use the private key."""
        parameters = {"encapsulationAlgorithm": algorithm}
        with self._use("Encapsulate", principal, key_id, facts, ENCAPSULATE_DECAPSULATE, algorithm, parameters, {}) as (
            call,
            key,
        ):
            self._stop_dry_run(call)
            secret, ciphertext = agreement.encapsulate(self._public_key(key))
            self._hand_out(call, secret)
        return Encapsulated(secret, ciphertext, key.arn, algorithm)

    def decapsulate(
        self,
        principal: Principal,
        key_id: str,
        ciphertext: bytes,
        algorithm: str = ML_KEM,
        facts: RequestFacts = NO_FACTS,
    ) -> SharedSecret:
        """The secret in `ciphertext`. InvalidCiphertext for one of another length; for one that was not made for this
        key it is another secret, and nobody can tell.
        """
        parameters = {"encapsulationAlgorithm": algorithm}
        with self._use("Decapsulate", principal, key_id, facts, ENCAPSULATE_DECAPSULATE, algorithm, parameters, {}) as (
            call,
            key,
        ):
            agreement.check_ciphertext(key.row.spec, ciphertext)
            self._stop_dry_run(call)
            secret = agreement.decapsulate(self._private_key(key), ciphertext)
            self._hand_out(call, secret)
        return SharedSecret(secret, key.arn, algorithm, key.row.origin)
