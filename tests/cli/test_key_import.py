"""`envfs key import` and its neighbours."""

from __future__ import annotations

import hmac
import os
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import CommandLine


@pytest.fixture(autouse=True)
def kms(envfs: CommandLine) -> None:
    assert envfs("kms init").code == 0


@pytest.fixture
def external(envfs: CommandLine) -> str:
    made = envfs("key create --alias escrow --origin EXTERNAL --json").json
    assert (made["state"], made["origin"]) == ("PendingImport", "EXTERNAL")
    return str(made["key_id"])


def test_material_is_imported_in_one_step_taken_out_and_imported_again(
    envfs: CommandLine, external: str, tmp_path: Path
) -> None:
    (tmp_path / "material").write_bytes(os.urandom(32))
    (tmp_path / "other").write_bytes(os.urandom(32))
    (tmp_path / "plain").write_bytes(b"sealed")
    assert envfs("key import alias/escrow material --valid-days 30").code == 0
    shown = envfs(f"key show {external} --json").json
    assert shown["state"] == "Enabled"
    assert shown["valid_to"] > shown["created"]
    assert envfs("kms encrypt alias/escrow plain -o sealed").code == 0
    assert envfs("key delete-material alias/escrow").code == 0
    assert envfs(f"key show {external} --json").json["state"] == "PendingImport"
    assert "KMSInvalidStateException" in envfs("kms decrypt sealed").err
    other = envfs("key import alias/escrow other")
    assert other.code == 4
    assert "IncorrectKeyMaterialException" in other.err
    assert envfs("key import alias/escrow material").code == 0
    assert envfs("kms decrypt sealed").out == "sealed"
    assert "valid_to" not in envfs(f"key show {external} --json").json


def test_material_that_was_wrapped_elsewhere(envfs: CommandLine, external: str, tmp_path: Path) -> None:
    answer = envfs("key import-parameters alias/escrow --public-key wrap.pem --import-token token --json").json
    assert answer["arn"].endswith(external)
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    public = load_pem_public_key((tmp_path / "wrap.pem").read_bytes())
    assert isinstance(public, rsa.RSAPublicKey)
    oaep = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
    (tmp_path / "wrapped").write_bytes(public.encrypt(os.urandom(32), oaep))
    imported = envfs("key import-wrapped alias/escrow wrapped --import-token token --json").json
    assert imported["arn"].endswith(external)
    assert envfs(f"key show {external} --json").json["state"] == "Enabled"


def test_a_private_key_of_rsa_is_imported_although_it_is_long(envfs: CommandLine, tmp_path: Path) -> None:
    private = rsa.generate_private_key(65537, 2048)
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "private.der").write_bytes(der)
    envfs("key create --alias mine --origin EXTERNAL --spec RSA_2048 --usage SIGN_VERIFY")
    assert envfs("key import alias/mine private.der").code == 0
    envfs("key public alias/mine -o public.pem")
    expected = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert (tmp_path / "public.pem").read_bytes() == expected


def test_material_of_the_wrong_length_is_refused(envfs: CommandLine, external: str, tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(bytes(31))
    assert envfs("key import alias/escrow short").code == 4
    assert envfs(f"key show {external} --json").json["state"] == "PendingImport"


def test_a_mac_under_imported_material_is_hmac(envfs: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "material").write_bytes(b"k" * 32)
    (tmp_path / "message").write_bytes(b"message")
    envfs("key create --alias tokens --spec HMAC_256 --origin EXTERNAL")
    assert envfs("key import alias/tokens material").code == 0
    assert envfs("kms generate-mac alias/tokens message -o mac --algorithm HMAC_SHA_256").code == 0
    assert (tmp_path / "mac").read_bytes() == hmac.digest(b"k" * 32, b"message", "sha256")
