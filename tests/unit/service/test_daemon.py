"""The way from a command to a daemon, each test in a process of its own, which forks and detaches for real."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """\
import json, logging, os, sys, threading
from pathlib import Path
from envfs.errors import AccessDenied, EnvfsError
from envfs.service import daemon, log

here = Path(sys.argv[1])

def detach():
    daemon.detach_streams(lambda: log.to_file(here / "log/daemon.log"))

def run(report):
{body}

try:
    result = daemon.spawn(run, detach=detach, failure_hint="see the log")
except (EnvfsError, OSError) as error:
    result = dict(error=type(error).__name__, message=str(error), hint=getattr(error, "hint", ""))
print(json.dumps(dict(result=result, pid=os.getpid())))
"""
TIMEOUT = 30


class Command:
    """A command that spawns a daemon with `body` as its work."""

    def __init__(self, here: Path, body: str) -> None:
        self.here = here
        indented = "\n".join("    " + line for line in body.splitlines())
        self.argv = [sys.executable, "-c", PROGRAM.format(body=indented), str(here)]

    def __call__(self) -> dict[str, Any]:
        # Reading to the end of its output, as $(command) in a shell does: a daemon that kept a stream would hang this.
        done = subprocess.run(self.argv, capture_output=True, text=True, timeout=TIMEOUT, check=True)
        assert done.stderr == ""
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    @property
    def log(self) -> str:
        return (self.here / "log/daemon.log").read_text()


def wait_for_end(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], TIMEOUT)[0], f"process {pid} does not end"
    finally:
        os.close(handle)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"


def test_the_command_ends_when_the_daemon_reports_and_the_daemon_lives_on(tmp_path: Path, gate: Path) -> None:
    command = Command(
        tmp_path,
        "report(dict(pid=os.getpid(), sid=os.getsid(0), parent=os.getppid()))\ngate = (here / 'gate').open().read()",
    )
    answer = command()
    daemon = answer["result"]
    assert daemon["pid"] != answer["pid"]
    assert daemon["sid"] not in (daemon["pid"], os.getsid(0)), "it must be in a session of its own and not lead it"
    os.kill(daemon["pid"], 0)
    gate.write_text("go")
    wait_for_end(daemon["pid"])


def test_streams_working_directory_and_log_are_the_daemons_own(tmp_path: Path, gate: Path) -> None:
    body = """\
streams = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
report(dict(pid=os.getpid(), streams=streams, cwd=os.getcwd()))
print("into nowhere")
os.write(2, b"a last word of libfuse\\n")
logging.getLogger("envfs.test").warning("a warning")
(here / "gate").open().read()
"""
    command = Command(tmp_path, body)
    daemon = command()["result"]
    log = tmp_path / "log/daemon.log"
    assert daemon["streams"] == [os.devnull, os.devnull, str(log)]
    assert daemon["cwd"] == "/"
    gate.write_text("go")
    wait_for_end(daemon["pid"])
    assert "a last word of libfuse" in command.log
    assert "WARNING envfs.test: a warning" in command.log
    assert log.stat().st_mode & 0o777 == 0o600


def test_what_the_caller_left_open_is_closed(tmp_path: Path, gate: Path) -> None:
    command = Command(tmp_path, "report(dict(pid=os.getpid()))\ngate = (here / 'gate').open().read()")
    read_end, write_end = os.pipe()
    process = subprocess.Popen(command.argv, stdout=subprocess.PIPE, text=True, pass_fds=[write_end])
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        answer = json.loads(process.communicate(timeout=TIMEOUT)[0])
        assert select.select([pipe], [], [], TIMEOUT)[0], "the daemon holds the pipe"
        assert pipe.read() == b""
    gate.write_text("go")
    wait_for_end(answer["result"]["pid"])


def test_a_refusal_is_raised_in_the_command_with_its_type_and_hint(tmp_path: Path) -> None:
    answer = Command(tmp_path, 'raise AccessDenied("not you", hint="ask alice")')()
    assert answer["result"] == {"error": "AccessDenied", "message": "not you", "hint": "ask alice"}


def test_an_os_error_is_raised_in_the_command(tmp_path: Path) -> None:
    answer = Command(tmp_path, 'open(here / "absent")')()
    assert answer["result"]["error"] == "FileNotFoundError"
    assert "absent" in answer["result"]["message"]


def test_a_daemon_that_dies_without_a_word_is_an_error_that_names_the_log(tmp_path: Path) -> None:
    answer = Command(tmp_path, "os._exit(7)")()
    assert answer["result"]["error"] == "MountError"
    assert answer["result"]["hint"] == "see the log"


def test_a_daemon_that_returns_without_a_report_is_an_error_too(tmp_path: Path) -> None:
    assert Command(tmp_path, "return")()["result"]["error"] == "MountError"


def test_a_failure_after_the_report_goes_to_the_log(tmp_path: Path) -> None:
    command = Command(tmp_path, 'report(dict(pid=os.getpid()))\nraise AccessDenied("later")')
    wait_for_end(command()["result"]["pid"])
    assert "later" in command.log
    assert "Traceback" in command.log


def test_a_defect_leaves_its_traceback_in_the_log(tmp_path: Path) -> None:
    command = Command(tmp_path, "1 / 0")
    done = subprocess.run(command.argv, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert "RemoteFailure: ZeroDivisionError in the daemon" in done.stderr
    assert "ZeroDivisionError" in command.log


def test_a_command_that_is_gone_makes_the_daemon_undo_its_work(tmp_path: Path, gate: Path) -> None:
    body = """\
(here / "pid").write_text(str(os.getpid()))
(here / "gate").open().read()
try:
    report({})
finally:
    (here / "undone").touch()
"""
    command = Command(tmp_path, body)
    process = subprocess.Popen(command.argv, stdout=subprocess.DEVNULL)
    with gate.open("w") as writer:  # opens when the daemon has come to its gate
        process.kill()
        process.wait(TIMEOUT)
        writer.write("go")
    wait_for_end(int((tmp_path / "pid").read_text()))
    assert (tmp_path / "undone").exists()
    assert "gone" in command.log
