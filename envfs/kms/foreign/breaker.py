"""A circuit breaker: after a failure nobody waits for the same again, until one call has found that it is over.

Nygard, Release It! (2nd ed.), "Circuit Breaker".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from envfs.errors import EnvfsError, KeyUnavailable

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 10.0
PROBE_SECONDS: Final = 15.0  # after that, another call may look whether it is over


class Breaker:
    """Safe for several threads. Only KeyUnavailable, which has the unreachable among it, counts as a failure."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # Not the exception itself: its traceback would keep what the call had in hand.
        self._error: tuple[type[KeyUnavailable], str, str] | None = None
        self._closed_until = 0.0
        self._pause = 0.0
        self._is_looking = False

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Raises the last failure again while it is too early; otherwise the block is tried."""
        self._enter()
        try:
            yield
        except KeyUnavailable as error:
            self._failed(error)
            raise
        except EnvfsError:
            self._succeeded()  # it answered
            raise
        self._succeeded()

    def _enter(self) -> None:
        with self._lock:
            if self._error is None:
                return
            now = self._clock()
            if now < self._closed_until:
                kind, message, hint = self._error
                raise kind(f"{message} (not tried again yet)", hint=hint)
            self._closed_until = now + PROBE_SECONDS  # this call looks, the others do not wait for it
            self._is_looking = True

    def _failed(self, error: KeyUnavailable) -> None:
        with self._lock:
            if self._error is None:
                self._pause = FIRST_PAUSE
            elif self._is_looking:  # others that fail now began before the first failure was known
                self._pause = min(LONGEST_PAUSE, self._pause * 2)
            self._is_looking = False
            self._error = type(error), error.message, error.hint
            self._closed_until = self._clock() + self._pause

    def _succeeded(self) -> None:
        with self._lock:
            self._error, self._is_looking = None, False
