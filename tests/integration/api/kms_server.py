"""`envfs kms serve` in a process of its own, and AWS's clients that talk to it."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config

from envfs.kms.bootstrap import init_kms

if TYPE_CHECKING:
    from collections.abc import Iterator

REGION = "local"
ACCOUNT = "000000000000"
TIMEOUT = 60.0  # seconds
REPOSITORY = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Credentials:
    access_key_id: str
    secret: str


@dataclass(slots=True)
class KmsServer:
    """A running server. `owner`: the credentials of whoever runs the tests, who is the KMS's account root."""

    home: Path
    socket: Path
    url: str
    process: subprocess.Popen[str]
    log: Path
    owner: Credentials
    _clients: list[Any] = field(default_factory=list)

    @property
    def owner_arn(self) -> str:
        return f"arn:envfs:iam::{ACCOUNT}:user/{pwd.getpwuid(os.getuid()).pw_name}"

    def client(self, service: str = "kms", credentials: Credentials | None = None, **options: Any) -> Any:
        """A boto3 client."""
        credentials = credentials or self.owner
        settings: dict[str, Any] = {
            "endpoint_url": self.url,
            "region_name": REGION,
            "aws_access_key_id": credentials.access_key_id,
            "aws_secret_access_key": credentials.secret,
            "config": Config(retries={"max_attempts": 0}, read_timeout=TIMEOUT),
        }
        made = boto3.session.Session().client(service, **(settings | options))
        self._clients.append(made)
        return made

    def close_clients(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory_kib(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise AssertionError("no VmRSS")


@contextmanager
def running_server(directory: Path, *arguments: str) -> Iterator[KmsServer]:
    """A new KMS in `directory`, served on TCP and a Unix socket that everybody reaches. At the end it must have written
    no traceback, and end with its first signal.
    """
    home = directory / "kms"
    init_kms(home)
    owner = Credentials("AKIAENVFSTESTOWNER00", "owner/secret+of0the1tests2which3nobody4has")
    command = [sys.executable, "-P", "-m", "envfs.cli"]
    environment = os.environ | {"ENVFS_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}
    give_access_key(home, pwd.getpwuid(os.getuid()).pw_name, owner)
    log = directory / "log"
    socket = directory / "kms.sock"
    serve = ["kms", "serve", "--json", "--tcp", "127.0.0.1:0", "--socket", str(socket), *arguments]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*command, *serve], env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd="/"
        )
    assert process.stdout is not None
    try:
        places = _read_json(process)
        if places is None:
            pytest.fail(f"envfs kms serve ended: {log.read_text()}")
        server = KmsServer(home, socket, f"http://{places['tcp']}", process, log, owner)
        yield server
        server.close_clients()
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
        assert "Traceback" not in log.read_text(), log.read_text()
        assert not socket.exists()
    finally:
        process.stdout.close()
        if process.poll() is None:
            process.kill()
            process.wait()


def give_access_key(home: Path, user: str, credentials: Credentials) -> None:
    """An access key for `user`, made directly in the store."""
    from envfs.access.resolver import Resolver
    from envfs.crypto.secret import Secret
    from envfs.kms.engine import Engine
    from envfs.kms.rootkey import KEY_FILE_NAME, KeyFileUnlock

    with Engine.open(home, KeyFileUnlock(home / KEY_FILE_NAME)) as engine:
        principal = Resolver(engine).resolve(os.getuid(), os.getgid(), os.getpid())
        secret = Secret(credentials.secret.encode())
        engine.create_access_key(principal, user, access_key_id=credentials.access_key_id, secret=secret)


def _read_json(process: subprocess.Popen[str]) -> dict[str, Any] | None:
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line == "}\n":
            return dict(json.loads(text))
    return None


@contextmanager
def public_directory() -> Iterator[Path]:
    """A directory that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="envfs-test-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)
