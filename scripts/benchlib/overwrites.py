"""What it costs that nothing is lost when blocks are written over: the undo record (for a kill of the daemon) and the
journal (for a power failure), on a directory of a real disk.

Each workload runs on four mounts in turn, and then on each again; the median of the rounds counts. What is written
over was synced before, so that it may be on the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from benchlib.filesystems import BenchError, Envfs, Filesystem, run
from envfs.fs.lower import syncfs

MIB = 1 << 20
FILE_SIZE = 64 * MIB
PIECE = 4096


@dataclass(slots=True)
class WithoutUndo(Envfs):
    """Neither undo record nor journal."""

    def _envfs(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "benchlib.without_undo", *arguments]
        return run(command, env={"ENVFS_HOME": str(self.base / "state" / "kms")})


def _sync(fd: int) -> None:
    os.fdatasync(fd)


def sequential(top: Path, scale: float) -> float:
    """MiB/s of writing over a file in pieces of 1 MiB, with one fsync at the end."""
    count = max(4, int(scale * FILE_SIZE / MIB))
    data = os.urandom(MIB)
    fd = os.open(top / "file", os.O_WRONLY)
    start = perf_counter()
    for number in range(count):
        os.pwrite(fd, data, number * MIB)
    os.fsync(fd)
    took = perf_counter() - start
    os.close(fd)
    return count / took


def scattered(top: Path, scale: float) -> float:
    """Writes of 4 KiB at random offsets per second, with one fsync at the end."""
    count = max(16, int(scale * 8192))
    data = os.urandom(PIECE)
    fd = os.open(top / "file", os.O_WRONLY)
    start = perf_counter()
    for _ in range(count):
        os.pwrite(fd, data, random.randrange(FILE_SIZE // PIECE) * PIECE)
    os.fsync(fd)
    took = perf_counter() - start
    os.close(fd)
    return count / took


def scattered_synced(top: Path, scale: float) -> float:
    """The same, each with an fdatasync of its own."""
    count = max(16, int(scale * 400))
    data = os.urandom(PIECE)
    fd = os.open(top / "file", os.O_WRONLY)
    start = perf_counter()
    for _ in range(count):
        os.pwrite(fd, data, random.randrange(FILE_SIZE // PIECE) * PIECE)
        _sync(fd)
    took = perf_counter() - start
    os.close(fd)
    return count / took


def log_lines(top: Path, scale: float) -> float:
    """Lines of 200 bytes appended to a log per second, each with an fdatasync."""
    count = max(16, int(scale * 400))
    line = b"l" * 199 + b"\n"
    fd = os.open(top / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    start = perf_counter()
    for _ in range(count):
        os.write(fd, line)
        _sync(fd)
    took = perf_counter() - start
    os.close(fd)
    return count / took


def transactions(mode: str) -> Callable[[Path, float], float]:
    """Transactions of SQLite per second, each changing one of 2,000 rows."""

    def work(top: Path, scale: float) -> float:
        count = max(16, int(scale * 200))
        with closing(sqlite3.connect(top / f"{mode}.db", isolation_level=None)) as database:
            database.execute(f"PRAGMA journal_mode = {mode}")
            database.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, value TEXT)")
            if not database.execute("SELECT count(*) FROM t").fetchone()[0]:
                rows = ((number, "x" * 200) for number in range(2000))
                database.execute("BEGIN")
                database.executemany("INSERT INTO t VALUES (?, ?)", rows)
                database.execute("COMMIT")
            start = perf_counter()
            for number in range(count):
                # A value of its own: SQLite writes nothing where nothing changes.
                database.execute("UPDATE t SET value = ? WHERE id = ?", (os.urandom(100).hex(), number * 37 % 2000))
            return count / (perf_counter() - start)

    return work


def create(top: Path, scale: float) -> float:
    """New files of 4 KiB per second, not synced."""
    count = max(16, int(scale * 500))
    data = os.urandom(PIECE)
    start = perf_counter()
    for number in range(count):
        with open(top / f"new-{number}", "wb") as file:
            file.write(data)
    took = perf_counter() - start
    for number in range(count):
        (top / f"new-{number}").unlink()
    return count / took


def save(top: Path, scale: float) -> float:
    """Files of 20 KB saved beside, synced and renamed, as editors do it, per second."""
    count = max(8, int(scale * 100))
    data = os.urandom(20_000)
    start = perf_counter()
    for number in range(count):
        with open(top / "save.new", "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        (top / "save.new").rename(top / f"save-{number % 10}")
    return count / (perf_counter() - start)


WORKLOADS: dict[str, tuple[str, Callable[[Path, float], float]]] = {
    "overwrite, 1 MiB each, one fsync": ("MiB/s", sequential),
    "random overwrites of 4 KiB, one fsync": ("1/s", scattered),
    "random overwrites of 4 KiB, each synced": ("1/s", scattered_synced),
    "log lines of 200 bytes, each synced": ("1/s", log_lines),
    "SQLite transactions, rollback journal": ("1/s", transactions("delete")),
    "SQLite transactions, write-ahead log": ("1/s", transactions("wal")),
    "create a 4 KiB file": ("1/s", create),
    "save a 20 KB file with care": ("1/s", save),
}

Rates = dict[str, dict[str, list[float]]]


def filesystems(base: Path, *, with_plain: bool) -> list[Filesystem]:
    kinds: list[Filesystem] = [
        WithoutUndo("neither", base / "neither", options=["noxattr", "nojournal"]),
        Envfs("undo", base / "undo", options=["noxattr", "nojournal"]),
        Envfs("undo, journal", base / "journal", options=["noxattr"]),
    ]
    return [Filesystem("no envfs", base / "plain"), *kinds] if with_plain else kinds


def prepare(filesystem: Filesystem) -> None:
    """A file to be written over, on the disk."""
    filesystem.init()
    filesystem.mount()
    with open(filesystem.top / "file", "wb") as file:
        file.writelines(os.urandom(MIB) for _ in range(FILE_SIZE // MIB))
        file.flush()
        os.fsync(file.fileno())


def measure(kinds: list[Filesystem], rounds: int, scale: float) -> Rates:
    """Each workload on each filesystem in turn, in each round."""
    rates: Rates = {}
    directory = os.open(kinds[0].base, os.O_RDONLY)
    for number in range(rounds + 1):
        for workload, (_, work) in WORKLOADS.items():
            print(f"round {number} of {rounds}: {workload}", file=sys.stderr, flush=True)
            for filesystem in kinds:
                rate = work(filesystem.top, scale)
                if number:  # so that no first time is among them
                    rates.setdefault(workload, {}).setdefault(filesystem.name, []).append(rate)
                syncfs(directory)  # so that nobody pays for the one before
    return rates


def table(kinds: list[Filesystem], rates: Rates) -> str:
    names = [filesystem.name for filesystem in kinds]
    lines = ["| | | " + " | ".join(names) + " | journal : undo |", "|---|---|" + "---|" * (len(names) + 1)]
    for workload, found in rates.items():
        middle = {name: median(found[name]) for name in names}
        cells = [f"{middle[name]:,.0f}" for name in names]
        ratio = middle["undo, journal"] / middle["undo"]
        lines.append(f"| {workload} | {WORKLOADS[workload][0]} | {' | '.join(cells)} | {ratio:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench-overwrite", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="how much each workload does")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on the disk that is measured")
    parser.add_argument("--json", type=Path, help="write all figures there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="envfs-bench-", dir=arguments.directory) as name:
        kinds = filesystems(Path(name), with_plain=True)
        try:
            for filesystem in kinds:
                prepare(filesystem)
            rates = measure(kinds, arguments.rounds, arguments.scale)
            for filesystem in kinds:
                filesystem.unmount()
        except (BenchError, OSError) as error:
            sys.exit(f"error: {error}")
        finally:
            for filesystem in kinds:
                filesystem.abandon()
    print(table(kinds, rates))
    if arguments.json:
        arguments.json.write_text(json.dumps(rates, indent=1) + "\n")


if __name__ == "__main__":
    main()
