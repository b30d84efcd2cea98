"""Signing and verifying.

RSA as in RFC 8017, ECDSA in DER (ANSI X9.62, RFC 3279 section 2.2.3), Ed25519 as in RFC 8032, ML-DSA as in FIPS 204.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidSignature as WrongSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from envfs.errors import InvalidSignature, Validation
from envfs.kms.material.generate import PrivateKey, PublicKey
from envfs.kms.material.keys import MlDsaPrivateKey, MlDsaPublicKey
from envfs.kms.material.specs import ED25519_SHA_512, ML_DSA_SHAKE_256

RAW: Final = "RAW"
DIGEST: Final = "DIGEST"
EXTERNAL_MU: Final = "EXTERNAL_MU"
MESSAGE_TYPES: Final = (RAW, DIGEST, EXTERNAL_MU)

MAX_MESSAGE_SIZE: Final = 4096
MU_SIZE: Final = 64  # FIPS 204 section 6.2

_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "SHA_256": hashes.SHA256(),
    "SHA_384": hashes.SHA384(),
    "SHA_512": hashes.SHA512(),
}


def check_message(algorithm: str, message: bytes, message_type: str) -> None:
    """Validation unless `message` is of its type and the algorithm takes that type. 1 to 4,096 bytes; a digest has the
    length of the algorithm's hash, a mu 64 bytes.
    """
    if message_type not in MESSAGE_TYPES:
        raise Validation(f"{message_type!r} is no message type", hint=f"choose one of {', '.join(MESSAGE_TYPES)}")
    if not 1 <= len(message) <= MAX_MESSAGE_SIZE:
        raise Validation(
            f"a message has 1 to {MAX_MESSAGE_SIZE} bytes, not {len(message)}",
            hint="sign the digest of a longer one, with the message type DIGEST",
        )
    if message_type == RAW:
        return
    if message_type == EXTERNAL_MU:
        if algorithm != ML_DSA_SHAKE_256:
            raise Validation(f"the message type {EXTERNAL_MU} is for {ML_DSA_SHAKE_256} alone, not for {algorithm}")
        wanted = MU_SIZE
    elif algorithm in {ML_DSA_SHAKE_256, ED25519_SHA_512}:
        raise Validation(f"{algorithm} takes no message of the type {DIGEST}", hint=f"use {RAW}")
    else:
        wanted = _hash_of(algorithm).digest_size
    if len(message) != wanted:
        raise Validation(f"a message of the type {message_type} has {wanted} bytes for {algorithm}, not {len(message)}")


def sign(key: PrivateKey, algorithm: str, message: bytes, message_type: str) -> bytes:
    """The signature of a message that `check_message` accepts; `key` is of a spec that has `algorithm`."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, _padding(algorithm), _hashing(algorithm, message_type))
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(_hashing(algorithm, message_type)))
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    assert isinstance(key, MlDsaPrivateKey)  # the table of key specs has no others
    return key.sign_mu(message) if message_type == EXTERNAL_MU else key.sign(message)


def verify(key: PublicKey, algorithm: str, message: bytes, signature: bytes, message_type: str) -> None:
    """InvalidSignature unless `signature` is one of `message` under the key; for malformed ones, too."""
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, _padding(algorithm), _hashing(algorithm, message_type))
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(_hashing(algorithm, message_type)))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        else:
            assert isinstance(key, MlDsaPublicKey)
            _verify_ml_dsa(key, message, signature, message_type)
    except (WrongSignature, ValueError):
        raise InvalidSignature(f"the signature is not one of this message under {algorithm} and this key") from None


def _verify_ml_dsa(key: MlDsaPublicKey, message: bytes, signature: bytes, message_type: str) -> None:
    if message_type == EXTERNAL_MU:
        key.verify_mu(signature, message)
    else:
        key.verify(signature, message)


def _hash_of(algorithm: str) -> hashes.HashAlgorithm:
    return _HASHES[algorithm[-7:]]


def _hashing(algorithm: str, message_type: str) -> hashes.HashAlgorithm | Prehashed:
    one = _hash_of(algorithm)
    return Prehashed(one) if message_type == DIGEST else one


def _padding(algorithm: str) -> padding.PSS | padding.PKCS1v15:
    if algorithm.startswith("RSASSA_PSS"):
        # AWS: the salt is as long as the digest, and MGF1 has the same hash.
        return padding.PSS(padding.MGF1(_hash_of(algorithm)), padding.PSS.DIGEST_LENGTH)
    return padding.PKCS1v15()
