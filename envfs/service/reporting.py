"""What an operation that takes long tells its client before its result.

Three kinds of lines, each a JSON object: `{"progress": {…}}` replaces the progress told before, so only the newest is
sent, a few times a second, and again now and then while nothing changes; `{"item": {…}}` is one of many and none is
left out; the last line is the result, as for any operation.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import trio

LongOperation = Callable[["Reporter"], Awaitable[dict[str, Any]]]
"""What a handler returns instead of a result that takes long to make. It is cancelled when its client goes away."""

_PERIOD = 0.1  # seconds between two lines of progress
_HEARTBEAT = 5.0  # seconds after which the newest progress is told again: a silent daemon is taken for a dead one
_TIMEOUT = 30.0  # seconds for the client to take a line
_SLICE = 0.003  # seconds of work, then requests of the filesystem come first


class Reporter:
    """Tells one client how far its operation is. `send` writes a line to the connection."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]], requests: Callable[[], int] = lambda: 0) -> None:
        self._send = send
        self._requests = requests
        self._sending = trio.Lock()
        self._progress: dict[str, Any] = {}
        self._changed = False
        self._slice_began = time.monotonic()

    def progress(self, **values: Any) -> None:
        """Set members of the progress. Costs next to nothing: it is sent from time to time."""
        self._progress.update(values)
        self._changed = True

    async def item(self, **values: Any) -> None:
        """Send one of many; waits until the client has room for it."""
        await self._line({"item": values})

    async def give_way(self) -> None:
        """To be called often (between two files, say): lets requests of the filesystem come first every few ms.

        While the filesystem is busy, both get about half of the time.
        """
        worked = time.monotonic() - self._slice_began
        if worked < _SLICE:
            return
        end = time.monotonic() + worked
        before = self._requests()
        while True:
            # Two: after the first, who has a request to serve is only on his way.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            served = self._requests()
            if served == before or time.monotonic() >= end:
                break
            before = served
        self._slice_began = time.monotonic()

    async def keep_telling(self) -> None:
        """Sends progress until cancelled."""
        told = trio.current_time()
        while True:
            await trio.sleep(_PERIOD)
            if self._changed or trio.current_time() - told > _HEARTBEAT:
                self._changed = False
                told = trio.current_time()
                await self._line({"progress": self._progress})

    async def finish(self) -> None:
        """No line of this reporter is under way afterwards, nor comes any more."""
        await self._sending.acquire()

    async def _line(self, content: dict[str, Any]) -> None:
        async with self._sending:
            with trio.fail_after(_TIMEOUT):
                await self._send(json.dumps(content).encode() + b"\n")
