"""One operation of the lower filesystem takes for ever: what does not need it goes on.

The lower filesystem is another mount of envfs, whose daemon is stopped: it answers nothing, but for what the kernel has
cached of it. So do a server that does not answer, and a disk that hangs.
"""

from __future__ import annotations

import mmap
import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount

SIZE = 1 << 20
TIMEOUT = 60
WARM = bytes(range(256)) * (SIZE // 256)


@pytest.fixture
def slow(envfs: Envfs, mounted: Callable[..., Mount]) -> tuple[Path, int]:
    """A mount whose lower directory is in another mount, and that one's daemon; nothing of it is cached anywhere."""
    outer = mounted()
    lower = outer.path / "lower"
    envfs("init", lower)
    inner = mounted(lower=lower)
    for name in ("warm", "cold", "new"):
        (inner.path / name).write_bytes(WARM)
    (inner.path / "directory").mkdir()
    (inner.path / "directory" / "f").write_bytes(b"1")
    (inner.path / "empty").mkdir()
    inner.umount()
    daemon = outer.remount().pid
    return inner.mount().path, daemon


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """SIGSTOP, and in any case SIGCONT: a kernel that waits for such a daemon cannot be interrupted."""
    ends = threading.Timer(TIMEOUT, os.kill, (pid, signal.SIGCONT))
    ends.start()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
        ends.cancel()
        ends.join()


class Waiting:
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:  # noqa: BLE001 - it is raised again by `result`
            self._error = error

    @property
    def is_waiting(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> Any:
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error
        return self._result


def past_the_cache(fd: int, page: int) -> bytes:
    """A request to the daemon, whatever the kernel has cached of its mount."""
    buffer = mmap.mmap(-1, 4096)
    assert os.preadv(fd, [buffer], page * 4096) == 4096
    return buffer[:]


def test_what_only_looks_stops_nobody_else(slow: tuple[Path, int]) -> None:
    """Each of these waits for the stopped filesystem at the same time, and a file that is open is read meanwhile."""
    top, daemon = slow
    fd = os.open(top / "warm", os.O_RDONLY | os.O_DIRECT)
    changed = os.open(top / "new", os.O_RDWR)
    try:
        assert b"".join(past_the_cache(fd, page) for page in range(SIZE // 4096)) == WARM
        os.pwrite(changed, b"changed", 0)
        os.fsync(changed)  # or the kernel might write it back just then, and what changes something waits in the loop
        looks: dict[str, Callable[[], Any]] = {
            "lookup of what is not there": lambda: os.path.lexists(top / "missing"),
            "open and read": lambda: (top / "cold").read_bytes() == WARM,
            "list": lambda: os.listdir(top),
            "list another": lambda: os.listdir(top / "directory"),
            "read in another": (top / "directory" / "f").read_bytes,
            "statfs": lambda: os.statvfs(top).f_namemax,
        }
        expected = [False, True, {"warm", "cold", "new", "directory", "empty"}, ["f"], b"1", 255]
        with stopped(daemon):
            waiting = {name: Waiting(call) for name, call in looks.items()}
            for page in range(SIZE // 4096):
                assert past_the_cache(fd, page) == WARM[:4096]
            assert [name for name, call in waiting.items() if not call.is_waiting] == []
        results = [call.result() for call in waiting.values()]
        results[2] = set(results[2])
        assert results == expected
    finally:
        os.close(fd)
        os.close(changed)
    assert (top / "new").read_bytes() == b"changed" + WARM[7:]


def test_many_that_wait(slow: tuple[Path, int]) -> None:
    """More than the daemon had threads for, once."""
    top, daemon = slow
    fd = os.open(top / "warm", os.O_RDONLY | os.O_DIRECT)
    try:
        past_the_cache(fd, 0)
        with stopped(daemon):
            waiting = [Waiting((top / f"missing{number}").stat) for number in range(45)]
            for _ in range(50):
                past_the_cache(fd, 0)
            assert all(call.is_waiting for call in waiting)
        for call in waiting:
            with pytest.raises(FileNotFoundError):
                call.result()
    finally:
        os.close(fd)
