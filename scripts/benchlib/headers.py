"""What threads would bring a check of headers, as `envfs fsck` makes it: each with an engine of its own.

Every file's header is read, its place checked, and its DEK asked of the KMS, which decides by policy and records it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchlib.opens import CALLER, make_files, volume
from envfs.format.place import Where
from envfs.fsck.content import FileCheck
from envfs.fsck.findings import Spot
from envfs.service.fsck import unwrapper
from envfs.service.volume import open_volume

if TYPE_CHECKING:
    from envfs.fs.filesystem import Filesystem
    from envfs.fs.nodes import Node


def check_all(filesystem: Filesystem, lower: Path, nodes: list[Node], threads: int) -> float:
    """Seconds for the headers of all files."""
    state = filesystem.state
    root_fd, root_id = state.nodes.root.directory_fd, state.volume.root_id

    def check(part: list[Node]) -> None:
        engine = state.engine.sibling()  # in its own thread, as it must be
        try:
            opened = open_volume(lower, engine)
            principal = state.resolver.resolve(CALLER.uid, CALLER.gid, CALLER.pid)
            files = FileCheck(state.opener.geometry, opened.keys.place, unwrapper(engine, principal, opened))
            for node in part:
                fd = os.open(node.lower_name, os.O_RDONLY, dir_fd=root_fd)
                spot = Spot(b"", node.lower_name, node.name)
                assert files.check(fd, spot, Where(root_id, node.full_name), [], repair=False) is not None
                os.close(fd)
        finally:
            engine.close()

    parts = [nodes[number::threads] for number in range(threads)]
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(check, parts))
    return time.perf_counter() - began


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench-fsck", description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="of the volume (%(default)s)")
    chosen = parser.parse_args(arguments)
    times: dict[int, list[float]] = {1: [], 2: [], 4: []}
    with tempfile.TemporaryDirectory(dir=chosen.directory) as base, volume(Path(base)) as filesystem:
        lower = Path(os.readlink(f"/proc/self/fd/{filesystem.state.nodes.root.directory_fd}"))
        nodes = make_files(filesystem, chosen.files)
        for _ in range(chosen.rounds):
            for threads, seconds in times.items():
                seconds.append(check_all(filesystem, lower, nodes, threads))
    print("| threads | µs for a header | times one thread |\n| --- | --- | --- |")
    for threads, seconds in times.items():
        ratio = median(one / other for one, other in zip(times[1], seconds, strict=True))
        print(f"| {threads} | {median(seconds) / chosen.files * 1e6:.0f} | {ratio:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
