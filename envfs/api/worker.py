"""One thread, with an engine of its own, for the calls that take long: where they run, nobody else waits for them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import trio

from envfs.api.dispatch import Api
from envfs.errors import Throttling

if TYPE_CHECKING:
    from envfs.kms.engine import Engine
    from envfs.kms.model import Principal, RequestFacts

MAX_WAITING: Final = 16  # calls, the one that runs included
MAX_OF_ONE_USER: Final = 4  # of them: nobody takes all the places, allowed or not
_log: Final = logging.getLogger(__name__)


class Worker:
    """Opens its engine with the first call."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="envfs-kms")
        self._sibling: Engine | None = None  # of the thread alone
        self._waiting: Counter[int] = Counter()  # uid → calls
        self._is_closing = False

    async def call(self, principal: Principal, target: str, request: object, facts: RequestFacts) -> dict[str, Any]:
        """As `Api.call`. Throttling if too many wait already. One that is cancelled is carried out all the same."""
        uid = principal.uid
        if self._waiting.total() >= MAX_WAITING or self._waiting[uid] >= MAX_OF_ONE_USER:
            raise Throttling("too many slow operations are waiting already", hint="try again in a moment")
        self._waiting[uid] += 1
        try:
            return await self._wait_for(lambda: self._api().call(principal, target, request, facts))
        finally:
            self._waiting[uid] -= 1
            if not self._waiting[uid]:
                del self._waiting[uid]

    def release(self) -> None:
        """Waits for the calls that run and wait, and closes the engine; the next call opens another one."""
        self._executor.submit(self._close_sibling).result()

    def close(self) -> None:
        """Waits for the call that runs, drops those that wait, and closes the engine."""
        self._is_closing = True
        self._executor.submit(self._close_sibling)
        self._executor.shutdown(wait=True)

    async def _wait_for(self, function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        done, token = trio.Event(), trio.lowlevel.current_trio_token()

        def wake(_: Future[dict[str, Any]]) -> None:
            try:
                token.run_sync_soon(done.set)
            except trio.RunFinishedError:
                pass  # nobody waits any more

        future = self._executor.submit(function)
        future.add_done_callback(wake)
        await done.wait()
        return future.result()

    def _api(self) -> Api:
        if self._is_closing:
            raise Throttling("the server is shutting down", hint="try again in a moment")
        if self._sibling is None:
            self._sibling = self._engine.sibling()
        return Api(self._sibling)

    def _close_sibling(self) -> None:
        if self._sibling is not None:
            self._sibling.close()
            self._sibling = None
