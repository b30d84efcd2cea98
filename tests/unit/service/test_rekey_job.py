"""How far a rekey is said to be: never farther than what was done, and not for ever."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from envfs.fs.nodes import Node
from envfs.service import rekey_job
from envfs.service.rekey_job import RekeyJob

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def start(tmp_path: Path) -> Node:
    return Node(1, os.stat(tmp_path))


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rekey_job, "_PERIOD", -1.0)


def job(home: Path, start: Node, key: str = "") -> RekeyJob:
    return RekeyJob(home, bytes(16), 0, start, key)


def test_a_second_run_goes_on_and_a_third_begins_anew(tmp_path: Path, start: Node) -> None:
    job(tmp_path, start).done(start, start, b"b")
    assert job(tmp_path, start).after() == (b"b",)
    assert job(tmp_path, start, "another key").after() == ()
    job(tmp_path, start).finished()
    assert job(tmp_path, start).after() == ()


def test_a_file_that_failed_is_not_left_out(tmp_path: Path, start: Node) -> None:
    first = job(tmp_path, start)
    first.done(start, start, b"a")
    first.failed()
    first.done(start, start, b"c")
    assert job(tmp_path, start).after() == (b"a",)


def test_after_a_day_everything_is_done_again(tmp_path: Path, start: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    job(tmp_path, start).done(start, start, b"b")
    now = time.time()
    for moment, expected in ((now + 3600, (b"b",)), (now + 25 * 3600, ()), (now - 3600, ())):
        monkeypatch.setattr(time, "time", lambda moment=moment: moment)
        assert job(tmp_path, start).after() == expected


def test_another_directory_at_the_same_path_begins_anew(tmp_path: Path, start: Node) -> None:
    job(tmp_path, start).done(start, start, b"b")
    (tmp_path / "other").mkdir()
    assert job(tmp_path, Node(1, os.stat(tmp_path / "other"))).after() == ()
