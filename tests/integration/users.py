"""Unix users that exist for one test, and running something as one of them."""

from __future__ import annotations

import grp
import os
import pickle
import pwd
import secrets
import select
import signal
import subprocess
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

PREFIX = "envfs-test-"
TIMEOUT = 60.0  # seconds, for anything run here


@dataclass(frozen=True, slots=True)
class UnixUser:
    name: str
    uid: int
    gid: int
    home: Path

    @property
    def groups(self) -> list[int]:
        return os.getgrouplist(self.name, self.gid)

    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "USER": self.name,
            "LOGNAME": self.name,
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
        }

    @classmethod
    def current(cls) -> UnixUser:
        return cls.named(pwd.getpwuid(os.getuid()).pw_name)

    @classmethod
    def named(cls, name: str) -> UnixUser:
        """KeyError if there is none."""
        entry = pwd.getpwnam(name)
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))

    @classmethod
    def nobody(cls) -> UnixUser:
        entry = pwd.getpwnam("nobody")
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid, Path("/nonexistent"))


class UserTable:
    """Makes users in the machine's own user database, and takes them away again."""

    def __init__(self, homes: Path) -> None:
        self._homes = homes
        self._made: list[UnixUser] = []
        self._groups: list[str] = []
        self._announced: list[str] = []

    def announce(self, name: str) -> str:
        """The name of a user or group whom a command of the test makes: removed as the others are."""
        self._announced.append(f"{PREFIX}{name}-{secrets.token_hex(2)}")
        return self._announced[-1]

    def make(self, *names: str) -> list[UnixUser]:
        return [self._make(f"{PREFIX}{name}-{secrets.token_hex(2)}") for name in names]

    def _make(self, name: str) -> UnixUser:
        home = self._homes / name
        _edit_database(
            [
                "useradd",
                "--no-log-init",
                "--user-group",
                "--no-create-home",
                "--home-dir",
                home,
                "--shell",
                "/bin/sh",
                name,
            ]
        )
        entry = pwd.getpwnam(name)
        user = UnixUser(name, entry.pw_uid, entry.pw_gid, home)
        self._made.append(user)
        home.mkdir(mode=0o700)
        os.chown(home, user.uid, user.gid)
        return user

    def make_group(self, name: str, *members: UnixUser) -> str:
        group = f"{PREFIX}{name}-{secrets.token_hex(2)}"
        _edit_database(["groupadd", group])
        self._groups.append(group)
        for member in members:
            _edit_database(["usermod", "--append", "--groups", group, member.name])
        return group

    def remove_all(self) -> None:
        for name in self._announced:
            with suppress(KeyError):
                self._made.append(UnixUser.named(name))
        while self._made:
            user = self._made.pop()
            for pid in processes_of(user.uid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            _edit_database(["userdel", "--force", user.name])
        while self._groups:
            _edit_database(["groupdel", self._groups.pop()])
        while self._announced:
            with suppress(KeyError):
                _edit_database(["groupdel", grp.getgrnam(self._announced.pop()).gr_name])


def processes_of(uid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and entry.stat().st_uid == uid:
                found.append(int(entry.name))
    return found


def _edit_database(command: Sequence[str | Path]) -> None:
    """useradd and its kin take a lock and give up at once if somebody else has it: try for a while."""
    attempts = 50
    for attempt in range(attempts):
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        if done.returncode == 0:
            return
        if "lock" not in done.stderr or attempt == attempts - 1:
            pytest.fail(f"{command[0]} failed: {done.stderr}")
        time.sleep(0.02 * attempt)


def run_as_user(user: UnixUser, what: Sequence[str | Path] | Callable[[], Any], **options: Any) -> Any:
    """A command (→ CompletedProcess, text) or a function (→ its result; raises what it raised), as `user`."""
    if callable(what):
        return _call_as(user, what)
    identity: dict[str, Any] = {}
    if user.uid != os.getuid():
        identity = {"user": user.uid, "group": user.gid, "extra_groups": user.groups}
    settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": TIMEOUT, "cwd": "/"}
    settings |= {"env": user.environment(), "stdin": subprocess.DEVNULL} | identity | options
    if "input" in options:
        del settings["stdin"]
    return subprocess.run([os.fspath(word) for word in what], check=False, **settings)


def _call_as(user: UnixUser, function: Callable[[], Any]) -> Any:
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # The child calls `function` and ends: it takes no lock that another thread could have held at fork(2).
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _child(user, function, writer)
    os.close(writer)
    try:
        answer = _read_all(reader)
    finally:
        os.close(reader)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # it has answered, or hangs
        os.waitpid(child, 0)
    succeeded, value = pickle.loads(answer)
    if not succeeded:
        raise value
    return value


def _child(user: UnixUser, function: Callable[[], Any], writer: int) -> None:
    """Never returns: the child must not run on into pytest."""
    try:
        if user.uid != os.getuid():
            os.setgroups(user.groups)
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
        answer = pickle.dumps((True, function()))
    except BaseException as error:  # noqa: BLE001  (it is raised again in the parent)
        try:
            answer = pickle.dumps((False, error))
        except Exception:  # noqa: BLE001  (whatever pickle makes of a strange exception)
            answer = pickle.dumps((False, RuntimeError(repr(error))))
    try:
        view = memoryview(answer)
        while view:
            view = view[os.write(writer, view) :]
    finally:
        os._exit(0)


def _read_all(reader: int) -> bytes:
    deadline = time.monotonic() + TIMEOUT
    answer = b""
    while select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(reader, 1 << 16)
        if not part:
            if not answer:
                pytest.fail("the child process ended without an answer")
            return answer
        answer += part
    return pytest.fail(f"the function did not return within {TIMEOUT:g} seconds")
