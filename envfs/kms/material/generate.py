"""New key material."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, mlkem, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from envfs.crypto.secret import Secret
from envfs.kms.material.specs import Family, KeySpec, find_spec

PrivateKey: TypeAlias = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | mldsa.MLDSA44PrivateKey
    | mldsa.MLDSA65PrivateKey
    | mldsa.MLDSA87PrivateKey
    | mlkem.MLKEM768PrivateKey
    | mlkem.MLKEM1024PrivateKey
)
PublicKey: TypeAlias = (
    rsa.RSAPublicKey
    | ec.EllipticCurvePublicKey
    | ed25519.Ed25519PublicKey
    | mldsa.MLDSA44PublicKey
    | mldsa.MLDSA65PublicKey
    | mldsa.MLDSA87PublicKey
    | mlkem.MLKEM768PublicKey
    | mlkem.MLKEM1024PublicKey
)

PUBLIC_EXPONENT: Final = 65537  # FIPS 186-5 section 5.4 asks for at least this

CURVES: Final[Mapping[str, type[ec.EllipticCurve]]] = {
    "ECC_NIST_P256": ec.SECP256R1,
    "ECC_NIST_P384": ec.SECP384R1,
    "ECC_NIST_P521": ec.SECP521R1,
    "ECC_SECG_P256K1": ec.SECP256K1,
}
_OTHERS: Final[Mapping[str, Callable[[], PrivateKey]]] = {
    "ECC_NIST_EDWARDS25519": ed25519.Ed25519PrivateKey.generate,
    "ML_DSA_44": mldsa.MLDSA44PrivateKey.generate,
    "ML_DSA_65": mldsa.MLDSA65PrivateKey.generate,
    "ML_DSA_87": mldsa.MLDSA87PrivateKey.generate,
    "ML_KEM_768": mlkem.MLKEM768PrivateKey.generate,
    "ML_KEM_1024": mlkem.MLKEM1024PrivateKey.generate,
}


@dataclass(frozen=True, slots=True)
class Material:
    """What a backing key is made of: `private` is raw bytes (symmetric, HMAC) or PKCS #8 in DER; `public_key` is
    SubjectPublicKeyInfo in DER, and empty where there is none. Whoever gets it wipes `private`.
    """

    private: Secret
    public_key: bytes = b""


def generate(spec_name: str) -> Material:
    """Random material of a key spec. UnsupportedOperation or Validation for one that there is not. RSA takes 0.1 to
    several seconds.
    """
    spec = find_spec(spec_name)
    if not spec.is_asymmetric:
        return Material(Secret.random(spec.size))
    return serialise(_private_key(spec))


def _private_key(spec: KeySpec) -> PrivateKey:
    if spec.family is Family.RSA:
        return rsa.generate_private_key(PUBLIC_EXPONENT, spec.size)
    if spec.family is Family.ECC:
        return ec.generate_private_key(CURVES[spec.name]())
    return _OTHERS[spec.name]()


def serialise(key: PrivateKey) -> Material:
    """The one encoding that material of this key has in the store."""
    private = Secret(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    return Material(private, public_bytes(key.public_key()))


def public_bytes(key: PublicKey) -> bytes:
    """SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7) in DER."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
