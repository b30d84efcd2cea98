"""Names: looking up, creating, removing."""

from __future__ import annotations

import errno
import os
import socket
import stat

import pytest

from envfs.errors import AccessDenied, Disabled
from envfs.fs.attributes import Change
from tests.unit.fs.lab import Lab, Person, Session, lower_names

NOBODY_AT_ALL = Person(4_000_000_000, 4_000_000_000, 1)


def test_what_was_made_is_found_and_listed(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"file", b"1")
    fs.mkdir(b"dir")
    fs.symlink(b"link", b"file")
    fs.mknod(b"pipe", stat.S_IFIFO | 0o640)
    fs.mknod(b"socket", stat.S_IFSOCK | 0o600)
    fs.mknod(b"plain", stat.S_IFREG | 0o604)
    kinds = {
        b"file": stat.S_IFREG,
        b"dir": stat.S_IFDIR,
        b"link": stat.S_IFLNK,
        b"pipe": stat.S_IFIFO,
        b"socket": stat.S_IFSOCK,
        b"plain": stat.S_IFREG,
    }
    for _ in range(2):
        assert fs.names() == sorted(kinds)
        assert {name: stat.S_IFMT(fs.stat(name).st_mode) for name in kinds} == kinds
        assert fs.size(b"plain") == 0
        fs = lab.mount()


def test_a_name_that_is_not_there(fs: Session) -> None:
    for attempt in (fs.node, fs.unlink, fs.rmdir):
        with pytest.raises(FileNotFoundError):
            attempt(b"nothing")


@pytest.mark.parametrize(
    "name",
    [
        b"a",
        b" ",
        b".hidden",
        b"...",
        b"-rf",
        b"\xff\xfe",
        "ümlaut".encode(),
        b"new\nline",
        b"envfs.dir",
        b"envfs.tmp.x",
    ],
)
def test_any_name_is_a_name(lab: Lab, name: bytes) -> None:
    fs = lab.mount()
    fs.write(name, b"1")
    assert lower_names(lab.lower) >= {b"envfs.dir"}
    assert name not in lower_names(lab.lower) - {b"envfs.dir"}
    fs = lab.mount()
    assert fs.names() == [name]
    assert fs.read(name) == b"1"
    fs.unlink(name)
    assert fs.names() == []


def test_the_same_name_in_two_directories_looks_different_below(fs: Session) -> None:
    fs.mkdir(b"a")
    fs.mkdir(b"b")
    fs.write(b"a/same", b"1")
    fs.write(b"b/same", b"1")
    assert fs.node(b"a/same").lower_name != fs.node(b"b/same").lower_name


def test_a_name_of_more_than_255_bytes_is_refused(fs: Session) -> None:
    for attempt in (fs.node, fs.mkdir, fs.unlink, fs.rmdir):
        with pytest.raises(OSError, match="too long") as refused:
            attempt(b"n" * 256)
        assert refused.value.errno == errno.ENAMETOOLONG


def test_nothing_is_made_over_what_is_there(fs: Session) -> None:
    fs.write(b"a", b"precious")
    fs.mkdir(b"d")
    for name in (b"a", b"d"):
        with pytest.raises(FileExistsError):
            fs.mkdir(name)
        with pytest.raises(FileExistsError):
            fs.symlink(name, b"x")
        with pytest.raises(FileExistsError):
            fs.mknod(name, stat.S_IFIFO | 0o600)
        with pytest.raises(FileExistsError), fs.created(name):
            pass
    assert fs.read(b"a") == b"precious"
    assert fs.names() == [b"a", b"d"]


def test_a_directory_that_is_not_empty_stays(fs: Session) -> None:
    fs.mkdir(b"d")
    fs.write(b"d/a", b"1")
    with pytest.raises(OSError, match="not empty") as refused:
        fs.rmdir(b"d")
    assert refused.value.errno == errno.ENOTEMPTY
    assert fs.read(b"d/a") == b"1"
    fs.unlink(b"d/a")
    fs.rmdir(b"d")
    assert fs.names() == []


def test_rmdir_wants_a_directory(fs: Session) -> None:
    fs.write(b"a", b"1")
    fs.symlink(b"l", b"d")
    for name in (b"a", b"l"):
        with pytest.raises(NotADirectoryError):
            fs.rmdir(name)


def test_rmdir_takes_the_leavings_of_a_crash_with_it(lab: Lab) -> None:
    fs = lab.mount()
    fs.mkdir(b"d")
    lower = fs.lower(b"d")
    (lower / "envfs.tmp.0123").mkdir()
    (lower / "envfs.tmp.0123" / "envfs.dir").write_bytes(b"half")
    (lower / "envfs.tmp.4567").write_bytes(b"")
    (lower / "envfs.name.nobody").write_bytes(b"x")
    fs = lab.mount()
    assert fs.names(b"d") == []
    fs.rmdir(b"d")
    assert not lower.exists()
    assert lower_names(lab.lower) == {b"envfs.dir", b"envfs.volume", b"envfs.volume.backup"}


