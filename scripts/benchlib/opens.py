"""What an allowed open costs in the daemon over a plain one, policy decision and audit record included.

Runs the daemon's own code in this process, without the kernel between: a KMS, a volume and files in it; each file is
opened in turn as the mount opens it for a caller, and its lower file as any program would. Nothing of an earlier open
of the same file is left, since each is closed again at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from time import perf_counter_ns

from envfs.access.resolver import Resolver
from envfs.fs.attributes import close_handle
from envfs.fs.filesystem import Filesystem, FsOptions
from envfs.fs.nodes import ROOT_ID, Node
from envfs.kms.bootstrap import init_kms
from envfs.kms.engine import Engine
from envfs.kms.rootkey import KEY_FILE_NAME, KeyFileUnlock
from envfs.service.volume import DEFAULT_BLOCK_SIZE, DEFAULT_SUITE, SERVICE_KEY_ALIAS, make_volume, open_volume

LIMIT_US = 150  # over a plain open


@dataclass(frozen=True, slots=True)
class Caller:
    """This process, as the kernel would tell it."""

    uid: int = os.getuid()
    gid: int = os.getgid()
    pid: int = os.getpid()


CALLER = Caller()


@contextmanager
def volume(directory: Path) -> Iterator[Filesystem]:
    """A volume with a key of its own, ready to be served, in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="envfs-bench-", dir=directory) as name:
        home, lower = Path(name) / "kms", Path(name) / "lower"
        init_kms(home)
        engine = Engine.open(home, KeyFileUnlock(home / KEY_FILE_NAME))
        try:
            key_arn = engine.service_managed_key(SERVICE_KEY_ALIAS)
            now = int(time.time())
            make_volume(lower, engine, key_arn=key_arn, suite=DEFAULT_SUITE, block_size=DEFAULT_BLOCK_SIZE, now=now)
            opened = open_volume(lower, engine)
            filesystem = Filesystem(lower, opened.file, opened.keys, engine, Resolver(engine), FsOptions())
            try:
                yield filesystem
            finally:
                filesystem.close()
        finally:
            engine.close()


def make_files(filesystem: Filesystem, count: int) -> list[Node]:
    """Files of 4 KiB, closed."""
    nodes = []
    for number in range(count):
        node, _, content = filesystem.tree.create(ROOT_ID, f"file-{number}".encode(), 0o644, CALLER)
        node.lookups += 1
        content.handles += 1
        content.write(0, bytes(4096))
        close_handle(filesystem.state, node, content)
        nodes.append(node)
    return nodes


def allowed_opens(filesystem: Filesystem, nodes: list[Node], *, write: bool) -> list[int]:
    """Nanoseconds of each open, without the close."""
    opener, times = filesystem.state.opener, []
    for node in nodes:
        start = perf_counter_ns()
        content = opener.open(node, CALLER, write=write)
        times.append(perf_counter_ns() - start)
        content.handles += 1
        close_handle(filesystem.state, node, content)
    return times


def plain_opens(filesystem: Filesystem, nodes: list[Node], *, write: bool) -> list[int]:
    """Nanoseconds of each open of the lower file, without the close."""
    root_fd, times = filesystem.state.nodes.root.directory_fd, []
    flags = os.O_RDWR if write else os.O_RDONLY
    for node in nodes:
        start = perf_counter_ns()
        fd = os.open(node.lower_name, flags, dir_fd=root_fd)
        times.append(perf_counter_ns() - start)
        os.close(fd)
    return times


def summary(times: list[int]) -> dict[str, float]:
    """Median and 99th percentile, in µs."""
    parts = quantiles(times, n=100)
    return {"p50": parts[49] / 1000, "p99": parts[98] / 1000}


def measure(filesystem: Filesystem, files: int, rounds: int) -> dict[str, dict[str, float]]:
    """Rounds of all kinds in turn, so that noise meets all of them."""
    nodes = make_files(filesystem, files)
    kinds: dict[str, Callable[[], list[int]]] = {
        "plain open, reading": lambda: plain_opens(filesystem, nodes, write=False),
        "allowed open, reading": lambda: allowed_opens(filesystem, nodes, write=False),
        "plain open, writing": lambda: plain_opens(filesystem, nodes, write=True),
        "allowed open, writing": lambda: allowed_opens(filesystem, nodes, write=True),
    }
    times: dict[str, list[int]] = {kind: [] for kind in kinds}
    for run in kinds.values():
        run()  # so that no first time is among them
    for _ in range(rounds):
        for kind, run in kinds.items():
            times[kind] += run()
    return {kind: summary(found) for kind, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench-open", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="for the volume and the KMS")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with volume(arguments.directory) as filesystem:
        found = measure(filesystem, arguments.files, arguments.rounds)
    if arguments.json:
        json.dump(found, sys.stdout, indent=1)
        print()
        return
    print("| µs | p50 | p99 |", "| --- | --- | --- |", sep="\n")
    for kind, times in found.items():
        print(f"| {kind} | {times['p50']:.1f} | {times['p99']:.1f} |")
    for access in ("reading", "writing"):
        over = found[f"allowed open, {access}"]["p50"] - found[f"plain open, {access}"]["p50"]
        verdict = "met" if over <= LIMIT_US else "MISSED"
        print(f"| over a plain one, {access} (target {LIMIT_US}: {verdict}) | {over:.1f} | |")


if __name__ == "__main__":
    main()
