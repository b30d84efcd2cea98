"""From a command to a daemon: fork, detach, and tell the command whether it worked.

The fork comes before anything that a fork would break: no thread, no trio, no SQLite connection exists yet. The
daemon first lets go of the command's standard streams, so that whoever reads the command's output sees its end when
the command ends. The command waits at a pipe until the daemon reports, with one line of JSON, that the mount is
usable or why not.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from envfs.service import wire
from envfs.service.errors import MountError

if TYPE_CHECKING:
    from collections.abc import Callable

    Report = Callable[[dict[str, Any]], None]

_log = logging.getLogger(__name__)


class Abandoned(Exception):
    """Nobody waits for the report any more: the command was interrupted, and what it asked for is to be undone."""


def spawn(run: Callable[[Report], None], *, detach: Callable[[], None], failure_hint: str) -> dict[str, Any]:
    """Run `run(report)` in a daemon and return what it reports.

    `detach` is called in the daemon first; it redirects the standard streams (see `detach_streams`). An exception
    that `run` raises before it has reported is raised here again (the types of `envfs.service.wire`). A daemon that
    dies without a word raises MountError with `failure_hint`.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    read_end, write_end = os.pipe()  # not inherited by programs that either side executes (PEP 446)
    child = os.fork()
    if child == 0:
        os.close(read_end)
        _become_daemon(run, detach, write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        os.waitpid(child, 0)  # the intermediate process, which is gone at once
        line = pipe.readline()
    if not line.endswith(b"\n"):
        raise MountError("the daemon ended before the mount was ready", hint=failure_hint)
    return wire.open_response(json.loads(line))


def detach_streams(redirect_stderr: Callable[[], None]) -> None:
    """Take stdin and stdout from /dev/null, and stderr wherever `redirect_stderr` puts it."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    if null > 2:
        os.close(null)
    redirect_stderr()


def _become_daemon(run: Callable[[Report], None], detach: Callable[[], None], write_end: int) -> NoReturn:
    """The child's side of `spawn`; never returns into the caller's stack."""
    code = 1
    try:
        os.setsid()
        if os.fork():
            os._exit(0)  # the daemon proper leads no session, so it can never acquire a terminal
        os.chdir("/")
        _close_inherited(keep=write_end)
        channel = _Channel(write_end)
        try:
            detach()
            run(channel.report)
            code = 0
        except Abandoned:
            _log.warning("the command that asked for the mount has gone: unmounted again")
        except BaseException as error:  # noqa: BLE001  (the last frame: whatever it is has to be told)
            channel.fail(error)
        logging.shutdown()
    finally:
        os._exit(code)


def _close_inherited(*, keep: int) -> None:
    """What the caller of the command left open (`3>&1` in a script) would stay open for as long as the daemon lives."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  (names, and they are numbers)
        descriptor = int(name)
        if descriptor > 2 and descriptor != keep:
            try:
                os.close(descriptor)
            except OSError:
                continue  # the one that the listing itself used


class _Channel:
    """The daemon's end of the pipe: one report or one failure, and then it is closed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def report(self, result: dict[str, Any]) -> None:
        self._send({"ok": True, "result": result})

    def fail(self, error: BaseException) -> None:
        if self._descriptor is None or not isinstance(error, wire.EXPECTED):
            _log.error("the daemon failed", exc_info=error)
        if self._descriptor is not None:
            try:
                self._send(wire.failure(error))
            except Abandoned:
                _log.error("nobody waits to hear of the failure: %s", error)

    def _send(self, response: dict[str, Any]) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            with os.fdopen(descriptor, "wb") as pipe:
                pipe.write(json.dumps(response).encode() + b"\n")
        except BrokenPipeError:
            raise Abandoned from None
