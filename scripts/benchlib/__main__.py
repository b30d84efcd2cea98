"""The command line of scripts/bench."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from benchlib import report
from benchlib.filesystems import PEERS, BenchError, Envfs, Filesystem, missing_peers
from benchlib.measure import Bench
from benchlib.tarball import make_tarball
from benchlib.workloads import WORKLOADS, Place, with_needs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchlib.measure import Result

_ENVIRONMENT = Path(__file__).resolve().parents[1] / "lib" / "environment.sh"
_DEFAULT_VARIANTS = ["envfs", "envfs-noxattr:noxattr", "envfs-one:noxattr,noallow_other"]
_QUICK = {"big_mib": 64, "random_calls": 2048, "append_mib": 8, "small_files": 500}
_FULL = {"big_mib": 256, "random_calls": 8192, "append_mib": 32, "small_files": 3000}
_QUICK_TREE, _FULL_TREE = 500, 2000
_SEED = 20_000


def main() -> None:
    arguments = _parse()
    signal.signal(signal.SIGTERM, _interrupted)
    top = Path(tempfile.mkdtemp(prefix="envfs-bench-", dir=arguments.directory))
    filesystems: list[Filesystem] = []
    try:
        _install(arguments.peers)
        variants = _variants(arguments)
        filesystems += [PEERS[name](name, top / name) for name in arguments.peers]
        for name, (init, options) in variants.items():
            filesystems.append(Envfs(name, top / name, init_arguments=init, options=options))
        place = _place(arguments, top)
        bench = Bench(filesystems, place, arguments.tests)
        bench.init()
        for number in range(arguments.rounds):
            bench.round(number, arguments.rounds)
        results = list(bench.results.values())
        _show(arguments, results, variants, report.machine(place, arguments.rounds, arguments.directory))
    except BenchError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        for filesystem in filesystems:
            filesystem.abandon()
        shutil.rmtree(top, ignore_errors=True)
    sys.exit(1 if any(result.error for result in results) else 0)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures envfs side by side with other encrypted filesystems, rounds interleaved, medians.",
        epilog="example: scripts/bench --rounds 3 --peers none,gocryptfs --envfs 64k:block=65536,noxattr --json out",
    )
    parser.add_argument("--rounds", type=int, default=0, help="default: 5, with --quick 1")
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: to see that it works")
    parser.add_argument(
        "--peers", type=_names(PEERS), default=list(PEERS), help=f"of {','.join(PEERS)} (default: all); may be empty"
    )
    parser.add_argument(
        "--envfs",
        action="append",
        metavar="NAME[:block=BYTES,suite=NAME,OPTION,…]",
        help="a variant of envfs; may be repeated (default: for many users, the same without extended attributes, and "
        "for root alone)",
    )
    parser.add_argument("--no-envfs", action="store_true", help="the peers alone")
    parser.add_argument("--tests", type=_names(WORKLOADS), default=list(WORKLOADS), help=f"of {','.join(WORKLOADS)}")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="for the lower directories")
    parser.add_argument("--json", type=Path, help="also write everything to this file (- for standard output alone)")
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 5)
    arguments.tests = with_needs(arguments.tests)
    return arguments


def _names(known: Mapping[str, object]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown: {name} (known: {', '.join(known)})")
        return names

    return parse


def _variants(arguments: argparse.Namespace) -> dict[str, tuple[list[str], list[str]]]:
    """Name → (arguments of `envfs init`, mount options)."""
    variants: dict[str, tuple[list[str], list[str]]] = {}
    for text in [] if arguments.no_envfs else arguments.envfs or _DEFAULT_VARIANTS:
        name, _, words = text.partition(":")
        init: list[str] = []
        options: list[str] = []
        for word in filter(None, words.split(",")):
            key, _, value = word.partition("=")
            if key == "block":
                init += ["--block-size", value]
            elif key == "suite":
                init += ["--suite", value]
            else:
                options.append(word)
        variants[name] = (init, options)
    return variants


def _install(peers: list[str]) -> None:
    missing = missing_peers(peers)
    if missing:
        script = 'set -euo pipefail; source "$0"; ensure_packages "$@"'
        if subprocess.run(["bash", "-c", script, str(_ENVIRONMENT), *missing], check=False).returncode != 0:
            raise BenchError(f"not installed: {', '.join(missing)}; leave them out with --peers")


def _place(arguments: argparse.Namespace, top: Path) -> Place:
    sizes = _QUICK if arguments.quick else _FULL
    tarball = top / "tree.tar"
    entries = make_tarball(tarball, _QUICK_TREE if arguments.quick else _FULL_TREE)
    return Place(top="", tarball=str(tarball), tree_entries=entries, seed=_SEED, **sizes)


def _show(
    arguments: argparse.Namespace,
    results: list[Result],
    variants: dict[str, tuple[list[str], list[str]]],
    facts: dict[str, object],
) -> None:
    options = {name: chosen for name, (_, chosen) in variants.items()}
    text = json.dumps(report.as_json(results, arguments.tests, options, facts), indent=1)
    if arguments.json == Path("-"):
        print(text)
        return
    if arguments.json:
        arguments.json.write_text(text + "\n")
    print(", ".join(f"{name}: {value}" for name, value in facts.items()))
    print(", ".join(f"{result.name} {result.version}" for result in results), end="\n\n")
    print(report.table(results, arguments.tests, options))


def _interrupted(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
