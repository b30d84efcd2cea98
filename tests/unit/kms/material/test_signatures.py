from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from envfs.errors import InvalidSignature, Validation
from envfs.kms.material.generate import public_bytes, serialise
from envfs.kms.material.keys import load_private_key, load_public_key
from envfs.kms.material.signatures import check_message, sign, verify
from envfs.kms.material.specs import SPECS
from tests.unit.kms.material.kit import material, needs_openssl, openssl, private_key, public_key

MESSAGE = b"the quick brown fox"
CASES = [
    (spec.name, algorithm)
    for spec in SPECS.values()
    for algorithm in spec.algorithms.get("SIGN_VERIFY", ())
    if spec.name not in {"RSA_3072", "RSA_4096"}  # as RSA_2048, and slow to make
]
PREHASHED = [(spec, algorithm) for spec, algorithm in CASES if not algorithm.startswith(("ED", "ML"))]


def digest(algorithm: str, message: bytes) -> bytes:
    return hashlib.new(f"sha{algorithm[-3:]}", message).digest()


@pytest.mark.parametrize(("spec", "algorithm"), CASES)
def test_a_signature_verifies(spec: str, algorithm: str) -> None:
    check_message(algorithm, MESSAGE, "RAW")
    signature = sign(private_key(spec), algorithm, MESSAGE, "RAW")
    verify(public_key(spec), algorithm, MESSAGE, signature, "RAW")


@pytest.mark.parametrize(("spec", "algorithm"), CASES)
@pytest.mark.parametrize("change", ["message", "signature", "shorter", "empty", "longer"])
def test_a_wrong_signature_does_not(spec: str, algorithm: str, change: str) -> None:
    signature = sign(private_key(spec), algorithm, MESSAGE, "RAW")
    message = MESSAGE
    if change == "message":
        message += b"."
    elif change == "signature":
        signature = signature[:-1] + bytes([signature[-1] ^ 1])
    else:
        signature = {"shorter": signature[:-1], "empty": b"", "longer": signature + b"\0"}[change]
    with pytest.raises(InvalidSignature):
        verify(public_key(spec), algorithm, message, signature, "RAW")


@pytest.mark.parametrize(("spec", "algorithm"), PREHASHED)
def test_a_digest_is_signed_as_the_message_is(spec: str, algorithm: str) -> None:
    of_message = sign(private_key(spec), algorithm, MESSAGE, "RAW")
    of_digest = sign(private_key(spec), algorithm, digest(algorithm, MESSAGE), "DIGEST")
    verify(public_key(spec), algorithm, MESSAGE, of_digest, "RAW")
    verify(public_key(spec), algorithm, digest(algorithm, MESSAGE), of_message, "DIGEST")
    with pytest.raises(InvalidSignature):
        verify(public_key(spec), algorithm, digest(algorithm, MESSAGE), of_message, "RAW")


@pytest.mark.parametrize(
    "algorithms", [("RSASSA_PSS_SHA_256", "RSASSA_PKCS1_V1_5_SHA_256"), ("RSASSA_PSS_SHA_256", "RSASSA_PSS_SHA_512")]
)
def test_another_algorithm_is_another_signature(algorithms: tuple[str, str]) -> None:
    signature = sign(private_key("RSA_2048"), algorithms[0], MESSAGE, "RAW")
    with pytest.raises(InvalidSignature):
        verify(public_key("RSA_2048"), algorithms[1], MESSAGE, signature, "RAW")


@pytest.mark.parametrize(
    ("spec", "algorithm"), [case for case in CASES if case[0].startswith("ECC_") and case[1][0:2] == "EC"]
)
def test_ecdsa_signatures_are_in_der(spec: str, algorithm: str) -> None:
    r, s = decode_dss_signature(sign(private_key(spec), algorithm, MESSAGE, "RAW"))
    assert r > 0
    assert s > 0


# RFC 8032 section 7.1, tests 2 and 3
@pytest.mark.parametrize(
    ("secret", "public", "message", "signature"),
    [
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            (
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
                "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
            ),
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            (
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
                "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
            ),
        ),
    ],
)
def test_ed25519_is_that_of_rfc_8032(secret: str, public: str, message: str, signature: str) -> None:
    made = serialise(ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret)))
    key = load_private_key("ECC_NIST_EDWARDS25519", made.private)
    assert sign(key, "ED25519_SHA_512", bytes.fromhex(message), "RAW").hex() == signature
    peer = load_public_key("ECC_NIST_EDWARDS25519", made.public_key)
    assert public_bytes(peer)[-32:].hex() == public
    verify(peer, "ED25519_SHA_512", bytes.fromhex(message), bytes.fromhex(signature), "RAW")


@pytest.mark.parametrize("level", [44, 65, 87])
def test_mu_is_that_of_fips_204(level: int) -> None:
    """mu = H(H(pk, 64) ‖ 0 ‖ |ctx| ‖ ctx ‖ M, 64) with H = SHAKE256 and an empty ctx (algorithms 2 and 7)."""
    spec, algorithm = f"ML_DSA_{level}", "ML_DSA_SHAKE_256"
    public = public_key(spec).public_bytes_raw()  # type: ignore[union-attr]
    mu = hashlib.shake_256(hashlib.shake_256(public).digest(64) + b"\0\0" + MESSAGE).digest(64)
    check_message(algorithm, mu, "EXTERNAL_MU")
    verify(public_key(spec), algorithm, MESSAGE, sign(private_key(spec), algorithm, mu, "EXTERNAL_MU"), "RAW")
    signature = sign(private_key(spec), algorithm, MESSAGE, "RAW")
    verify(public_key(spec), algorithm, mu, signature, "EXTERNAL_MU")
    with pytest.raises(InvalidSignature):
        verify(public_key(spec), algorithm, bytes(64), signature, "EXTERNAL_MU")
    with pytest.raises(InvalidSignature):
        verify(public_key(spec), algorithm, mu, signature, "RAW")


