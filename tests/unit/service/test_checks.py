from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from envfs.errors import ConfigError
from envfs.service import checks
from envfs.service.config import MountOptions
from envfs.service.errors import MountError


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    (tmp_path / "lower").mkdir()
    (tmp_path / "lower/envfs.volume").write_bytes(b"volume")
    return tmp_path / "lower"


def test_an_empty_directory_apart_from_the_volume_is_taken(tmp_path: Path, lower: Path) -> None:
    (tmp_path / "mount").mkdir()
    (tmp_path / "link").symlink_to("mount")
    assert checks.check_mountpoint(tmp_path / "link", lower) == tmp_path / "mount"


def test_a_mountpoint_that_is_not_there_says_how_to_make_it(tmp_path: Path, lower: Path) -> None:
    with pytest.raises(MountError, match="does not exist") as raised:
        checks.check_mountpoint(tmp_path / "mount", lower)
    assert raised.value.hint == f"mkdir {tmp_path}/mount"


def test_a_file_and_a_broken_link_are_no_mountpoints(tmp_path: Path, lower: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link"):
        with pytest.raises(MountError, match="is not a directory"):
            checks.check_mountpoint(tmp_path / name, lower)


def test_a_directory_that_is_not_empty_is_refused(tmp_path: Path, lower: Path) -> None:
    (tmp_path / "mount").mkdir()
    (tmp_path / "mount/file").touch()
    with pytest.raises(MountError, match=r"not empty: 1 entry would be hidden"):
        checks.check_mountpoint(tmp_path / "mount", lower)


def test_a_mountpoint_of_something_else_is_refused(lower: Path) -> None:
    with pytest.raises(MountError, match=r"mountpoint already \(proc\)"):
        checks.check_mountpoint(Path("/proc"), lower)


def test_neither_may_lie_in_the_other(tmp_path: Path, lower: Path) -> None:
    (lower / "deep/mount").mkdir(parents=True)
    for mountpoint in (lower, lower / "deep/mount"):
        with pytest.raises(ConfigError, match="lies in the lower directory"):
            checks.check_mountpoint(mountpoint, lower)
    with pytest.raises(ConfigError, match="which would hide it"):
        checks.check_mountpoint(tmp_path, lower)


def test_a_symlink_into_the_volume_is_seen_through(tmp_path: Path, lower: Path) -> None:
    (lower / "deep").mkdir()
    (tmp_path / "link").symlink_to(lower / "deep")
    with pytest.raises(ConfigError, match="lies in the lower directory"):
        checks.check_mountpoint(tmp_path / "link", lower)


def test_the_lock_is_for_one_and_ends_with_its_descriptor(lower: Path) -> None:
    first = checks.lock_volume(lower, shared=False)
    with pytest.raises(MountError, match="in use by another envfs process"):
        checks.lock_volume(lower, shared=False)
    with pytest.raises(MountError):
        checks.lock_volume(lower, shared=True)
    os.close(first)
    os.close(checks.lock_volume(lower, shared=False))


def test_readers_share_the_lock_and_keep_writers_out(lower: Path) -> None:
    first, second = (checks.lock_volume(lower, shared=True) for _ in range(2))
    with pytest.raises(MountError):
        checks.lock_volume(lower, shared=False)
    os.close(first)
    os.close(second)
    os.close(checks.lock_volume(lower, shared=False))


def test_the_directory_is_locked_whatever_becomes_of_the_volume_file(lower: Path) -> None:
    first = checks.lock_directory(lower, shared=False)
    (lower / "envfs.volume.new").write_bytes((lower / "envfs.volume").read_bytes())
    (lower / "envfs.volume.new").rename(lower / "envfs.volume")
    with pytest.raises(MountError, match="in use by another envfs process"):
        checks.lock_directory(lower, shared=True)
    os.close(first)
    first, second = (checks.lock_directory(lower, shared=True) for _ in range(2))
    with pytest.raises(MountError):
        checks.lock_directory(lower, shared=False)
    os.close(first)
    os.close(second)


def test_the_lock_of_a_killed_process_is_no_obstacle(lower: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from envfs.service import checks\n"
        "checks.lock_volume(Path(sys.argv[1]), shared=False); print('locked', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, lower], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(MountError):
            checks.lock_volume(lower, shared=False)
        process.kill()
    os.close(checks.lock_volume(lower, shared=False))


def test_a_refused_lock_leaves_no_descriptor_open(lower: Path) -> None:
    held = checks.lock_volume(lower, shared=False)
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(MountError):
        checks.lock_volume(lower, shared=False)
    assert sorted(os.listdir("/proc/self/fd")) == before
    os.close(held)


def test_a_volume_file_that_is_replaced_while_it_is_locked_is_noticed(
    lower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock

    def replace_and_lock(descriptor: int, operation: int) -> None:
        (lower / "new").write_bytes(b"volume")
        (lower / "new").rename(lower / "envfs.volume")
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", replace_and_lock)
    with pytest.raises(MountError, match="just replaced"):
        checks.lock_volume(lower, shared=False)


def test_a_missing_device_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_DEVICE", tmp_path / "fuse")
    with pytest.raises(MountError, match="fuse is missing") as raised:
        checks.check_fuse(MountOptions())
    assert "modprobe" in raised.value.hint


@pytest.mark.parametrize(
    ("content", "permitted"),
    [
        ("user_allow_other\n", True),
        ("# user_allow_other\n", False),
        ("mount_max = 5\n  user_allow_other  \n", True),
        ("", False),
    ],
)
def test_allow_other_of_ordinary_users_is_up_to_fuse_conf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, permitted: bool
) -> None:
    (tmp_path / "fuse.conf").write_text(content)
    (tmp_path / "fuse").touch()
    monkeypatch.setattr(checks, "_DEVICE", tmp_path / "fuse")
    monkeypatch.setattr(checks, "_FUSE_CONFIGURATION", tmp_path / "fuse.conf")
    monkeypatch.setattr(shutil, "which", lambda _name: "/usr/bin/fusermount3")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    checks.check_fuse(MountOptions())
    if permitted:
        checks.check_fuse(MountOptions(allow_other=True))
    else:
        with pytest.raises(ConfigError, match="allow_other is not permitted"):
            checks.check_fuse(MountOptions(allow_other=True))


def test_an_ordinary_user_needs_fusermount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fuse").touch()
    monkeypatch.setattr(checks, "_DEVICE", tmp_path / "fuse")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    with pytest.raises(MountError, match="fusermount3 is not installed"):
        checks.check_fuse(MountOptions())
