"""What is asked of a copy, and what came of it."""

from __future__ import annotations

import enum
import threading
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Wishes:
    """`replace`: SRC wins where DST has something else; `compare`: read also what seems to be there already. `device`:
    where all of DST has to be (st_dev); None if it does not matter.
    """

    jobs: int = 2
    dry_run: bool = False
    replace: bool = False
    compare: bool = False
    device: int | None = None


class Outcome(enum.StrEnum):
    """What became of one entry."""

    COPIED = "copied"
    LINKED = "linked"
    PRESENT = "present"  # it was there already
    SKIPPED = "skipped"  # not to be copied: a socket
    CONFLICT = "conflict"  # something else is there
    CHANGED = "changed"  # while it was read
    FAILED = "failed"
    DAMAGED = "damaged"


_GOOD = frozenset((Outcome.COPIED, Outcome.LINKED, Outcome.PRESENT, Outcome.SKIPPED))


@dataclass(frozen=True, slots=True)
class Note:
    """An entry (its path below SRC) that is not simply there now, and why."""

    path: bytes
    outcome: Outcome
    detail: str


@dataclass(slots=True)
class Report:
    """Counts of entries, bytes of content that were copied, what was not kept of how many entries, and notes.

    `stopped`: why the rest was not looked at, with `next_step`. Several threads add to it.
    """

    entries: Counter[Outcome] = field(default_factory=Counter)
    bytes_copied: int = 0
    not_kept: Counter[str] = field(default_factory=Counter)
    notes: list[Note] = field(default_factory=list)
    stopped: str = ""
    next_step: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, path: bytes, outcome: Outcome, detail: str = "") -> None:
        with self._lock:
            self.entries[outcome] += 1
            if detail:
                self.notes.append(Note(path, outcome, detail))

    def add_bytes(self, count: int) -> None:
        with self._lock:
            self.bytes_copied += count

    def add_lost(self, what: list[str]) -> None:
        with self._lock:
            self.not_kept.update(what)

    @property
    def is_complete(self) -> bool:
        """Whether DST has all that SRC has, as far as it can be copied at all."""
        return not self.stopped and all(outcome in _GOOD for outcome in self.entries)

    @property
    def is_damaged(self) -> bool:
        return self.entries[Outcome.DAMAGED] > 0
