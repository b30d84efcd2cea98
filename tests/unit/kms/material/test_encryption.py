from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from envfs.crypto.secret import Secret
from envfs.errors import InvalidCiphertext, Validation
from envfs.kms.material.encryption import check_plaintext, decrypt, encrypt, max_plaintext_size
from envfs.kms.material.specs import SPECS
from tests.unit.kms.material.kit import material, needs_openssl, openssl, private_key, public_key

ALGORITHMS = ["RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256"]


def keys() -> tuple[rsa.RSAPrivateKey, rsa.RSAPublicKey]:
    private, public = private_key("RSA_2048"), public_key("RSA_2048")
    assert isinstance(private, rsa.RSAPrivateKey)
    assert isinstance(public, rsa.RSAPublicKey)
    return private, public


# https://docs.aws.amazon.com/kms/latest/APIReference/API_Encrypt.html, Plaintext
@pytest.mark.parametrize(
    ("spec", "sizes"), [("RSA_2048", (214, 190)), ("RSA_3072", (342, 318)), ("RSA_4096", (470, 446))]
)
def test_how_much_one_encryption_takes(spec: str, sizes: tuple[int, int]) -> None:
    for algorithm, size in zip(ALGORITHMS, sizes, strict=True):
        assert max_plaintext_size(SPECS[spec], algorithm) == size
        check_plaintext(SPECS[spec], algorithm, size)
        for refused in (0, size + 1):
            with pytest.raises(Validation):
                check_plaintext(SPECS[spec], algorithm, refused)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("size", [1, 190])
def test_what_was_encrypted_comes_back(algorithm: str, size: int) -> None:
    private, public = keys()
    ciphertext = encrypt(public, algorithm, b"x" * size)
    assert len(ciphertext) == 256
    assert decrypt(private, algorithm, ciphertext) == Secret(b"x" * size)
    assert encrypt(public, algorithm, b"x" * size) != ciphertext


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_limits_are_those_of_the_mathematics(algorithm: str) -> None:
    _, public = keys()
    greatest = max_plaintext_size(SPECS["RSA_2048"], algorithm)
    encrypt(public, algorithm, bytes(greatest))
    with pytest.raises(ValueError, match=r"\w"):
        encrypt(public, algorithm, bytes(greatest + 1))


@pytest.mark.parametrize("change", ["bit", "short", "long", "empty", "algorithm", "zeros", "ones"])
def test_every_wrong_ciphertext_is_refused_alike(change: str) -> None:
    private, public = keys()
    good = encrypt(public, ALGORITHMS[1], b"x")
    algorithm = ALGORITHMS[0] if change == "algorithm" else ALGORITHMS[1]
    wrong = {
        "bit": good[:-1] + bytes([good[-1] ^ 1]),
        "short": good[:-1],
        "long": good + b"\0",
        "empty": b"",
        "algorithm": good,
        "zeros": bytes(256),
        "ones": b"\xff" * 256,
    }[change]
    with pytest.raises(InvalidCiphertext) as caught:
        decrypt(private, algorithm, wrong)
    assert (caught.value.message, caught.value.__cause__) == ("", None)


@needs_openssl
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_openssl_and_we_read_each_other(tmp_path: Path, algorithm: str) -> None:
    private, public = keys()
    digest = "sha1" if algorithm.endswith("_1") else "sha256"
    options = [
        "-pkeyopt",
        "rsa_padding_mode:oaep",
        "-pkeyopt",
        f"rsa_oaep_md:{digest}",
        "-pkeyopt",
        f"rsa_mgf1_md:{digest}",
    ]
    made = material("RSA_2048")
    theirs = openssl(
        tmp_path, "pkeyutl", "-encrypt", "-pubin", "-keyform", "DER", "-inkey", "{key}", "-in", "{plain}", *options,
        key=made.public_key, plain=b"secret",
    )  # fmt: skip
    assert decrypt(private, algorithm, theirs) == Secret(b"secret")
    read = openssl(
        tmp_path, "pkeyutl", "-decrypt", "-keyform", "DER", "-inkey", "{key}", "-in", "{cipher}", *options,
        key=bytes(made.private.expose()), cipher=encrypt(public, algorithm, b"secret"),
    )  # fmt: skip
    assert read == b"secret"
