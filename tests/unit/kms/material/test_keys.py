from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from envfs.crypto.secret import Secret
from envfs.errors import FormatError
from envfs.kms.material.generate import public_bytes, serialise
from envfs.kms.material.keys import load_private_key, load_public_key
from envfs.kms.material.specs import SPECS
from tests.unit.kms.material.kit import material, needs_openssl, openssl

SOME = [spec.name for spec in SPECS.values() if spec.is_asymmetric and spec.name not in {"RSA_3072", "RSA_4096"}]


@pytest.mark.parametrize("spec", SOME)
@pytest.mark.parametrize("trusted", [False, True])
def test_a_key_has_one_encoding(spec: str, trusted: bool) -> None:
    made = material(spec)
    again = serialise(load_private_key(spec, made.private, trusted=trusted))
    assert again.private == made.private
    assert again.public_key == made.public_key
    assert public_bytes(load_public_key(spec, made.public_key)) == made.public_key
    assert not made.private.is_wiped


@pytest.mark.parametrize("spec", SOME)
def test_a_key_of_another_spec_is_refused(spec: str) -> None:
    made = material(spec)
    for other in SPECS:
        if other != spec:
            with pytest.raises(FormatError):
                load_private_key(other, made.private)
            with pytest.raises(FormatError):
                load_public_key(other, made.public_key)


@pytest.mark.parametrize("spec", SOME)
@pytest.mark.parametrize("damage", ["empty", "cut", "longer", "public", "noise"])
def test_what_is_no_private_key_is_refused(spec: str, damage: str) -> None:
    made = material(spec)
    raw = bytes(made.private.expose())
    bad = {"empty": b"", "cut": raw[:-1], "longer": raw + b"\0", "public": made.public_key, "noise": b"0" * 40}[damage]
    with pytest.raises(FormatError):
        load_private_key(spec, Secret(bad))


@pytest.mark.parametrize("spec", ["RSA_2048", "ECC_NIST_P256"])
def test_only_pkcs8_and_not_encrypted(spec: str) -> None:
    key = load_der_private_key(material(spec).private.expose(), None)
    older = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    encrypted = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    for raw in (older, encrypted):
        with pytest.raises(FormatError):
            load_private_key(spec, Secret(raw))


def test_an_rsa_key_with_a_small_exponent_is_refused() -> None:
    made = serialise(rsa.generate_private_key(3, 2048))
    with pytest.raises(FormatError):
        load_private_key("RSA_2048", made.private)
    with pytest.raises(FormatError):
        load_public_key("RSA_2048", made.public_key)


def test_rsa_primes_that_do_not_belong_together_are_refused() -> None:
    first = load_der_private_key(material("RSA_2048").private.expose(), None)
    assert isinstance(first, rsa.RSAPrivateKey)
    numbers = first.private_numbers()
    other = rsa.RSAPrivateNumbers(
        numbers.p, numbers.q, numbers.d + 2, numbers.dmp1, numbers.dmq1, numbers.iqmp, numbers.public_numbers
    ).private_key(unsafe_skip_rsa_key_validation=True)
    with pytest.raises(FormatError):
        load_private_key("RSA_2048", serialise(other).private)


def test_a_public_key_within_the_private_one_is_not_believed() -> None:
    """In the PKCS #8 of an ECC key stands its public key, too: here another's."""
    mine, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    raw = bytes(serialise(mine).private.expose())
    own_point, point = (public_bytes(key.public_key())[-65:] for key in (mine, other))
    assert own_point in raw
    mixed = Secret(raw.replace(own_point, point))
    try:
        read = load_private_key("ECC_NIST_P256", mixed)
    except FormatError:
        return
    assert public_bytes(read.public_key()) == public_bytes(mine.public_key())


@needs_openssl
@pytest.mark.parametrize(
    ("spec", "arguments"),
    [
        ("RSA_2048", ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
        ("ECC_NIST_P384", ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        ("ECC_SECG_P256K1", ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"]),
        ("ECC_NIST_EDWARDS25519", ["-algorithm", "ED25519"]),
    ],
)
def test_keys_of_openssl_are_read(tmp_path: Path, spec: str, arguments: list[str]) -> None:
    pem = openssl(tmp_path, "genpkey", *arguments)
    der = openssl(tmp_path, "pkcs8", "-topk8", "-nocrypt", "-in", "{pem}", "-outform", "DER", pem=pem)
    public = openssl(tmp_path, "pkey", "-in", "{pem}", "-pubout", "-outform", "DER", pem=pem)
    made = serialise(load_private_key(spec, Secret(der)))
    assert made.public_key == public
    # The id of imported material depends on the encoding: it must never change.
    assert made.private == Secret(der)
