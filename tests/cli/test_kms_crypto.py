"""`envfs kms encrypt` and its neighbours: bytes in, bytes out."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import CommandLine

BINARY = bytes(range(256))


@pytest.fixture(autouse=True)
def work(envfs: CommandLine, tmp_path: Path) -> Path:
    envfs("kms init")
    envfs("key create --alias one")
    (tmp_path / "plain").write_bytes(BINARY)
    return tmp_path


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_bytes_come_back_as_they_went(envfs: CommandLine, work: Path) -> None:
    assert envfs("kms encrypt alias/one plain -o sealed --context a=b").out == ""
    assert BINARY not in (work / "sealed").read_bytes()
    assert envfs("kms decrypt sealed -o opened --context a=b").out == ""
    assert (work / "opened").read_bytes() == BINARY
    assert mode(work / "opened") == 0o600


def test_a_file_that_anybody_could_read_does_not_stay_so(envfs: CommandLine, work: Path) -> None:
    (work / "opened").write_bytes(b"old")
    (work / "opened").chmod(0o644)
    envfs("kms encrypt alias/one plain -o sealed")
    with (work / "opened").open("rb") as held:
        assert envfs("kms decrypt sealed -o opened").code == 0
        assert held.read() == b"old", "who had it open does not see the plaintext either"
    assert mode(work / "opened") == 0o600
    assert sorted(path.name for path in work.iterdir()) == ["kms", "opened", "plain", "sealed"]


def test_a_refusal_leaves_the_output_file_alone(envfs: CommandLine, work: Path) -> None:
    envfs("kms encrypt alias/one plain -o sealed --context a=b")
    (work / "opened").write_bytes(b"old")
    answer = envfs("kms decrypt sealed -o opened --context a=c")
    assert answer.code == 4
    assert answer.err.startswith("envfs: InvalidCiphertextException\n  next: ")
    assert (work / "opened").read_bytes() == b"old"


def test_through_pipes(work: Path) -> None:
    def run(line: str, content: bytes) -> bytes:
        program = [sys.executable, "-m", "envfs.cli", "kms", *line.split()]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        done = subprocess.run(program, input=content, env=environment, capture_output=True, timeout=60, check=True)
        assert done.stderr == b""
        return done.stdout

    assert run("decrypt", run("encrypt alias/one", BINARY)) == BINARY


def test_base64_is_for_what_is_no_plaintext(envfs: CommandLine, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = envfs("kms encrypt alias/one plain --base64").out
    assert text.endswith("\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert envfs("kms decrypt --base64 -o opened").code == 0
    assert (work / "opened").read_bytes() == BINARY
    (work / "broken").write_text(text[:-3])
    broken = envfs("kms decrypt broken --base64")
    assert broken.code == 3
    assert "is not base64" in broken.err


def test_json_has_everything_as_base64(envfs: CommandLine, work: Path) -> None:
    sealed = envfs("kms encrypt alias/one plain --json").json
    assert list(sealed) == ["ciphertext_blob", "arn", "encryption_algorithm"]
    (work / "sealed").write_bytes(base64.b64decode(sealed["ciphertext_blob"]))
    opened = envfs("kms decrypt sealed --json").json
    assert base64.b64decode(opened["plaintext"]) == BINARY
    assert opened["arn"] == sealed["arn"]


def test_a_dry_run_says_that_it_would_have_succeeded_and_gives_nothing(envfs: CommandLine, work: Path) -> None:
    envfs("kms encrypt alias/one plain -o sealed")
    for line in (
        "kms encrypt alias/one plain -o none",
        "kms decrypt sealed -o none",
        "kms generate-data-key alias/one",
    ):
        answer = envfs(f"{line} --dry-run")
        assert (answer.code, answer.out, answer.err) == (0, "it would have succeeded\n", "")
    assert not (work / "none").exists()
    envfs("key disable alias/one")
    assert envfs("kms decrypt sealed --dry-run").code == 4


def test_a_large_file_is_pointed_to_data_keys(envfs: CommandLine, work: Path) -> None:
    (work / "plain").write_bytes(bytes(64 * 1024 + 1))
    answer = envfs("kms encrypt alias/one plain -o none")
    assert answer.code == 3
    assert "next: encrypt large files under a data key (envfs kms generate-data-key)" in answer.err
    (work / "plain").write_bytes(bytes(4097))
    answer = envfs("kms encrypt alias/one plain -o none")
    assert answer.code == 4
    assert "ValidationException" in answer.err
    assert not (work / "none").exists()


def test_it_is_encrypted_anew_under_another_key(envfs: CommandLine, work: Path) -> None:
    envfs("key create --alias two")
    envfs("kms encrypt alias/one plain -o sealed --context a=b")
    assert envfs("kms re-encrypt sealed -o renewed --to alias/two --context a=b --to-context c=d").code == 0
    envfs("key disable alias/one")
    assert envfs("kms decrypt renewed --key alias/two --context c=d -o opened").code == 0
    assert (work / "opened").read_bytes() == BINARY
    wrong = envfs("kms decrypt renewed --key alias/one --context c=d")
    assert wrong.code == 4
    assert "IncorrectKeyException" in wrong.err


def test_a_data_key_in_both_forms(envfs: CommandLine, work: Path) -> None:
    answer = envfs("kms generate-data-key alias/one --plaintext-file key --ciphertext-file key.enc --context a=b")
    assert answer.code == 0
    assert (mode(work / "key"), (work / "key").stat().st_size) == (0o600, 32)
    assert answer.out.startswith("arn ")
    assert envfs("kms decrypt key.enc -o again --context a=b").code == 0
    assert (work / "again").read_bytes() == (work / "key").read_bytes()


def test_a_data_key_that_nobody_sees(envfs: CommandLine, work: Path) -> None:
    assert envfs("kms generate-data-key alias/one --bytes 64 --ciphertext-file key.enc").code == 0
    assert envfs("kms decrypt key.enc -o key").code == 0
    assert (work / "key").stat().st_size == 64
    shown = envfs("kms generate-data-key alias/one --without-plaintext --json").json
    assert "plaintext" not in shown
    assert "plaintext" in envfs("kms generate-data-key alias/one --json").json
    records = envfs("audit tail -n 20 --json").out
    assert '"GenerateDataKeyWithoutPlaintext"' in records


@pytest.mark.parametrize(
    "line", ["generate-data-key alias/one", "generate-data-key alias/one --plaintext-file key", "encapsulate alias/one"]
)
def test_a_key_that_nobody_would_keep_is_not_made(line: str, envfs: CommandLine, work: Path) -> None:
    answer = envfs(f"kms {line}")
    assert answer.code == 2
    assert "--json" in answer.err
    assert not (work / "key").exists()


def test_a_key_pair_whose_private_key_comes_back(envfs: CommandLine, work: Path) -> None:
    line = "kms generate-data-key-pair alias/one --spec ECC_NIST_P256 --public-file public.pem"
    assert envfs(f"{line} --private-file private.pem --ciphertext-file private.enc").code == 0
    private = load_pem_private_key((work / "private.pem").read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    written = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert (work / "public.pem").read_bytes() == written
    assert mode(work / "private.pem") == 0o600
    assert envfs("kms decrypt private.enc -o private.der").code == 0
    assert base64.b64encode((work / "private.der").read_bytes()).decode() in (work / "private.pem").read_text().replace(
        "\n", ""
    )
    assert envfs(f"{line} --ciphertext-file private.enc").code == 0
    assert "private_key_plaintext" not in envfs(f"{line} --without-plaintext --json").json


def test_random_bytes(envfs: CommandLine, work: Path) -> None:
    assert envfs("kms generate-random 24 -o random").code == 0
    assert ((work / "random").stat().st_size, mode(work / "random")) == (24, 0o600)
    assert len(base64.b64decode(envfs("kms generate-random 24 --base64").out)) == 24
    assert "ValidationException" in envfs("kms generate-random 1025").err


def test_a_signature_is_checked_here_and_elsewhere(envfs: CommandLine, work: Path) -> None:
    envfs("key create --alias release --spec ECC_NIST_P256 --usage SIGN_VERIFY")
    assert envfs("kms sign alias/release plain -o sig --algorithm ECDSA_SHA_256").code == 0
    answer = envfs("kms verify-signature alias/release sig plain --algorithm ECDSA_SHA_256")
    assert (answer.code, answer.out) == (0, "the signature is good\n")
    envfs("key public alias/release -o public.pem")
    public = load_pem_public_key((work / "public.pem").read_bytes())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify((work / "sig").read_bytes(), BINARY, ec.ECDSA(SHA256()))
    (work / "digest").write_bytes(hashlib.sha256(BINARY).digest())
    line = "kms verify-signature alias/release sig digest --algorithm ECDSA_SHA_256 --message-type DIGEST --json"
    assert envfs(line).json["signature_valid"] is True
    (work / "plain").write_bytes(BINARY + b"!")
    forged = envfs("kms verify-signature alias/release sig plain --algorithm ECDSA_SHA_256")
    assert forged.code == 4
    assert "KMSInvalidSignatureException" in forged.err


def test_encrypting_for_an_rsa_key_needs_no_kms(envfs: CommandLine, work: Path) -> None:
    envfs("key create --alias inbox --spec RSA_2048 --usage ENCRYPT_DECRYPT")
    envfs("key public alias/inbox -o public.pem")
    public = load_pem_public_key((work / "public.pem").read_bytes())
    assert isinstance(public, rsa.RSAPublicKey)
    oaep = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
    (work / "sealed").write_bytes(public.encrypt(b"for you", oaep))
    answer = envfs("kms decrypt sealed --key alias/inbox --algorithm RSAES_OAEP_SHA_256")
    assert (answer.code, answer.out) == (0, "for you")


def test_a_mac_is_checked(envfs: CommandLine, work: Path) -> None:
    envfs("key create --alias tokens --spec HMAC_256")
    assert envfs("kms generate-mac alias/tokens plain -o mac --algorithm HMAC_SHA_256").code == 0
    answer = envfs("kms verify-mac alias/tokens mac plain --algorithm HMAC_SHA_256")
    assert (answer.code, answer.out) == (0, "the MAC is good\n")
    (work / "mac").write_bytes(bytes(32))
    forged = envfs("kms verify-mac alias/tokens mac plain --algorithm HMAC_SHA_256")
    assert forged.code == 4
    assert "KMSInvalidMacException" in forged.err


def test_two_sides_agree_on_a_secret(envfs: CommandLine, work: Path) -> None:
    envfs("key create --alias exchange --spec ECC_NIST_P384 --usage KEY_AGREEMENT")
    theirs = ec.generate_private_key(ec.SECP384R1())
    for encoding in (Encoding.PEM, Encoding.DER):
        (work / "theirs").write_bytes(theirs.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo))
        assert envfs("kms derive-shared-secret alias/exchange theirs -o secret").code == 0
        envfs("key public alias/exchange -o ours.pem")
        ours = load_pem_public_key((work / "ours.pem").read_bytes())
        assert isinstance(ours, ec.EllipticCurvePublicKey)
        assert (work / "secret").read_bytes() == theirs.exchange(ec.ECDH(), ours)
        assert mode(work / "secret") == 0o600
    (work / "theirs").write_text("-----BEGIN PUBLIC KEY-----\n!!!\n-----END PUBLIC KEY-----\n")
    damaged = envfs("kms derive-shared-secret alias/exchange theirs -o secret")
    assert damaged.code == 3
    assert "PEM" in damaged.err


def test_a_secret_is_encapsulated_and_decapsulated(envfs: CommandLine, work: Path) -> None:
    envfs("key create --alias kem --spec ML_KEM_768 --usage ENCAPSULATE_DECAPSULATE")
    assert envfs("kms encapsulate alias/kem --secret-file secret --ciphertext-file kem").code == 0
    assert mode(work / "secret") == 0o600
    assert envfs("kms decapsulate alias/kem kem -o again").code == 0
    assert (work / "again").read_bytes() == (work / "secret").read_bytes()


def test_a_terminal_is_spared_what_is_binary(envfs: CommandLine, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    answer = envfs("kms encrypt alias/one plain")
    assert answer.code == 2
    assert "--base64" in answer.err
    assert answer.out == ""


def test_where_nothing_can_be_written_is_said(envfs: CommandLine, work: Path) -> None:
    answer = envfs("kms encrypt alias/one plain -o absent/sealed")
    assert (answer.code, answer.err) == (8, f"envfs: {work}/absent/sealed: No such file or directory\n")
    assert envfs("kms encrypt alias/one plain -o /dev/null").code == 0
    assert len(base64.b64decode(envfs("kms encrypt alias/one plain -o - --base64").out)) > len(BINARY)
    assert not (work / "-").exists()
