"""Encrypt and Decrypt under RSA keys: what the operations of the same names do with a key that is not symmetric."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import rsa

from envfs.crypto.aead import Buffer
from envfs.crypto.secret import Secret
from envfs.errors import Validation
from envfs.kms.audit.record import Call
from envfs.kms.catalogue import Key
from envfs.kms.material import encryption
from envfs.kms.material.specs import SPECS
from envfs.kms.operations.use import KeyUse


class AsymmetricEncryption(KeyUse):
    """Authorised, and found to be for encryption with the algorithm, before it comes here."""

    def _check_asymmetric_plaintext(self, call: Call, key: Key, algorithm: str, size: int) -> None:
        """Validation unless the key encrypts `size` bytes, without an encryption context."""
        self._refuse_context(call, key)
        encryption.check_plaintext(SPECS[key.row.spec], algorithm, size)

    def _encrypt_asymmetric(self, key: Key, algorithm: str, plaintext: Buffer) -> bytes:
        public_key = self._public_key(key)
        assert isinstance(public_key, rsa.RSAPublicKey)  # the only asymmetric keys that encrypt
        return encryption.encrypt(public_key, algorithm, plaintext)

    def _decrypt_asymmetric(self, key: Key, algorithm: str, ciphertext: bytes) -> Secret:
        """InvalidCiphertext, without a word, for whatever is wrong with it."""
        private_key = self._private_key(key)
        assert isinstance(private_key, rsa.RSAPrivateKey)
        return encryption.decrypt(private_key, algorithm, ciphertext)

    @staticmethod
    def _refuse_context(call: Call, key: Key) -> None:
        if call.context:
            raise Validation(
                f"an encryption context can be given with symmetric keys only; the key spec of {key.arn} is"
                f" {key.row.spec}",
                hint="leave the encryption context out",
            )
