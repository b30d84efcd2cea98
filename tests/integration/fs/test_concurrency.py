"""Many processes in one mount at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.mounts import Mount

WORKERS = Path(__file__).with_name("workers.py")
TIMEOUT = 120


def together(*commands: tuple[str | Path, ...]) -> None:
    """Run workers at the same time; each must end well."""
    running = [
        subprocess.Popen([sys.executable, "-E", WORKERS, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for command in commands
    ]
    try:
        answers = [worker.communicate(timeout=TIMEOUT)[1].decode() for worker in running]
    finally:
        for worker in running:
            worker.kill()
            worker.wait()
            assert worker.stderr is not None
            worker.stderr.close()
    assert [worker.returncode for worker in running] == [0] * len(running), "\n".join(answers)


def test_appending_processes_lose_and_tear_nothing(mount: Mount) -> None:
    path = mount.path / "log"
    together(*(("append", path, str(who), "400") for who in range(4)))
    mount.remount()
    lines = path.read_text().splitlines()
    assert len(lines) == 1600
    for who in range(4):
        assert [line for line in lines if line.startswith(f"{who} ")] == [
            f"{who} {number} {'x' * (number % 300)}" for number in range(400)
        ]


@pytest.mark.parametrize("options", [(), ("nowriteback", "nopoll")])
def test_files_of_their_own_and_one_shared(mounted: Callable[..., Mount], options: tuple[str, ...]) -> None:
    mount = mounted(*options)
    shared = mount.path / "shared"
    shared.write_bytes(bytes(64 * 3 * 4096))
    together(
        *(("own_file", mount.path / f"own{seed}", str(seed), "150") for seed in range(4)),
        *(("shared_slices", shared, str(who), "3", "200") for who in range(3)),
    )
    mount.remount()
    content = shared.read_bytes()
    pages = [content[start : start + 4096] for start in range(0, len(content), 4096)]
    assert all(page == bytes([number % 3 + 1]) * 4096 for number, page in enumerate(pages))


def test_reads_and_writes_past_the_page_cache(on_disk: Mount) -> None:
    """Reads may be in a thread while a write changes the very block: what they return was there at some moment."""
    path = on_disk.path / "f"
    path.write_bytes(bytes(64 * 65536))
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    (lower,) = (entry for entry in on_disk.lower.iterdir() if entry.stat().st_size > 64 * 65536)
    workers = [("direct", path, str(who), "300") for who in range(4)]
    fd = os.open(lower, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        together(*workers)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        together(*workers)
    finally:
        os.close(fd)
    content = path.read_bytes()
    on_disk.remount()
    assert path.read_bytes() == content
    assert all(
        content[start : start + 65536] == content[start : start + 1] * 65536 for start in range(0, 1 << 22, 65536)
    )


def test_names_in_one_directory(mount: Mount) -> None:
    directory = mount.path / "d"
    directory.mkdir()
    together(*(("names", directory, str(who), "60") for who in range(4)))
    expected = sorted(os.listdir(directory))
    assert sum(name.startswith("last of ") for name in expected) == 4
    assert len(expected) == 4 * 20 + 4
    mount.remount()
    assert sorted(os.listdir(directory)) == expected
    for name in expected:
        assert len((directory / name).read_bytes()) == 100


def test_the_same_names_by_everybody(mount: Mount) -> None:
    directory = mount.path / "d"
    directory.mkdir()
    together(*(("fight", directory, str(who), "400") for who in range(4)))

    def everything(top: Path) -> list[tuple[str, int, int]]:
        return sorted(
            (str(path.relative_to(top)), path.lstat().st_mode, path.lstat().st_nlink) for path in top.rglob("*")
        )

    expected = everything(directory)
    mount.remount()
    assert everything(directory) == expected
    for path in directory.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == b""


def test_the_daemon_gives_back_what_it_held(mount: Mount) -> None:
    """Descriptors of removed inodes, of directories, of files that were open when they lost their names."""
    directory = mount.path / "d"
    directory.mkdir()
    (directory / "f").write_bytes(b"1")
    (directory / "f").write_bytes(b"2")  # from here on the undo record is open
    before = mount.descriptors()
    together(*(("names", directory, str(who), "100") for who in range(2)))
    for number in range(300):
        (directory / f"sub{number}" / "below").mkdir(parents=True)
        (directory / f"sub{number}" / "f").write_bytes(b"x")
    with open(directory / "open", "wb") as file:
        os.unlink(directory / "open")
        file.write(b"x" * 10_000)
    assert mount.descriptors() > before
    shutil.rmtree(directory)
    directory.mkdir()
    # The kernel sends word of what it forgets in its own time, between other requests.
    for number in range(5000):
        if mount.descriptors() <= before:
            break
        assert not (directory / f"nothing{number}").exists()
    assert mount.descriptors() <= before
