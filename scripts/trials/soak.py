"""A mixed load for so many minutes; then nothing may have grown: memory, descriptors, inodes.

python -m trials.soak MOUNTPOINT --envfs COMMAND [--minutes N] [--processes N]
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from trials.daemon import Daemon, Usage, drop_caches

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMES = 200
# What the daemon may have grown by since the load had run for a while; it frees what it needs no more, not every page.
_MOST_GROWTH = 0.10
_MOST_BYTES = 8 << 20


def _work(top: Path, number: int, until: float) -> None:
    """Files of its own, whose contents say what they are; directories, links, renames, mappings, syncs."""
    rng = random.Random(number)
    directory = top / str(number)
    directory.mkdir(exist_ok=True)
    while time.monotonic() < until:
        path = directory / f"{rng.randrange(_NAMES)}{'n' * rng.choice((0, 0, 200))}"
        action = rng.randrange(8)
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            if action < 3:
                path.write_bytes(bytes([rng.randrange(256)]) * rng.choice((0, 100, 5000, 70_000, 1_000_000)))
            elif action < 5:
                assert len(set(path.read_bytes())) <= 1, path
            elif action == 5:
                path.rename(directory / str(rng.randrange(_NAMES)))
            elif action == 6:
                path.unlink()
            else:
                _rarer(rng, directory, path)


def _rarer(rng: random.Random, directory: Path, path: Path) -> None:
    action = rng.randrange(4)
    if action == 0:
        (directory / "d" / str(rng.randrange(50))).mkdir(parents=True, exist_ok=True)
    elif action == 1:
        shutil.rmtree(directory / "d", ignore_errors=True)
    elif action == 2:
        os.link(path, directory / f"link{rng.randrange(_NAMES)}")
    else:
        fd = os.open(path, os.O_RDWR)
        os.fsync(fd)
        os.close(fd)


def run(top: Path, processes: int, seconds: float) -> None:
    """Every process has files of its own; one that finds something wrong ends with a traceback."""
    until = time.monotonic() + seconds
    workers = [multiprocessing.Process(target=_work, args=(top, number, until)) for number in range(processes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("a process found a file that is not what it wrote")


def empty(top: Path, daemon: Daemon) -> Usage:
    """Everything is removed and forgotten: what the daemon uses then."""
    for entry in top.iterdir():
        shutil.rmtree(entry)
    drop_caches()
    return daemon.usage()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="soak")
    parser.add_argument("mountpoint", type=Path)
    parser.add_argument("--envfs", required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--processes", type=int, default=8)
    chosen = parser.parse_args(arguments)
    daemon = Daemon(chosen.envfs, chosen.mountpoint)
    seconds = chosen.minutes * 60
    run(chosen.mountpoint, chosen.processes, seconds / 4)
    warm = empty(chosen.mountpoint, daemon)
    print(f"after a quarter of the time, emptied: {warm}", flush=True)
    run(chosen.mountpoint, chosen.processes, seconds * 3 / 4)
    print(f"under load: {daemon.usage()}", flush=True)
    end = empty(chosen.mountpoint, daemon)
    print(f"at the end, emptied: {end}")
    grown = end.resident - warm.resident
    if grown > max(_MOST_BYTES, warm.resident * _MOST_GROWTH):
        print(f"the daemon has grown by {grown / 2**20:.1f} MiB", file=sys.stderr)
        return 1
    if end.descriptors > warm.descriptors or end.open_files:
        print("descriptors were not given back", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
