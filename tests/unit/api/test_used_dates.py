from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from envfs.api.errors import SignatureMismatch
from envfs.api.sigv4 import SKEW
from envfs.api.used_dates import STEP, UsedDates
from envfs.errors import IntegrityError, Internal

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_000_000.5
DATE = 1_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "used-dates.json"


def test_a_date_ahead_is_used_up_for_the_next_server_and_not_for_this_one(path: Path) -> None:
    used = UsedDates(path)
    used.use("A", DATE + 60, NOW)
    used.check("A", DATE + 60)
    following = UsedDates(path)
    for date in (DATE, DATE + 60):
        with pytest.raises(SignatureMismatch, match="predecessor"):
            following.check("A", date)
    following.check("A", DATE + 60 + STEP + 1)
    following.check("B", DATE + 60)


def test_it_stays_used_up_over_several_restarts(path: Path) -> None:
    UsedDates(path).use("A", DATE + SKEW, NOW)
    UsedDates(path).use("B", DATE + 7, NOW + 3)
    with pytest.raises(SignatureMismatch):
        UsedDates(path).check("A", DATE + SKEW)


def test_clients_whose_clocks_are_right_cost_no_writing(path: Path) -> None:
    used = UsedDates(path)
    for date in (DATE - 60, DATE):
        used.use("A", date, NOW)
    assert not path.exists()


def test_the_file_is_written_now_and_then_and_keeps_nothing_that_has_passed(path: Path) -> None:
    used = UsedDates(path)
    written = set()
    for second in range(5 * STEP):
        used.use("A", DATE + second + 60, NOW + second)
        written.add(path.stat().st_ino)
    assert len(written) <= 5
    used.use("B", DATE + 5000, NOW + 4990)
    UsedDates(path).check("A", DATE)
    assert path.read_text() == f'{{"B": {DATE + 5000 + STEP}}}'
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_written_down_is_not_accepted(tmp_path: Path) -> None:
    used = UsedDates(tmp_path / "gone" / "used-dates.json")
    for _ in range(2):
        with pytest.raises(Internal, match="cannot be written"):
            used.use("A", DATE + 60, NOW)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"A": "x"}', b'{"A": true}', b"\xff", b"[" * 100_000])
def test_a_damaged_file_is_not_taken_for_an_empty_one(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="is damaged"):
        UsedDates(path)
