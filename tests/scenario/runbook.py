"""The runbooks of docs/OPERATIONS.md: their command blocks as they stand there, with names of the test's."""

from __future__ import annotations

import fcntl
import os
import re
import select
import subprocess
import termios
import textwrap
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from tests.integration.command import REPOSITORY
from tests.integration.users import TIMEOUT, run_as_user

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.integration.users import UnixUser

# What is asked, and what is typed then.
Answers: TypeAlias = "Sequence[tuple[str, str]]"
# A line of a block stands four columns further in than the text around it, which in a list stands in by three.
_BLOCK = re.compile(r"(?:^ {4,}\S.*\n)+", re.MULTILINE)
# useradd and its kin give up at once if somebody else edits the user database just now.
_PATIENT = """\
#!/bin/sh
for attempt in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    said=$({program} "$@" 2>&1) && exit
    case $said in *lock*) sleep 0.3 ;; *) break ;; esac
done
echo "$said" >&2
exit 1
"""


class Shell:
    """bash with the `envfs` of the tests, and home directories of new users in `homes`."""

    def __init__(self, place: Path, envfs: list[str], homes: Path) -> None:
        self.directory = place
        programs = {
            "useradd": f"/usr/sbin/useradd --no-log-init --base-dir {homes}",
            "usermod": "/usr/sbin/usermod",
            "groupadd": "/usr/sbin/groupadd",
        }
        scripts = {name: _PATIENT.format(program=program) for name, program in programs.items()}
        scripts["envfs"] = f'#!/bin/sh\nexec {" ".join(envfs)} "$@"\n'
        for name, script in scripts.items():
            (place / name).write_text(script)
            (place / name).chmod(0o755)

    def run(self, script: str, home: Path, *, user: UnixUser | None = None, answers: Answers | None = None) -> str:
        """What it says, on both streams; AssertionError if it fails. With `answers` it has a terminal."""
        environment = {"PATH": f"{self.directory}:{os.environ['PATH']}", "LANG": "C.UTF-8", "ENVFS_HOME": str(home)}
        command = ["bash", "-e", "-o", "pipefail", "-c", script]
        if answers is not None:
            status, said = _talk(command, environment, answers)
        elif user is not None:
            done = run_as_user(user, command, env=user.environment() | environment)
            status, said = done.returncode, done.stdout + done.stderr
        else:
            ran = subprocess.run(
                command,
                env=environment | {"HOME": "/root"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=TIMEOUT,
                cwd="/",
                check=False,
            )
            status, said = ran.returncode, ran.stdout
        assert status == 0, f"{script}→ {status}\n{said}"
        return said


def _talk(command: list[str], environment: dict[str, str], answers: Answers) -> tuple[int, str]:
    ours, theirs = os.openpty()
    with subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment | {"HOME": "/root", "TERM": "dumb"},
        cwd="/",
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  (no other threads here)
    ) as process:
        os.close(theirs)
        shown, seen = "", 0
        waiting = list(answers)
        while select.select([ours], [], [], TIMEOUT)[0]:
            try:
                shown += os.read(ours, 4096).decode()
            except OSError:  # EIO: the other side has closed
                break
            if waiting and waiting[0][0] in shown[seen:]:
                seen = len(shown)
                os.write(ours, waiting.pop(0)[1].encode() + b"\n")
        os.close(ours)  # if it still waits for an answer, this is the end of the terminal
        status = process.wait(TIMEOUT)
    assert not waiting, f"nobody asked for {waiting[0][0]!r}\n{shown}"
    return status, shown


class Runbook:
    """A section of the page; each call runs its next block. At the end none may be left that was not run."""

    def __init__(self, title: str, shell: Shell, names: Mapping[str, Any], home: Path) -> None:
        page = (REPOSITORY / "docs" / "OPERATIONS.md").read_text()
        found = re.search(rf"^## Runbook: {re.escape(title)}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
        assert found is not None, title
        self._blocks = [textwrap.dedent(block) for block in _BLOCK.findall(found[1])]
        self._shell, self._names, self._home = shell, names, home

    def __call__(
        self,
        begins: str,
        *,
        names: Mapping[str, Any] | None = None,
        home: Path | None = None,
        **options: Any,
    ) -> str:
        """What it says. `begins` is how the next block begins on the page: that whoever reads the test knows where he
        is.
        """
        block = self._blocks.pop(0)
        assert block.startswith(begins), block
        return self._shell.run(renamed(block, {**self._names, **(names or {})}), home or self._home, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        assert failed or not self._blocks, f"not executed: {self._blocks}"


def renamed(text: str, names: Mapping[str, Any]) -> str:
    """Whole words and paths, the longest first, each once: what a name becomes is not replaced again."""
    longest_first = sorted(names, key=len, reverse=True)
    words = "|".join(re.escape(name) for name in longest_first)
    return re.sub(rf"(?<![\w-])(?:{words})(?![\w-])", lambda found: str(names[found[0]]), text)
