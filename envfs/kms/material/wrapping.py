"""Imported key material: how it is wrapped on its way, and what may be in it.

https://docs.aws.amazon.com/kms/latest/developerguide/importing-keys-get-public-key-and-token.html
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap_with_padding

from envfs.crypto.secret import Secret
from envfs.errors import FormatError, InvalidCiphertext, UnsupportedOperation, Validation
from envfs.kms.material.encryption import decrypt
from envfs.kms.material.generate import Material, serialise
from envfs.kms.material.keys import load_private_key
from envfs.kms.material.specs import Family, KeySpec

# The order counts in these two: the position is the number in import tokens (FORMAT.md 9.6).
WRAPPING_KEY_SPECS: Final = ("RSA_2048", "RSA_3072", "RSA_4096")
_OAEP: Final = ("RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256")
_KEY_WRAP: Final = ("RSA_AES_KEY_WRAP_SHA_1", "RSA_AES_KEY_WRAP_SHA_256")
WRAPPING_ALGORITHMS: Final = (*_OAEP, *_KEY_WRAP)
_ONLY_AWS: Final = ("RSAES_PKCS1_V1_5", "SM2PKE", "SM2")

MAX_ENCRYPTED_SIZE: Final = 6144

_ALGORITHMS: Final = {
    Family.SYMMETRIC: _OAEP,
    Family.HMAC: _OAEP,
    Family.RSA: _KEY_WRAP,  # a private key is longer than what OAEP takes
    Family.ECC: (*_OAEP, *_KEY_WRAP),
    Family.EDWARDS: (*_OAEP, *_KEY_WRAP),
}


def check_wrapping(spec: KeySpec, algorithm: str, wrapping_key_spec: str) -> None:
    """UnsupportedOperation if material of `spec` cannot be wrapped this way; Validation for what AWS does not have
    either.
    """
    for value, known, what in (
        (wrapping_key_spec, WRAPPING_KEY_SPECS, "spec of wrapping keys"),
        (algorithm, WRAPPING_ALGORITHMS, "wrapping algorithm"),
    ):
        if value in _ONLY_AWS:
            raise UnsupportedOperation(f"{value} is not supported", hint=f"choose one of {', '.join(known)}")
        if value not in known:
            raise Validation(f"{value!r} is no {what}", hint=f"choose one of {', '.join(known)}")
    possible = _ALGORITHMS[spec.family]
    if algorithm not in possible:
        raise UnsupportedOperation(
            f"material of the spec {spec.name} cannot be wrapped with {algorithm}",
            hint=f"choose one of {', '.join(possible)}",
        )
    if spec.name == "ECC_NIST_P521" and wrapping_key_spec == "RSA_2048" and algorithm in _OAEP:
        raise UnsupportedOperation(
            f"{algorithm} with RSA_2048 is too short for material of the spec {spec.name}",
            hint="choose a longer wrapping key, or RSA_AES_KEY_WRAP_SHA_256",
        )


def unwrap(key: rsa.RSAPrivateKey, algorithm: str, encrypted: bytes) -> Secret:
    """The material that was wrapped under `key`. InvalidCiphertext, always the same, if it was not.

    RSA_AES_KEY_WRAP_…: an AES key under RSA-OAEP, and behind it the material under that (AES-KWP, RFC 5649), as in
    PKCS #11's CKM_RSA_AES_KEY_WRAP.
    """
    if not 1 <= len(encrypted) <= MAX_ENCRYPTED_SIZE:
        raise InvalidCiphertext
    if algorithm in _OAEP:
        return decrypt(key, algorithm, encrypted)
    modulus_size = key.key_size // 8
    with decrypt(key, algorithm, encrypted[:modulus_size]) as wrapping_key:
        try:
            raw = aes_key_unwrap_with_padding(bytes(wrapping_key.expose()), encrypted[modulus_size:])
        except (InvalidUnwrap, ValueError):
            raise InvalidCiphertext from None
    return Secret(raw)


def read_material(spec: KeySpec, raw: Secret) -> Material:
    """What `raw` is for a key of `spec`, in the encoding of the store. FormatError if it is none."""
    if spec.is_asymmetric:
        return serialise(load_private_key(spec.name, raw))
    least, greatest = spec.import_sizes
    if not least <= len(raw) <= greatest:
        sizes = f"{least}" if least == greatest else f"{least} to {greatest}"
        raise FormatError(f"material of the spec {spec.name} has {sizes} bytes, not {len(raw)}")
    return Material(Secret(raw.expose()))
