"""The daemon of an ordinary user: what he may do by right to files and directories whose mode is in the daemon's way.

The tests run in a child process as `nobody` where root runs them: to root no mode is in the way.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from envfs.errors import IntegrityError
from envfs.fs.attributes import Change
from envfs.fs.lower import RENAME_EXCHANGE
from tests.integration.users import UnixUser, run_as_user
from tests.unit.fs.lab import Lab, lower_names, read_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def _imported() -> None:
    """Everything that is imported when it is first needed: the interpreter may be out of an ordinary user's reach."""
    with tempfile.TemporaryDirectory() as directory:
        lab = Lab(Path(directory))
        fs = lab.mount()
        fs.write(b"f", b"1")
        fs.rename(b"f", b"g")
        lab.close()
    "".encode("ascii")
    "".encode("idna")


@pytest.fixture(params=["memory", "disk"])
def home(request: pytest.FixtureRequest, _imported: None) -> Iterator[Path]:
    """A directory of the ordinary user, on tmpfs and where syncs have to be remembered."""
    place = "/dev/shm" if request.param == "memory" else "/var/tmp"
    with tempfile.TemporaryDirectory(prefix="envfs-test-", dir=place) as directory:
        user = ordinary()
        os.chown(directory, user.uid, user.gid)
        yield Path(directory)


def ordinary() -> UnixUser:
    return UnixUser.nobody() if os.getuid() == 0 else UnixUser.current()


def as_ordinary_user(home: Path, test: Callable[[Lab], None]) -> None:
    def run() -> None:
        os.umask(0)
        lab = Lab(home)
        try:
            test(lab)
        finally:
            lab.close()

    run_as_user(ordinary(), run)


MODES = [0o444, 0o400, 0o000, 0o200, 0o4444]


@pytest.mark.parametrize("mode", MODES)
def test_a_file_of_any_mode_can_be_renamed_and_linked(home: Path, mode: int) -> None:
    def test(lab: Lab) -> None:
        fs = lab.mount()
        fs.mkdir(b"d")
        fs.write(b"f", b"content")
        fs.write(b"g", b"other")
        fs.change(b"f", Change(mode=mode))
        fs = lab.mount()
        fs.rename(b"f", b"d/moved")
        fs.link(b"d/moved", b"second")
        fs.rename(b"second", b"g", RENAME_EXCHANGE)
        fs.rename(b"g", b"third")
        assert stat.S_IMODE(fs.stat(b"third").st_mode) == mode
        assert fs.names(b"d") == [b"moved"]
        assert not lower_names(lab.lower) & {b"envfs.mode"}
        fs.change(b"third", Change(mode=0o600, mtime_ns=5))
        assert fs.stat(b"third").st_mtime_ns == 5
        fs = lab.mount()
        assert fs.read(b"third") == fs.read(b"d/moved") == b"content"
        assert fs.read(b"second") == b"other"

    as_ordinary_user(home, test)


@pytest.mark.parametrize("mode", MODES)
def test_a_file_made_with_any_mode_can_be_written_by_who_made_it(home: Path, mode: int) -> None:
    """As git makes its objects."""

    def test(lab: Lab) -> None:
        fs = lab.mount()
        with fs.created(b"f", mode) as content:
            content.write(0, b"x" * 10_000)
            fs.rename(b"f", b"g")
            content.write(10_000, b"y")
            assert read_all(content) == b"x" * 10_000 + b"y"
        assert stat.S_IMODE(fs.stat(b"g").st_mode) == mode & 0o777  # writing takes set-user-ID away
        fs.change(b"g", Change(mode=0o600))
        assert lab.mount().size(b"g") == 10_001

    as_ordinary_user(home, test)


