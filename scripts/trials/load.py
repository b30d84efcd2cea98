"""Many files, many processes, a large sparse file: correct, and no slower with their number.

python -m trials.load MOUNTPOINT --envfs COMMAND [--files N] [--tree N] [--open N] [--processes N] [--sparse GIB]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from trials.daemon import Daemon, drop_caches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_FANOUT = 1000
_LARGE = 50_000


def measure(what: str, daemon: Daemon, work: Callable[[int], object], count: int) -> None:
    """Call `work` with each number; print the rate, and what the first and the last tenth cost the daemon."""
    costs = []
    start = time.perf_counter()
    for part in range(10):
        began = daemon.cpu_seconds()
        numbers = range(part * count // 10, (part + 1) * count // 10)
        for number in numbers:
            work(number)
        costs.append((daemon.cpu_seconds() - began) / len(numbers) * 1e6)
        if count >= _LARGE:  # it will take long: say how it goes
            print(f"    {(part + 1) * count // 10}: {costs[-1]:.0f} µs each", flush=True)
    rate = count / (time.perf_counter() - start)
    cost = f"{costs[0]:>5.0f} µs each in the first tenth, {costs[-1]:.0f} µs in the last"
    print(f"  {what:<22}{rate:>7.0f}/s; the daemon's CPU: {cost}", flush=True)


def write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(fd, content)
    os.close(fd)


def read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 100_000)
    finally:
        os.close(fd)


def one_directory(top: Path, daemon: Daemon, count: int) -> None:
    print(f"{count} files in one directory")
    directory = str(top / "flat")
    os.mkdir(directory)
    before = daemon.usage()
    measure("created and written", daemon, lambda n: write(f"{directory}/{n}", b"%d" % n), count)
    after = daemon.usage()
    nodes = after.nodes - before.nodes
    if nodes > 0:
        print(f"  memory: {(after.resident - before.resident) / nodes:.0f} bytes per cached inode ({after})")
    began = time.perf_counter()
    names = os.listdir(directory)
    print(f"  listed in {time.perf_counter() - began:.1f} s")
    assert sorted(map(int, names)) == list(range(count))
    forgotten = drop_caches()
    measure("stat, not cached" if forgotten else "stat", daemon, lambda n: os.stat(f"{directory}/{n}"), count)

    def check(number: int) -> None:
        assert read(f"{directory}/{number}") == b"%d" % number

    measure("opened and read", daemon, check, min(count, 20_000))
    measure("removed", daemon, lambda n: os.unlink(f"{directory}/{n}"), count)
    os.rmdir(directory)
    print(f"  afterwards: {daemon.usage()}")


def tree(top: Path, daemon: Daemon, count: int) -> None:
    print(f"a tree of {count} files")

    def make(number: int) -> None:
        directory = f"{top}/tree/{number // _FANOUT // 100}/{number // _FANOUT}"
        if number % _FANOUT == 0:
            os.makedirs(directory)
        write(f"{directory}/{number}", b"x" * 100)

    measure("created and written", daemon, make, count)
    print(f"  daemon: {daemon.usage()}")
    drop_caches()
    began = time.perf_counter()
    found = sum(len(files) for _, _, files in os.walk(top / "tree"))
    print(f"  walked in {time.perf_counter() - began:.1f} s")
    assert found == count, found
    rng = random.Random(1)
    for number in (rng.randrange(count) for _ in range(1000)):
        assert read(f"{top}/tree/{number // _FANOUT // 100}/{number // _FANOUT}/{number}") == b"x" * 100
    began = time.perf_counter()
    shutil.rmtree(top / "tree")
    print(f"  removed in {time.perf_counter() - began:.1f} s")
    drop_caches()
    print(f"  afterwards: {daemon.usage()}")


def sparse(top: Path, gibibytes: int) -> None:
    print(f"a sparse file of {gibibytes} GiB")
    path, size, rng = top / "sparse", gibibytes << 30, random.Random(2)
    began = time.perf_counter()
    with open(path, "wb") as file:
        file.truncate(size)
    places = sorted({rng.randrange(size // 4096) * 4096 for _ in range(2000)})
    fd = os.open(path, os.O_RDWR)
    for place in places:
        os.pwrite(fd, place.to_bytes(8, "big"), place)
    os.fsync(fd)
    os.close(fd)
    fd = os.open(path, os.O_RDONLY)
    for place in places:
        assert os.pread(fd, 8, place) == place.to_bytes(8, "big")
        other = rng.randrange(size // 4096) * 4096 + 8
        assert os.pread(fd, 1000, other) == bytes(min(1000, size - other))
    os.close(fd)
    found = path.stat()
    assert found.st_size == size
    blocks = found.st_blocks * 512
    path.unlink()
    print(
        f"  {len(places)} writes and reads in {time.perf_counter() - began:.1f} s; {blocks / 2**20:.1f} MiB taken below"
    )


def _one_of_many(top: Path, number: int, rounds: int) -> None:
    rng = random.Random(number)
    directory = top / f"process{number}"
    directory.mkdir()
    for round_number in range(rounds):
        path = directory / str(round_number % 7)
        content = rng.randbytes(rng.choice((10, 5000, 100_000)))
        path.write_bytes(content)
        path.rename(directory / "moved")
        assert (directory / "moved").read_bytes() == content
    shutil.rmtree(directory)


def processes(top: Path, count: int, rounds: int = 60) -> None:
    print(f"{count} processes at once")
    began = time.perf_counter()
    workers = [multiprocessing.Process(target=_one_of_many, args=(top, number, rounds)) for number in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * count
    print(f"  {count * rounds} times written, renamed, read in {time.perf_counter() - began:.1f} s")


def open_at_once(top: Path, daemon: Daemon, count: int) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    print(f"{count} files open at once (this process may have {limit} descriptors)")
    directory = top / "open"
    directory.mkdir()
    before = daemon.usage()
    fds = [os.open(directory / str(number), os.O_RDWR | os.O_CREAT) for number in range(count)]
    for number, fd in enumerate(fds):
        os.write(fd, b"%d" % number)
    during = daemon.usage()
    for number, fd in enumerate(fds):
        assert os.pread(fd, 100, 0) == b"%d" % number
        os.close(fd)
    shutil.rmtree(directory)
    print(f"  memory: {(during.resident - before.resident) / count:.0f} bytes per open file ({during})")
    print(f"  afterwards: {daemon.usage()}")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="load")
    parser.add_argument("mountpoint", type=Path)
    parser.add_argument("--envfs", required=True)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--tree", type=int, default=1_000_000)
    parser.add_argument("--sparse", type=int, default=100, help="GiB")
    parser.add_argument("--processes", type=int, default=64)
    parser.add_argument("--open", type=int, default=15_000)
    chosen = parser.parse_args(arguments)
    daemon = Daemon(chosen.envfs, chosen.mountpoint)
    print(f"at the beginning: {daemon.usage()}", flush=True)
    one_directory(chosen.mountpoint, daemon, chosen.files)
    sparse(chosen.mountpoint, chosen.sparse)
    processes(chosen.mountpoint, chosen.processes)
    open_at_once(chosen.mountpoint, daemon, chosen.open)
    tree(chosen.mountpoint, daemon, chosen.tree)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
