"""Shared secrets: ECDH (NIST SP 800-56A section 5.7.1.2) and ML-KEM (FIPS 203)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from envfs.crypto.secret import Secret
from envfs.errors import FormatError, InvalidCiphertext, Validation
from envfs.kms.material.generate import PrivateKey, PublicKey
from envfs.kms.material.keys import MlKemPrivateKey, MlKemPublicKey, load_public_key

MAX_PUBLIC_KEY_SIZE: Final = 8192

# FIPS 203 table 3, in bytes.
_CIPHERTEXT_SIZES: Final[Mapping[str, int]] = {"ML_KEM_768": 1088, "ML_KEM_1024": 1568}


def load_peer(spec_name: str, der: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of the other side, in DER. Validation unless it is on the curve of `spec_name`."""
    if not 1 <= len(der) <= MAX_PUBLIC_KEY_SIZE:
        raise Validation(f"a public key has 1 to {MAX_PUBLIC_KEY_SIZE} bytes, not {len(der)}")
    try:
        key = load_public_key(spec_name, der)
    except FormatError as error:
        raise Validation(error.message, hint="both keys must be on the same curve") from None
    assert isinstance(key, ec.EllipticCurvePublicKey)  # specs for agreement are curves
    return key


def derive_shared_secret(key: PrivateKey, peer: ec.EllipticCurvePublicKey) -> Secret:
    """The x coordinate of the common point, raw: as many bytes as the curve's field has (32, 48, 66)."""
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return Secret(key.exchange(ec.ECDH(), peer))


def encapsulate(key: PublicKey) -> tuple[Secret, bytes]:
    """A fresh shared secret of 32 bytes, and its ciphertext for the owner of the private key."""
    assert isinstance(key, MlKemPublicKey)
    secret, ciphertext = key.encapsulate()
    return Secret(secret), ciphertext


def check_ciphertext(spec_name: str, ciphertext: bytes) -> None:
    """InvalidCiphertext for one of another length: all that ML-KEM tells from a right one."""
    if len(ciphertext) != _CIPHERTEXT_SIZES[spec_name]:
        raise InvalidCiphertext


def decapsulate(key: PrivateKey, ciphertext: bytes) -> Secret:
    """The shared secret of 32 bytes; for a ciphertext that was not made for this key it is another one (FIPS 203
    section 3.2, implicit rejection).
    """
    assert isinstance(key, MlKemPrivateKey)
    return Secret(key.decapsulate(ciphertext))
