"""The table and the JSON of a benchmark run."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchlib.workloads import WORKLOADS, Place

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchlib.measure import Result

# What envfs wants to reach, as a multiple of gocryptfs in the same run.
TARGETS = {
    "seq_write": 1.2,
    "seq_read": 0.8,
    "rand_read": 1.0,
    "rand_write": 1.4,
    "append": 1.0,
    "create": 1.0,
    "open_read": 1.0,
    "stat": 0.9,
    "lookup": 0.9,
    "rename": 1.0,
    "unlink": 1.0,
    "untar": 1.0,
    "ls_lr": 3.0,
}
TARGETS_NOXATTR = {"append": 5.0}
IDLE_LIMIT_MIB, PEAK_LIMIT_MIB = 60, 200
# What a variant is held against: the same filesystem, mounted for as many users as it is.
FOR_ONE, FOR_ALL = "gocryptfs", "gocryptfs-all"


def target(workload: str, result: Result, variants: dict[str, list[str]]) -> float | None:
    """The multiple of gocryptfs that this variant of envfs is to reach; None for peers and where there is none."""
    if result.name not in variants:
        return None
    if "noxattr" in variants[result.name] and workload in TARGETS_NOXATTR:
        return TARGETS_NOXATTR[workload]
    return TARGETS.get(workload)


def table(results: list[Result], workloads: list[str], variants: dict[str, list[str]]) -> str:
    """In Markdown: a row for each workload, a column for each filesystem; then what envfs reaches of its targets."""
    rows = [["", "", *(result.name for result in results)]]
    for name in workloads:
        cells = [_number(result.rate(name)) for result in results]
        rows.append([WORKLOADS[name].title, WORKLOADS[name].unit, *cells])
    rows.append(["daemon's memory, idle", "MiB", *(_mebibytes(result.idle_kib) for result in results)])
    rows.append(["daemon's memory, most", "MiB", *(_mebibytes(result.peak_kib) for result in results)])
    parts = [_markdown(rows)]
    ours = [result for result in results if result.name in variants]
    for reference in results:
        held = [result for result in ours if _reference(result, results, variants) == reference.name]
        if held:
            parts.append(_against(reference, held, workloads, variants))
    parts += [f"{result.name} failed: {result.error}" for result in results if result.error]
    return "\n\n".join(parts)


def _reference(result: Result, results: list[Result], variants: dict[str, list[str]]) -> str:
    has_its_like = any(other.name == FOR_ALL for other in results)
    return FOR_ALL if has_its_like and "noallow_other" not in variants[result.name] else FOR_ONE


def _against(reference: Result, ours: list[Result], workloads: list[str], variants: dict[str, list[str]]) -> str:
    rows = [[f"multiple of {reference.name}", *(result.name for result in ours)]]
    for name in workloads:
        base = reference.rate(name)
        rows.append([WORKLOADS[name].title, *(_verdict(base, name, result, variants) for result in ours)])
    for title, limit, size in _memory_rows():
        rows.append([title, *(_below(size(result) / 1024, limit) for result in ours)])
    return _markdown(rows)


def _memory_rows() -> list[tuple[str, int, Callable[[Result], int]]]:
    return [
        (f"idle, at most {IDLE_LIMIT_MIB} MiB", IDLE_LIMIT_MIB, lambda result: result.idle_kib),
        (f"under load, at most {PEAK_LIMIT_MIB} MiB", PEAK_LIMIT_MIB, lambda result: result.peak_kib),
    ]


def _verdict(base: float | None, workload: str, result: Result, variants: dict[str, list[str]]) -> str:
    rate, wanted = result.rate(workload), target(workload, result, variants)
    if not base or rate is None:
        return "–"
    if wanted is None:
        return f"{rate / base:.2f}"
    return f"{rate / base:.2f} (target {wanted:g}: {'met' if rate / base >= wanted else 'MISSED'})"


def _below(size: float, limit: int) -> str:
    return f"{size:.0f} ({'met' if size <= limit else 'MISSED'})" if size else "–"


def _number(rate: float | None) -> str:
    if rate is None:
        return "–"
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def _mebibytes(kib: int) -> str:
    return f"{kib / 1024:.0f}" if kib else "–"


def _markdown(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    rule = " | ".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])


def machine(place: Place, rounds: int, lower: Path) -> dict[str, Any]:
    """What the figures depend on."""
    sizes = asdict(place)
    for name in ("top", "tarball", "seed"):
        del sizes[name]
    return {
        "kernel": platform.release(),
        "cpu": _cpu(),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "lower_directories_in": str(lower),
        "rounds": rounds,
        **sizes,
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def as_json(
    results: list[Result], workloads: list[str], variants: dict[str, list[str]], facts: dict[str, Any]
) -> dict[str, Any]:
    """Everything measured, each round's figure included."""
    return {
        "machine": facts,
        "units": {name: WORKLOADS[name].unit for name in workloads},
        "variants": variants,
        "results": [
            asdict(result) | {"medians": {name: result.rate(name) for name in workloads}} for result in results
        ],
    }