def test_a_file_that_may_be_written_and_not_read_can_be_written(home: Path) -> None:
    """The kernel has allowed it; sealing a part of a block takes reading the rest."""

    def test(lab: Lab) -> None:
        fs = lab.mount()
        fs.write(b"f", b"old content")
        fs.change(b"f", Change(mode=0o200))
        fs = lab.mount()
        with fs.opened(b"f", write=True) as content:
            content.write(0, b"new")
        fs.truncate(b"f", 5)
        assert stat.S_IMODE(fs.stat(b"f").st_mode) == 0o200
        fs.change(b"f", Change(mode=0o600))
        assert lab.mount().read(b"f") == b"new c"

    as_ordinary_user(home, test)


@pytest.mark.parametrize("mode", [0o555, 0o500, 0o311, 0o100, 0o000])
def test_an_empty_directory_of_any_mode_can_be_removed_replaced_and_renamed(home: Path, mode: int) -> None:
    def test(lab: Lab) -> None:
        fs = lab.mount()
        for name in (b"remove", b"replace", b"rename"):
            fs.mkdir(name)
            fs.change(name, Change(mode=mode))
        fs.mkdir(b"full")
        fs.write(b"full/x", b"1")
        fs = lab.mount()
        fs.rmdir(b"remove")
        if mode & 0o100:  # its directory file says where it is: search permission is needed to write that
            fs.rename(b"rename", b"renamed")
            assert stat.S_IMODE(fs.stat(b"renamed").st_mode) == mode
            fs.rmdir(b"renamed")
        else:
            fs.rmdir(b"rename")
        fs.rename(b"full", b"replace")
        assert lab.mount().read(b"replace/x") == b"1"
        assert {name for name in lower_names(lab.lower) if name.startswith((b"envfs.tmp", b"envfs.mode"))} == set()

    as_ordinary_user(home, test)


@pytest.mark.parametrize("mode", [0o555, 0o311, 0o000])
def test_a_directory_that_is_not_empty_keeps_its_mode_and_what_is_in_it(home: Path, mode: int) -> None:
    def test(lab: Lab) -> None:
        fs = lab.mount()
        fs.mkdir(b"d")
        fs.write(b"d/x", b"1")
        fs.change(b"d", Change(mode=mode))
        fs = lab.mount()
        with pytest.raises(OSError, match="not empty"):
            fs.rmdir(b"d")
        assert stat.S_IMODE(fs.stat(b"d").st_mode) == mode
        fs.change(b"d", Change(mode=0o700))
        assert fs.names(b"d") == [b"x"]
        assert lab.mount().read(b"d/x") == b"1"

    as_ordinary_user(home, test)


def test_a_directory_that_may_be_searched_and_not_read(home: Path) -> None:
    def test(lab: Lab) -> None:
        fs = lab.mount()
        fs.mkdir(b"d")
        fs.write(b"d/x", b"1")
        fs.mkdir(b"d/e")
        fs.change(b"d", Change(mode=0o311))
        fs = lab.mount()
        assert fs.read(b"d/x") == b"1"
        fs.write(b"d/y", b"2")
        fs.rename(b"d/x", b"d/e/z")
        fs.unlink(b"d/y")
        fs.change(b"d", Change(mode=0o755))
        assert fs.names(b"d") == [b"e"]
        assert fs.read(b"d/e/z") == b"1"

    as_ordinary_user(home, test)


# A daemon killed while a mode was raised


def record(path: bytes, inode: int, mode: object) -> bytes:
    return json.dumps({"path": os.fsdecode(path), "inode": inode, "mode": mode}).encode()


@pytest.mark.parametrize("directory", [b"", b"d/", b"d/" + b"/".join([b"n" * 170] * 20) + b"/"])
def test_a_raised_mode_is_put_back_at_the_next_mount(home: Path, directory: bytes) -> None:
    def test(lab: Lab) -> None:
        fs = lab.mount()
        made = b""
        for part in directory.rstrip(b"/").split(b"/") if directory else ():
            made = made + b"/" + part if made else part
            fs.mkdir(made)
        fs.write(directory + b"f", b"1", mode=0o600)
        node = fs.node(directory + b"f")
        path, inode = node.lower_path(), node.lower_ino
        lab.unmount()
        (lab.lower / "envfs.mode").write_bytes(record(path, inode, 0o444))
        fs = lab.mount()
        assert stat.S_IMODE(fs.stat(directory + b"f").st_mode) == 0o400
        assert b"envfs.mode" not in lower_names(lab.lower)

    as_ordinary_user(home, test)


