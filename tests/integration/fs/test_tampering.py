"""Ciphertext that was changed below a mount: EIO on what is damaged, nothing else, and a line in the log."""

from __future__ import annotations

import errno
import os
import random
import shutil
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.integration.fs.conftest import run
from tests.unit.fs.lab import flip

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount

BLOCK, CIPHER_BLOCK, HEADER = 4096, 4096 + 28, 1024
BLOCKS = 4
CONTENT = {name: random.Random(name).randbytes(BLOCKS * BLOCK - 100) for name in ("one", "two", "d/three")}


@pytest.fixture
def lowers(mount: Mount) -> dict[str, Path]:
    """Where things are below: users see the lower inode numbers. It is not mounted any more."""
    (mount.path / "d").mkdir()
    for name, content in CONTENT.items():
        (mount.path / name).write_bytes(content)
    numbers = {(mount.path / name).stat().st_ino: name for name in ("d", *CONTENT)}
    mount.umount()
    found = {numbers.get(path.stat().st_ino): path for path in mount.lower.rglob("*")}
    return {name: path for name, path in found.items() if name}


def logged(envfs_home: Path) -> str:
    return "".join(path.read_text() for path in (envfs_home / "log").iterdir())


def refused(what: Callable[[], object]) -> None:
    with pytest.raises(OSError) as error:  # noqa: PT011 - the errno says it
        what()
    assert error.value.errno == errno.EIO


def is_whole(mount: Mount, *names: str) -> None:
    for name in names:
        assert (mount.path / name).read_bytes() == CONTENT[name]


@pytest.mark.parametrize("how", ["flipped", "swapped", "zeroed"])
def test_damaged_blocks(mount: Mount, lowers: dict[str, Path], kms_home: Path, how: str) -> None:
    raw = bytearray(lowers["one"].read_bytes())
    one, two = (slice(HEADER + index * CIPHER_BLOCK, HEADER + (index + 1) * CIPHER_BLOCK) for index in (1, 2))
    if how == "flipped":
        raw[one.start + 2000] ^= 0x10
    elif how == "swapped":
        raw[one], raw[two] = raw[two], raw[one]
    else:
        raw[one] = bytes(CIPHER_BLOCK)
    lowers["one"].write_bytes(raw)
    mount.mount()
    bad = {1, 2} if how == "swapped" else {1}
    fd = os.open(mount.path / "one", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # so that the kernel asks for no more than the test does
    try:
        for index in range(BLOCKS):
            if index in bad:
                refused(partial(os.pread, fd, BLOCK, index * BLOCK))
            else:
                assert os.pread(fd, BLOCK, index * BLOCK) == CONTENT["one"][index * BLOCK : (index + 1) * BLOCK]
    finally:
        os.close(fd)
    is_whole(mount, "two", "d/three")
    line = next(line for line in logged(kms_home).splitlines() if "damage or tampering" in line)
    assert "ERROR" in line
    assert "/one" in line


def cut(lowers: dict[str, Path]) -> None:
    os.truncate(lowers["one"], HEADER + 2 * CIPHER_BLOCK)


def without_header(lowers: dict[str, Path]) -> None:
    with open(lowers["one"], "r+b") as file:
        file.write(bytes(HEADER))


def damaged_place(lowers: dict[str, Path]) -> None:
    flip(lowers["one"], 30)


def copied_over(lowers: dict[str, Path]) -> None:
    shutil.copyfile(lowers["two"], lowers["one"])


@pytest.mark.parametrize("change", [cut, without_header, damaged_place, copied_over])
def test_a_damaged_file(
    mount: Mount, lowers: dict[str, Path], kms_home: Path, change: Callable[[dict[str, Path]], None]
) -> None:
    change(lowers)
    mount.mount()
    path = mount.path / "one"
    refused(partial(os.open, path, os.O_RDONLY))
    refused(partial(os.open, path, os.O_WRONLY | os.O_TRUNC))
    refused(partial(os.truncate, path, 0))
    assert "Input/output error" in run("sh", "-c", f"cat {path} 2>&1", status=1)
    assert "damage or tampering" in logged(kms_home)
    is_whole(mount, "two", "d/three")
    assert run("ls", "-l", mount.path).count("\n") == 4
    path.unlink()
    path.write_bytes(CONTENT["one"])
    is_whole(mount, *CONTENT)


def test_swapped_files_and_a_file_moved_to_another_directory(
    mount: Mount, lowers: dict[str, Path], kms_home: Path
) -> None:
    aside = mount.lower / "aside"
    os.rename(lowers["one"], aside)
    os.rename(lowers["two"], lowers["one"])
    os.rename(aside, lowers["two"])
    mount.mount()
    for path in (mount.path / "one", mount.path / "two"):
        refused(path.read_bytes)
        refused(partial(os.rename, path, mount.path / "laundered"))
        refused(partial(os.link, path, mount.path / "laundered"))
    is_whole(mount, "d/three")
    mount.umount()
    os.rename(lowers["one"], lowers["d/three"])
    mount.mount()
    refused((mount.path / "d" / "three").read_bytes)
    assert "damage or tampering" in logged(kms_home)


def test_swapped_directories_and_one_without_its_file(mount: Mount, lowers: dict[str, Path], kms_home: Path) -> None:
    mount.mount()
    (mount.path / "e").mkdir()
    (mount.path / "e" / "four").write_bytes(b"four")
    mount.umount()
    (other,) = (entry for entry in mount.lower.iterdir() if entry.is_dir() and entry != lowers["d"])
    os.rename(other, mount.lower / "aside")
    os.rename(lowers["d"], other)
    os.rename(mount.lower / "aside", lowers["d"])
    mount.mount()
    for path in (mount.path / "d", mount.path / "e"):
        refused(partial(os.listdir, path))
        refused(partial((path / "new").write_bytes, b""))
    is_whole(mount, "one", "two")
    assert "moved or swapped" in logged(kms_home)
    mount.umount()
    os.rename(other, mount.lower / "aside")
    os.rename(lowers["d"], other)
    os.rename(mount.lower / "aside", lowers["d"])
    (lowers["d"] / "envfs.dir").unlink()
    mount.mount()
    refused(lambda: os.listdir(mount.path / "d"))
    assert (mount.path / "e" / "four").read_bytes() == b"four"
    is_whole(mount, "one", "two")


def test_another_volumes_file(
    mount: Mount, lowers: dict[str, Path], envfs: Envfs, mounted: Callable[..., Mount], directory: Callable[..., Path]
) -> None:
    foreign = directory("foreign")
    envfs("init", foreign)
    other = mounted(lower=foreign)
    (other.path / "one").write_bytes(CONTENT["one"])
    other.umount()
    (source,) = (entry for entry in foreign.iterdir() if not entry.name.startswith("envfs."))
    shutil.copyfile(source, lowers["one"])
    mount.mount()
    refused((mount.path / "one").read_bytes)
    is_whole(mount, "two", "d/three")


def test_while_it_is_mounted(mount: Mount, lowers: dict[str, Path]) -> None:
    """What the kernel has in memory stays what it was; what is read anew is checked."""
    mount.mount()
    is_whole(mount, *CONTENT)
    flip(lowers["two"], HEADER + 100)
    fd = os.open(mount.path / "two", os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        refused(lambda: os.pread(fd, 100, 0))
        assert os.pread(fd, 100, 3 * BLOCK) == CONTENT["two"][3 * BLOCK : 3 * BLOCK + 100]
    finally:
        os.close(fd)
    is_whole(mount, "one", "d/three")
