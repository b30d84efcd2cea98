"""The daemon is killed in the middle of writing: what was synced is there byte for byte, and everything opens."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.integration.command import REPOSITORY
from tests.integration.fs.killing import Rounds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.mounts import Mount

TIMEOUT = 60


def can_be_emptied(mount: Mount) -> None:
    subprocess.run(["rm", "-rf", *(mount.path / name for name in os.listdir(mount.path))], check=True, timeout=TIMEOUT)
    assert os.listdir(mount.path) == []


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_killed_again_and_again(place: str, request: pytest.FixtureRequest) -> None:
    """The short form of `scripts/crash-test`."""
    mount: Mount = request.getfixturevalue("mount" if place == "memory" else "on_disk")
    rounds = Rounds(mount, random.Random(7))
    for lines in (1, 5, 15):
        rounds.run(least=lines)
    can_be_emptied(mount)
    mount.umount()
    kept = {"envfs.dir", "envfs.volume", "envfs.volume.backup", "envfs.undo"}
    assert set(os.listdir(mount.lower)) - _leavings(mount.lower) - {"envfs.journal"} == kept


def _leavings(lower: Path) -> set[str]:
    """What a crash may leave, and what means nothing."""
    return {name for name in os.listdir(lower) if name.startswith(("envfs.tmp.", "envfs.name.", "envfs.link."))}


@pytest.mark.mount
@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")
def test_crash_test_itself() -> None:
    """Two volumes at once, as the script has them."""
    command = [sys.executable, "-m", "tests.integration.fs.killing", "--rounds", "2", "--jobs", "2", "--volume", "1"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 rounds, all good" in done.stdout


def test_killed_before_anything_was_closed(mounted: Callable[..., Mount]) -> None:
    """Synced through one descriptor, changed through another, never closed."""
    mount = mounted()
    path = mount.path / "f"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(fd, b"a" * 100_000)
    os.fsync(fd)
    os.ftruncate(fd, 70_000)
    os.pwrite(fd, b"b" * 10, 50_000)
    os.fsync(fd)
    os.pwrite(fd, b"c" * 10, 200_000)
    mount.kill()
    with pytest.raises(OSError, match="not connected"):
        os.close(fd)
    mount.mount()
    content = path.read_bytes()
    assert content[:70_000] == b"a" * 50_000 + b"b" * 10 + b"a" * 19_990
    assert content[70_000:].strip(b"\0") in {b"", b"c" * 10}


def test_a_file_that_was_unlinked_while_open_is_gone_after_a_kill(mounted: Callable[..., Mount]) -> None:
    mount = mounted()
    fd = os.open(mount.path / "f", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"x" * 100_000)
    os.unlink(mount.path / "f")
    mount.kill()
    with pytest.raises(OSError, match="not connected"):
        os.close(fd)
    mount.mount()
    assert os.listdir(mount.path) == []
    mount.umount()
    # Whether its writes, which the kernel may still have held, had been begun when the daemon was killed.
    assert set(os.listdir(mount.lower)) - {"envfs.undo", "envfs.journal"} == {
        "envfs.dir",
        "envfs.volume",
        "envfs.volume.backup",
    }
