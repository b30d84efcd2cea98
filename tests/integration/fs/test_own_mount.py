"""An ordinary user mounts for herself, and works with files and directories of every mode."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount
    from tests.integration.users import UnixUser


@pytest.fixture(params=["memory", "disk"])
def hers(
    request: pytest.FixtureRequest,
    envfs: Envfs,
    mounted: Callable[..., Mount],
    unix_users: Callable[..., list[UnixUser]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[UnixUser, Mount]]:
    """Alice's volume in her home, which is in memory, or on a disk."""
    (alice,) = unix_users("alice")
    base = alice.home
    if request.param == "disk":
        base = Path("/var/tmp", f"{alice.name}-disk")
        base.mkdir(mode=0o700)
        os.chown(base, alice.uid, alice.gid)
    envfs("init", base / "lower", user=alice)
    mount = mounted(lower=base / "lower", user=alice)
    yield alice, mount
    if request.param == "disk":
        if mount.is_mounted:
            mount.umount()
        shutil.rmtree(base)


def in_shell(run_as: Callable[..., Any], user: UnixUser, top: Path, script: str) -> str:
    done: subprocess.CompletedProcess[str] = run_as(user, ["sh", "-ec", script, "sh", top], timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_her_files_of_any_mode(hers: tuple[UnixUser, Mount], run_as: Callable[..., Any]) -> None:
    alice, mount = hers
    modes = (0o444, 0o400, 0o000, 0o200)
    for mode in modes:
        run_as(alice, partial(use_file_of_mode, mount.path / f"{mode:o}", mode))
    mount.remount()
    for mode in modes:
        run_as(alice, partial(look_at_file_of_mode, mount.path / f"{mode:o}"))
    assert run_as(alice, partial(os.listdir, mount.path)) == []


def use_file_of_mode(top: Path, mode: int) -> None:
    (top / "d").mkdir(parents=True)
    path, second = top / "f", top / "second"
    path.write_bytes(b"content")
    path.chmod(mode)
    path.rename(top / "d" / "g")
    os.link(top / "d" / "g", second)
    os.utime(second, ns=(1, 2))
    assert stat.S_IMODE(second.stat().st_mode) == mode
    assert os.listxattr(second) == []
    if mode & 0o200:
        os.setxattr(second, "user.comment", b"by who may write and not read")
        assert os.listxattr(second) == ["user.comment"]
        fd = os.open(second, os.O_WRONLY | os.O_APPEND)
        os.write(fd, b" and more")
        os.close(fd)
        os.truncate(second, 7)
    else:
        with pytest.raises(PermissionError):
            os.truncate(second, 0)
        with pytest.raises(PermissionError):
            os.open(second, os.O_WRONLY)


def look_at_file_of_mode(top: Path) -> None:
    third = (top / "second").rename(top / "third")
    third.chmod(0o600)
    for name in os.listxattr(third):
        assert os.getxattr(third, name) == b"by who may write and not read"
    assert (top / "d" / "g").read_bytes() == b"content"
    shutil.rmtree(top)


def test_a_file_made_read_only_can_be_written_by_who_made_it(
    hers: tuple[UnixUser, Mount], run_as: Callable[..., Any]
) -> None:
    alice, mount = hers

    def work() -> None:
        fd = os.open(mount.path / "f", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        os.write(fd, b"x" * 100_000)
        os.rename(mount.path / "f", mount.path / "g")
        os.write(fd, b"y")
        os.fsync(fd)
        os.close(fd)

    run_as(alice, work)
    mount.remount()
    assert run_as(alice, (mount.path / "g").read_bytes) == b"x" * 100_000 + b"y"


def test_read_only_trees_can_be_made_and_removed(hers: tuple[UnixUser, Mount], run_as: Callable[..., Any]) -> None:
    """As package managers make them."""
    alice, mount = hers
    script = """
        mkdir -p "$1/tree/a/b" "$1/tree/c"; echo 1 >"$1/tree/a/b/f"; echo 2 >"$1/tree/c/g"
        chmod -R a-w "$1/tree"
        cp -a "$1/tree" "$1/copy"
        mv "$1/copy" "$1/moved"
        mkdir "$1/empty"; chmod 0 "$1/empty"; rmdir "$1/empty"
        mkdir "$1/empty"; chmod 0555 "$1/empty"; rmdir "$1/empty"
        mkdir "$1/search"; echo 3 >"$1/search/h"; chmod 0311 "$1/search"; cat "$1/search/h"
        echo 4 >"$1/search/i"; rm "$1/search/h"
    """
    assert in_shell(run_as, alice, mount.path, script) == "3\n"
    mount.remount()
    script = """
        cat "$1/moved/a/b/f" "$1/search/i"
        chmod u+r "$1/search"; ls "$1/search"
        chmod -R u+w "$1"; rm -r "$1"/*; ls -A "$1"
    """
    assert in_shell(run_as, alice, mount.path, script) == "1\n4\ni\n"
    mount.umount()
    assert {
        name for name in os.listdir(mount.lower) if not name.startswith(("envfs.name.", "envfs.undo", "envfs.journal"))
    } == {
        "envfs.dir",
        "envfs.volume",
        "envfs.volume.backup",
    }


def test_git_as_an_ordinary_user(hers: tuple[UnixUser, Mount], run_as: Callable[..., Any]) -> None:
    """Objects and packs are files of mode 0444 that are linked, renamed and removed."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    alice, mount = hers
    script = """
        export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=A GIT_COMMITTER_EMAIL=a@example.org
        git init -q -b main "$1/r"
        for n in 1 2 3; do seq $n 2000 >"$1/r/f$n"; git -C "$1/r" add .; git -C "$1/r" commit -q -m $n; done
        git clone -q "$1/r" "$1/c"
        git -C "$1/c" gc -q --prune=now; git -C "$1/r" repack -q -a -d
    """
    in_shell(run_as, alice, mount.path, script)
    mount.remount()
    script = 'git -C "$1/r" fsck --strict; git -C "$1/c" fsck --strict; git -C "$1/c" status --porcelain; rm -rf "$1/r"'
    assert in_shell(run_as, alice, mount.path, script) == ""
    assert run_as(alice, lambda: os.listdir(mount.path)) == ["c"]


def test_killed_while_read_only_files_are_written(hers: tuple[UnixUser, Mount], run_as: Callable[..., Any]) -> None:
    alice, mount = hers
    synced, unsynced = mount.path / "synced", mount.path / "unsynced"

    def work() -> None:
        for path in (synced, unsynced):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o444)
            os.write(fd, b"x" * 300_000)
            if path == synced:
                os.fsync(fd)
            os.close(fd)
        os.rename(synced, mount.path / "moved")

    run_as(alice, work)
    mount.kill()
    mount.mount()
    assert run_as(alice, (mount.path / "moved").read_bytes) == b"x" * 300_000
    assert set(run_as(alice, unsynced.read_bytes)) <= set(b"x")
    assert stat.S_IMODE(run_as(alice, lambda: (mount.path / "moved").stat().st_mode)) == 0o444
