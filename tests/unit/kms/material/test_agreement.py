from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from envfs.crypto.secret import Secret
from envfs.errors import InvalidCiphertext, Validation
from envfs.kms.material.agreement import check_ciphertext, decapsulate, derive_shared_secret, encapsulate, load_peer
from envfs.kms.material.generate import CURVES, public_bytes
from tests.unit.kms.material.kit import material, needs_openssl, openssl, private_key, public_key


@pytest.mark.parametrize(("spec", "size"), [("ECC_NIST_P256", 32), ("ECC_NIST_P384", 48), ("ECC_NIST_P521", 66)])
def test_both_sides_get_the_same(spec: str, size: int) -> None:
    other = ec.generate_private_key(CURVES[spec]())
    ours = derive_shared_secret(private_key(spec), load_peer(spec, public_bytes(other.public_key())))
    own = load_peer(spec, material(spec).public_key)
    assert ours == Secret(other.exchange(ec.ECDH(), own))
    assert len(ours) == size


def test_a_vector_of_nist() -> None:
    """CAVP, KAS_ECC_CDH_PrimitiveTest, P-256, count 0."""
    x = 0x700C48F77F56584C5CC632CA65640DB91B6BACCE3A4DF6B42CE7CC838833D287
    y = 0xDB71E509E3FD9B060DDB20BA5C51DCC5948D46FBF640DFE0441782CAB85FA4AC
    private = ec.derive_private_key(0x7D7DC5F71EB29DDAF80D6214632EEAE03D9058AF1FB6D22ED80BADB62BC1A534, ec.SECP256R1())
    peer = public_bytes(ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key())
    secret = derive_shared_secret(private, load_peer("ECC_NIST_P256", peer))
    assert secret.expose().hex() == "46fc62106420ff012e54a434fbdd2d25ccc5852060561e68040dd7778997bd7b"


def off_the_curve() -> bytes:
    der = bytearray(material("ECC_NIST_P256").public_key)
    der[-1] ^= 1
    return bytes(der)


@pytest.mark.parametrize(
    "peer",
    [
        pytest.param(lambda: material("ECC_NIST_P384").public_key, id="another curve"),
        pytest.param(lambda: material("ECC_SECG_P256K1").public_key, id="another curve of the same size"),
        pytest.param(lambda: material("ECC_NIST_EDWARDS25519").public_key, id="another family"),
        pytest.param(off_the_curve, id="a point off the curve"),
        pytest.param(lambda: bytes(material("ECC_NIST_P256").private.expose()), id="a private key"),
        pytest.param(
            lambda: public_key("ECC_NIST_P256").public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), id="PEM"
        ),
        pytest.param(lambda: material("ECC_NIST_P256").public_key + b"\0", id="trailing bytes"),
        pytest.param(lambda: b"", id="nothing"),
        pytest.param(lambda: bytes(8193), id="too much"),
    ],
)
def test_peers_that_are_refused(peer: object) -> None:
    assert callable(peer)
    with pytest.raises(Validation):
        load_peer("ECC_NIST_P256", peer())


@needs_openssl
@pytest.mark.parametrize("spec", ["ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521"])
def test_openssl_derives_the_same(tmp_path: Path, spec: str) -> None:
    other = ec.generate_private_key(CURVES[spec]())
    theirs = openssl(
        tmp_path, "pkeyutl", "-derive", "-keyform", "DER", "-inkey", "{key}", "-peerform", "DER", "-peerkey", "{peer}",
        key=other.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), peer=material(spec).public_key,
    )  # fmt: skip
    ours = derive_shared_secret(private_key(spec), load_peer(spec, public_bytes(other.public_key())))
    assert ours == Secret(theirs)


@pytest.mark.parametrize("spec", ["ML_KEM_768", "ML_KEM_1024"])
def test_what_was_encapsulated_comes_back(spec: str) -> None:
    secret, ciphertext = encapsulate(public_key(spec))
    assert len(secret) == 32
    check_ciphertext(spec, ciphertext)
    assert decapsulate(private_key(spec), ciphertext) == secret
    again, other = encapsulate(public_key(spec))
    assert again != secret
    assert other != ciphertext


@pytest.mark.parametrize("spec", ["ML_KEM_768", "ML_KEM_1024"])
def test_a_wrong_ciphertext_is_rejected_without_a_word(spec: str) -> None:
    """FIPS 203 algorithm 18: the outcome is then SHAKE256(z ‖ c, 32), where the seed of the key is d ‖ z."""
    secret, ciphertext = encapsulate(public_key(spec))
    wrong = ciphertext[:-1] + bytes([ciphertext[-1] ^ 1])
    seed = private_key(spec).private_bytes_raw()  # type: ignore[union-attr]
    found = decapsulate(private_key(spec), wrong)
    assert found != secret
    assert found == Secret(hashlib.shake_256(seed[32:] + wrong).digest(32))


@pytest.mark.parametrize("spec", ["ML_KEM_768", "ML_KEM_1024"])
@pytest.mark.parametrize("by", [-1, 1])
def test_another_length_is_invalid_ciphertext(spec: str, by: int) -> None:
    _, ciphertext = encapsulate(public_key(spec))
    with pytest.raises(InvalidCiphertext):
        check_ciphertext(spec, bytes(len(ciphertext) + by))
