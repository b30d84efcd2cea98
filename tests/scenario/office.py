"""The people of the scenario, their machine, and what they do there: real users, real processes, real errnos."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.integration.revocation.agents import Agent
from tests.integration.users import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount
    from tests.integration.users import UnixUser

DENIED, NO_KEY = errno.EACCES, errno.ENOKEY
# What has to happen within a second (scripts/bench-revoke measures how soon); a busy machine gets more.
DEADLINE = 15.0


@dataclass
class Office:
    """`kay` administers keys without being root; `audrey` audits; root mounts and administers the machine."""

    envfs: Envfs
    mount: Mount
    home: Path
    kay: UnixUser
    audrey: UnixUser
    agents: list[Agent] = field(default_factory=list)

    def __call__(self, user: UnixUser | None, *words: str | Path, code: int = 0, **options: Any) -> str:
        """`envfs` as a user on root's KMS, through its socket unless he is root."""
        done = self.envfs(*words, user=user, home=self.home, check=False, **options)
        assert done.returncode == code, f"envfs {' '.join(map(str, words))}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def json(self, user: UnixUser | None, *words: str | Path) -> Any:
        return json.loads(self(user, *words, "--json"))

    def records(self, *question: str) -> list[dict[str, Any]]:
        """What the auditor is told, on the socket, as herself."""
        return [json.loads(line) for line in self(self.audrey, "audit", "query", *question, "--json").splitlines()]

    def process(self, user: UnixUser) -> Agent:
        """A process of the user, with the groups that he has now: it stays."""
        self.agents.append(Agent(user))
        return self.agents[-1]

    def end(self) -> None:
        """Everybody ends his programs."""
        while self.agents:
            self.agents.pop().end()

    def outcome(self, user: UnixUser, do: Callable[[Agent], Any]) -> Any:
        """What a new process of the user gets, or the errno with which it fails."""
        agent = Agent(user)
        try:
            return outcome(lambda: do(agent))
        finally:
            agent.end()

    def reads(self, user: UnixUser, path: Path) -> Any:
        return self.outcome(user, lambda agent: agent.read_file(path))

    def writes(self, user: UnixUser, path: Path, content: bytes) -> Any:
        """None, or the errno."""
        return self.outcome(user, lambda agent: agent.write_file(path, content, 0o660))


def outcome(what: Callable[[], Any]) -> Any:
    try:
        return what()
    except OSError as error:
        return error.errno


def soon(what: Callable[[], Any], expected: Any) -> None:
    """It becomes so: what a running process gets, or the errno that it fails with."""
    end = time.monotonic() + DEADLINE
    while (found := outcome(what)) != expected and time.monotonic() < end:
        time.sleep(0.02)
    assert found == expected


def join(user: UnixUser, group: str) -> None:
    _edit("gpasswd", "-a", user.name, group)


def leave(user: UnixUser, group: str) -> None:
    _edit("gpasswd", "-d", user.name, group)


def _edit(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT)


def secret(department: str) -> bytes:
    return f"for {department} alone\n".encode() * 500


def in_directory(path: Path, group: str) -> Path:
    """A directory of a department, made by root: its group may write there, and what is made there is the group's."""
    path.mkdir()
    subprocess.run(["chgrp", group, path], check=True, timeout=TIMEOUT)
    path.chmod(0o2771)  # the key administrator may ask about what she cannot list
    return path


def flags(*names: str) -> int:
    found = 0
    for name in names:
        found |= getattr(os, f"O_{name}")
    return found
