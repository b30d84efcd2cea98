"""AWS's own tools, unchanged: the command line, and the Encryption SDK."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aws_encryption_sdk
import pytest
from aws_encryption_sdk.exceptions import GenerateKeyError
from aws_encryption_sdk.identifiers import CommitmentPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.api.kms_server import KmsServer

TIMEOUT = 120.0  # seconds


@pytest.fixture
def aws(server: KmsServer, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The AWS CLI, with the owner's credentials."""
    program = Path(sys.executable).with_name("aws")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": server.owner.access_key_id,
        "AWS_SECRET_ACCESS_KEY": server.owner.secret,
        "AWS_DEFAULT_REGION": "local",
        "AWS_PAGER": "",
        "AWS_MAX_ATTEMPTS": "1",
        "PYTHONWARNINGS": "ignore",
    }

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(program), "--endpoint-url", server.url, *arguments]
        return subprocess.run(
            command,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            cwd=tmp_path,
        )

    return run


def test_the_command_line_says_who_one_is(aws: Callable[..., Any], server: KmsServer) -> None:
    done = aws("sts", "get-caller-identity", "--output", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["Arn"] == server.owner_arn


def test_the_command_line_makes_keys_and_uses_them(aws: Callable[..., Any], tmp_path: Path) -> None:
    made = aws(
        "kms", "create-key", "--description", "by aws", "--tags", "TagKey=team,TagValue=blue", "--output", "json"
    )
    assert made.returncode == 0, made.stderr
    key = json.loads(made.stdout)["KeyMetadata"]["KeyId"]
    (tmp_path / "plain").write_bytes(b"plaintext")
    context = ("--encryption-context", "purpose=test")
    blob = aws("kms", "encrypt", "--key-id", key, "--plaintext", "fileb://plain", *context, "--query", "CiphertextBlob",
               "--output", "text")  # fmt: skip
    assert blob.returncode == 0, blob.stderr
    (tmp_path / "blob").write_bytes(base64.b64decode(blob.stdout))
    opened = aws("kms", "decrypt", "--ciphertext-blob", "fileb://blob", *context, "--output", "json")
    assert opened.returncode == 0, opened.stderr
    assert base64.b64decode(json.loads(opened.stdout)["Plaintext"]) == b"plaintext"


def test_the_command_line_pages(aws: Callable[..., Any], kms: Any) -> None:
    made = {kms.create_key()["KeyMetadata"]["KeyId"] for _ in range(5)}
    listed = aws("kms", "list-keys", "--page-size", "2", "--output", "json")
    assert listed.returncode == 0, listed.stderr
    assert made <= {key["KeyId"] for key in json.loads(listed.stdout)["Keys"]}


def test_the_command_line_shows_errors(aws: Callable[..., Any]) -> None:
    done = aws("kms", "describe-key", "--key-id", "alias/none")
    assert done.returncode != 0
    assert "(NotFoundException) when calling the DescribeKey operation" in done.stderr
    wrong = aws("kms", "list-keys", AWS_SECRET_ACCESS_KEY="wrong")
    assert "(InvalidSignatureException)" in wrong.stderr
    wrong = aws("sts", "get-caller-identity", AWS_SECRET_ACCESS_KEY="wrong")
    assert "(SignatureDoesNotMatch)" in wrong.stderr


@pytest.fixture
def provider(server: KmsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """A factory of the SDK's own master key providers, which find server and credentials in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.owner.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.owner.secret)
    made = []

    def make(key_arn: str) -> Any:
        made.append(aws_encryption_sdk.StrictAwsKmsMasterKeyProvider(key_ids=[key_arn]))
        return made[-1]

    yield make
    for one in made:
        for client in one._regional_clients.values():
            client.close()


def test_the_encryption_sdk_encrypts_and_decrypts(kms: Any, provider: Callable[[str], Any]) -> None:
    arn = kms.create_key()["KeyMetadata"]["Arn"]
    client = aws_encryption_sdk.EncryptionSDKClient(commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
    message, _ = client.encrypt(source=b"a message", key_provider=provider(arn), encryption_context={"purpose": "test"})
    opened, header = client.decrypt(source=message, key_provider=provider(arn))
    assert opened == b"a message"
    assert header.encryption_context["purpose"] == "test"


def test_the_encryption_sdk_is_refused_where_the_key_is_disabled(kms: Any, provider: Callable[[str], Any]) -> None:
    arn = kms.create_key()["KeyMetadata"]["Arn"]
    kms.disable_key(KeyId=arn)
    client = aws_encryption_sdk.EncryptionSDKClient()
    with pytest.raises(GenerateKeyError):
        client.encrypt(source=b"a message", key_provider=provider(arn))
