"""What an audit record costs: a Decrypt without one (as no release does it), with one, and with one that is on the disk
before the key is released (`envfs audit durable on`). The three in turn, so that the noise of the machine meets all.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchlib.decrypts import CONTEXT, OWNER_UID, make_cases, open_engine, owner, summary, time_calls
from envfs.access.resolver import Resolver
from envfs.kms.bootstrap import init_kms
from envfs.kms.engine import Engine


class _Nowhere:
    """A sink that keeps nothing."""

    def prepare(self) -> None: ...
    def write(self, record: str) -> None: ...
    def anchor(self) -> None: ...
    def set_durable(self, *, on: bool) -> None: ...
    def close(self) -> None: ...


def _without(engine: Engine, call: Callable[[], object], count: int) -> list[int]:
    recorder = engine._recorder  # noqa: SLF001 - no release offers this way
    sink, recorder._sink = recorder._sink, _Nowhere()  # noqa: SLF001
    try:
        return time_calls(call, count)
    finally:
        recorder._sink = sink  # noqa: SLF001


def measure(directory: Path, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Times in µs by case; `bytes` of a record."""
    times: dict[str, list[int]] = {"not written": [], "written": [], "durable": []}
    with tempfile.TemporaryDirectory(prefix="envfs-bench-", dir=directory) as name:
        home = Path(name) / "kms"
        init_kms(home, owner_uid=OWNER_UID)
        with open_engine(home) as engine:
            blob = make_cases(engine)[0].blob
            me = Resolver(engine).resolve(os.getuid(), os.getgid(), os.getpid())

            def decrypt() -> None:
                engine.decrypt(me, blob, CONTEXT).wipe()

            before = _size(home)
            decrypt()
            size = _size(home) - before
            for _ in range(arguments.rounds):
                times["not written"] += _without(engine, decrypt, arguments.calls)
                times["written"] += time_calls(decrypt, arguments.calls)
                engine.set_audit_durability(owner(engine), on=True)
                times["durable"] += time_calls(decrypt, arguments.durable_calls)
                engine.set_audit_durability(owner(engine), on=False)
    return {case: summary(found) | {"bytes": size} for case, found in times.items()}


def _size(home: Path) -> int:
    return sum(path.stat().st_size for path in (home / "audit").iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench-audit", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--calls", type=int, default=3000, help="in a round")
    parser.add_argument("--durable-calls", type=int, default=300, help="in a round, of the durable mode")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=Path.cwd(), help="for the KMS; a disk, to mean something")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.directory, arguments)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print("| record of a Decrypt | p50, µs | p99, µs | a second |", "| --- | --- | --- | --- |", sep="\n")
    for case, values in found.items():
        print(f"| {case} | {values['p50']:.0f} | {values['p99']:.0f} | {values['per_second']:,.0f} |")
    print(f"a record has {found['written']['bytes']:.0f} bytes")


if __name__ == "__main__":
    main()
