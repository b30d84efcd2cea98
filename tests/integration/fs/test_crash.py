"""The daemon is killed in the middle of writing: what was synced is there byte for byte, and everything opens."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.mounts import Mount

WORKERS = Path(__file__).with_name("workers.py")
PAGE, PAGES = 4096, 500
TIMEOUT = 60


class Worker:
    """A process that works until the mount is gone, and what it has told so far."""

    def __init__(self, *command: str | Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-E", WORKERS, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._told = b""

    def wait_for_lines(self, count: int) -> None:
        """Until it has told so many lines: at work, whatever the speed of the machine."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + TIMEOUT
        while self._told.count(b"\n") < count:
            readable, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            part = os.read(self._process.stdout.fileno(), 1 << 16) if readable else b""
            if not part:
                pytest.fail("a worker came to an end, or to a halt")
            self._told += part

    def end(self) -> list[str]:
        """After the mount has gone: every line that it told."""
        assert self._process.stdout is not None
        try:
            rest = self._process.communicate(timeout=TIMEOUT)[0]
        finally:
            self._process.kill()
        assert self._process.returncode not in {0, -9}  # ENOTCONN ended it
        return (self._told + rest).decode().rpartition("\n")[0].splitlines()


def kill_while(mount: Mount, workers: list[Worker], lines: int) -> list[list[str]]:
    """Kill the daemon when every worker has told so many lines; all that they had told by then and after."""
    for worker in workers:
        worker.wait_for_lines(lines)
    mount.kill()
    return [worker.end() for worker in workers]


def everything_opens(top: Path) -> int:
    """Read every file, link, and directory; how many there are."""
    count = 0
    for directory, directories, names in os.walk(top, onerror=_fail):
        for name in directories + names:
            path = Path(directory, name)
            count += 1
            if path.is_symlink():
                os.readlink(path)
            elif path.is_file():
                assert len(path.read_bytes()) == path.stat().st_size
    return count


def _fail(error: OSError) -> None:
    raise error


def can_be_emptied(mount: Mount) -> None:
    subprocess.run(["rm", "-rf", *(mount.path / name for name in os.listdir(mount.path))], check=True, timeout=TIMEOUT)
    assert os.listdir(mount.path) == []


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_killed_again_and_again(place: str, request: pytest.FixtureRequest) -> None:
    mount: Mount = request.getfixturevalue("mount" if place == "memory" else "on_disk")
    stamped, log, saved = mount.path / "stamped", mount.path / "log", mount.path / "saved"
    stamped.write_bytes(bytes(PAGE * PAGES))
    saved.mkdir()
    (mount.path / "churn").mkdir()
    synced: dict[int, int] = {}
    for round_number, lines in enumerate((3, 10, 25, 60)):
        log.unlink(missing_ok=True)
        workers = [
            Worker("stamp_and_sync", stamped, str(PAGES), str(round_number)),
            Worker("append_and_sync", log),
            Worker("whole_files_and_sync", saved),
            Worker("churn", mount.path / "churn"),
        ]
        told_pages, told_log, told_saved, _ = kill_while(mount, workers, min(lines, 20))
        mount.mount()
        check_pages(stamped, told_pages, synced)
        check_log(log, int(told_log[-1]))
        check_saved(saved, int(told_saved[-1]))
        assert everything_opens(mount.path) > 5
        subprocess.run(["rm", "-rf", mount.path / "churn"], check=True, timeout=TIMEOUT)
        (mount.path / "churn").mkdir()
    can_be_emptied(mount)
    mount.umount()
    assert set(os.listdir(mount.lower)) - _leavings(mount.lower) == {"envfs.dir", "envfs.volume", "envfs.volume.backup"}


def _leavings(lower: Path) -> set[str]:
    """What a crash may leave, and what means nothing."""
    return {name for name in os.listdir(lower) if name.startswith(("envfs.tmp.", "envfs.name.", "envfs.link."))}


def check_pages(path: Path, told: list[str], synced: dict[int, int]) -> None:
    """Every page is whole; it has the number that was synced last, or a later one that was not told any more.

    The numbers of a new round begin anew: `synced` is what the rounds before have left.
    """
    content = path.read_bytes()
    assert len(content) == PAGE * PAGES
    least = dict.fromkeys(range(PAGES), 0)
    for line in told:
        for pair in line.split():
            page, number = map(int, pair.split(":"))
            least[page] = number
    for page in range(PAGES):
        raw = content[page * PAGE : (page + 1) * PAGE]
        assert raw == raw[:8] * (PAGE // 8), f"page {page} is torn"
        number = int.from_bytes(raw[:8], "big")
        if least[page]:
            assert number >= least[page]
        else:
            assert number == synced.get(page, 0) or number > max(least.values())
        synced[page] = number


def check_log(path: Path, last: int) -> None:
    lines = path.read_bytes().split(b"\n")
    expected = [f"{number} {'y' * (number * 37 % 9000)}".encode() for number in range(last + 1)]
    assert lines[: last + 1] == expected
    # What came after was not synced: it is a part of the next line, or nothing.
    rest = b"\n".join(lines[last + 1 :])
    following = f"{last + 1} {'y' * ((last + 1) * 37 % 9000)}\n".encode()
    assert following.startswith(rest)


def check_saved(directory: Path, last: int) -> None:
    for slot in range(5):
        newest = max((number for number in range(last + 1) if number % 5 == slot), default=None)
        path = directory / f"saved{slot}"
        if newest is None:
            continue
        content = path.read_bytes()
        number = int(content.split()[0])
        assert content == b"%d " % number * 5000
        assert number == newest or number == newest + 5 == last + 1


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
    assert set(os.listdir(mount.lower)) == {"envfs.dir", "envfs.volume", "envfs.volume.backup"}
