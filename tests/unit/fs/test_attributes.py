"""Mode, owner, times and size, of everything that has them."""

from __future__ import annotations

import os
import stat

import pytest

from envfs.errors import AccessDenied
from envfs.fs.attributes import Change, change_attributes
from tests.unit.fs.lab import Lab, Person, Session

KINDS = [b"file", b"dir", b"link", b"pipe", b""]


@pytest.fixture
def made(fs: Session) -> Session:
    fs.write(b"file", b"1")
    fs.mkdir(b"dir")
    fs.symlink(b"link", b"file")
    fs.mknod(b"pipe", stat.S_IFIFO | 0o600)
    return fs


@pytest.mark.parametrize("path", KINDS)
def test_times_to_the_nanosecond(made: Session, path: bytes) -> None:
    made.change(path, Change(atime_ns=1_234_567_891_234_567_891, mtime_ns=987_654_321_987_654_321))
    found = made.stat(path)
    assert (found.st_atime_ns, found.st_mtime_ns) == (1_234_567_891_234_567_891, 987_654_321_987_654_321)
    made.change(path, Change(mtime_ns=5))
    assert (made.stat(path).st_atime_ns, made.stat(path).st_mtime_ns) == (1_234_567_891_234_567_891, 5)


@pytest.mark.parametrize("path", [b"file", b"dir", b"pipe", b""])
@pytest.mark.parametrize("mode", [0o0, 0o644, 0o755, 0o1777, 0o2755, 0o4755, 0o7777])
def test_modes(made: Session, path: bytes, mode: int) -> None:
    made.change(path, Change(mode=mode))
    assert stat.S_IMODE(made.stat(path).st_mode) == mode


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("path", KINDS)
def test_owners(made: Session, path: bytes) -> None:
    made.change(path, Change(uid=1234))
    made.change(path, Change(gid=2345))
    assert (made.stat(path).st_uid, made.stat(path).st_gid) == (1234, 2345)
    assert made.stat(b"file").st_uid == (1234 if path == b"file" else 0)  # a symlink is not followed


def test_of_an_open_file_and_of_one_without_a_name(fs: Session) -> None:
    with fs.created(b"open"):
        fs.change(b"open", Change(mode=0o600, atime_ns=1, mtime_ns=2))
        assert (stat.S_IMODE(fs.stat(b"open").st_mode), fs.stat(b"open").st_mtime_ns) == (0o600, 2)
    fs.write(b"gone", b"1")
    node = fs.node(b"gone")
    fs.unlink(b"gone")
    change_attributes(fs.fs.state, node, Change(mode=0o640, mtime_ns=7, size=0), None, fs.caller)
    found = fs.fs.tree.stat(node)
    assert (stat.S_IMODE(found.st_mode), found.st_size) == (0o640, 1024)


def test_a_change_with_size_and_times_has_the_times_in_the_end(fs: Session) -> None:
    fs.write(b"f", b"x" * 10_000)
    fs.change(b"f", Change(size=5, mtime_ns=42))
    assert (fs.size(b"f"), fs.stat(b"f").st_mtime_ns) == (5, 42)


def test_a_new_size_is_a_matter_of_the_kms(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"f", b"x" * 10)
    fs.caller = Person(4_000_000_000, 4_000_000_000, 1)
    with pytest.raises(AccessDenied):
        fs.truncate(b"f", 5)
    fs.change(b"f", Change(mode=0o600))  # the kernel has checked that
    assert fs.size(b"f") == 10


def test_sizes_of_everything(made: Session) -> None:
    assert made.size(b"file") == 1
    assert made.size(b"link") == len(b"file")
    assert made.size(b"pipe") == 0
