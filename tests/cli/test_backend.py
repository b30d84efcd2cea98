"""Which way a command takes to the KMS, as far as one user can show; `tests/integration/cli` has several."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from envfs.cli import backend

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import CommandLine


@pytest.fixture(autouse=True)
def kms(envfs: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENVFS_KMS_SOCKET", raising=False)
    assert envfs("kms init").code == 0


def test_a_socket_that_is_named_is_asked_and_nothing_else(
    envfs: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENVFS_KMS_SOCKET", str(tmp_path / "absent.sock"))
    answer = envfs("key list")
    assert (answer.code, answer.out) == (3, "")
    assert answer.err.splitlines() == [
        f"envfs: the KMS cannot be reached: ENVFS_KMS_SOCKET is set; {tmp_path}/absent.sock: No such file or directory",
        "  next: have its owner start `envfs kms serve`; ENVFS_KMS_SOCKET names a socket, ENVFS_HOME another KMS",
    ]


def test_a_socket_that_a_server_left_behind(
    envfs: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left.sock"))
    monkeypatch.setenv("ENVFS_KMS_SOCKET", str(tmp_path / "left.sock"))
    answer = envfs("key list")
    assert answer.code == 3
    assert "left.sock: Connection refused" in answer.err


def test_a_server_that_is_none(envfs: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.bind('odd.sock'); s.listen(); print(flush=True)\n"
        "c, _ = s.accept(); c.recv(100000); c.sendall(b'nonsense\\r\\n\\r\\n'); c.close()"
    )
    monkeypatch.setenv("ENVFS_KMS_SOCKET", str(tmp_path / "odd.sock"))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        answer = envfs("key list")
        process.wait(60)
    assert answer.code == 8
    assert "did not answer" in answer.err


@pytest.mark.parametrize("line", ["key list", "key show alias/payroll", "kms whoami"])
def test_the_store_is_opened_without_loading_a_server_or_clients_of_aws(line: str, envfs: CommandLine) -> None:
    envfs("key create --alias payroll")
    program = (
        f"import sys; from envfs.cli.main import run; code = run({line.split()})\n"
        "names = ('trio', 'h11', 'botocore', 'boto3', 'http.client', 'pyfuse3', 'rich')\n"
        "print(code, [name for name in names if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 []"
    assert done.stderr == ""


class TestTheKmsOfTheSystem:
    """Whose KMS is meant, for an ordinary user: his own, if he has one."""

    @pytest.fixture
    def system(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        system = tmp_path / "system"
        monkeypatch.setattr(backend, "SYSTEM_HOME", system)
        monkeypatch.setattr("os.geteuid", lambda: 1000)
        monkeypatch.delenv("ENVFS_HOME")
        return system

    def test_is_that_of_who_has_none(self, system: Path, tmp_path: Path) -> None:
        system.mkdir()
        assert backend._home_of_kms(tmp_path / "none") == system

    def test_is_not_that_of_who_has_one_or_names_one(
        self, system: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        system.mkdir()
        assert backend._home_of_kms(home) == home
        monkeypatch.setenv("ENVFS_HOME", str(tmp_path / "none"))
        assert backend._home_of_kms(tmp_path / "none") == tmp_path / "none"

    def test_is_not_there_on_every_machine(self, system: Path, tmp_path: Path) -> None:
        assert backend._home_of_kms(tmp_path / "none") == tmp_path / "none"

    def test_is_no_concern_of_root(self, system: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        system.mkdir()
        monkeypatch.setattr("os.geteuid", lambda: 0)
        assert backend._home_of_kms(tmp_path / "none") == tmp_path / "none"
