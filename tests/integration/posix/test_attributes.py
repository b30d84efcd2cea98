"""Modes, owners, times, and what is inherited or taken away."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.integration.posix.test_names import refuses
from tests.integration.users import UnixUser, run_as_user

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.mounts import Mount

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be somebody else")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def as_nobody(function: Callable[[], object]) -> object:
    return run_as_user(UnixUser.nobody(), function)


@needs_root
def test_what_is_made_in_a_setgid_directory(here: Path) -> None:
    (here / "d").mkdir()
    os.chown(here / "d", 0, 4711)
    os.chmod(here / "d", 0o2777)

    def work() -> None:
        os.umask(0o022)
        (here / "d" / "f").touch()
        (here / "d" / "sub").mkdir()
        os.symlink("x", here / "d" / "l")
        os.mkfifo(here / "d" / "p")

    as_nobody(work)
    nobody = UnixUser.nobody().uid
    for name in ("f", "sub", "l", "p"):
        found = (here / "d" / name).lstat()
        assert (found.st_uid, found.st_gid) == (nobody, 4711), name
    assert mode_of(here / "d" / "sub") == 0o2755
    assert mode_of(here / "d" / "f") == 0o644


@needs_root
def test_a_sticky_directory_keeps_others_from_removing_and_renaming(here: Path) -> None:
    os.chmod(here, 0o1777)
    (here / "roots").touch()
    (here / "roots").chmod(0o666)
    as_nobody((here / "own").touch)
    for attempt in (
        lambda: os.unlink(here / "roots"),
        lambda: os.rename(here / "roots", here / "stolen"),
        lambda: os.rename(here / "own", here / "roots"),
    ):
        refuses(errno.EPERM, lambda attempt=attempt: as_nobody(attempt))  # type: ignore[misc]
    as_nobody(lambda: os.rename(here / "own", here / "renamed"))
    assert sorted(os.listdir(here)) == ["renamed", "roots"]


def append(path: Path) -> None:
    with open(path, "ab", buffering=0) as file:
        file.write(b"more")


@needs_root
@pytest.mark.parametrize(
    ("name", "work"),
    [
        ("write", append),
        ("truncate", lambda path: os.truncate(path, 1)),
        ("open with O_TRUNC", lambda path: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))),
    ],
)
def test_set_user_id_goes_when_somebody_else_changes_the_content(
    here: Path, name: str, work: Callable[[Path], None]
) -> None:
    path = here / "f"
    path.write_bytes(b"content")
    path.chmod(0o6777)
    as_nobody(lambda: work(path))
    assert mode_of(path) == 0o777, name


@needs_root
@pytest.mark.parametrize(("mode", "left"), [(0o6755, 0o755), (0o4700, 0o700), (0o2745, 0o2745), (0o1755, 0o1755)])
def test_a_new_owner_takes_set_user_id_away(here: Path, mode: int, left: int) -> None:
    """Set-group-ID without execution by the group means mandatory locking, and stays."""
    path = here / "f"
    path.touch()
    path.chmod(mode)
    os.chown(path, 77, 88)
    found = path.stat()
    assert (found.st_uid, found.st_gid, mode_of(path)) == (77, 88, left)


@needs_root
def test_who_may_change_owner_and_mode(here: Path) -> None:
    path = here / "f"
    path.touch()
    for attempt in (
        lambda: os.chmod(path, 0o777),
        lambda: os.chown(path, UnixUser.nobody().uid, -1),
        lambda: os.utime(path, ns=(1, 1)),
    ):
        refuses(errno.EPERM, lambda attempt=attempt: as_nobody(attempt))  # type: ignore[misc]
    path.chmod(0o666)
    as_nobody(lambda: os.utime(path))  # "now" is for everybody who may write
    refuses(errno.EPERM, lambda: as_nobody(lambda: os.utime(path, ns=(1, 1))))


def test_times_have_nanoseconds(here: Path, shared: Mount) -> None:
    """Also before 1970, and after 2038; as far as the lower filesystem can keep them."""
    times = [0, 1, 999_999_999, 10**18 + 1, -1, -5 * 10**9 - 3, (1 << 31) * 10**9 + 7, 8 * 10**18]
    wanted = {}
    for number, ns in enumerate(times):
        paths = [here / f"{name}{number}" for name in "fdlp"]
        paths[0].write_bytes(b"x")
        paths[1].mkdir()
        os.symlink("nowhere", paths[2])
        os.mkfifo(paths[3])
        kept = shared.lower / "times"
        kept.touch()
        os.utime(kept, ns=(ns, ns))
        for path in paths:
            os.utime(path, ns=(ns, ns), follow_symlinks=False)
            wanted[path] = kept.stat().st_mtime_ns
        kept.unlink()
    for _ in range(2):
        assert {path: path.lstat().st_mtime_ns for path in wanted} == wanted
        shared.remount()


def test_which_times_move(here: Path) -> None:
    """Content moves mtime and ctime of the file, names those of the directory, attributes ctime alone."""
    path = here / "f"
    path.write_bytes(b"x")

    def moved(work: Callable[[], object], subject: Path) -> set[str]:
        os.utime(subject, ns=(10**9, 10**9))
        before = subject.stat()
        work()
        after = subject.stat()
        names = ("mtime", "ctime")
        return {name for name in names if getattr(after, f"st_{name}_ns") != getattr(before, f"st_{name}_ns")}

    os.utime(here, ns=(10**9, 10**9))
    assert moved(lambda: append(path), path) == {"mtime", "ctime"}
    assert moved(lambda: os.truncate(path, 100), path) == {"mtime", "ctime"}
    assert moved(lambda: path.chmod(0o600), path) == {"ctime"}
    assert moved(lambda: os.link(path, here / "l"), path) == {"ctime"}
    assert moved(path.read_bytes, path) == set()
    for work in (
        (here / "new").touch,
        lambda: os.rename(here / "new", here / "newer"),
        lambda: os.unlink(here / "newer"),
        (here / "d").mkdir,
        (here / "d").rmdir,
        lambda: os.symlink("x", here / "s"),
    ):
        assert moved(work, here) == {"mtime", "ctime"}
    assert moved(lambda: append(path), here) == set()


def test_the_umask_counts_and_modes_are_kept_whole(here: Path, shared: Mount) -> None:
    before = os.umask(0o027)
    try:
        os.close(os.open(here / "f", os.O_CREAT | os.O_WRONLY, 0o6777))
        os.mkdir(here / "d", 0o1777)
        os.mkfifo(here / "p", 0o666)
    finally:
        os.umask(before)
    shared.remount()
    assert mode_of(here / "f") == 0o6750
    assert mode_of(here / "d") == 0o1750
    assert mode_of(here / "p") == 0o640


def test_any_mode_is_kept(here: Path, shared: Mount) -> None:
    modes = (0, 0o111, 0o200, 0o400, 0o7777)
    for mode in modes:
        (here / f"f{mode}").write_bytes(b"x")
        (here / f"d{mode}").mkdir()
        (here / f"f{mode}").chmod(mode)
        (here / f"d{mode}").chmod(mode)
    shared.remount()
    for mode in modes:
        assert mode_of(here / f"f{mode}") == mode_of(here / f"d{mode}") == mode
        (here / f"d{mode}").chmod(0o700)


class TestAcl:
    @pytest.fixture
    def mount_options(self) -> str:
        return "acl"

    def test_default_acls_are_inherited(self, here: Path, shared: Mount) -> None:
        """The kernel takes the umask away, too, before it asks us: never more rights than elsewhere, but fewer."""
        if shutil.which("setfacl") is None:
            pytest.skip("needs setfacl (package acl)")
        (here / "d").mkdir()
        (here / "d").chmod(0o700)
        subprocess.run(["setfacl", "-d", "-m", "u::rwx,g::r-x,o::---,u:nobody:rw-", here / "d"], check=True, timeout=30)
        before = os.umask(0)
        try:
            (here / "d" / "f").touch()
            (here / "d" / "sub").mkdir()
            os.umask(0o077)
            (here / "d" / "private").touch()
        finally:
            os.umask(before)
        shared.remount()
        assert mode_of(here / "d" / "private") == 0o600
        assert mode_of(here / "d" / "f") == 0o660  # the mask shows as the group's
        assert mode_of(here / "d" / "sub") == 0o770
        shown = subprocess.run(
            ["getfacl", "-pc", here / "d" / "sub"], check=True, capture_output=True, text=True, timeout=30
        ).stdout
        assert "user:nobody:rw-" in shown
        assert "default:user:nobody:rw-" in shown

    def test_chmod_changes_the_mask(self, here: Path) -> None:
        if shutil.which("setfacl") is None:
            pytest.skip("needs setfacl (package acl)")
        (here / "f").touch()
        subprocess.run(["setfacl", "-m", "u:nobody:rwx", here / "f"], check=True, timeout=30)
        (here / "f").chmod(0o640)
        shown = subprocess.run(
            ["getfacl", "-pc", here / "f"], check=True, capture_output=True, text=True, timeout=30
        ).stdout
        assert "mask::r--" in shown
