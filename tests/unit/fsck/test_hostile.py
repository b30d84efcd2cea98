"""A lower directory made to mislead a check or a repair: neither grants anything, writes elsewhere, or never ends."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from envfs.format.geometry import HEADER_SIZE
from envfs.format.header import SLOT_OFFSETS, SLOT_SIZE
from envfs.fsck.findings import Outcome, Problem
from tests.unit.fsck.conftest import CONTENT, Volume

if TYPE_CHECKING:
    from pathlib import Path


def test_content_that_was_moved_away_does_not_get_a_second_home(volume: Volume) -> None:
    """A directory without directory file that holds copies out of another one: two directories would have one id."""
    copy = volume.path(b"empty")
    shutil.copy(volume.path(b"dir/file"), copy)
    (copy / "envfs.dir").unlink()
    report = volume.check(repair=True)
    (finding,) = report.findings
    assert finding.problem is Problem.DIRECTORY_FILE
    assert finding.outcome is Outcome.PUT_ASIDE
    assert "another directory has it, too" in finding.detail
    assert volume.check().findings == []
    assert volume.read(b"dir/file") == CONTENT


def test_of_two_that_claim_one_id_none_is_made_again(volume: Volume) -> None:
    lower, copy = volume.path(b"dir"), volume.path(b"empty")
    shutil.copy(volume.path(b"dir/file"), copy)
    (lower / "envfs.dir").unlink()
    (copy / "envfs.dir").unlink()
    findings = [one for one in volume.check(repair=True).findings if one.problem is Problem.DIRECTORY_FILE]
    assert [one.outcome for one in findings] == [Outcome.PUT_ASIDE, Outcome.PUT_ASIDE]
    kept = {path.name for path in (volume.lower / "envfs.lost+found").glob("*/*/*")}
    assert len(kept) > 4


def test_a_directory_that_was_copied_to_its_place_before_the_last_rename(volume: Volume) -> None:
    fs = volume.lab.mount()
    old = fs.lower(b"dir/inner")
    fs.rename(b"dir/inner", b"dir/later")
    new = fs.lower(b"dir/later")
    volume.lab.unmount()
    old.mkdir()
    shutil.copy(new / "envfs.dir", old)
    assert [finding.problem for finding in volume.check().findings] == [Problem.DUPLICATE]


@pytest.mark.parametrize("size", [1 << 30, (1 << 43) + 5])
def test_a_file_that_was_made_endless_takes_no_longer(volume: Volume, size: int) -> None:
    path = volume.path(b"dir/file")
    os.truncate(path, size)
    report = volume.check()
    (finding,) = report.findings
    assert finding.problem is Problem.BLOCK
    assert len(finding.detail) < 200


def test_holes_are_zeros_within_the_range_and_damage_outside(volume: Volume) -> None:
    fs = volume.lab.mount()
    fs.truncate(b"dir/file", 1 << 32)
    fs.write(b"dir/file", b"x", (1 << 33) + 5)
    path = fs.lower(b"dir/file")
    assert volume.check().findings == []
    with open(path, "r+b") as file:
        file.seek(HEADER_SIZE)
        file.write(bytes(4124))
    assert "1 blocks of 4096 bytes are damaged: 0" in volume.check().findings[0].detail


def test_a_slot_that_was_zeroed_is_written_again(volume: Volume) -> None:
    path = volume.path(b"dir/file")
    for offset in SLOT_OFFSETS:
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(bytes(SLOT_SIZE))
        assert [one.outcome for one in volume.check(repair=True).findings] == [Outcome.REPAIRED]
        assert volume.check().findings == []
    assert volume.read(b"dir/file") == CONTENT


@pytest.mark.parametrize("trap", ["pipe", "link", "symlink"])
def test_the_index_of_what_is_put_aside_is_no_trap(volume: Volume, trap: str, tmp_path: Path) -> None:
    aside = volume.lower / "envfs.lost+found"
    aside.mkdir(mode=0o700)
    victim = volume.lower.parent / "victim"
    victim.write_bytes(b"somebody else's")
    index = aside / "index.jsonl"
    if trap == "pipe":
        os.mkfifo(index)
    elif trap == "link":
        index.hardlink_to(victim)
    else:
        index.symlink_to(victim)
    path = volume.path(b"dir/file")
    path.rename(path.with_name("nothing"))
    (finding,) = volume.check(repair=True).findings
    assert finding.outcome is Outcome.FOUND
    assert "could not be put aside" in finding.detail
    assert victim.read_bytes() == b"somebody else's"


def test_nothing_is_put_where_a_stranger_may_write(volume: Volume) -> None:
    (volume.lower / "envfs.lost+found").mkdir()
    (volume.lower / "envfs.lost+found").chmod(0o777)
    path = volume.path(b"dir/file")
    path.rename(path.with_name("nothing"))
    (finding,) = volume.check(repair=True).findings
    assert finding.outcome is Outcome.FOUND