def test_a_removed_directory_is_held_for_whoever_is_in_it(fs: Session) -> None:
    node = fs.mkdir(b"d")
    fs.rmdir(b"d")
    assert fs.fs.tree.stat(node).st_nlink == 0
    fs.mkdir(b"d")
    assert fs.node(b"d") is not node


def test_modes_are_those_that_were_asked_for(lab: Lab) -> None:
    fs = lab.mount()
    for mode in (0o644, 0o600, 0o444, 0o400, 0o777, 0o000):
        fs.write(b"f%o" % mode, b"1", mode=mode)
        fs.mkdir(b"d%o" % mode, mode)
        assert stat.S_IMODE(fs.stat(b"f%o" % mode).st_mode) == mode
        assert stat.S_IMODE(fs.stat(b"d%o" % mode).st_mode) == mode


def test_a_directory_that_hands_down_its_group_is_one_that_does_so_again(fs: Session) -> None:
    fs.mkdir(b"d")
    fs.change(b"d", Change(mode=0o2755))
    fs.mkdir(b"d/e", 0o700)
    assert stat.S_IMODE(fs.stat(b"d/e").st_mode) == 0o2700


def test_a_listing_is_of_the_moment_it_began(fs: Session) -> None:
    for index in range(10):
        fs.write(b"f%d" % index, b"")
    number = fs.fs.add_listing(fs.node(b""))
    listing = fs.fs.listings[number]
    first = [entry for entry, _ in zip(listing.read(0), range(4), strict=False)]
    fs.unlink(b"f8")
    fs.write(b"new", b"")
    rest = list(listing.read(first[-1][0]))
    assert {name for _, name, _, _ in first + rest} >= {b"f%d" % index for index in range(10) if index != 8}
    assert b"f8" not in {name for _, name, _, _ in rest}
    assert len({name for _, name, _, _ in first + rest}) == len(first + rest)
    assert b"new" in {name for _, name, _, _ in listing.read(0)}  # rewinddir(3)
    del fs.fs.listings[number]


def test_what_is_not_part_of_the_volume_is_not_listed(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    fs = lab.mount()
    fs.write(b"mine", b"1")
    (lab.lower / "README.txt").write_text("not ours")
    (lab.lower / "envfs.tmp.1").write_text("a leaving")
    (lab.lower / "envfs.long.AAAA").write_text("a long name without its name file")
    os.mkfifo(lab.lower / ("A" * 22))
    assert fs.names() == [b"mine"]
    assert "README.txt" in caplog.text
    assert "envfs.long.AAAA" in caplog.text
    assert "envfs.tmp" not in caplog.text


def test_nobody_creates_nothing(lab: Lab) -> None:
    """A uid without a name: denied, before anything stands in the lower directory."""
    fs = lab.mount()
    fs.caller = NOBODY_AT_ALL
    before = lower_names(lab.lower)
    with pytest.raises(AccessDenied), fs.created(b"a" * 200):
        pass
    assert lower_names(lab.lower) == before


def test_a_disabled_key_creates_nothing(lab: Lab) -> None:
    fs = lab.mount()
    key = lab.engine.create_key(lab.me).arn
    fs.mkdir(b"d")
    fs.fs.set_directory_key(fs.node(b"d").node_id, key)
    lab.engine.disable_key(lab.me, key)
    with pytest.raises(Disabled), fs.created(b"d/a"):
        pass
    assert lower_names(fs.lower(b"d")) == {b"envfs.dir"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("mode", [0o644, 0o4755, 0o2755, 0o6711, 0o000])
def test_what_is_made_for_somebody_else_is_his_from_the_first_moment(fs: Session, mode: int) -> None:
    fs.caller = Person(65534, 65533, 1)
    fs.mkdir(b"d", 0o755)
    with fs.created(b"d/file", mode):
        found = fs.stat(b"d/file")
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (65534, 65533, mode)
    fs.symlink(b"d/link", b"x")
    fs.mknod(b"d/pipe", stat.S_IFIFO | 0o600)
    for name in (b"d", b"d/link", b"d/pipe"):
        assert (fs.stat(name).st_uid, fs.stat(name).st_gid) == (65534, 65533)


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_directory_hands_down_its_group_to_what_others_make_in_it(fs: Session) -> None:
    fs.mkdir(b"d")
    fs.change(b"d", Change(gid=1234, mode=0o2777))
    fs.caller = Person(65534, 65533, 1)
    fs.write(b"d/file", b"1")
    fs.mkdir(b"d/dir")
    fs.symlink(b"d/link", b"x")
    for name in (b"d/file", b"d/dir", b"d/link"):
        assert (fs.stat(name).st_uid, fs.stat(name).st_gid) == (65534, 1234)
    assert fs.stat(b"d/dir").st_mode & stat.S_ISGID


def test_a_socket_that_was_bound_below_stays_one(lab: Lab) -> None:
    fs = lab.mount()
    fs.mknod(b"s", stat.S_IFSOCK | 0o777)
    lower = fs.lower(b"s")
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(os.fspath(lower))
