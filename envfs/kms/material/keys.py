"""Reading private and public keys. FormatError for whatever is not a key of the spec in the one encoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, mlkem, rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key

from envfs.crypto.secret import Secret
from envfs.errors import FormatError
from envfs.kms.material.generate import CURVES, PUBLIC_EXPONENT, PrivateKey, PublicKey
from envfs.kms.material.specs import SPECS, Family

MlDsaPrivateKey: TypeAlias = mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey
MlDsaPublicKey: TypeAlias = mldsa.MLDSA44PublicKey | mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey
MlKemPrivateKey: TypeAlias = mlkem.MLKEM768PrivateKey | mlkem.MLKEM1024PrivateKey
MlKemPublicKey: TypeAlias = mlkem.MLKEM768PublicKey | mlkem.MLKEM1024PublicKey

_OTHERS: Final[Mapping[str, tuple[type, type]]] = {
    "ECC_NIST_EDWARDS25519": (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey),
    "ML_DSA_44": (mldsa.MLDSA44PrivateKey, mldsa.MLDSA44PublicKey),
    "ML_DSA_65": (mldsa.MLDSA65PrivateKey, mldsa.MLDSA65PublicKey),
    "ML_DSA_87": (mldsa.MLDSA87PrivateKey, mldsa.MLDSA87PublicKey),
    "ML_KEM_768": (mlkem.MLKEM768PrivateKey, mlkem.MLKEM768PublicKey),
    "ML_KEM_1024": (mlkem.MLKEM1024PrivateKey, mlkem.MLKEM1024PublicKey),
}


def load_private_key(spec_name: str, der: Secret, *, trusted: bool = False) -> PrivateKey:
    """The private key of a key spec from its PKCS #8 in DER (RFC 5958), not encrypted. `der` stays the caller's.

    `trusted`: it was authenticated, and checked when it was made or imported; then an RSA key's primes, whose check
    takes up to half a second, are not checked again.
    """
    raw = der.expose()
    _check_pkcs8(raw)
    try:
        key = load_der_private_key(raw, None, unsafe_skip_rsa_key_validation=trusted)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise FormatError("the private key cannot be read") from None
    if not _is_of(spec_name, key, private=True):
        raise FormatError(f"the private key is not of the spec {spec_name}")
    if isinstance(key, ec.EllipticCurvePrivateKey):
        # Computed anew: the structure may name a public key that is not this private key's.
        return ec.derive_private_key(key.private_numbers().private_value, CURVES[spec_name]())
    return cast("PrivateKey", key)


def load_public_key(spec_name: str, der: bytes) -> PublicKey:
    """The public key of a key spec from its SubjectPublicKeyInfo in DER (RFC 5280). A point must be on its curve."""
    try:
        key = load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise FormatError("the public key cannot be read: it is no SubjectPublicKeyInfo in DER") from None
    if not _is_of(spec_name, key, private=False):
        raise FormatError(f"the public key is not of the spec {spec_name}")
    return cast("PublicKey", key)


def _is_of(spec_name: str, key: object, *, private: bool) -> bool:
    spec = SPECS[spec_name]
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        public = key.public_key() if isinstance(key, rsa.RSAPrivateKey) else key
        strong = public.public_numbers().e >= PUBLIC_EXPONENT
        return spec.family is Family.RSA and key.key_size == spec.size and strong
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        return spec.family is Family.ECC and isinstance(key.curve, CURVES[spec_name])
    return spec_name in _OTHERS and isinstance(key, _OTHERS[spec_name][0 if private else 1])


def _check_pkcs8(raw: bytes | bytearray) -> None:
    """FormatError for the older encodings, which the library reads as well: in PKCS #8 the version is followed by a
    SEQUENCE, in PKCS #1 by an INTEGER, in SEC 1 by an OCTET STRING.
    """
    start = 2 + (raw[1] & 0x7F if len(raw) > 1 and raw[1] & 0x80 else 0)
    if raw[:1] != b"\x30" or raw[start : start + 2] != b"\x02\x01" or raw[start + 3 : start + 4] != b"\x30":
        raise FormatError("the private key is not in PKCS #8")
