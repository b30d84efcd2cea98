"""Each kind of damage is found where it is and nowhere else, and repairs lose nothing."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from envfs.errors import ConfigError, IntegrityError
from envfs.format.geometry import HEADER_SIZE
from envfs.format.header import SLOT_OFFSETS
from envfs.fsck.content import OpenFile
from envfs.fsck.findings import Outcome, Problem, Spot
from envfs.service.errors import MountError
from tests.unit.fs.lab import flip
from tests.unit.fs.test_rekeying import rekey, rewrap_one
from tests.unit.fsck.conftest import CONTENT, LONG, Volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from envfs.fsck.findings import Report


def kinds(report: Report) -> list[tuple[str, str]]:
    return [(finding.problem.value, finding.path) for finding in report.findings]


def test_a_sound_volume_is_clean_and_everything_in_it_was_looked_at(volume: Volume) -> None:
    report = volume.check()
    assert (report.findings, report.is_clean) == ([], True)
    assert (report.directories, report.files, report.symlinks) == (5, 5, 2)
    assert report.bytes_read == 5 * len(CONTENT)


def test_without_read_data_no_block_is_read(volume: Volume) -> None:
    flip(volume.path(b"dir/file"), HEADER_SIZE + 100)
    assert volume.check(read_data=False).is_clean
    assert kinds(volume.check()) == [("block", "/dir/file")]


def damage_block(path: Path) -> None:
    flip(path, HEADER_SIZE + 4124 + 7)


def cut(path: Path) -> None:
    os.truncate(path, HEADER_SIZE + 4124)


def destroy_header(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(SLOT_OFFSETS[0])
        file.write(os.urandom(896))


def remove_header(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(bytes(HEADER_SIZE))


def damage_both_slots(path: Path) -> None:
    for offset in SLOT_OFFSETS:
        flip(path, offset + 40)


def damage_place(path: Path) -> None:
    flip(path, 30)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (damage_block, Problem.BLOCK),
        (cut, Problem.CUT),
        (destroy_header, Problem.HEADER),
        (remove_header, Problem.HEADER),
        (damage_both_slots, Problem.HEADER),
        (damage_place, Problem.PLACE),
    ],
)
def test_damage_of_a_file_is_found_at_that_file_alone(
    volume: Volume, damage: Callable[[Path], None], problem: Problem
) -> None:
    damage(volume.path(b"dir/file"))
    report = volume.check()
    assert kinds(report) == [(problem.value, "/dir/file")]
    assert not report.is_clean
    assert volume.read(b"dir/inner/deep") == CONTENT


@pytest.mark.parametrize("damage", [cut, destroy_header, remove_header, damage_both_slots, damage_place])
def test_what_cannot_be_mended_is_put_aside_and_not_deleted(volume: Volume, damage: Callable[[Path], None]) -> None:
    path = volume.path(b"dir/file")
    damage(path)
    damaged = path.read_bytes()
    report = volume.check(repair=True)
    assert [finding.outcome for finding in report.findings] == [Outcome.PUT_ASIDE]
    assert report.is_clean
    (kept,) = (volume.lower / "envfs.lost+found").glob(f"*/{path.name}")
    assert kept.read_bytes() == damaged
    (line,) = (volume.lower / "envfs.lost+found" / "index.jsonl").read_text().splitlines()
    assert json.loads(line)["lower"] == os.fsdecode(path.relative_to(volume.lower))
    assert volume.check().findings == []
    assert volume.lab.mount().names(b"dir") == [b"far", b"inner", b"link", b"second"]


def test_damaged_blocks_stay_where_they_are_since_the_others_can_be_read(volume: Volume) -> None:
    damage_block(volume.path(b"dir/file"))
    report = volume.check(repair=True)
    assert [(finding.problem, finding.outcome) for finding in report.findings] == [(Problem.BLOCK, Outcome.FOUND)]
    assert "1 blocks of 4096 bytes are damaged: 1" in report.findings[0].detail
    assert volume.lab.mount().read(b"dir/file", 0, 4096) == CONTENT[:4096]


@pytest.mark.parametrize("slot", [0, 1])
def test_a_damaged_slot_of_two_is_written_again(volume: Volume, slot: int) -> None:
    path = volume.path(b"dir/file")
    flip(path, SLOT_OFFSETS[slot] + 45)
    report = volume.check(repair=True)
    assert [(finding.problem, finding.outcome) for finding in report.findings] == [(Problem.SLOT, Outcome.REPAIRED)]
    assert volume.check().findings == []
    flip(path, SLOT_OFFSETS[1 - slot] + 45)  # the one that was written again carries the file alone now
    assert volume.read(b"dir/file") == CONTENT


def test_a_file_that_was_moved_or_copied_by_hand(volume: Volume) -> None:
    there = volume.path(b"dir/file")
    shutil.copy(there, volume.path(b"empty") / there.name)
    os.rename(volume.path(b"dir/inner/deep"), volume.path(b"top"))
    report = volume.check(repair=True)
    assert {finding.problem for finding in report.findings} == {Problem.NAME, Problem.PLACE}
    assert all(finding.outcome is Outcome.PUT_ASIDE for finding in report.findings)
    assert volume.read(b"dir/file") == CONTENT
    assert volume.check().findings == []


def test_a_lost_directory_file_is_made_again_from_what_stands_in_the_directory(volume: Volume) -> None:
    inner = volume.path(b"dir")
    (inner / "envfs.dir").unlink()
    report = volume.check()
    assert kinds(report) == [("directory-file", "/dir")]
    report = volume.check(repair=True)
    assert [finding.outcome for finding in report.findings] == [Outcome.REPAIRED]
    assert volume.read(b"dir/inner/deep") == CONTENT
    assert volume.read(b"dir/file") == CONTENT
    assert volume.check().findings == []


def test_an_empty_directory_without_its_directory_file_is_put_aside(volume: Volume) -> None:
    (volume.path(b"empty") / "envfs.dir").unlink()
    report = volume.check(repair=True)
    assert [finding.outcome for finding in report.findings] == [Outcome.PUT_ASIDE]
    assert volume.check().findings == []


def test_the_root_gets_its_directory_file_back(volume: Volume) -> None:
    (volume.lower / "envfs.dir").write_bytes(b"garbage")
    assert [finding.outcome for finding in volume.check(repair=True).findings] == [Outcome.REPAIRED]
    assert volume.read(b"top") == CONTENT


def test_a_directory_that_was_moved_by_hand_is_put_aside_whole(volume: Volume) -> None:
    inner = volume.path(b"dir/inner")
    os.rename(inner, volume.path(b"empty") / inner.name)
    report = volume.check()
    assert [finding.problem for finding in report.findings] == [Problem.NAME]
    volume.check(repair=True)
    (kept,) = (volume.lower / "envfs.lost+found").glob(f"*/{inner.name}")
    assert {"envfs.dir"} < set(os.listdir(kept))
    assert volume.check().findings == []


def test_long_names(volume: Volume) -> None:
    path = volume.path(LONG + b"/" + LONG)
    beside = path.with_name(path.name.replace("envfs.long.", "envfs.name."))
    saved = beside.read_bytes()
    beside.write_bytes(saved[:-1] + b"A")
    assert [finding.problem for finding in volume.check().findings] == [Problem.NAME_FILE]
    beside.unlink()
    report = volume.check(repair=True)
    assert [(finding.problem, finding.outcome) for finding in report.findings] == [
        (Problem.NAME_FILE, Outcome.PUT_ASIDE)
    ]


def test_leavings_are_put_aside(volume: Volume) -> None:
    (volume.lower / "envfs.tmp.0123456789abcdef").mkdir()
    (volume.lower / ("envfs.name." + "A" * 43)).write_bytes(b"x" * 300)
    (volume.path(b"dir") / ("envfs.link." + "0" * 32)).write_bytes(b"x" * 5000)
    (volume.lower / "envfs.else").touch()
    before = volume.check()
    outcomes = sorted(finding.outcome.value for finding in before.findings)
    assert outcomes == ["found", "harmless", "harmless", "harmless"]
    (volume.lower / "envfs.else").unlink()
    assert volume.check().is_clean
    (volume.lower / "envfs.else").touch()
    report = volume.check(repair=True)
    assert [finding.problem for finding in report.findings] == [Problem.LEAVING] * 4
    assert volume.check().findings == []
    assert len(list((volume.lower / "envfs.lost+found").iterdir())) == 5


def test_symlinks(volume: Volume) -> None:
    far = volume.path(b"dir/far")
    os.unlink(far.parent / os.readlink(far))
    link = volume.path(b"dir/link")
    text = os.readlink(link)
    link.unlink()
    link.symlink_to("/etc/passwd")
    assert kinds(volume.check()) == [("symlink", "/dir/far"), ("symlink", "/dir/link")] or kinds(volume.check()) == [
        ("symlink", "/dir/link"),
        ("symlink", "/dir/far"),
    ]
    link.unlink()
    link.symlink_to(text)
    assert kinds(volume.check()) == [("symlink", "/dir/far")]


@pytest.mark.parametrize("name", ["envfs.volume", "envfs.volume.backup"])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_one_copy_of_the_volume_file_is_made_from_the_other(volume: Volume, name: str, how: str) -> None:
    if how == "missing":
        (volume.lower / name).unlink()
    else:
        flip(volume.lower / name, 50)
    assert [finding.problem for finding in volume.check().findings] == [Problem.VOLUME_FILE]
    assert [finding.outcome for finding in volume.check(repair=True).findings] == [Outcome.REPAIRED]
    assert volume.check().findings == []
    assert volume.read(b"top") == CONTENT


def test_both_copies_damaged(volume: Volume) -> None:
    flip(volume.lower / "envfs.volume", 50)
    flip(volume.lower / "envfs.volume.backup", 50)
    with pytest.raises(IntegrityError):
        volume.check(repair=True)


def test_not_a_volume(volume: Volume, tmp_path: Path) -> None:
    volume.lab.lower = tmp_path / "nothing"
    with pytest.raises(ConfigError):
        volume.check()
    volume.lab.lower.mkdir()
    with pytest.raises(ConfigError):
        volume.check()


def test_what_the_kms_refuses_is_not_damage(volume: Volume) -> None:
    fs = volume.lab.mount()
    key = volume.lab.engine.create_key(volume.lab.me).arn
    fs.fs.state.directories.set_key(fs.node(b"dir"), key)
    fs.write(b"dir/other", b"x")
    volume.lab.unmount()
    volume.lab.engine.disable_key(volume.lab.me, key)
    report = volume.check()
    assert [(finding.problem, finding.path, finding.outcome) for finding in report.findings] == [
        (Problem.KEY, "/dir/other", Outcome.NOT_CHECKED)
    ]
    assert report.is_clean


def test_a_damaged_attribute(volume: Volume) -> None:
    fs = volume.lab.mount()
    fs.fs.xattrs.set(fs.node(b"dir/file"), b"user.note", b"hello")
    fs.fs.xattrs.set(fs.node(b"dir"), b"user.note", b"hello")
    assert volume.check().findings == []
    path = volume.path(b"dir/file")
    (name,) = os.listxattr(path)
    os.setxattr(path, name, b"x" * 40)
    assert kinds(volume.check()) == [("xattr", "/dir/file")]


def test_a_volume_in_use_is_checked_and_not_repaired(volume: Volume) -> None:
    import fcntl

    fd = os.open(volume.lower, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        assert volume.check().findings == []
        with pytest.raises(MountError):
            volume.check(repair=True)
        damage_block(volume.path(b"dir/file"))
        assert kinds(volume.check()) == [("block", "/dir/file")]
    finally:
        os.close(fd)


def test_planted_devices_and_pipes_hang_nothing(volume: Volume) -> None:
    path = volume.path(b"dir/file")
    path.unlink()
    os.mkfifo(path)
    report = volume.check()
    assert (report.findings, report.others) == ([], 1)
    (volume.path(b"dir") / "envfs.dir").unlink()
    os.mkfifo(volume.lower / path.parent.name / "envfs.dir")
    assert [finding.problem for finding in volume.check().findings] == [Problem.DIRECTORY_FILE]


def test_a_file_whose_rekey_was_cut_off_is_sound(volume: Volume) -> None:
    """Blocks under both DEKs can be read; a damaged one among them is found."""

    def break_off(number: int) -> None:
        if number == 1:
            raise KeyboardInterrupt

    fs = volume.lab.mount()
    fs.write(b"big", bytes(200_000))
    with pytest.raises(KeyboardInterrupt):
        rekey(fs, b"big", break_off)
    path = volume.path(b"big")
    assert volume.check().findings == []
    for block in (0, 40):
        flip(path, HEADER_SIZE + 4124 * block + 7)
    assert kinds(volume.check()) == [("block", "/big")]


def test_a_new_dek_while_a_file_is_looked_at_is_no_damage(volume: Volume) -> None:
    fs = volume.lab.mount()
    with fs.opened(b"top") as content:
        key = bytes(bytearray(content.header_key))  # of its own: the content's is overwritten when it is closed
        opened = OpenFile(Spot(b"", b"x", b"/top"), content.slot, key, content.codec)
    with fs.lower(b"top").open("rb") as file:
        assert not opened.has_other_keys(file.fileno())
        rewrap_one(fs, b"top", fs.lab.engine.service_managed_key("alias/envfs/other"))
        assert not opened.has_other_keys(file.fileno())
        rekey(fs, b"top")
        assert opened.has_other_keys(file.fileno())
    volume.lab.unmount()
