"""`envfs` without the start of an interpreter for each call: a process that has imported everything, and forks.

For tests that call it thousands of times. The command runs as it does otherwise, in a process of its own, with its own
streams and environment; a mount's daemon comes out of it as out of any other.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any, NoReturn, Self

import pytest

from tests.integration.command import Envfs
from tests.integration.users import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.users import UnixUser


class WarmEnvfs(Envfs):
    """As Envfs, for the user who runs the tests. `mark` stands on its command line, by which `daemons` finds mounts."""

    def __init__(self, mark: Path, home_of: Callable[[UnixUser | None], Path]) -> None:
        super().__init__([sys.executable, "-m", "envfs.cli.main"], home_of)
        command: list[str | Path] = [sys.executable, "-m", "tests.integration.warm", mark]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate(timeout=TIMEOUT)

    def __call__(
        self,
        *arguments: str | Path,
        user: UnixUser | None = None,
        home: Path | None = None,
        check: bool = True,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        if user is not None or options:
            return super().__call__(*arguments, user=user, home=home, check=check, **options)
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        words = [os.fspath(argument) for argument in arguments]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            # By /proc, since the server was there before these files.
            streams = [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (out, err)]
            request = {"arguments": words, "home": str(home or self._home_of(None)), "streams": streams}
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
            status = int(self._server.stdout.readline())
            out.seek(0)
            err.seek(0)
            said, complained = out.read().decode(), err.read().decode()
        if check and status != 0:
            pytest.fail(f"envfs {' '.join(words)}: exit status {status}\n{said}{complained}")
        return subprocess.CompletedProcess(words, status, said, complained)


def serve() -> None:
    """Answers each line of standard input with the exit status of a command, until there are no more."""
    for module in pkgutil.walk_packages(importlib.import_module("envfs").__path__, "envfs."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _run(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _run(arguments: list[str], home: str, streams: list[str]) -> NoReturn:
    """Never returns: the child must not read the next command."""
    status = 70
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        for number, file in enumerate((null, *(os.open(name, os.O_WRONLY) for name in streams))):
            os.dup2(file, number)
        os.environ["ENVFS_HOME"] = home
        status = importlib.import_module("envfs.cli.main").run(arguments)
        sys.stdout.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    serve()
