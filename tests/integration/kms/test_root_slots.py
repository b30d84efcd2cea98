"""Root-key slots that other services open: systemd on this host, and KMSs that speak AWS's protocol."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config

from envfs.cli.main import run
from envfs.kms import slot_foreign
from tests.conftest import NOT_HERE
from tests.integration.api.kms_server import REGION, running_server
from tests.unit.kms.kit import audit_records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIMEOUT = 60


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENVFS_HOME", str(tmp_path / "mine"))
    for name in ("ENVFS_PASSPHRASE_FILE", "CREDENTIALS_DIRECTORY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    assert run(["kms", "init", "--no-recovery-key"]) == 0
    return tmp_path / "mine"


def take_key_file_away(home: Path) -> None:
    (home / "root.key").rename(home.parent / "root.key")


def no_terminal(capsys: pytest.CaptureFixture[str], *line: str) -> str:
    """What a command says that fails for lack of a way to open the KMS."""
    capsys.readouterr()
    assert run(list(line)) == 3
    return capsys.readouterr().err


def credentials(monkeypatch: pytest.MonkeyPatch, key_id: str, secret: str) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)


def systemd_creds_works() -> bool:
    program = shutil.which("systemd-creds")
    if program is None or os.getuid() != 0:
        return False
    line = [program, "encrypt", "--name=x", "--with-key=host", "-", "-"]
    return subprocess.run(line, input=b"x", capture_output=True, timeout=TIMEOUT, check=False).returncode == 0


@pytest.mark.skipif(not systemd_creds_works(), reason=f"{NOT_HERE}systemd-creds has no host key")
def test_systemd_opens_the_kms_on_this_host(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    credential = tmp_path / "root-key.cred"
    add = ["kms", "slot", "add", "systemd-creds", "--with-key", "host", "--credential-file", str(credential)]
    assert run(add) == 0
    take_key_file_away(home)
    assert run(["key", "list"]) == 0
    # As the service manager passes it to a unit with LoadCredentialEncrypted=, where systemd-creds need not work.
    plain = subprocess.run(
        ["systemd-creds", "decrypt", "--name=envfs.root-key", credential, "-"],
        capture_output=True,
        timeout=TIMEOUT,
        check=True,
    ).stdout
    passed = tmp_path / "credentials"
    passed.mkdir()
    (passed / "envfs.root-key").write_bytes(plain)
    monkeypatch.setenv("PATH", "/nowhere")
    told = no_terminal(capsys, "key", "list")
    assert "root.key is missing" in told
    assert "systemd-creds is not installed" in told
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(passed))
    assert run(["key", "list"]) == 0
    (passed / "envfs.root-key").write_bytes(bytes(32))
    assert "no slot of kind systemd-creds opens" in no_terminal(capsys, "key", "list")


def test_another_envfs_opens_the_kms(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "theirs").mkdir()
    with running_server(tmp_path / "theirs") as server:
        credentials(monkeypatch, server.owner.access_key_id, server.owner.secret)
        key = server.client().create_key()["KeyMetadata"]["Arn"]
        assert run(["kms", "slot", "add", "aws-kms", key, "--region", REGION, "--endpoint-url", server.url]) == 0
        take_key_file_away(home)
        assert run(["key", "list"]) == 0
        contexts = [
            one["requestParameters"]["encryptionContext"]
            for one in audit_records(server.home)
            if one["eventName"] == "Decrypt"
        ]
        assert all(set(context) == {"envfs:kms", "envfs:slot"} for context in contexts)
        server.client().disable_key(KeyId=key)
        assert "DisabledException" in no_terminal(capsys, "key", "list")
        url = server.url
    started = time.monotonic()
    assert f"{url} cannot be asked" in no_terminal(capsys, "key", "list")
    assert time.monotonic() - started < TIMEOUT


@contextmanager
def moto(directory: Path) -> Iterator[str]:
    """moto's emulator of AWS as a server; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = (directory / "moto.log").open("wb")
    process = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, (directory / "moto.log").read_text()
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(TIMEOUT)
        log.close()


def test_an_emulator_of_aws_opens_the_kms(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials(monkeypatch, "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    with moto(tmp_path) as url:
        client: Any = boto3.client(
            "kms", region_name="eu-north-1", endpoint_url=url, config=Config(read_timeout=TIMEOUT)
        )
        key = client.create_key()["KeyMetadata"]["KeyId"]
        client.create_alias(AliasName="alias/envfs", TargetKeyId=key)
        client.close()
        add = ["kms", "slot", "add", "aws-kms", "alias/envfs", "--region", "eu-north-1", "--endpoint-url", url]
        assert run(add) == 0
        take_key_file_away(home)
        assert run(["key", "list"]) == 0


def test_an_endpoint_that_does_not_answer_holds_nobody_up(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    credentials(monkeypatch, "AKIAIOSFODNN7EXAMPLE", "secret")
    monkeypatch.setattr(slot_foreign, "READ_TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        add = ["kms", "slot", "add", "aws-kms", "alias/envfs", "--region", "eu-north-1", "--endpoint-url", url]
        assert f"{url} cannot be asked" in no_terminal(capsys, *add)


@pytest.mark.parametrize("url", ["http://192.0.2.1:8080", "http://kms.example", "ftp://127.0.0.1", "nonsense"])
def test_a_key_is_not_fetched_in_the_clear(url: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add = ["kms", "slot", "add", "aws-kms", "alias/envfs", "--region", "r", "--endpoint-url", url]
    assert "is no endpoint for keys" in no_terminal(capsys, *add)
