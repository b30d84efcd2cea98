"""A KMS of root's that serves, and users who reach it through its socket only."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import Answer
from tests.integration.users import TIMEOUT, UnixUser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.command import Envfs


class Served:
    """Runs `envfs` as a user, against the KMS of root."""

    def __init__(self, envfs: Envfs, home: Path) -> None:
        self._envfs = envfs
        self.home = home

    def __call__(self, user: UnixUser | None, line: str, *more: str, **options: Any) -> Answer:
        done = self._envfs(*line.split(), *more, user=user, home=self.home, check=False, **options)
        assert "Traceback" not in done.stderr
        return Answer(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def serve(envfs: Envfs, home: Path, *options: str | Path, user: UnixUser | None = None) -> Iterator[Path]:
    """`envfs kms serve` of the KMS in `home`, by `user`, for as long as that is needed: its socket."""
    command = [*envfs.argv, "kms", "serve", "--json", *options]
    settings: dict[str, Any] = {"env": (user or UnixUser.current()).environment() | {"ENVFS_HOME": str(home)}}
    if user is not None:
        settings |= {"user": user.uid, "group": user.gid, "extra_groups": user.groups, "cwd": user.home}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **settings) as process:
        assert process.stdout is not None
        try:
            yield Path(json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")["socket"])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(TIMEOUT)


@pytest.fixture
def serving(envfs: Envfs, kms_home: Path) -> Iterator[Path]:
    """A server of the KMS in `kms_home`, which is made: its socket."""
    envfs("kms", "init")
    with serve(envfs, kms_home) as socket:
        yield socket


@pytest.fixture
def served(
    request: pytest.FixtureRequest, envfs: Envfs, kms_home: Path, unix_users: Callable[..., list[UnixUser]]
) -> Served:
    """The KMS of root behind `envfs kms serve`, or behind a mount where a test is parametrised so."""
    if getattr(request, "param", "serve") == "serve":
        request.getfixturevalue("serving")
    else:
        request.getfixturevalue("mounted")()
    return Served(envfs, kms_home)
