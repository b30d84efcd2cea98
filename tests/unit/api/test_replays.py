from __future__ import annotations

import pytest

from envfs.api import replays
from envfs.api.errors import SignatureMismatch
from envfs.api.replays import GRACE, SeenSignatures
from envfs.api.sigv4 import SKEW
from envfs.errors import Throttling

STARTED = 1_000_000.0
NOW = STARTED + 100
DATE = int(NOW)


def signature(number: int) -> str:
    return f"{number:032x}" * 2


def test_a_signature_is_new_once() -> None:
    seen = SeenSignatures(STARTED)
    seen.check("A", signature(1), DATE, NOW)
    seen.check("A", signature(2), DATE, NOW)
    seen.check("B", signature(1), DATE, NOW)
    with pytest.raises(SignatureMismatch, match="used before"):
        seen.check("A", signature(1), DATE, NOW + GRACE + 0.1)


def test_equal_requests_within_a_second_are_not_a_replay() -> None:
    seen = SeenSignatures(STARTED)
    for moment in (0.0, 0.5, GRACE):
        seen.check("A", signature(1), DATE, NOW + moment)
    with pytest.raises(SignatureMismatch):  # the grace counts from the first time, not from the last
        seen.check("A", signature(1), DATE, NOW + GRACE + 0.5)


def test_a_clock_that_was_put_back_makes_nothing_new() -> None:
    seen = SeenSignatures(STARTED)
    seen.check("A", signature(1), DATE, NOW)
    with pytest.raises(SignatureMismatch):
        seen.check("A", signature(1), DATE, NOW - 1)


def test_what_was_signed_before_the_server_began_is_refused() -> None:
    seen = SeenSignatures(STARTED)
    with pytest.raises(SignatureMismatch, match="older than this server"):
        seen.check("A", signature(1), int(STARTED) - 1, NOW)
    seen.check("A", signature(1), int(STARTED), NOW)


def test_a_signature_is_remembered_for_as_long_as_it_is_valid() -> None:
    """One dated five minutes ahead is valid for ten minutes."""
    seen = SeenSignatures(STARTED)
    seen.check("A", signature(1), DATE + SKEW, NOW)
    with pytest.raises(SignatureMismatch):
        seen.check("A", signature(1), DATE + SKEW, NOW + 2 * SKEW)


def test_nothing_is_remembered_for_longer() -> None:
    seen = SeenSignatures(STARTED)
    for number in range(1000):
        seen.check(f"key {number % 10}", signature(number), DATE + number, NOW + number)
    assert len(seen) < SKEW + 20
    seen.check("new", signature(0), DATE + 5000, NOW + 5000)
    assert len(seen) == 1


def test_too_many_to_remember_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "MAX_OF_ONE_KEY", 3)
    seen = SeenSignatures(STARTED)
    for number in range(3):
        seen.check("A", signature(number), DATE, NOW)
    with pytest.raises(Throttling):
        seen.check("A", signature(3), DATE, NOW)
    seen.check("B", signature(3), DATE, NOW)
    seen.check("A", signature(3), DATE + SKEW + 5, NOW + SKEW + 5)