def test_a_record_that_fits_nothing_changes_nothing(home: Path) -> None:
    def test(lab: Lab) -> None:
        fs = lab.mount()
        fs.write(b"f", b"1", mode=0o640)
        fs.symlink(b"l", b"f")
        node, inode = fs.node(b"f"), fs.node(b"f").lower_ino
        path, link = node.lower_path(), fs.node(b"l").lower_path()
        outside = lab.lower.parent / "outside"
        outside.write_bytes(b"")
        outside.chmod(0o600)
        for content in (
            b"",
            b"{",
            b"[]",
            b"{}",
            b"x" * 100_000,
            record(path, inode + 1, 0o400),
            record(b"../outside", outside.stat().st_ino, 0o400),
            record(b"/" + os.fsencode(outside), outside.stat().st_ino, 0o400),
            record(link, inode, 0o400),
            record(b"nothing/there", inode, 0o400),
            record(path, inode, "rw"),
        ):
            lab.unmount()
            (lab.lower / "envfs.mode").write_bytes(content)
            fs = lab.mount()
            assert b"envfs.mode" not in lower_names(lab.lower)
            assert stat.S_IMODE(fs.stat(b"f").st_mode) == 0o640
            assert stat.S_IMODE(outside.stat().st_mode) == 0o600

    as_ordinary_user(home, test)


def test_a_record_never_gives_permissions(home: Path) -> None:
    def test(lab: Lab) -> None:
        fs = lab.mount()
        fs.write(b"f", b"1", mode=0o440)
        node = fs.node(b"f")
        path, inode = node.lower_path(), node.lower_ino
        lab.unmount()
        (lab.lower / "envfs.mode").write_bytes(record(path, inode, 0o4777))
        fs = lab.mount()
        assert stat.S_IMODE(fs.stat(b"f").st_mode) == 0o440

    as_ordinary_user(home, test)


def test_a_write_that_a_kill_cut_off_is_put_back_in_a_read_only_file(home: Path) -> None:
    """The undo record of a file made with mode 0444, as git's objects are."""

    def test(lab: Lab) -> None:
        fs = lab.mount()
        old = bytes(range(256)) * 64
        fs.write(b"f", old, mode=0o600)
        lower = fs.lower(b"f")
        before = lower.read_bytes()
        fs.write(b"f", b"x" * 10_000, 100)
        after = lower.read_bytes()
        os.link(lab.lower / "envfs.undo", lab.lower / "kept")
        lab.unmount()
        os.rename(lab.lower / "kept", lab.lower / "envfs.undo")
        torn = 1024 + 4096  # so much of the new blocks had been written
        lower.write_bytes(after[:torn] + before[torn:])
        lower.chmod(0o444)
        fs = lab.mount()
        assert fs.read(b"f") == old
        assert stat.S_IMODE(fs.stat(b"f").st_mode) == 0o444

    as_ordinary_user(home, test)


def test_a_file_out_of_its_place_keeps_its_mode_when_it_is_refused(home: Path) -> None:
    def test(lab: Lab) -> None:
        fs = lab.mount()
        fs.write(b"a", b"1", mode=0o444)
        fs.write(b"b", b"2", mode=0o444)
        a, b = fs.lower(b"a"), fs.lower(b"b")
        lab.unmount()
        os.rename(a, b)
        fs = lab.mount()
        with pytest.raises(IntegrityError):
            fs.rename(b"b", b"c")
        assert stat.S_IMODE(fs.stat(b"b").st_mode) == 0o444
        assert b"envfs.mode" not in lower_names(lab.lower)

    as_ordinary_user(home, test)
