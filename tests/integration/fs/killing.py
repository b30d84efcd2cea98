"""Rounds of killing a daemon at work, and what must be there afterwards. By `scripts/crash-test` and test_crash.py.

A round: workers write through a mount, and tell what they have synced; at a random moment the daemon gets SIGKILL; the
volume is mounted again. Then everything that was told is there, every file opens, the tree of `steps.py` is as it was
after a whole step, and `envfs fsck --read-data` finds nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import pytest

from tests.integration.command import Envfs, find_command
from tests.integration.fs import steps
from tests.integration.mounts import Mount, clear_away
from tests.integration.warm import WarmEnvfs

HERE = Path(__file__).parent
PAGE, PAGES = 4096, 500
TIMEOUT = 60
_GONE = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ENOENT)


class Worker:
    """A process that works until the mount is gone, and what it has told so far."""

    def __init__(self, program: str, *arguments: str | Path) -> None:
        command = [sys.executable, "-I", "-S", HERE / program, *arguments]  # nothing but the library: starts quickly
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._told = b""

    def wait_for_lines(self, count: int) -> None:
        """Until it has told so many lines: at work, whatever the speed of the machine."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + TIMEOUT
        while self._told.count(b"\n") < count:
            readable, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            part = os.read(self._process.stdout.fileno(), 1 << 16) if readable else b""
            if not part:
                pytest.fail(f"a worker came to an end, or to a halt: {self.end()}")
            self._told += part

    @property
    def is_at_work(self) -> bool:
        return self._process.poll() is None

    def end(self) -> list[str]:
        """After the mount has gone: every line that it told."""
        try:
            rest, errors = self._process.communicate(timeout=TIMEOUT)
        finally:
            self._process.kill()
        assert self._process.returncode not in {0, -9}
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        # The mount has gone, perhaps with the path; for pages that were not handed over yet that is EIO.
        assert any(f"[Errno {number}]" in last for number in _GONE), errors.decode(errors="replace")
        return (self._told + rest).decode().rpartition("\n")[0].splitlines()


class Rounds:
    """What stands in one volume from round to round."""

    def __init__(self, mount: Mount, rng: random.Random) -> None:
        self._mount = mount
        self._rng = rng
        self._number = 0
        self._synced: dict[int, int] = {}
        (mount.path / "stamped").write_bytes(bytes(PAGE * PAGES))
        for name in ("saved", "churn", "steps"):
            (mount.path / name).mkdir()

    def run(self, *, least: int = 1, delay: float = 0.0) -> str:
        """One round: SIGKILL when every worker has told `least` lines, and up to `delay` seconds later. What fsck said
        of harmless leavings, in words.
        """
        top, seed = self._mount.path, self._rng.randrange(1 << 30)
        self._number += 1
        (top / "log").unlink(missing_ok=True)
        workers = [
            Worker("workers.py", "stamp_and_sync", top / "stamped", str(PAGES), str(seed)),
            Worker("workers.py", "append_and_sync", top / "log"),
            Worker("workers.py", "whole_files_and_sync", top / "saved"),
            Worker("workers.py", "churn", top / "churn"),
            Worker("steps.py", top / "steps", str(seed)),
        ]
        for worker in workers:
            worker.wait_for_lines(least)
        time.sleep(self._rng.random() ** 2 * delay)  # more often soon than late
        assert all(worker.is_at_work for worker in workers), [worker.end() for worker in workers]
        self._mount.kill()
        pages, log, saved, _, done = [worker.end() for worker in workers]
        self._mount.mount()
        check_pages(top / "stamped", pages, self._synced)
        check_log(top / "log", int(log[-1]))
        check_saved(top / "saved", int(saved[-1]))
        check_steps(top / "steps", seed, int(done[-1]))
        assert everything_opens(top) > 5
        said = check_whole(self._mount)
        for name in ("churn", "steps"):
            subprocess.run(["rm", "-rf", top / name], check=True, timeout=TIMEOUT)
            (top / name).mkdir()
        return said


def check_whole(mount: Mount) -> str:
    """`envfs fsck --read-data` is content with the volume."""
    done = mount.envfs("fsck", mount.lower, "--read-data", "--json", check=False)
    report = json.loads(done.stdout)
    assert report["clean"], done.stdout
    assert done.returncode == 0
    return ", ".join(sorted({finding["problem"] for finding in report["findings"]}))


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
    """Every line that was told, and of the next one a part at most."""
    lines = path.read_bytes().split(b"\n")
    expected = [f"{number} {'y' * (number * 37 % 9000)}".encode() for number in range(last + 1)]
    assert lines[: last + 1] == expected
    rest = b"\n".join(lines[last + 1 :])
    following = f"{last + 1} {'y' * ((last + 1) * 37 % 9000)}\n".encode()
    assert following.startswith(rest)