@pytest.mark.parametrize(
    ("algorithm", "message_type", "size"),
    [
        ("RSASSA_PSS_SHA_256", "RAW", 0),
        ("RSASSA_PSS_SHA_256", "RAW", 4097),
        ("RSASSA_PSS_SHA_256", "DIGEST", 31),
        ("RSASSA_PSS_SHA_384", "DIGEST", 32),
        ("ECDSA_SHA_512", "DIGEST", 65),
        ("ECDSA_SHA_256", "EXTERNAL_MU", 64),
        ("ED25519_SHA_512", "DIGEST", 64),
        ("ED25519_SHA_512", "EXTERNAL_MU", 64),
        ("ML_DSA_SHAKE_256", "DIGEST", 64),
        ("ML_DSA_SHAKE_256", "EXTERNAL_MU", 63),
        ("ML_DSA_SHAKE_256", "PREHASH", 64),
    ],
)
def test_messages_that_are_refused(algorithm: str, message_type: str, size: int) -> None:
    with pytest.raises(Validation):
        check_message(algorithm, bytes(size), message_type)


@pytest.mark.parametrize("size", [1, 4096])
def test_messages_that_are_taken(size: int) -> None:
    check_message("ECDSA_SHA_256", bytes(size), "RAW")


@pytest.mark.parametrize("salt_length", [0, 20, 64, 222])
def test_the_salt_of_pss_is_as_long_as_the_digest(salt_length: int) -> None:
    private = private_key("RSA_2048")
    assert isinstance(private, rsa.RSAPrivateKey)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt_length)
    signature = private.sign(MESSAGE, pss, hashes.SHA256())
    with pytest.raises(InvalidSignature):
        verify(public_key("RSA_2048"), "RSASSA_PSS_SHA_256", MESSAGE, signature, "RAW")


def test_mgf1_of_pss_has_the_hash_of_the_digest() -> None:
    private = private_key("RSA_2048")
    assert isinstance(private, rsa.RSAPrivateKey)
    pss = padding.PSS(padding.MGF1(hashes.SHA1()), 32)
    signature = private.sign(MESSAGE, pss, hashes.SHA256())
    with pytest.raises(InvalidSignature):
        verify(public_key("RSA_2048"), "RSASSA_PSS_SHA_256", MESSAGE, signature, "RAW")


N_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # NIST SP 800-186 section 3.2.1.3


@pytest.mark.parametrize(
    ("r", "s"), [(0, 0), (0, 1), (1, 0), (1, 1), (N_P256, 1), (1, N_P256), (N_P256 - 1, N_P256 - 1)]
)
def test_impossible_ecdsa_signatures_are_refused(r: int, s: int) -> None:
    with pytest.raises(InvalidSignature):
        verify(public_key("ECC_NIST_P256"), "ECDSA_SHA_256", MESSAGE, encode_dss_signature(r, s), "RAW")


@pytest.mark.parametrize("form", ["long length", "leading zero", "raw", "r + n"])
def test_an_ecdsa_signature_has_one_encoding(form: str) -> None:
    good = sign(private_key("ECC_NIST_P256"), "ECDSA_SHA_256", MESSAGE, "RAW")
    r, s = decode_dss_signature(good)
    other = {
        "long length": b"\x30\x81" + good[1:],
        "leading zero": b"\x30" + bytes([good[1] + 1]) + b"\x02" + bytes([good[3] + 1]) + b"\0" + good[4:],
        "raw": r.to_bytes(32, "big") + s.to_bytes(32, "big"),
        "r + n": encode_dss_signature(r + N_P256, s),
    }[form]
    with pytest.raises(InvalidSignature):
        verify(public_key("ECC_NIST_P256"), "ECDSA_SHA_256", MESSAGE, other, "RAW")


def test_an_ed25519_signature_is_not_malleable() -> None:
    """RFC 8032 section 5.1.7: S must be less than L."""
    order = 2**252 + 27742317777372353535851937790883648493
    good = sign(private_key("ECC_NIST_EDWARDS25519"), "ED25519_SHA_512", MESSAGE, "RAW")
    other = good[:32] + (int.from_bytes(good[32:], "little") + order).to_bytes(32, "little")
    with pytest.raises(InvalidSignature):
        verify(public_key("ECC_NIST_EDWARDS25519"), "ED25519_SHA_512", MESSAGE, other, "RAW")


@needs_openssl
@pytest.mark.parametrize(("spec", "algorithm"), [case for case in CASES if not case[0].startswith("ML_")])
def test_openssl_verifies_our_signatures(tmp_path: Path, spec: str, algorithm: str) -> None:
    signature = sign(private_key(spec), algorithm, MESSAGE, "RAW")
    files = {"key": material(spec).public_key, "signature": signature, "message": MESSAGE}
    verify_raw = ["pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER", "-inkey", "{key}"]
    arguments = [*verify_raw, "-in", "{message}", "-sigfile", "{signature}"]
    if not algorithm.startswith("ED"):
        arguments += ["-digest", f"sha{algorithm[-3:]}"]
    if "PSS" in algorithm:
        arguments += ["-pkeyopt", "rsa_padding_mode:pss", "-pkeyopt", "rsa_pss_saltlen:digest"]
    assert b"Verified Successfully" in openssl(tmp_path, *arguments, **files)
