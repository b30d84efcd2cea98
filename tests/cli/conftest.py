"""`envfs` in this process, with a KMS of the test's own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from envfs.cli.main import run
from envfs.service.config import HOME_VARIABLE

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command line gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


class CommandLine:
    """Runs command lines, their paths relative to the test's directory."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, line: str, *more: str) -> Answer:
        self._capture.readouterr()
        code = run([*line.split(), *more])
        out, err = self._capture.readouterr()
        assert "Traceback" not in err
        return Answer(code, out, err)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "kms"))
    monkeypatch.delenv("ENVFS_PASSPHRASE_FILE", raising=False)
    return tmp_path / "kms"


@pytest.fixture
def envfs(home: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)