def check_saved(directory: Path, last: int) -> None:
    """Files that were saved and renamed into place: the newest that was told, or the one after it."""
    for slot in range(5):
        newest = max((number for number in range(last + 1) if number % 5 == slot), default=None)
        if newest is None:
            continue
        content = (directory / f"saved{slot}").read_bytes()
        number = int(content.split()[0])
        assert content == b"%d " % number * 5000
        assert number == newest or number == newest + 5 == last + 1


def check_steps(top: Path, seed: int, told: int) -> None:
    """The state after the last step that was told, or after the next one."""
    plan = steps.Plan(seed)
    for _ in range(told):
        plan.step(None)
    found, before = steps.look(str(top)), plan.state()
    if found != before:
        plan.step(None)
        after = plan.state()
        differing = {name for name in {*found, *after} if found.get(name) != after.get(name)}
        assert not differing, f"step {told + 1}: {differing} of {found.keys() ^ before.keys()}"


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


def main() -> None:
    """The long form; see `scripts/crash-test --help`."""
    parser = argparse.ArgumentParser(
        prog="scripts/crash-test",
        description="Kills the daemon of a mount at random moments under load, and checks what is there afterwards.",
    )
    parser.add_argument("--rounds", type=int, default=1000, help="how often (%(default)s)")
    parser.add_argument("--minutes", type=float, default=1e9, help="no new round after so long")
    parser.add_argument("--seed", type=int, default=time.time_ns() & 0xFFFFFF, help="of the first volume")
    parser.add_argument("--directory", default="/dev/shm", help="where the volumes lie (%(default)s)")
    parser.add_argument("--options", default="", help="mount options, as after -o")
    parser.add_argument(
        "--delay", type=float, default=0.6, help="seconds at most from the start to the kill (%(default)s)"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="volumes at once (%(default)s)")
    parser.add_argument("--volume", type=int, default=25, help="rounds in one volume (%(default)s)")
    parser.add_argument(
        "--cold", action="store_true", help="an interpreter of its own for each command, as users have it"
    )
    asked = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="envfs-crash-", dir=asked.directory))
    base.chmod(0o755)
    asked.ends_at = time.monotonic() + asked.minutes * 60
    # A new volume now and then: what a kill leaves in a young one is another matter than in an old one.
    starts = range(0, asked.rounds, asked.volume)
    seeds = [(asked.seed + start, min(asked.volume, asked.rounds - start)) for start in starts]
    done, leavings = 0, Counter[str]()
    with ThreadPoolExecutor(asked.jobs) as pool:
        running = [pool.submit(_rounds_of_a_volume, base / str(seed), seed, count, asked) for seed, count in seeds]
        try:
            for future in as_completed(running):
                leavings += future.result()
                done = leavings.total()
        except BaseException:
            asked.ends_at = 0.0  # the others finish their round
            pool.shutdown(cancel_futures=True)
            print(f"after {done} good rounds; the volumes are kept in {base}", flush=True)
            clear_away(base)
            raise
    shutil.rmtree(base)
    print(f"{done} rounds, all good; leavings: {dict(leavings)}")


def _rounds_of_a_volume(place: Path, seed: int, count: int, asked: argparse.Namespace) -> Counter[str]:
    """So many rounds, or until the time is over; what they left, as `Rounds.run` says it."""
    leavings = Counter[str]()
    if time.monotonic() >= asked.ends_at:
        return leavings
    print(f"volume with seed {seed}", flush=True)
    home, lower, path = (place / name for name in ("kms", "lower", "mount"))
    for directory in (place, lower, path):
        directory.mkdir()
    with contextlib.ExitStack() as stack:
        if asked.cold:
            envfs = Envfs(find_command(place), lambda _user: home)
        else:
            envfs = stack.enter_context(WarmEnvfs(path, lambda _user: home))
        envfs("init", lower)
        mount = Mount(lower, path, tuple(filter(None, asked.options.split(","))), None, home, envfs).mount()
        rounds = Rounds(mount, random.Random(seed))
        while leavings.total() < count and time.monotonic() < asked.ends_at:
            leavings[rounds.run(delay=asked.delay)] += 1
        mount.umount()
    shutil.rmtree(place)
    return leavings


if __name__ == "__main__":
    main()
