"""Content through mappings, direct I/O, holes, copies and locks, between processes."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.integration.posix.test_names import refuses

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.mounts import Mount

PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


@pytest.fixture(params=["", "nowriteback"])
def mount_options(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def python(script: str, *arguments: str | Path, status: int = 0) -> str:
    """Run a few lines in another process; argv[1:] are `arguments`."""
    lines = "import fcntl, mmap, os, sys\n" + script
    done = subprocess.run(
        [sys.executable, "-c", lines, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done.stderr
    return done.stdout.strip()


# Mappings


def test_a_mapping_ends_with_the_file(here: Path) -> None:
    """Zeros up to the end of its last page; beyond that, and after a truncate, SIGBUS."""
    path = here / "f"
    path.write_bytes(noise(2 * PAGE))
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 2 * PAGE) as mapped:
        os.ftruncate(file.fileno(), PAGE + 100)
        assert mapped[: PAGE + 100] == noise(2 * PAGE)[: PAGE + 100]
        assert mapped[PAGE + 100 :] == bytes(PAGE - 100)
        mapped[PAGE + 200 : PAGE + 203] = b"xyz"  # beyond the end: never part of the file
    assert path.read_bytes() == noise(2 * PAGE)[: PAGE + 100]
    script = "f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 4200); f.truncate(100); print(m[50]); m[4096]"
    os.truncate(path, 4200)
    python(script, path, status=-signal.SIGBUS)


def test_what_lies_beyond_the_end_in_a_mapping_does_not_come_back(here: Path) -> None:
    path = here / "f"
    path.write_bytes(b"a" * PAGE)
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), PAGE) as mapped:
        os.ftruncate(file.fileno(), 100)
        mapped[100:200] = b"b" * 100
        mapped.flush()
        os.ftruncate(file.fileno(), 150)
        assert os.pread(file.fileno(), 200, 0)[:100] == b"a" * 100
    assert path.read_bytes()[100:] in {bytes(50), b"b" * 50}  # as on ext4, while the page is mapped


def test_shared_and_private_mappings_of_two_processes(here: Path, shared: Mount) -> None:
    path = here / "f"
    path.write_bytes(bytes(4 * PAGE))
    with open(path, "r+b") as file:
        private = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        common = mmap.mmap(file.fileno(), 0)
        private[0:4] = b"mine"
        common[PAGE : PAGE + 4] = b"ours"
        script = (
            "m = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 0); print(m[4096:4100].decode()); m[8192:8196] = b'hers'"
        )
        assert python(script, path) == "ours"
        assert common[2 * PAGE : 2 * PAGE + 4] == b"hers"
        assert common[0:4] == bytes(4)
        private.close()
        common.close()
    shared.remount()
    content = path.read_bytes()
    assert (content[:4], content[PAGE : PAGE + 4], content[2 * PAGE : 2 * PAGE + 4]) == (bytes(4), b"ours", b"hers")


# Direct I/O, holes, allocation, copies


def test_direct_io(here: Path) -> None:
    path = here / "f"
    path.write_bytes(noise(3 * PAGE + 5))
    with mmap.mmap(-1, 2 * PAGE) as buffer:
        fd = os.open(path, os.O_RDWR | os.O_DIRECT)
        try:
            assert os.preadv(fd, [buffer], PAGE) == 2 * PAGE
            assert buffer[:] == noise(3 * PAGE + 5)[PAGE : 3 * PAGE]
            buffer[:] = b"d" * (2 * PAGE)
            assert os.pwritev(fd, [buffer], 3 * PAGE) == 2 * PAGE
        finally:
            os.close(fd)
    assert path.read_bytes() == noise(3 * PAGE + 5)[: 3 * PAGE] + b"d" * (2 * PAGE)


def test_holes_are_data(here: Path) -> None:
    """SEEK_HOLE may say that there is none before the end: lseek(2) allows it, and so does everybody who copies."""
    path = here / "f"
    with open(path, "wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    size = (1 << 20) + 3
    fd = os.open(path, os.O_RDONLY)
    try:
        assert os.lseek(fd, 0, os.SEEK_DATA) == 0
        assert os.lseek(fd, 500_000, os.SEEK_HOLE) == size
        refuses(errno.ENXIO, lambda: os.lseek(fd, size, os.SEEK_DATA))
        refuses(errno.ENXIO, lambda: os.lseek(fd, size + 1, os.SEEK_HOLE))
    finally:
        os.close(fd)
    subprocess.run(["cp", "--sparse=auto", path, here / "copy"], check=True, timeout=30)
    assert (here / "copy").read_bytes() == bytes(1 << 20) + b"end"


def test_allocation(here: Path) -> None:
    """fallocate(2) is refused as unknown, and so posix_fallocate(3) writes; nothing is changed by a refusal."""
    path = here / "f"
    path.write_bytes(b"content")
    fd = os.open(path, os.O_RDWR)
    try:
        for mode in (0, 1, 3, 16):  # plain, KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
            assert _libc.fallocate(fd, mode, ctypes.c_long(0), ctypes.c_long(100)) == -1
            assert ctypes.get_errno() == errno.EOPNOTSUPP
        assert path.read_bytes() == b"content"
        os.posix_fallocate(fd, 0, 100_000)
        assert path.read_bytes() == b"content" + bytes(100_000 - 7)
    finally:
        os.close(fd)


def test_copies_within_the_kernel(here: Path) -> None:
    (here / "a").write_bytes(noise(300_000))
    source, target = os.open(here / "a", os.O_RDWR), os.open(here / "b", os.O_RDWR | os.O_CREAT)
    try:
        assert os.copy_file_range(source, target, 200_000, 50_000, 10) == 200_000
        assert os.copy_file_range(source, target, 1000, 299_500, 0) == 500
        os.lseek(target, 0, os.SEEK_END)
        assert os.sendfile(target, source, 0, 1000) == 1000
        refuses(errno.EINVAL, lambda: os.copy_file_range(source, source, 1000, 0, 500))
    finally:
        os.close(source)
        os.close(target)
    expected = bytearray(bytes(10) + noise(300_000)[50_000:250_000] + noise(300_000)[:1000])
    expected[:500] = noise(300_000)[299_500:]
    assert (here / "b").read_bytes() == expected


def test_sizes_at_the_edge(here: Path) -> None:
    path = here / "f"
    path.touch()
    os.truncate(path, 1 << 40)
    assert path.stat().st_size == 1 << 40
    refuses(errno.EFBIG, lambda: os.truncate(path, (1 << 63) - 1))
    refuses(errno.EINVAL, lambda: os.truncate(path, -1))
    assert path.stat().st_size == 1 << 40


# Locks


HOLDER = """
fd = os.open(sys.argv[1], os.O_RDWR)
{take}
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(here: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that hold something, ended with the test."""
    running: list[subprocess.Popen[str]] = []
    (here / "f").write_bytes(bytes(100))
    yield running
    for process in running:
        process.kill()
        process.communicate()


def hold(path: Path, take: str, running: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    script = "import fcntl, os, sys\n" + HOLDER.format(take=take)
    process = subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    running.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize(
    ("take", "blocked", "free"),
    [
        (
            "fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)",
            lambda fd: fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, 5, 5),
            lambda fd: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 10),
        ),
        (
            "fcntl.flock(fd, fcntl.LOCK_EX)",
            lambda fd: fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB),
            lambda fd: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB),
        ),
    ],
    ids=["POSIX", "flock"],
)
def test_locks_end_with_who_held_them(
    here: Path, holder: list[subprocess.Popen[str]], take: str, blocked: object, free: object
) -> None:
    process = hold(here / "f", take, holder)
    fd = os.open(here / "f", os.O_RDWR)
    try:
        assert callable(blocked)
        assert callable(free)
        with pytest.raises(BlockingIOError):
            blocked(fd)
        free(fd)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        blocked(fd)
    finally:
        os.close(fd)


def test_leases(here: Path, holder: list[subprocess.Popen[str]]) -> None:
    """An open by another process breaks the lease: it is told, and the open waits for it or says that it would."""
    take = (
        "import signal; signal.signal(signal.SIGIO, signal.SIG_IGN); fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)"
    )
    process = hold(here / "f", take, holder)
    refuses(errno.EWOULDBLOCK, lambda: os.open(here / "f", os.O_RDONLY | os.O_NONBLOCK))
    process.kill()
    process.wait(60)
    os.close(os.open(here / "f", os.O_RDONLY | os.O_NONBLOCK))


def test_many_append(here: Path) -> None:
    lines = 60
    script = (
        "fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)\n"
        f"for n in range({lines}): os.write(fd, (sys.argv[2] * 500 + '\\n').encode())"
    )
    (here / "log").touch()
    workers = [
        subprocess.Popen([sys.executable, "-c", "import os, sys\n" + script, here / "log", letter])
        for letter in "abcdef"
    ]
    assert [worker.wait(60) for worker in workers] == [0] * 6
    found = (here / "log").read_text().splitlines()
    assert sorted(found) == sorted(letter * 500 for letter in "abcdef" for _ in range(lines))
