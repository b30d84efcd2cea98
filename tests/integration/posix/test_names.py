"""Names: links of both kinds, renames, directories, special files, and what is removed while it is open."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.mounts import Mount

NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
_libc = ctypes.CDLL(None, use_errno=True)


def renameat2(old: Path, new: Path, flags: int) -> None:
    if _libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def refuses(code: int, attempt: Callable[[], object]) -> None:
    with pytest.raises(OSError) as refused:  # noqa: PT011 - the errno says it
        attempt()
    assert refused.value.errno == code


def test_symlink_targets_up_to_path_max(here: Path, shared: Mount) -> None:
    lengths = [1, 255, 3007, 3008, 4095]
    for length in lengths:
        top = here / str(length)
        (top / "d").mkdir(parents=True)
        os.symlink(("a/" * 2048)[:length], top / "l")
        os.link(top / "l", top / "second", follow_symlinks=False)
        os.link(top / "l", top / "d" / "third", follow_symlinks=False)
        os.unlink(top / "l")
        os.lchown(top / "second", os.getuid(), os.getgid())
    shared.remount()
    for length in lengths:
        for name in ("second", "d/third"):
            found = (here / str(length) / name).lstat()
            assert os.readlink(here / str(length) / name) == ("a/" * 2048)[:length]
            assert (found.st_size, found.st_nlink) == (length, 2)


def test_a_longer_target_is_refused(here: Path) -> None:
    refuses(errno.ENAMETOOLONG, lambda: os.symlink("t" * 4096, here / "l"))
    refuses(errno.ENOENT, lambda: os.symlink("", here / "l"))
    assert os.listdir(here) == []


@pytest.mark.parametrize("length", [20, 4000])
def test_a_symlink_that_lost_the_name_it_was_known_by(here: Path, length: int) -> None:
    """The kernel knows another name; owner, times and target are still to be had."""
    target = "t" * length
    os.symlink(target, here / "first")
    os.link(here / "first", here / "second", follow_symlinks=False)
    assert os.readlink(here / "second") == os.readlink(here / "first") == target
    os.unlink(here / "second")
    os.lchown(here / "first", 7, 8)
    os.utime(here / "first", ns=(1, 2), follow_symlinks=False)
    found = (here / "first").lstat()
    assert (found.st_uid, found.st_gid, found.st_mtime_ns, found.st_size) == (7, 8, 2, length)
    assert os.readlink(here / "first") == target


def test_symlinks_are_followed_as_far_as_loops_allow(here: Path) -> None:
    (here / "f").write_bytes(b"end")
    for number in range(1, 40):
        os.symlink("f" if number == 1 else f"l{number - 1}", here / f"l{number}")
    assert (here / "l39").read_bytes() == b"end"
    os.symlink("loop", here / "loop")
    refuses(errno.ELOOP, (here / "loop").read_bytes)
    refuses(errno.ELOOP, lambda: os.open(here / "l1", os.O_RDONLY | os.O_NOFOLLOW))


def test_link_counts_of_files_and_directories(here: Path) -> None:
    (here / "f").touch()
    for number in range(50):
        os.link(here / "f", here / f"l{number}")
    assert (here / "f").stat().st_nlink == 51
    for number in range(0, 50, 2):
        os.unlink(here / f"l{number}")
    assert (here / "l1").stat().st_nlink == 26
    before = here.stat().st_nlink
    for number in range(5):
        (here / f"d{number}").mkdir()
    assert here.stat().st_nlink in {before + 5, 1}  # btrfs counts no subdirectories
    assert (here / "d0").stat().st_nlink in {2, 1}


@pytest.mark.parametrize("kind", ["file", "symlink", "long symlink", "fifo", "directory"])
@pytest.mark.parametrize("over", ["nothing", "file", "symlink", "long symlink", "fifo", "directory", "full directory"])
@pytest.mark.parametrize("far", [False, True])
def test_rename_over(here: Path, kind: str, over: str, far: bool) -> None:
    target = here / "far" if far else here
    target.mkdir(exist_ok=True)
    make(here / "old", kind, "old")
    if over != "nothing":
        make(target / "new", over, "new")
    code = None
    if kind == "directory" and over not in {"nothing", "directory"}:
        code = errno.ENOTEMPTY if over == "full directory" else errno.ENOTDIR
    elif kind != "directory" and over in {"directory", "full directory"}:
        code = errno.EISDIR
    number = (here / "old").lstat().st_ino
    if code is not None:
        refuses(code, lambda: os.rename(here / "old", target / "new"))
        assert what_stands_at(here / "old") == (kind, "old")
        assert what_stands_at(target / "new") == (over.removeprefix("full "), "new")
        return
    os.rename(here / "old", target / "new")
    assert not os.path.lexists(here / "old")
    assert what_stands_at(target / "new") == (kind, "old")
    assert (target / "new").lstat().st_ino == number


LONG = "l" * 3990


def make(path: Path, kind: str, mark: str) -> None:
    if kind == "file":
        path.write_text(mark)
    elif kind.endswith("symlink"):
        os.symlink(mark + (LONG if kind.startswith("long") else ""), path)
    elif kind == "fifo":
        os.mkfifo(path, 0o600 if mark == "old" else 0o644)
    else:
        path.mkdir()
        os.chmod(path, 0o700 if mark == "old" else 0o755)
        if kind == "full directory":
            (path / "inside").touch()


def what_stands_at(path: Path) -> tuple[str, str]:
    """(kind, mark) as `make` made it."""
    found = path.lstat()
    if stat.S_ISREG(found.st_mode):
        return "file", path.read_text()
    if stat.S_ISLNK(found.st_mode):
        target = os.readlink(path)
        return ("long symlink" if target.endswith(LONG) else "symlink"), target.removesuffix(LONG)
    kind = "fifo" if stat.S_ISFIFO(found.st_mode) else "directory"
    return kind, "old" if stat.S_IMODE(found.st_mode) in {0o600, 0o700} else "new"


def test_directories_do_not_go_into_themselves(here: Path) -> None:
    (here / "a" / "b" / "c").mkdir(parents=True)
    refuses(errno.EINVAL, lambda: os.rename(here / "a", here / "a" / "b" / "c" / "a"))
    refuses(errno.ENOTEMPTY, lambda: os.rename(here / "a" / "b" / "c", here / "a"))
    refuses(errno.EINVAL, lambda: renameat2(here / "a", here / "a" / "b" / "c", EXCHANGE))
    os.rename(here / "a", here / "a")
    assert (here / "a" / "b" / "c").is_dir()


def test_exchange(here: Path, shared: Mount) -> None:
    pairs = [("file", "directory"), ("long symlink", "file"), ("directory", "directory"), ("fifo", "long symlink")]
    for number, (one, other) in enumerate(pairs):
        (here / f"d{number}").mkdir()
        make(here / f"a{number}", one, "old")
        make(here / f"d{number}" / "b", other, "new")
        renameat2(here / f"a{number}", here / f"d{number}" / "b", EXCHANGE)
    shared.remount()
    for number, (one, other) in enumerate(pairs):
        assert what_stands_at(here / f"d{number}" / "b") == (one, "old")
        assert what_stands_at(here / f"a{number}") == (other, "new")
    refuses(errno.ENOENT, lambda: renameat2(here / "a0", here / "nothing", EXCHANGE))


def test_noreplace_and_whiteout(here: Path) -> None:
    make(here / "a", "file", "old")
    make(here / "b", "file", "new")
    refuses(errno.EEXIST, lambda: renameat2(here / "a", here / "b", NOREPLACE))
    refuses(errno.EINVAL, lambda: renameat2(here / "a", here / "c", WHITEOUT))
    refuses(errno.EINVAL, lambda: renameat2(here / "a", here / "b", NOREPLACE | EXCHANGE))
    renameat2(here / "a", here / "c", NOREPLACE)
    assert sorted(os.listdir(here)) == ["b", "c"]


def test_open_directories_that_are_renamed_and_removed(here: Path) -> None:
    (here / "a").mkdir()
    fd = os.open(here / "a", os.O_RDONLY)
    try:
        os.rename(here / "a", here / "b")
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        assert os.listdir(here / "b") == ["f"]
        os.unlink("f", dir_fd=fd)
        (here / "c").mkdir()
        os.rename(here / "c", here / "b")  # over the open one
        assert os.fstat(fd).st_nlink == 0
        assert os.listdir(fd) == []
        refuses(errno.ENOENT, lambda: os.mkdir("x", dir_fd=fd))
    finally:
        os.close(fd)


def test_the_working_directory_may_be_removed(here: Path) -> None:
    (here / "d").mkdir()
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(here / "d")
        os.rmdir(here / "d")
        refuses(errno.ENOENT, lambda: os.open("f", os.O_CREAT | os.O_WRONLY))
        refuses(errno.ENOENT, os.getcwd)
        assert os.listdir(".") == []
    finally:
        os.fchdir(before)
        os.close(before)


def test_an_unlinked_file_is_whole_until_its_last_close(here: Path) -> None:
    path = here / "f"
    path.write_bytes(b"old")
    first, second = os.open(path, os.O_RDWR), os.open(path, os.O_RDONLY)
    os.unlink(path)
    os.pwrite(first, b"n" * 200_000, 100)
    os.close(first)
    assert os.pread(second, 300_000, 0) == b"old" + bytes(97) + b"n" * 200_000
    assert os.fstat(second).st_nlink == 0
    os.close(second)
    assert os.listdir(here) == []


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to make devices")
def test_special_files(here: Path, shared: Mount) -> None:
    kinds = [
        (stat.S_IFIFO | 0o640, 0),
        (stat.S_IFSOCK | 0o755, 0),
        (stat.S_IFCHR | 0o600, os.makedev(1, 3)),
        (stat.S_IFBLK | 0o660, os.makedev(7, 200)),
        (stat.S_IFREG | 0o604, 0),
    ]
    before = os.umask(0)
    try:
        for number, (mode, device) in enumerate(kinds):
            os.mknod(here / f"first{number}", mode, device)
    finally:
        os.umask(before)
    for number in range(len(kinds)):
        os.link(here / f"first{number}", here / f"second{number}")
        os.rename(here / f"first{number}", here / (str(number) * 250))
    shared.remount()
    for number, (mode, device) in enumerate(kinds):
        for path in (here / f"second{number}", here / (str(number) * 250)):
            found = path.lstat()
            assert (found.st_mode, found.st_rdev, found.st_nlink) == (mode, device, 2)


def test_any_name_is_a_name(here: Path, shared: Mount) -> None:
    names = ["n" * 255, "ä" * 127, "\udcff\udcfe", "new\nline", " ", "-", "~", "...", "envfs.dir", "envfs.undo"]
    for name in names:
        make(here / name, "directory", "old")
        make(here / name / name, "file", "inside")
        os.symlink(name, here / ("l" + name[:254]))
    shared.remount()
    assert sorted(os.listdir(here)) == sorted([*names, *("l" + name[:254] for name in names)])
    for name in names:
        assert (here / ("l" + name[:254]) / name).read_text() == "inside"
        refuses(errno.ENAMETOOLONG, lambda name=name: os.stat(here / (name + "n" * 255)))  # type: ignore[misc]
