from __future__ import annotations

from typing import Any

import botocore.session
import pytest

from envfs.errors import InvalidKeyUsage, KmsError, UnsupportedOperation, Validation
from envfs.kms.material.generate import generate
from envfs.kms.material.specs import (
    ED25519_SHA_512,
    SPECS,
    UNSUPPORTED_ALGORITHMS,
    UNSUPPORTED_SPECS,
    USAGES,
    Family,
    algorithms_of,
    check_new_key,
    check_pair_spec,
    check_use,
    find_spec,
)
from envfs.kms.model import ORIGIN_EXTERNAL


@pytest.fixture(scope="module")
def model() -> Any:
    return botocore.session.get_session().get_service_model("kms")


def test_the_specs_are_those_of_aws(model: Any) -> None:
    assert set(model.shape_for("KeySpec").enum) == set(SPECS) | UNSUPPORTED_SPECS
    pairs = {spec.name for spec in SPECS.values() if spec.data_key_pair}
    assert set(model.shape_for("DataKeyPairSpec").enum) == pairs | UNSUPPORTED_SPECS


def test_the_usages_are_those_of_aws(model: Any) -> None:
    assert set(model.shape_for("KeyUsageType").enum) == set(USAGES)
    assert {usage for spec in SPECS.values() for usage in spec.algorithms} == set(USAGES)


@pytest.mark.parametrize(
    ("shape", "usage"),
    [
        ("EncryptionAlgorithmSpec", "ENCRYPT_DECRYPT"),
        ("SigningAlgorithmSpec", "SIGN_VERIFY"),
        ("MacAlgorithmSpec", "GENERATE_VERIFY_MAC"),
        ("KeyAgreementAlgorithmSpec", "KEY_AGREEMENT"),
        ("EncapsulationAlgorithmSpec", "ENCAPSULATE_DECAPSULATE"),
    ],
)
def test_the_algorithms_are_those_of_aws(model: Any, shape: str, usage: str) -> None:
    ours = {algorithm for spec in SPECS.values() for algorithm in spec.algorithms.get(usage, ())}
    theirs = set(model.shape_for(shape).enum)
    assert ours <= theirs
    assert theirs - ours <= UNSUPPORTED_ALGORITHMS


# https://docs.aws.amazon.com/kms/latest/APIReference/API_CreateKey.html, KeyUsage
@pytest.mark.parametrize(
    ("spec", "usages"),
    [
        ("SYMMETRIC_DEFAULT", {"ENCRYPT_DECRYPT"}),
        ("HMAC_256", {"GENERATE_VERIFY_MAC"}),
        ("RSA_3072", {"ENCRYPT_DECRYPT", "SIGN_VERIFY"}),
        ("ECC_NIST_P384", {"SIGN_VERIFY", "KEY_AGREEMENT"}),
        ("ECC_SECG_P256K1", {"SIGN_VERIFY"}),
        ("ECC_NIST_EDWARDS25519", {"SIGN_VERIFY"}),
        ("ML_DSA_65", {"SIGN_VERIFY"}),
        ("ML_KEM_768", {"ENCAPSULATE_DECAPSULATE"}),
    ],
)
def test_what_a_key_can_be_made_for(spec: str, usages: set[str]) -> None:
    for usage in USAGES:
        if usage in usages:
            assert check_new_key(spec, usage) == (SPECS[spec], usage)
        else:
            with pytest.raises(Validation):
                check_new_key(spec, usage)


def test_only_a_symmetric_key_has_a_usage_by_default() -> None:
    assert check_new_key("SYMMETRIC_DEFAULT", None)[1] == "ENCRYPT_DECRYPT"
    for spec in SPECS.values():
        if spec.family is not Family.SYMMETRIC:
            with pytest.raises(Validation):
                check_new_key(spec.name, None)


@pytest.mark.parametrize("spec", sorted(SPECS))
def test_what_can_be_imported(spec: str) -> None:
    usage = next(iter(SPECS[spec].algorithms))
    if spec.startswith("ML_"):
        with pytest.raises(UnsupportedOperation):
            check_new_key(spec, usage, ORIGIN_EXTERNAL)
    else:
        check_new_key(spec, usage, ORIGIN_EXTERNAL)


@pytest.mark.parametrize(
    ("spec", "error"), [("SM2", UnsupportedOperation), ("ML_KEM_512", UnsupportedOperation), ("RSA_1024", Validation)]
)
def test_specs_that_there_are_not(spec: str, error: type[KmsError]) -> None:
    for call in (find_spec, check_pair_spec, generate, lambda name: check_new_key(name, "SIGN_VERIFY")):
        with pytest.raises(error):
            call(spec)


@pytest.mark.parametrize("spec", ["SYMMETRIC_DEFAULT", "HMAC_256", "ML_DSA_44"])
def test_what_is_no_data_key_pair(spec: str) -> None:
    with pytest.raises(Validation):
        check_pair_spec(spec)


@pytest.mark.parametrize(
    ("spec", "usage", "wanted", "algorithm", "error"),
    [
        ("RSA_2048", "SIGN_VERIFY", "ENCRYPT_DECRYPT", "RSAES_OAEP_SHA_256", InvalidKeyUsage),
        ("RSA_2048", "ENCRYPT_DECRYPT", "ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT", InvalidKeyUsage),
        ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "ENCRYPT_DECRYPT", "RSAES_OAEP_SHA_1", InvalidKeyUsage),
        ("ECC_NIST_P256", "SIGN_VERIFY", "SIGN_VERIFY", "ECDSA_SHA_384", InvalidKeyUsage),
        ("ECC_NIST_P256", "KEY_AGREEMENT", "SIGN_VERIFY", "ECDSA_SHA_256", InvalidKeyUsage),
        ("HMAC_256", "GENERATE_VERIFY_MAC", "GENERATE_VERIFY_MAC", "HMAC_SHA_512", InvalidKeyUsage),
        ("ECC_NIST_EDWARDS25519", "SIGN_VERIFY", "SIGN_VERIFY", "ED25519_PH_SHA_512", UnsupportedOperation),
        ("ECC_NIST_P256", "SIGN_VERIFY", "SIGN_VERIFY", "SM2DSA", UnsupportedOperation),
        ("RSA_2048", "ENCRYPT_DECRYPT", "ENCRYPT_DECRYPT", "RSAES_PKCS1_V1_5", Validation),
    ],
)
def test_uses_that_are_refused(spec: str, usage: str, wanted: str, algorithm: str, error: type[KmsError]) -> None:
    with pytest.raises(error):
        check_use(spec, usage, wanted, algorithm, "arn:x")


def test_lists_name_only_what_works() -> None:
    assert algorithms_of("ECC_NIST_EDWARDS25519", "SIGN_VERIFY") == (ED25519_SHA_512,)


@pytest.mark.parametrize(
    ("spec", "size"),
    [("SYMMETRIC_DEFAULT", 32), ("HMAC_224", 28), ("HMAC_256", 32), ("HMAC_384", 48), ("HMAC_512", 64)],
)
def test_how_long_raw_material_is(spec: str, size: int) -> None:
    first, second = generate(spec), generate(spec)
    assert len(first.private) == size
    assert first.public_key == b""
    assert first.private != second.private
