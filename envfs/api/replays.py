"""Remembering signatures, so that a request that was overheard cannot be sent again.

A signature is valid while its date is within the clock skew, so it has to be remembered for that long and no longer.
AWS's clients sign with a date in whole seconds and nothing random: two equal requests within one second carry the same
signature, and both are meant. So a signature counts as new until `GRACE` seconds after it first came; an eavesdropper
who repeats it in that time gets the answer to a request that was answered a moment ago, which he could overhear as well
(docs/KMS.md).
"""

from __future__ import annotations

from collections import deque
from typing import Final

from envfs.api.errors import SignatureMismatch
from envfs.api.sigv4 import SKEW
from envfs.errors import Throttling

GRACE: Final = 2.0  # seconds
MAX_OF_ONE_KEY: Final = 200_000  # signatures of one access key: 330 a second for the ten minutes that one can matter
_REMEMBERED: Final = 16  # bytes of a signature; whoever cannot sign cannot look for two that begin alike


class SeenSignatures:
    """The signatures of one server. `started`: when it began to listen, in seconds since 1970."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._of_key: dict[str, _Seen] = {}

    def check(self, access_key_id: str, signature: str, date: int, now: float) -> None:
        """Remembers an authentic signature of a request dated `date`. SignatureMismatch if it was seen before, or comes
        from a time that is not remembered; Throttling if there are too many to remember.
        """
        if date < self._started:
            raise SignatureMismatch("Signature is older than this server, which cannot know whether it was used.")
        seen = self._of_key.get(access_key_id)
        if seen is None:
            self._forget(now)
            seen = self._of_key[access_key_id] = _Seen()
        seen.forget(now)
        seen.check(bytes.fromhex(signature)[:_REMEMBERED], date, now)

    def _forget(self, now: float) -> None:
        for access_key_id, seen in list(self._of_key.items()):
            seen.forget(now)
            if not seen.first:
                del self._of_key[access_key_id]

    def __len__(self) -> int:
        return sum(len(seen.first) for seen in self._of_key.values())


class _Seen:
    """The signatures of one access key: when each first came, and in the order in which they may be forgotten."""

    __slots__ = ("_by_second", "first")

    def __init__(self) -> None:
        self.first: dict[bytes, float] = {}
        self._by_second: dict[int, deque[bytes]] = {}  # of dates

    def check(self, signature: bytes, date: int, now: float) -> None:
        first = self.first.get(signature)
        if first is not None:
            if not 0 <= now - first <= GRACE:
                raise SignatureMismatch("Signature was used before: sign each request anew.")
            return
        if len(self.first) >= MAX_OF_ONE_KEY:
            raise Throttling("more requests were signed with this access key than can be remembered; try again later")
        self.first[signature] = now
        self._by_second.setdefault(date, deque()).append(signature)

    def forget(self, now: float) -> None:
        """Drops the dates that `sigv4.check_date` refuses by now."""
        for date in [date for date in self._by_second if date < now - SKEW - 1]:
            for signature in self._by_second.pop(date):
                del self.first[signature]
