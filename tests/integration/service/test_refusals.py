"""What is not mounted, and what the user is told: reason, next step, exit code. Nothing is left half-made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.mounts import daemons, mountpoints

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount


@pytest.fixture
def mountpoint(directory: Callable[..., Path]) -> Path:
    return directory("mount")


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """It failed with this code; message and next step contain the words; there is no traceback."""
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("envfs: ")
    assert "\n  next: " in done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def nothing_happened(mountpoint: Path) -> None:
    assert mountpoints(mountpoint) == []
    assert daemons(mountpoint) == []


def test_no_kms(envfs: Envfs, volume: Path, mountpoint: Path, directory: Callable[..., Path]) -> None:
    empty = directory("empty")
    refused(envfs("mount", volume, mountpoint, home=empty, check=False), 3, "there is no KMS", "envfs kms init")
    assert os.listdir(empty) == []
    nothing_happened(mountpoint)


def test_a_foreign_kms(envfs: Envfs, volume: Path, mountpoint: Path, directory: Callable[..., Path]) -> None:
    foreign = directory("foreign", mode=0o700)
    envfs("kms", "init", home=foreign)
    refused(envfs("mount", volume, mountpoint, home=foreign, check=False), 3, "another KMS", "ENVFS_HOME")
    nothing_happened(mountpoint)


def test_a_wrong_passphrase(envfs: Envfs, lower: Path, mountpoint: Path, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text("correct horse\n")
    wrong.write_text("battery staple\n")
    for path in (tmp_path.parent, tmp_path, right, wrong):
        path.chmod(0o755)
    envfs("kms", "init", "--root-key", "passphrase", "--passphrase-file", right)
    envfs("init", lower, env={"ENVFS_PASSPHRASE_FILE": str(right)})
    refused(envfs("mount", lower, mountpoint, "-o", f"passphrase_file={wrong}", check=False), 3, "passphrase is wrong")
    refused(envfs("mount", lower, mountpoint, check=False), 3, "no terminal", "ENVFS_PASSPHRASE_FILE")
    nothing_happened(mountpoint)
    envfs("mount", lower, mountpoint, "-o", f"passphrase_file={right}")
    envfs("umount", mountpoint)


def test_no_volume(envfs: Envfs, volume: Path, mountpoint: Path, directory: Callable[..., Path]) -> None:
    empty = directory("empty")
    refused(envfs("mount", empty, mountpoint, check=False), 3, "is not an envfs volume", f"envfs init {empty}")
    refused(envfs("mount", empty / "absent", mountpoint, check=False), 3, "does not exist", "envfs init")
    refused(envfs("mount", volume / "envfs.dir", mountpoint, check=False), 3, "does not exist")
    nothing_happened(mountpoint)


def test_a_volume_file_that_is_gone(envfs: Envfs, volume: Path, mountpoint: Path) -> None:
    (volume / "envfs.volume").unlink()
    refused(envfs("mount", volume, mountpoint, check=False), 3, "is missing", f"cp {volume}/envfs.volume.backup")
    shutil.copy(volume / "envfs.volume.backup", volume / "envfs.volume")
    envfs("mount", volume, mountpoint)
    envfs("umount", mountpoint)


@pytest.mark.parametrize("position", [0, 12, 28, 44, 60, 90, 150, -40, -1])
def test_a_damaged_volume_file(position: int, envfs: Envfs, volume: Path, mountpoint: Path) -> None:
    raw = bytearray((volume / "envfs.volume").read_bytes())
    raw[position] ^= 1
    (volume / "envfs.volume").write_bytes(raw)
    done = envfs("mount", volume, mountpoint, check=False)
    if position == 28:  # the id of the KMS: damage there reads as a foreign KMS, and is told as that
        refused(done, 3, "another KMS")
    else:
        refused(done, 5, "envfs.volume is damaged", f"cp {volume}/envfs.volume.backup {volume}/envfs.volume")
    nothing_happened(mountpoint)


@pytest.mark.parametrize("length", [0, 7, 76, 200])
def test_a_volume_file_that_was_cut(length: int, envfs: Envfs, volume: Path, mountpoint: Path) -> None:
    os.truncate(volume / "envfs.volume", length)
    refused(envfs("mount", volume, mountpoint, check=False), 5, "is damaged")
    nothing_happened(mountpoint)


def test_a_volume_file_that_is_no_file(envfs: Envfs, volume: Path, mountpoint: Path) -> None:
    (volume / "envfs.volume").unlink()
    os.mkfifo(volume / "envfs.volume")
    refused(envfs("mount", volume, mountpoint, check=False), 5, "not a regular file")


def test_a_newer_version(envfs: Envfs, volume: Path, mountpoint: Path) -> None:
    raw = bytearray((volume / "envfs.volume").read_bytes())
    raw[8:10] = (2).to_bytes(2, "big")
    (volume / "envfs.volume").write_bytes(raw)
    refused(envfs("mount", volume, mountpoint, check=False), 7, "newer release", "update envfs")
    nothing_happened(mountpoint)


def test_a_damaged_directory_file_of_the_root(envfs: Envfs, volume: Path, mountpoint: Path) -> None:
    raw = bytearray((volume / "envfs.dir").read_bytes())
    raw[140] ^= 1
    (volume / "envfs.dir").write_bytes(raw)
    done = envfs("mount", volume, mountpoint, check=False)
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
    nothing_happened(mountpoint)


def test_a_mountpoint_in_use_or_not_empty_or_not_there(
    envfs: Envfs, volume: Path, mounted: Callable[..., Mount], directory: Callable[..., Path]
) -> None:
    mount = mounted()
    (mount.path / "file").touch()
    refused(envfs("mount", volume, mount.path, check=False), 6, "mounted already", f"envfs umount {mount.path}")
    full = directory("full")
    (full / "file").touch()
    refused(envfs("mount", volume, full, check=False), 6, "not empty")
    refused(envfs("mount", volume, full / "file", check=False), 6, "not a directory")
    refused(envfs("mount", volume, full / "absent", check=False), 6, "does not exist", "mkdir")


def test_a_volume_that_is_mounted_elsewhere(
    envfs: Envfs, mounted: Callable[..., Mount], directory: Callable[..., Path]
) -> None:
    mount = mounted()
    other = directory("other")
    for options in ((), ("-o", "ro")):
        done = envfs("mount", mount.lower, other, *options, check=False)
        refused(done, 6, "in use by another envfs process", f"mounted at {mount.path}", f"envfs umount {mount.path}")
    nothing_happened(other)
    assert (mount.path / "still").write_text("alive") == 5


def test_mountpoint_and_volume_in_each_other(envfs: Envfs, volume: Path, directory: Callable[..., Path]) -> None:
    refused(envfs("mount", volume, volume, check=False), 3, "lies in the lower directory")
    refused(envfs("mount", volume, volume.parent, check=False), 3, "would hide it")


def test_an_unknown_option(envfs: Envfs, volume: Path, mountpoint: Path) -> None:
    refused(envfs("mount", volume, mountpoint, "-o", "noxatr", check=False), 3, "'noxatr'", "noxattr")
    nothing_happened(mountpoint)


def test_not_mounted(envfs: Envfs, directory: Callable[..., Path]) -> None:
    plain = directory("plain")
    refused(envfs("umount", plain, check=False), 6, "is not mounted", "envfs status")
    refused(envfs("umount", plain / "absent", check=False), 6, "is not mounted")
    refused(envfs("umount", "/proc", check=False), 6, "of type proc")
    refused(envfs("status", plain, check=False), 6, "no envfs is mounted")


def test_a_kms_that_others_may_change(envfs: Envfs, volume: Path, mountpoint: Path, kms_home: Path) -> None:
    kms_home.chmod(0o777)
    refused(envfs("mount", volume, mountpoint, check=False), 3, "changed by others", "chmod 0700")


@pytest.mark.skipif(os.getuid() != 0, reason="needs a filesystem of its own")
def test_a_full_disk_leaves_no_half_made_volume(envfs: Envfs, directory: Callable[..., Path]) -> None:
    envfs("kms", "init")
    full = directory("full")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", full], check=True, timeout=60)
    try:
        (full / "lower").mkdir()
        blocks = os.statvfs(full).f_bavail
        (full / "filling").write_bytes(b"x" * 4096 * (blocks - 1))
        done = envfs("init", full / "lower", check=False)
        assert done.returncode == 8
        assert "No space left on device" in done.stderr
        assert os.listdir(full / "lower") == []
        (full / "filling").unlink()
        envfs("init", full / "lower")
    finally:
        subprocess.run(["umount", full], check=True, timeout=60)


def test_of_two_that_mount_at_the_same_moment_one_wins(
    envfs: Envfs, volume: Path, directory: Callable[..., Path], kms_home: Path
) -> None:
    paths = [directory(f"race{number}") for number in range(4)]
    environment = os.environ | {"ENVFS_HOME": str(kms_home)}
    commands = [
        subprocess.Popen([*envfs.argv, "mount", volume, path], env=environment, stderr=subprocess.PIPE, text=True)
        for path in paths
    ]
    codes = []
    for command in commands:
        _, told = command.communicate(timeout=60)
        codes.append(command.returncode)
        assert command.returncode == 0 or "in use by another envfs process" in told
    assert sorted(codes) == [0, 6, 6, 6]
    (winner,) = [path for path, code in zip(paths, codes, strict=True) if code == 0]
    for path in paths:
        assert (mountpoints(path) == [str(path)]) is (path == winner)
    envfs("umount", winner)


def test_of_two_that_make_a_volume_at_the_same_moment_one_wins(envfs: Envfs, lower: Path, kms_home: Path) -> None:
    envfs("kms", "init")
    environment = os.environ | {"ENVFS_HOME": str(kms_home)}
    commands = [
        subprocess.Popen([*envfs.argv, "init", lower, "--json"], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    made = [json.loads(told) for (told,) in [command.communicate(timeout=60)[:1] for command in commands] if told]
    assert sorted(command.returncode for command in commands) == [0, 3, 3, 3]
    assert len(made) == 1
    assert bytes.fromhex(made[0]["volume_id"]) in (lower / "envfs.volume").read_bytes()
    assert sorted(os.listdir(lower)) == ["envfs.dir", "envfs.volume", "envfs.volume.backup"]
