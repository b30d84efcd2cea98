"""Telling the audit trail of damage and tampering, once for each thing and not faster than a trail can bear.

Each failure has its line in the log. A loop that reads one damaged block must not fill the disk with records, nor one
over a million damaged files: what is not recorded is counted, and the next record says how many there were.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from envfs.errors import EnvfsError

log = logging.getLogger("envfs.fs")

_PERIOD = 60.0  # seconds
_MOST = 60  # records in a period

Record = Callable[[str, str, int], None]


class Alarms:
    """`record(request, problem, unrecorded)` writes one audit record."""

    def __init__(self, record: Record, clock: Callable[[], float] = time.monotonic) -> None:
        self._record = record
        self._clock = clock
        self._since = clock()
        self._told: set[tuple[str, str]] = set()
        self._unrecorded = 0

    def tell(self, request: str, problem: str) -> None:
        """Something is not authentic, or not where it belongs. Never fails: the request does anyway."""
        now = self._clock()
        if now - self._since >= _PERIOD:
            self._since = now
            self._told.clear()
        if (request, problem) in self._told or len(self._told) >= _MOST:
            self._unrecorded += 1
            return
        self._told.add((request, problem))
        try:
            self._record(request, problem, self._unrecorded)
        except EnvfsError as error:
            log.error("an integrity failure could not be recorded: %s", error)  # noqa: TRY400
            self._unrecorded += 1
        else:
            self._unrecorded = 0
