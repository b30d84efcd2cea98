"""Key specs: what each is for, in one table. Every refusal that depends on a key's spec or usage follows from it.

Source: https://docs.aws.amazon.com/kms/latest/developerguide/symm-asymm-choose-key-spec.html
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from envfs.errors import InvalidKeyUsage, UnsupportedOperation, Validation
from envfs.kms.model import ENCRYPT_DECRYPT, ORIGIN_EXTERNAL, ORIGIN_KMS, SYMMETRIC_DEFAULT

SIGN_VERIFY: Final = "SIGN_VERIFY"
GENERATE_VERIFY_MAC: Final = "GENERATE_VERIFY_MAC"
KEY_AGREEMENT: Final = "KEY_AGREEMENT"
ENCAPSULATE_DECAPSULATE: Final = "ENCAPSULATE_DECAPSULATE"
USAGES: Final = (ENCRYPT_DECRYPT, SIGN_VERIFY, GENERATE_VERIFY_MAC, KEY_AGREEMENT, ENCAPSULATE_DECAPSULATE)

ECDH: Final = "ECDH"
ML_KEM: Final = "ML_KEM"
ML_DSA_SHAKE_256: Final = "ML_DSA_SHAKE_256"
ED25519_SHA_512: Final = "ED25519_SHA_512"


class Family(enum.Enum):
    """The mathematics of a key spec."""

    SYMMETRIC = enum.auto()
    HMAC = enum.auto()
    RSA = enum.auto()
    ECC = enum.auto()
    EDWARDS = enum.auto()
    ML_DSA = enum.auto()
    ML_KEM = enum.auto()


@dataclass(frozen=True, slots=True)
class KeySpec:
    """One row of the table.

    `algorithms` has each usage that a key may be made for, with the algorithms it then has. `size` is in bytes for
    symmetric and HMAC keys, in bits for RSA keys, else 0. `import_sizes` are the lengths in bytes, least and greatest,
    of raw material that may be imported.
    """

    name: str
    family: Family
    algorithms: Mapping[str, tuple[str, ...]]
    size: int = 0
    importable: bool = True
    import_sizes: tuple[int, int] = (0, 0)
    data_key_pair: bool = False

    @property
    def is_asymmetric(self) -> bool:
        return self.family not in {Family.SYMMETRIC, Family.HMAC}


_RSA: Final = {
    ENCRYPT_DECRYPT: ("RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256"),
    SIGN_VERIFY: (
        "RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PKCS1_V1_5_SHA_384", "RSASSA_PKCS1_V1_5_SHA_512",
        "RSASSA_PSS_SHA_256", "RSASSA_PSS_SHA_384", "RSASSA_PSS_SHA_512",
    ),
}  # fmt: skip


def _hmac(bits: int, least: int, greatest: int) -> KeySpec:
    """Made as long as the digest (FIPS 198-1 section 3); imported up to the hash function's block."""
    algorithms = {GENERATE_VERIFY_MAC: (f"HMAC_SHA_{bits}",)}
    return KeySpec(f"HMAC_{bits}", Family.HMAC, algorithms, bits // 8, import_sizes=(least, greatest))


def _rsa(bits: int) -> KeySpec:
    return KeySpec(f"RSA_{bits}", Family.RSA, _RSA, bits, data_key_pair=True)


def _ecc(name: str, bits: int, *, agreement: bool = True) -> KeySpec:
    algorithms = {SIGN_VERIFY: (f"ECDSA_SHA_{bits}",)} | ({KEY_AGREEMENT: (ECDH,)} if agreement else {})
    return KeySpec(name, Family.ECC, algorithms, data_key_pair=True)


def _ml_dsa(level: int) -> KeySpec:
    return KeySpec(f"ML_DSA_{level}", Family.ML_DSA, {SIGN_VERIFY: (ML_DSA_SHAKE_256,)}, importable=False)


def _ml_kem(level: int) -> KeySpec:
    algorithms = {ENCAPSULATE_DECAPSULATE: (ML_KEM,)}
    return KeySpec(f"ML_KEM_{level}", Family.ML_KEM, algorithms, importable=False, data_key_pair=True)


SPECS: Final[Mapping[str, KeySpec]] = {
    spec.name: spec
    for spec in (
        KeySpec(
            SYMMETRIC_DEFAULT, Family.SYMMETRIC, {ENCRYPT_DECRYPT: (SYMMETRIC_DEFAULT,)}, 32, import_sizes=(32, 32)
        ),
        _hmac(224, 28, 64),
        _hmac(256, 32, 64),
        _hmac(384, 48, 128),
        _hmac(512, 64, 128),
        _rsa(2048),
        _rsa(3072),
        _rsa(4096),
        _ecc("ECC_NIST_P256", 256),
        _ecc("ECC_NIST_P384", 384),
        _ecc("ECC_NIST_P521", 512),
        _ecc("ECC_SECG_P256K1", 256, agreement=False),
        KeySpec("ECC_NIST_EDWARDS25519", Family.EDWARDS, {SIGN_VERIFY: (ED25519_SHA_512,)}, data_key_pair=True),
        _ml_dsa(44),
        _ml_dsa(65),
        _ml_dsa(87),
        _ml_kem(768),
        _ml_kem(1024),
    )
}

# AWS has these; the library that does our mathematics has not, and a wrong result is worse than none.
UNSUPPORTED_SPECS: Final = frozenset({"SM2", "ML_KEM_512"})
UNSUPPORTED_ALGORITHMS: Final = frozenset({"SM2DSA", "SM2PKE", "ED25519_PH_SHA_512"})
_ALGORITHMS: Final = frozenset(
    algorithm for spec in SPECS.values() for algorithms in spec.algorithms.values() for algorithm in algorithms
)

_OPERATIONS_OF: Final[Mapping[str, str]] = {
    ENCRYPT_DECRYPT: "Encrypt, Decrypt and ReEncrypt",
    SIGN_VERIFY: "Sign and Verify",
    GENERATE_VERIFY_MAC: "GenerateMac and VerifyMac",
    KEY_AGREEMENT: "DeriveSharedSecret",
    ENCAPSULATE_DECAPSULATE: "Encapsulate and Decapsulate",
}


def find_spec(name: str) -> KeySpec:
    """The key spec called `name`. UnsupportedOperation for one that only AWS has, Validation for none."""
    spec = SPECS.get(name)
    if spec is None:
        if name in UNSUPPORTED_SPECS:
            raise UnsupportedOperation(f"this KMS has no keys of the spec {name}")
        raise Validation(f"{name!r} is no key spec", hint=f"choose one of {', '.join(SPECS)}")
    return spec


def check_new_key(spec_name: str, usage: str | None, origin: str = ORIGIN_KMS) -> tuple[KeySpec, str]:
    """The spec and the usage of a key that is to be made. `usage` None is ENCRYPT_DECRYPT for symmetric keys, and
    missing for others (Validation). UnsupportedOperation for material that cannot be imported.
    """
    spec = find_spec(spec_name)
    if usage is None:
        if spec.family is not Family.SYMMETRIC:
            raise Validation(
                f"a key of the spec {spec.name} needs a key usage", hint=f"choose {' or '.join(spec.algorithms)}"
            )
        usage = ENCRYPT_DECRYPT
    if usage not in spec.algorithms:
        raise Validation(
            f"the key usage {usage} is not compatible with the key spec {spec.name}",
            hint=f"choose {' or '.join(spec.algorithms)}",
        )
    if origin == ORIGIN_EXTERNAL and not spec.importable:
        raise UnsupportedOperation(f"key material of the spec {spec.name} cannot be imported")
    return spec, usage


def algorithms_of(spec_name: str, usage: str) -> tuple[str, ...]:
    """The algorithms that a key of this spec and usage has, as DescribeKey and GetPublicKey list them."""
    return SPECS[spec_name].algorithms[usage]


def check_use(spec_name: str, key_usage: str, wanted: str, algorithm: str, key_arn: str) -> KeySpec:
    """The spec of a key, if it is for the usage `wanted` and has `algorithm`. InvalidKeyUsage if not;
    UnsupportedOperation for an algorithm that only AWS has, Validation for none.
    """
    spec = SPECS[spec_name]
    if algorithm not in _ALGORITHMS and algorithm not in UNSUPPORTED_ALGORITHMS:
        raise Validation(f"{algorithm!r} is no algorithm of this KMS")
    if key_usage != wanted:
        raise InvalidKeyUsage(
            f"the key usage of {key_arn} is {key_usage}; {_OPERATIONS_OF[wanted]} need {wanted}",
            hint="use another key: the usage of a key never changes",
        )
    if algorithm not in spec.algorithms[key_usage]:
        if algorithm in UNSUPPORTED_ALGORITHMS:
            raise UnsupportedOperation(f"this KMS has no algorithm {algorithm}")
        raise InvalidKeyUsage(
            f"the algorithm {algorithm} is not compatible with the key spec {spec.name} of {key_arn}",
            hint=f"choose {' or '.join(spec.algorithms[key_usage])}",
        )
    return spec


def check_pair_spec(name: str) -> KeySpec:
    """The spec of a data key pair. Validation for one that is none."""
    spec = find_spec(name)
    if not spec.data_key_pair:
        pairs = ", ".join(one.name for one in SPECS.values() if one.data_key_pair)
        raise Validation(f"{name} is no spec of data key pairs", hint=f"choose one of {pairs}")
    return spec
