"""What is measured: the same loops of system calls for every filesystem, each run in a process of its own.

A workload is a function of a `Place` that returns (amount, seconds); `WORKLOADS` says what the amount is. What needs a
cold cache is run after a fresh mount. A write counts until it has been handed to the filesystem: fsync(2) and close(2)
belong to it. The loop itself costs some 0.5 µs a call.

    python -m benchlib.workloads NAME PLACE-AS-JSON      prints {"amount": …, "seconds": …}
"""

from __future__ import annotations

import gc
import json
import os
import random
import subprocess
import sys
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20
SMALL = 4096  # bytes: of a random read or write, of an append and of a small file


@dataclass(frozen=True, slots=True)
class Place:
    """Where, and how much. `top` is the plain directory, `tarball` stands outside it."""

    top: str
    tarball: str
    big_mib: int
    random_calls: int
    append_mib: int
    small_files: int
    tree_entries: int
    seed: int

    @property
    def big(self) -> str:
        return f"{self.top}/big"

    @property
    def tree(self) -> str:
        return f"{self.top}/tree"

    def small(self, number: int) -> str:
        return f"{self.top}/small/file-{number:05d}.txt"

    def renamed(self, number: int) -> str:
        return f"{self.top}/small/renamed-{number:05d}.txt"

    def offsets(self) -> list[int]:
        """Distinct offsets of 4 KiB pages of the big file, so that no page is met twice."""
        pages = random.Random(self.seed).sample(range(self.big_mib * MIB // SMALL), self.random_calls)
        return [page * SMALL for page in pages]

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def seq_write(place: Place) -> tuple[float, float]:
    chunk = os.urandom(MIB)
    start = perf_counter()
    fd = os.open(place.big, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
    for _ in range(place.big_mib):
        os.write(fd, chunk)
    os.fsync(fd)
    os.close(fd)
    return place.big_mib, perf_counter() - start


def seq_read(place: Place) -> tuple[float, float]:
    buffer = bytearray(MIB)
    start = perf_counter()
    fd = os.open(place.big, os.O_RDONLY)
    total = 0
    while count := os.readv(fd, [buffer]):
        total += count
    os.close(fd)
    seconds = perf_counter() - start
    if total != place.big_mib * MIB:
        raise RuntimeError(f"read {total} bytes")
    return place.big_mib, seconds


def rand_read(place: Place) -> tuple[float, float]:
    offsets, total = place.offsets(), 0
    buffers = [bytearray(SMALL)]
    fd = os.open(place.big, os.O_RDONLY)
    start = perf_counter()
    for offset in offsets:
        total += os.preadv(fd, buffers, offset)
    seconds = perf_counter() - start
    os.close(fd)
    if total != len(offsets) * SMALL:
        raise RuntimeError(f"read {total} bytes")
    return len(offsets), seconds


def rand_write(place: Place) -> tuple[float, float]:
    offsets, page = place.offsets(), os.urandom(SMALL)
    fd = os.open(place.big, os.O_WRONLY)
    start = perf_counter()
    for offset in offsets:
        os.pwrite(fd, page, offset)
    os.fsync(fd)
    os.close(fd)
    return len(offsets), perf_counter() - start


def append(place: Place) -> tuple[float, float]:
    page = os.urandom(SMALL)
    fd = os.open(f"{place.top}/appended", os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND, 0o644)
    start = perf_counter()
    for _ in range(place.append_mib * MIB // SMALL):
        os.write(fd, page)
    os.fsync(fd)
    os.close(fd)
    return place.append_mib, perf_counter() - start


def create(place: Place) -> tuple[float, float]:
    os.mkdir(f"{place.top}/small")
    content, paths = os.urandom(SMALL), [place.small(number) for number in range(place.small_files)]
    start = perf_counter()
    for path in paths:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        os.write(fd, content)
        os.close(fd)
    return len(paths), perf_counter() - start


def open_read(place: Place) -> tuple[float, float]:
    paths, buffers, total = _shuffled(place), [bytearray(SMALL)], 0
    start = perf_counter()
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        total += os.readv(fd, buffers)
        os.close(fd)
    seconds = perf_counter() - start
    if total != len(paths) * SMALL:
        raise RuntimeError(f"read {total} bytes")
    return len(paths), seconds


def stat(place: Place) -> tuple[float, float]:
    """As `ls -l`, find and git do it: list the directory, then stat every entry."""
    start = perf_counter()
    paths = [entry.path for entry in os.scandir(f"{place.top}/small")]
    for path in paths:
        os.lstat(path)
    seconds = perf_counter() - start
    if len(paths) != place.small_files:
        raise RuntimeError(f"{len(paths)} entries")
    return len(paths), seconds


def lookup(place: Place) -> tuple[float, float]:
    """By name, without a listing before: each costs a request of its own."""
    paths = _shuffled(place)
    start = perf_counter()
    for path in paths:
        os.lstat(path)
    return len(paths), perf_counter() - start


def rename(place: Place) -> tuple[float, float]:
    pairs = [(place.small(number), place.renamed(number)) for number in range(place.small_files)]
    start = perf_counter()
    for old, new in pairs:
        os.rename(old, new)
    return len(pairs), perf_counter() - start


def unlink(place: Place) -> tuple[float, float]:
    paths = [place.renamed(number) for number in range(place.small_files)]
    start = perf_counter()
    for path in paths:
        os.unlink(path)
    return len(paths), perf_counter() - start


def untar(place: Place) -> tuple[float, float]:
    os.mkdir(place.tree)
    return _command(place, ["tar", "-x", "-f", place.tarball, "-C", place.tree])


def ls_lr(place: Place) -> tuple[float, float]:
    return _command(place, ["ls", "-lR", place.tree])


def rm_rf(place: Place) -> tuple[float, float]:
    return _command(place, ["rm", "-rf", place.tree])


def _command(place: Place, argv: list[str]) -> tuple[float, float]:
    start = perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"LC_ALL": "C"})
    return place.tree_entries, perf_counter() - start


def _shuffled(place: Place) -> list[str]:
    paths = [place.small(number) for number in range(place.small_files)]
    random.Random(place.seed).shuffle(paths)
    return paths


@dataclass(frozen=True, slots=True)
class Workload:
    run: Callable[[Place], tuple[float, float]]
    title: str
    unit: str
    cold: bool  # needs a fresh mount
    needs: str = ""  # the workload whose files it uses


# In the order in which they run.
WORKLOADS = {
    "seq_write": Workload(seq_write, "sequential write, 1 MiB", "MiB/s", cold=False),
    "seq_read": Workload(seq_read, "sequential read, 1 MiB", "MiB/s", cold=True, needs="seq_write"),
    "rand_read": Workload(rand_read, "random read, 4 KiB", "1/s", cold=True, needs="seq_write"),
    "rand_write": Workload(rand_write, "random write, 4 KiB", "1/s", cold=True, needs="seq_write"),
    "append": Workload(append, "appends of 4 KiB", "MiB/s", cold=False),
    "create": Workload(create, "create a 4 KiB file", "1/s", cold=True),
    "open_read": Workload(open_read, "open and read a 4 KiB file", "1/s", cold=True, needs="create"),
    "stat": Workload(stat, "list and stat", "1/s", cold=True, needs="create"),
    "lookup": Workload(lookup, "stat by name", "1/s", cold=True, needs="create"),
    "rename": Workload(rename, "rename", "1/s", cold=False, needs="create"),
    "unlink": Workload(unlink, "unlink", "1/s", cold=False, needs="rename"),
    "untar": Workload(untar, "untar a source tree", "files/s", cold=True),
    "ls_lr": Workload(ls_lr, "ls -lR", "entries/s", cold=True, needs="untar"),
    "rm_rf": Workload(rm_rf, "rm -rf", "entries/s", cold=True, needs="untar"),
}


def with_needs(names: list[str]) -> list[str]:
    """These and the ones whose files they use, in the order in which they run."""
    wanted = set(names)
    for name in reversed(WORKLOADS):
        if name in wanted and WORKLOADS[name].needs:
            wanted.add(WORKLOADS[name].needs)
    return [name for name in WORKLOADS if name in wanted]


def main() -> None:
    name, place = sys.argv[1], Place(**json.loads(sys.argv[2]))
    gc.disable()
    amount, seconds = WORKLOADS[name].run(place)
    print(json.dumps({"amount": amount, "seconds": seconds}))


if __name__ == "__main__":
    main()
