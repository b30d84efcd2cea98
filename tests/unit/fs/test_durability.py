"""What must be on disk before a sync may say so: the files whose content gives other names a meaning."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from envfs.fs.durability import Unsynced
from envfs.fs.lower import RENAME_EXCHANGE, Kind, kind_of
from tests.unit.fs.lab import Lab, Session

if TYPE_CHECKING:
    from pathlib import Path


def remembered(fs: Session) -> set[str]:
    """The lower paths, relative to the lower directory, that the next sync begins with."""
    return {os.path.relpath(path, fs.lab.lower) for path in fs.fs.state.unsynced.paths()}


def below(fs: Session, path: bytes, *more: str) -> str:
    return os.path.join(os.fsdecode(fs.node(path).lower_path()), *more)


def name_file(fs: Session, path: bytes) -> str:
    return below(fs, path).replace("envfs.long.", "envfs.name.")


@pytest.fixture
def fs(disk_lab: Lab) -> Session:
    session = disk_lab.mount()
    if session.fs.state.never_blocks:
        pytest.skip("needs a directory on a disk")
    return session


LONG = b"n" * 255


def take(fs: Session) -> None:
    work = fs.fs.sync_work()
    if work is not None:
        work()
    assert remembered(fs) == set()


def test_a_new_file_depends_on_nothing_else(fs: Session) -> None:
    fs.write(b"f", b"1")
    assert fs.fs.sync_work() is None


def test_a_new_directory_is_remembered_by_its_directory_file(fs: Session) -> None:
    fs.mkdir(b"d")
    fs.mkdir(b"d/e")
    assert remembered(fs) == {below(fs, b"d", "envfs.dir"), below(fs, b"d/e", "envfs.dir")}
    take(fs)


def test_name_files_are_remembered(fs: Session) -> None:
    fs.write(LONG, b"1")
    assert remembered(fs) == {name_file(fs, LONG)}
    take(fs)
    fs.rename(LONG, b"o" * 255)
    assert name_file(fs, b"o" * 255) in remembered(fs)
    take(fs)


def test_link_files_are_remembered(fs: Session) -> None:
    fs.symlink(b"l", b"t" * 4000)
    (found,) = remembered(fs)
    assert found.startswith("envfs.link.")
    take(fs)


def test_what_was_moved_is_remembered_with_its_new_place(fs: Session) -> None:
    fs.write(b"f", b"1")
    fs.mkdir(b"d")
    fs.mkdir(b"e")
    take(fs)
    fs.rename(b"f", b"d/g")
    assert remembered(fs) == {below(fs, b"d/g")}
    take(fs)
    fs.rename(b"d", b"e/d")
    assert remembered(fs) == {below(fs, b"e/d", "envfs.dir")}
    take(fs)
    fs.link(b"e/d/g", b"h")
    assert remembered(fs) == {below(fs, b"h")}
    take(fs)
    fs.rename(b"h", b"e", RENAME_EXCHANGE)
    assert remembered(fs) == {below(fs, b"e"), below(fs, b"h", "envfs.dir")}
    take(fs)


def test_a_directory_that_takes_the_place_of_another_is_remembered(fs: Session) -> None:
    fs.mkdir(b"d")
    fs.mkdir(b"e")
    take(fs)
    fs.rename(b"d", b"e")
    assert remembered(fs) == {below(fs, b"e", "envfs.dir")}


def test_too_many_are_one_sync_of_everything(fs: Session) -> None:
    for index in range(70):
        fs.mkdir(b"d%d" % index)
    before = len(os.listdir("/proc/self/fd"))
    assert remembered(fs) == set()
    work = fs.fs.sync_work()
    assert work is not None
    work()
    assert fs.fs.sync_work() is None
    fs.mkdir(b"one more")
    assert remembered(fs) == {below(fs, b"one more", "envfs.dir")}
    assert len(os.listdir("/proc/self/fd")) == before + 2  # its own descriptor, and the remembered one
    take(fs)


def test_what_cannot_be_opened_is_synced_with_everything(tmp_path: Path) -> None:
    root_fd = os.open(tmp_path, os.O_RDONLY)
    unsynced = Unsynced(root_fd, needed=True)
    try:
        unsynced.add(root_fd, b"nothing there")
        work = unsynced.take()
        assert work is not None
        work()
        assert unsynced.take() is None
    finally:
        unsynced.close()
        os.close(root_fd)


def test_nothing_is_remembered_where_nothing_is_synced(lab: Lab) -> None:
    fs = lab.mount()
    if not fs.fs.state.never_blocks:
        pytest.skip("needs tmpfs")
    fs.mkdir(b"d")
    fs.write(LONG, b"1")
    assert fs.fs.sync_work() is None


def test_a_filesystem_that_is_not_known_may_be_anything() -> None:
    fd = os.open("/proc", os.O_RDONLY)
    try:
        assert kind_of(fd) is Kind.REMOTE
    finally:
        os.close(fd)


def test_a_sync_does_not_rely_on_another_that_is_under_way(tmp_path: Path) -> None:
    root_fd = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "file").touch()
    unsynced = Unsynced(root_fd, needed=True)
    try:
        unsynced.add(root_fd, b"file")
        first, second = unsynced.take(), unsynced.take()
        assert first is not None
        assert second is not None
        second()
        assert unsynced.take() is None
        first()
    finally:
        unsynced.close()
        os.close(root_fd)


def test_what_is_written_during_a_sync_of_everything_needs_another(tmp_path: Path) -> None:
    root_fd = os.open(tmp_path, os.O_RDONLY)
    unsynced = Unsynced(root_fd, needed=True)
    try:
        unsynced.add(root_fd, b"nothing there")
        work = unsynced.take()
        assert work is not None
        unsynced.add(root_fd, b"nothing here either")
        work()
        again = unsynced.take()
        assert again is not None
        again()
        assert unsynced.take() is None
    finally:
        unsynced.close()
        os.close(root_fd)


def test_a_sync_that_fails_is_to_be_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root_fd = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "file").touch()
    unsynced = Unsynced(root_fd, needed=True)

    def broken(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    try:
        unsynced.add(root_fd, b"file")
        work = unsynced.take()
        assert work is not None
        monkeypatch.setattr(os, "fsync", broken)
        with pytest.raises(OSError, match="Input/output"):
            work()
        assert unsynced.paths() == [str(tmp_path / "file")]
    finally:
        unsynced.close()
        os.close(root_fd)
