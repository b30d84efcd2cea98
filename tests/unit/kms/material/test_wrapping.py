from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding

from envfs.crypto.secret import Secret
from envfs.errors import FormatError, InvalidCiphertext, KmsError, UnsupportedOperation, Validation
from envfs.kms.material.encryption import encrypt
from envfs.kms.material.specs import SPECS
from envfs.kms.material.wrapping import (
    WRAPPING_ALGORITHMS,
    check_wrapping,
    read_material,
    unwrap,
)
from tests.unit.kms.material.kit import material, needs_openssl, openssl, private_key, public_key

OAEP = ["RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256"]
KEY_WRAP = ["RSA_AES_KEY_WRAP_SHA_1", "RSA_AES_KEY_WRAP_SHA_256"]


def wrapping_key() -> rsa.RSAPrivateKey:
    key = private_key("RSA_2048")
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def wrap(raw: bytes, algorithm: str) -> bytes:
    public = public_key("RSA_2048")
    assert isinstance(public, rsa.RSAPublicKey)
    if algorithm in OAEP:
        return encrypt(public, algorithm, raw)
    key = os.urandom(32)
    return encrypt(public, algorithm, key) + aes_key_wrap_with_padding(key, raw)


# https://docs.aws.amazon.com/kms/latest/developerguide/importing-keys-get-public-key-and-token.html
@pytest.mark.parametrize(
    ("spec", "algorithms"),
    [
        ("SYMMETRIC_DEFAULT", OAEP),
        ("HMAC_512", OAEP),
        ("RSA_2048", KEY_WRAP),
        ("RSA_4096", KEY_WRAP),
        ("ECC_NIST_P256", OAEP + KEY_WRAP),
        ("ECC_NIST_EDWARDS25519", OAEP + KEY_WRAP),
    ],
)
def test_what_can_be_wrapped_how(spec: str, algorithms: list[str]) -> None:
    for algorithm in WRAPPING_ALGORITHMS:
        if algorithm in algorithms:
            check_wrapping(SPECS[spec], algorithm, "RSA_2048")
        else:
            with pytest.raises(UnsupportedOperation):
                check_wrapping(SPECS[spec], algorithm, "RSA_4096")


def test_p521_does_not_fit_under_rsa_2048() -> None:
    for algorithm in OAEP:
        with pytest.raises(UnsupportedOperation):
            check_wrapping(SPECS["ECC_NIST_P521"], algorithm, "RSA_2048")
        check_wrapping(SPECS["ECC_NIST_P521"], algorithm, "RSA_3072")
    check_wrapping(SPECS["ECC_NIST_P521"], KEY_WRAP[0], "RSA_2048")


@pytest.mark.parametrize(
    ("algorithm", "spec", "error"),
    [
        ("RSAES_PKCS1_V1_5", "RSA_2048", UnsupportedOperation),
        ("SM2PKE", "SM2", UnsupportedOperation),
        ("RSAES_OAEP_SHA_256", "SM2", UnsupportedOperation),
        ("RSAES_OAEP_SHA_512", "RSA_2048", Validation),
        ("RSAES_OAEP_SHA_256", "RSA_1024", Validation),
    ],
)
def test_ways_of_wrapping_that_there_are_not(algorithm: str, spec: str, error: type[KmsError]) -> None:
    with pytest.raises(error):
        check_wrapping(SPECS["SYMMETRIC_DEFAULT"], algorithm, spec)


@pytest.mark.parametrize("algorithm", WRAPPING_ALGORITHMS)
@pytest.mark.parametrize("size", [1, 32, 100])
def test_what_was_wrapped_comes_back(algorithm: str, size: int) -> None:
    raw = os.urandom(size)
    assert unwrap(wrapping_key(), algorithm, wrap(raw, algorithm)) == Secret(raw)


@pytest.mark.parametrize("algorithm", WRAPPING_ALGORITHMS)
@pytest.mark.parametrize("damage", ["first", "last", "cut", "longer", "empty", "rsa alone", "too long", "algorithm"])
def test_what_was_not_wrapped_so_is_invalid_ciphertext(algorithm: str, damage: str) -> None:
    good = wrap(bytes(100), algorithm)
    position = WRAPPING_ALGORITHMS.index(algorithm)
    bad = {
        "first": bytes([good[0] ^ 1]) + good[1:],
        "last": good[:-1] + bytes([good[-1] ^ 1]),
        "cut": good[:-1],
        "longer": good + b"\0",
        "empty": b"",
        "rsa alone": good[:255],
        "too long": good + bytes(6145),
        "algorithm": wrap(bytes(100), WRAPPING_ALGORITHMS[position ^ 1]),
    }[damage]
    with pytest.raises(InvalidCiphertext) as caught:
        unwrap(wrapping_key(), algorithm, bad)
    assert (caught.value.message, caught.value.__cause__) == ("", None)


# https://docs.aws.amazon.com/kms/latest/developerguide/importing-keys-conceptual.html, requirements
@pytest.mark.parametrize(
    ("spec", "least", "greatest"),
    [
        ("SYMMETRIC_DEFAULT", 32, 32),
        ("HMAC_224", 28, 64),
        ("HMAC_256", 32, 64),
        ("HMAC_384", 48, 128),
        ("HMAC_512", 64, 128),
    ],
)
def test_how_long_imported_material_is(spec: str, least: int, greatest: int) -> None:
    for size in (least, greatest):
        raw = Secret.random(size)
        assert read_material(SPECS[spec], raw).private == raw
    for size in (0, least - 1, greatest + 1):
        with pytest.raises(FormatError):
            read_material(SPECS[spec], Secret(bytes(size)))


def test_what_is_read_is_the_callers_to_wipe() -> None:
    raw = Secret.random()
    read = read_material(SPECS["SYMMETRIC_DEFAULT"], raw)
    raw.wipe()
    assert not read.private.is_wiped


@pytest.mark.parametrize("spec", ["RSA_2048", "ECC_NIST_P256", "ECC_NIST_EDWARDS25519"])
def test_private_keys_are_read_into_the_encoding_of_the_store(spec: str) -> None:
    made = material(spec)
    read = read_material(SPECS[spec], made.private)
    assert read.private == made.private
    assert read.public_key == made.public_key


@needs_openssl
@pytest.mark.parametrize("algorithm", WRAPPING_ALGORITHMS)
def test_what_openssl_wraps_is_read(tmp_path: Path, algorithm: str) -> None:
    """As in AWS's instructions: AES-KWP with `id-aes256-wrap-pad` and the default IV of RFC 5649."""
    digest = "sha1" if algorithm.endswith("_1") else "sha256"
    raw, key = os.urandom(48), os.urandom(32)
    inner = raw if algorithm in OAEP else key
    wrapped = openssl(
        tmp_path, "pkeyutl", "-encrypt", "-pubin", "-keyform", "DER", "-inkey", "{key}", "-in", "{plain}",
        "-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", f"rsa_oaep_md:{digest}", "-pkeyopt", f"rsa_mgf1_md:{digest}",
        key=material("RSA_2048").public_key, plain=inner,
    )  # fmt: skip
    if algorithm in KEY_WRAP:
        wrapped += openssl(
            tmp_path, "enc", "-id-aes256-wrap-pad", "-K", key.hex(), "-iv", "A65959A6", "-in", "{plain}", plain=raw
        )
    assert unwrap(wrapping_key(), algorithm, wrapped) == Secret(raw)
