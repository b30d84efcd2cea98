"""What stands on a disk whose power fails after the lower filesystem has committed its journal, and before the kernel
has written back everything else.

The lower directory is on ext4 in an image file. An fsync(2) of a file that does not belong to the volume commits the
journal, as the clock does every five seconds; then the image is copied, and the copy is what a machine would find
after the power has come back.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from envfs.fs.lower import is_only_in_memory
from tests.integration.mounts import clear_away

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount


def _can_make_disks() -> bool:
    if os.getuid() != 0 or shutil.which("mkfs.ext4") is None or shutil.which("losetup") is None:
        return False
    return subprocess.run(["losetup", "--find"], timeout=60, check=False, capture_output=True).returncode == 0


if not _can_make_disks():  # many containers have no loop devices
    pytest.skip("needs root, loop devices and mkfs.ext4", allow_module_level=True)


class Disk:
    """An ext4 filesystem in a file, and copies of it."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._image = base / "image"
        self._copies = 0

    def make(self) -> Path:
        with open(self._image, "wb") as file:
            file.truncate(32 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", self._image], check=True, timeout=60, capture_output=True)
        return self._mount(self._image, "disk")

    def _mount(self, image: Path, name: str) -> Path:
        path = self._base / name
        path.mkdir()
        command = ["mount", "-o", "loop,noauto_da_alloc", str(image), str(path)]
        subprocess.run(command, timeout=60, check=True, capture_output=True)
        return path

    def commit_journal(self) -> None:
        with open(self._base / "disk" / "unrelated", "ab") as file:
            file.write(b"x")
            os.fsync(file.fileno())

    def after_power_loss(self) -> Path:
        self.commit_journal()
        self._copies += 1
        copy = self._base / f"copy{self._copies}"
        shutil.copyfile(self._image, copy)
        return self._mount(copy, f"restarted{self._copies}")


@pytest.fixture
def disk(directory: Callable[..., Path]) -> Iterator[Disk]:
    base = directory("power")
    yield Disk(base)
    clear_away(base)


@pytest.fixture
def mount(disk: Disk, envfs: Envfs, mounted: Callable[..., Mount]) -> Iterator[Mount]:
    lower = disk.make() / "lower"
    lower.mkdir()
    envfs("init", lower)
    entry = mounted(lower=lower)
    yield entry
    if entry.is_mounted:
        entry.umount()


@pytest.fixture
def restarted(disk: Disk, mounted: Callable[..., Mount]) -> Iterator[Callable[[], Mount]]:
    mounts: list[Mount] = []

    def restart() -> Mount:
        mounts.append(mounted(lower=disk.after_power_loss() / "lower"))
        return mounts[-1]

    yield restart
    for entry in mounts:
        if entry.is_mounted:
            entry.umount()


def save(path: Path, content: bytes) -> None:
    """As careful programs do: a new file, synced, renamed over the old one."""
    new = path.with_suffix(".new")
    with open(new, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


def sync(mount: Mount) -> None:
    """Everything so far is on the disk."""
    for path in (mount.path, mount.lower):
        subprocess.run(["sync", "--file-system", path], check=True, timeout=60)


def test_a_file_that_was_saved_with_care_is_there(mount: Mount, restarted: Callable[[], Mount]) -> None:
    save(mount.path / "document", b"old" * 1000)
    sync(mount)
    save(mount.path / "document", b"new" * 1000)
    assert (restarted().path / "document").read_bytes() == b"new" * 1000


def test_old_files_can_be_moved_into_a_new_directory(mount: Mount, restarted: Callable[[], Mount]) -> None:
    save(mount.path / "old", b"kept" * 1000)
    sync(mount)
    (mount.path / "archive").mkdir()
    (mount.path / "old").rename(mount.path / "archive" / "old")
    assert (restarted().path / "archive" / "old").read_bytes() == b"kept" * 1000


def test_a_directory_that_was_renamed_can_be_entered(mount: Mount, restarted: Callable[[], Mount]) -> None:
    (mount.path / "before").mkdir()
    save(mount.path / "before" / "file", b"1")
    sync(mount)
    (mount.path / "before").rename(mount.path / "after")
    (mount.path / "after" / "file").rename(mount.path / ("l" * 255))
    after = restarted()
    assert os.listdir(after.path / "after") == []
    assert (after.path / ("l" * 255)).read_bytes() == b"1"


def test_a_second_name_of_a_file_is_as_good_as_the_first(mount: Mount, restarted: Callable[[], Mount]) -> None:
    save(mount.path / "one", b"1")
    sync(mount)
    (mount.path / "two").hardlink_to(mount.path / "one")
    after = restarted()
    assert {(after.path / name).read_bytes() for name in ("one", "two")} == {b"1"}


def write_back(path: Path, page: int) -> None:
    """Have one page of a file on the disk, and no other."""
    fd = os.open(path, os.O_RDWR)
    try:
        before = ctypes.c_int64(page * 4096), ctypes.c_int64(4096)
        assert ctypes.CDLL(None).sync_file_range(fd, *before, ctypes.c_uint(7)) == 0
    finally:
        os.close(fd)


@pytest.mark.parametrize("page", [2, 3])
def test_a_block_of_which_one_page_got_to_the_disk_is_what_it_was(
    disk: Disk, envfs: Envfs, mounted: Callable[..., Mount], restarted: Callable[[], Mount], page: int
) -> None:
    """Block 1 lies on the pages 1 to 2, block 2 on 2 to 3; here only one page of what was written over them did."""
    lower = disk.make() / "lower"
    lower.mkdir()
    envfs("init", lower)
    mount = mounted("nowriteback", lower=lower)
    old = random.Random(1).randbytes(5 * 4096 + 100)
    save(mount.path / "f", old)
    (path,) = (entry for entry in lower.iterdir() if not entry.name.startswith("envfs."))
    with open(mount.path / "f", "r+b", buffering=0) as file:
        os.pwrite(file.fileno(), b"n" * 8192, 4096)
        write_back(path, page)
        after = restarted()
        new = old[:4096] + b"n" * 8192 + old[12288:]
        # Unless somebody on this machine had everything synced meanwhile.
        assert (after.path / "f").read_bytes() in {old, new}
        assert (mount.path / "f").read_bytes() == new
    after.umount()
    mount.umount()
    envfs("fsck", "--read-data", lower)


def test_what_is_only_in_memory_is_known(disk: Disk) -> None:
    path = disk.make() / "file"
    with open(path, "w+b", buffering=0) as file:
        file.write(b"x" * 20000)
        assert is_only_in_memory(file.fileno(), 0, 20000)
        assert not is_only_in_memory(file.fileno(), 0, 1 << 20)
        write_back(path, 1)
        assert is_only_in_memory(file.fileno(), 0, 4096) is False
        assert is_only_in_memory(file.fileno(), 4096, 4096) is False


def test_a_new_file_that_was_already_written_back_can_be_renamed(mount: Mount, restarted: Callable[[], Mount]) -> None:
    """Sooner than the kernel should: under memory pressure it may."""
    (mount.path / "new").write_bytes(b"1" * 5000)
    subprocess.run(["sync", "--file-system", mount.lower], check=True, timeout=60)
    (mount.path / "new").rename(mount.path / "renamed")
    assert (restarted().path / "renamed").read_bytes() == b"1" * 5000
