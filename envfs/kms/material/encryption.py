"""RSA encryption with OAEP (RFC 8017 section 7.1); MGF1 has the same hash as the label, which is empty."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from envfs.crypto.aead import Buffer
from envfs.crypto.secret import Secret
from envfs.errors import InvalidCiphertext, Validation
from envfs.kms.material.specs import KeySpec

_SHA1: Final = hashes.SHA1()  # noqa: S303 - OAEP needs no collision resistance; AWS has this algorithm
_SHA256: Final = hashes.SHA256()


def _hash_of(algorithm: str) -> hashes.HashAlgorithm:
    return _SHA1 if algorithm.endswith("_SHA_1") else _SHA256


def oaep(algorithm: str) -> padding.OAEP:
    """The padding of an algorithm whose name ends with its hash."""
    one = _hash_of(algorithm)
    return padding.OAEP(padding.MGF1(one), one, None)


def max_plaintext_size(spec: KeySpec, algorithm: str) -> int:
    """How many bytes one encryption takes: 214 with RSA_2048 and SHA-1, 446 with RSA_4096 and SHA-256."""
    return spec.size // 8 - 2 * _hash_of(algorithm).digest_size - 2


def check_plaintext(spec: KeySpec, algorithm: str, size: int) -> None:
    """Validation unless one encryption takes `size` bytes."""
    greatest = max_plaintext_size(spec, algorithm)
    if not 1 <= size <= greatest:
        raise Validation(
            f"{algorithm} under {spec.name} encrypts 1 to {greatest} bytes, not {size}",
            hint="encrypt a data key, and the data under that",
        )


def encrypt(key: rsa.RSAPublicKey, algorithm: str, plaintext: Buffer) -> bytes:
    """As many bytes as the modulus has; `plaintext` passed `check_plaintext`."""
    return key.encrypt(bytes(plaintext), oaep(algorithm))


def decrypt(key: rsa.RSAPrivateKey, algorithm: str, ciphertext: bytes) -> Secret:
    """The plaintext. InvalidCiphertext, always the same, for everything that this key and algorithm did not make: more
    would make an oracle of it (Manger, CRYPTO 2001).
    """
    try:
        return Secret(key.decrypt(ciphertext, oaep(algorithm)))
    except ValueError:
        raise InvalidCiphertext from None
