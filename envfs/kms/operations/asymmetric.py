"""Encrypt and Decrypt under RSA keys: what the operations of the same names do with a key that is not symmetric."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import rsa

from envfs.crypto.aead import Buffer
from envfs.crypto.secret import Secret
from envfs.errors import Validation
from envfs.format.context import EMPTY_CONTEXT
from envfs.kms.catalogue import Key
from envfs.kms.material import encryption
from envfs.kms.material.specs import SPECS
from envfs.kms.operations.use import KeyUse


class AsymmetricEncryption(KeyUse):
    """Authorised, and found to be for encryption with the algorithm, before it comes here. There is no encryption
    context: `context_bytes` have to be those of an empty one.
    """

    def _encrypt_asymmetric(self, key: Key, algorithm: str, plaintext: Buffer, context_bytes: bytes) -> bytes:
        _refuse_context(key, context_bytes)
        encryption.check_plaintext(SPECS[key.row.spec], algorithm, len(plaintext))
        public_key = self._public_key(key)
        assert isinstance(public_key, rsa.RSAPublicKey)  # the only asymmetric keys that encrypt
        return encryption.encrypt(public_key, algorithm, plaintext)

    def _decrypt_asymmetric(self, key: Key, algorithm: str, ciphertext: bytes, context_bytes: bytes) -> Secret:
        """InvalidCiphertext, without a word, for whatever is wrong with it."""
        _refuse_context(key, context_bytes)
        private_key = self._private_key(key)
        assert isinstance(private_key, rsa.RSAPrivateKey)
        return encryption.decrypt(private_key, algorithm, ciphertext)


def _refuse_context(key: Key, context_bytes: bytes) -> None:
    if context_bytes != EMPTY_CONTEXT:
        raise Validation(
            f"an encryption context can be given with symmetric keys only; the key spec of {key.arn} is {key.row.spec}",
            hint="leave the encryption context out",
        )
