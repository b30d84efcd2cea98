"""A disk that is full, below the volume or below the KMS: an error, and nothing that was there is lost."""

from __future__ import annotations

import errno
import os
import random
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount

MIB = 1 << 20
OLD = random.Random(1).randbytes(300_000)


@pytest.fixture
def small(directory: Callable[..., Path]) -> Iterator[Callable[[str], Path]]:
    """Makes directories of 8 MiB each."""
    if os.getuid() != 0:
        pytest.skip("needs root, to mount a small tmpfs")
    made: list[Path] = []

    def make(name: str) -> Path:
        path = directory(name)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", path], check=True, timeout=30)
        made.append(path)
        return path

    yield make
    for path in made:
        subprocess.run(["umount", path], check=True, timeout=30)


def fill(directory: Path) -> Path:
    free = os.statvfs(directory)
    filler = directory / "filler"
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT, 0o600)
    os.posix_fallocate(fd, 0, free.f_bavail * free.f_frsize)
    os.close(fd)
    return filler


def write_and_sync(path: Path, content: bytes, flags: int = 0, offset: int | None = None) -> None:
    """Errors of write-back come with the sync at the latest."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o600)
    try:
        if offset is not None:
            os.lseek(fd, offset, os.SEEK_SET)
        os.write(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)


def no_space(what: Callable[[], object]) -> None:
    with pytest.raises(OSError) as refused:  # noqa: PT011 - the errno says it
        what()
    assert refused.value.errno == errno.ENOSPC


def try_to_create(path: Path) -> int:
    """0, or the errno."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
    except OSError as error:
        return error.errno or -1
    return 0


@pytest.mark.parametrize("options", [(), ("nowriteback",)])
def test_a_full_disk_below_the_volume(
    small: Callable[[str], Path], envfs: Envfs, mounted: Callable[..., Mount], options: tuple[str, ...]
) -> None:
    lower = small("small")
    envfs("init", lower)
    mount = mounted(*options, lower=lower)
    old = mount.path / "old"
    write_and_sync(old, OLD)
    write_and_sync(old, OLD[:10], offset=0)  # which takes the space of the undo record
    filler = fill(lower)
    no_space(lambda: write_and_sync(mount.path / "new", b"x" * MIB))
    no_space(lambda: write_and_sync(old, b"x" * MIB, os.O_APPEND))
    no_space((mount.path / "dir").mkdir)
    write_and_sync(old, OLD[1000:5000], offset=1000)  # overwriting needs no space
    mount.remount()
    assert old.read_bytes()[: len(OLD)] == OLD
    assert set(os.listdir(mount.path)) <= {"old", "new"}
    (mount.path / "new").unlink(missing_ok=True)
    filler.unlink()
    write_and_sync(mount.path / "new", b"y" * MIB)
    mount.remount()
    assert (mount.path / "new").read_bytes() == b"y" * MIB
    assert old.read_bytes()[: len(OLD)] == OLD
    mount.umount()


def test_a_full_disk_below_the_kms(
    small: Callable[[str], Path], envfs: Envfs, mounted: Callable[..., Mount], directory: Callable[..., Path]
) -> None:
    """No DEK without its audit record: nothing more is opened, and what is open goes on."""
    home, lower = small("home"), directory("volume")
    envfs("init", lower, home=home)
    mount = mounted(lower=lower, home=home)
    (mount.path / "old").write_bytes(OLD)
    opened = os.open(mount.path / "old", os.O_RDWR)
    filler = fill(home)
    try:
        answers = [try_to_create(mount.path / f"new{number}") for number in range(100)]
        # What is left in the last page of the trail may still take a few records.
        assert set(answers) <= {0, errno.EIO}
        assert answers[50:] == [errno.EIO] * 50
        with pytest.raises(OSError, match="Input/output error"):
            (mount.path / "old").read_bytes()
        os.pwrite(opened, b"still", 0)
        os.fsync(opened)
        assert os.pread(opened, 10, 0) == b"still" + OLD[5:10]
    finally:
        os.close(opened)
        filler.unlink()
    assert (mount.path / "old").read_bytes() == b"still" + OLD[5:]
    (mount.path / "new").write_bytes(b"1")
    mount.remount()
    assert (mount.path / "new").read_bytes() == b"1"
    assert (mount.path / "old").read_bytes() == b"still" + OLD[5:]
    mount.umount()
