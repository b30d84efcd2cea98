"""Asks foreign KMSs in threads, while the event loop serves others: how many at once, and for how long.

`envfs.kms.foreign.exchange` says how a call of the engine comes to wait and is made again.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Final, TypeVar

import trio

from envfs.errors import KmsTimeout, Throttling
from envfs.kms.foreign.exchange import Answer, Answering, Pending, Question, ask, complete

R = TypeVar("R")

SECONDS: Final = 10.0  # for one request, from its first question to its last answer
THREADS: Final = 8
MOST: Final = 128  # requests that wait, those in threads included
MOST_OF_ONE_USER: Final = 48


class ForeignWait:
    """Of one event loop. Used in its thread."""

    def __init__(self, *, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._limiter: trio.CapacityLimiter | None = None
        self._waiting: Counter[int] = Counter()  # uid → requests

    async def complete(self, engine: Answering, uid: int, call: Callable[[], R], pending: Pending) -> R:
        """The outcome of `call`, a call of `engine` for the user `uid` that was Pending. What fails on the way is
        raised by the engine, which records it: KmsTimeout, Throttling, and what `Endpoint` raises.
        """
        deadline = trio.current_time() + self._seconds
        is_full = self._waiting.total() >= MOST or self._waiting[uid] >= MOST_OF_ONE_USER

        async def ask_elsewhere(question: Question) -> Answer:
            if is_full:
                return Answer(error=Throttling("too many requests wait for foreign KMSs", hint="try again in a moment"))
            return await self._ask(question, deadline)

        self._waiting[uid] += 1
        try:
            return await complete(engine, call, pending, ask_elsewhere)
        finally:
            self._waiting[uid] -= 1
            if not self._waiting[uid]:
                del self._waiting[uid]

    async def _ask(self, question: Question, deadline: float) -> Answer:
        if self._limiter is None:
            self._limiter = trio.CapacityLimiter(THREADS)
        asking = _Asking(question)
        with trio.CancelScope(deadline=deadline):
            try:
                return await trio.to_thread.run_sync(asking.run, limiter=self._limiter, abandon_on_cancel=True)
            except trio.Cancelled:
                asking.abandon()
                raise
        return Answer(error=KmsTimeout(f"the KMS of {question.place.key} does not answer in time"))


class _Asking:
    """One question in a thread. The answer that comes when nobody waits any more is wiped."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._lock = threading.Lock()
        self._answer: Answer | None = None
        self._is_abandoned = False

    def run(self) -> Answer:
        answer = ask(self._question)
        with self._lock:
            self._answer = answer
            if self._is_abandoned:
                answer.wipe()
        return answer

    def abandon(self) -> None:
        with self._lock:
            self._is_abandoned = True
            if self._answer is not None:
                self._answer.wipe()
