"""A quicker way for pyfuse3 to wait for the next request.

Waking a sleeping thread costs more than answering most requests. So, for a moment after a request, the FUSE
descriptor is polled before the task goes to sleep; only while requests really come that quickly, and never on one
core. And one task serves all requests, so that none is handed from task to task, except while a handler waits for a
thread.

pyfuse3 takes what it needs of trio from its module global `trio`, and its asyncio support replaces that global; so
does `_Trio` here.
"""

from __future__ import annotations

import select
import time
from collections.abc import AsyncIterator, Awaitable, Generator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, cast

import pyfuse3
import trio

# How long to look for a request before sleeping, nanoseconds.
_LOOK = 100_000
# A sleep that ended so soon would have been worth looking for.
_NEARLY = 300_000
# How many fruitless looks in a row until no more are made; each fruitful one earns one.
_CREDIT = 6
# After so many requests without a pause, other tasks get their turn.
_FAIRNESS = 128


class _Done:
    """What has happened already. Awaiting it is cheaper than a coroutine that returns at once."""

    def __await__(self) -> Generator[None, None, None]:
        return _NOTHING_TO_AWAIT


# An exhausted iterator: `await` takes it for one that has returned.
_NOTHING_TO_AWAIT = cast("Generator[None, None, None]", iter(()))
_DONE = _Done()


class _Baton:
    """Stands for the lock around "wait for a request".

    Whoever comes back first takes it; others wait until somebody gives way.
    """

    def __init__(self) -> None:
        self._held = False
        self._waiting = trio.lowlevel.ParkingLot()

    def __aenter__(self) -> Awaitable[None]:
        if self._held:
            return self._wait()
        self._held = True
        return _DONE

    async def _wait(self) -> None:
        while self._held:
            await self._waiting.park()
        self._held = True

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Awaitable[None]:
        self._held = False
        if kind is not None:
            self.give_way()
        return _DONE

    def give_way(self) -> None:
        """The task that served requests is about to wait, or has ended: let another one take over."""
        if not self._held:
            self._waiting.unpark()


class _TaskEnds(trio.abc.Instrument):
    """Hands the baton on when a task of pyfuse3 ends."""

    def __init__(self, baton: _Baton) -> None:
        self._baton = baton

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        if task.name.startswith("pyfuse-"):
            self._baton.give_way()


class _Lowlevel:
    """trio.lowlevel for pyfuse3, with its own `wait_readable`."""

    def __init__(self, *, looks: bool) -> None:
        self._looks = looks
        self._credit = 0
        self._poll: select.poll | None = None
        self._in_a_row = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(trio.lowlevel, name)

    def wait_readable(self, fd: int) -> Awaitable[None]:
        """Done when the FUSE descriptor has a request."""
        if self._credit > 0 and self._in_a_row < _FAIRNESS and self._look():
            self._in_a_row += 1
            if self._credit < _CREDIT:
                self._credit += 1
            return _DONE
        return self._sleep(fd)

    def _look(self) -> bool:
        """Poll for a moment."""
        poll = self._poll
        if poll is None:
            return False
        if poll.poll(0):
            return True
        end = time.perf_counter_ns() + _LOOK
        while time.perf_counter_ns() < end:
            if poll.poll(0):
                return True
        self._credit -= 1
        return False

    async def _sleep(self, fd: int) -> None:
        if self._poll is None and self._looks:
            self._poll = select.poll()
            self._poll.register(fd, select.POLLIN)
        self._in_a_row = 0
        began = time.perf_counter_ns()
        await trio.lowlevel.wait_readable(fd)
        if self._looks and time.perf_counter_ns() - began < _NEARLY:
            self._credit = min(self._credit + 2, _CREDIT)


class _Trio:
    """What pyfuse3 sees as the module trio."""

    def __init__(self, *, looks: bool) -> None:
        self.lowlevel = _Lowlevel(looks=looks)
        self.baton = _Baton()

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)

    def Lock(self) -> _Baton:  # noqa: N802 - the name that pyfuse3 calls
        return self.baton


_serving: _Trio | None = None


def give_way() -> None:
    """To be called by a handler right before it awaits: another task takes the requests that come meanwhile."""
    if _serving is not None:
        _serving.baton.give_way()


@asynccontextmanager
async def replaced_trio(*, looks: bool) -> AsyncIterator[None]:
    global _serving  # noqa: PLW0603 - pyfuse3 has one session for each process as well
    _serving = _Trio(looks=looks)
    ends = _TaskEnds(_serving.baton)
    trio.lowlevel.add_instrument(ends)
    original = pyfuse3.trio  # type: ignore[attr-defined]
    pyfuse3.trio = _serving  # type: ignore[attr-defined]
    try:
        yield
    finally:
        pyfuse3.trio = original  # type: ignore[attr-defined]
        trio.lowlevel.remove_instrument(ends)
        _serving = None
