"""Rounds over filesystems and workloads, and the memory of their daemons."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from benchlib.filesystems import BenchError, Filesystem
from benchlib.workloads import WORKLOADS, Place

TIMEOUT = 600.0  # seconds, for one run of one workload


@dataclass(slots=True)
class Result:
    """What one filesystem did: rates by workload, a value for each round; memory in KiB."""

    name: str
    version: str
    rates: dict[str, list[float]] = field(default_factory=dict)
    idle_kib: int = 0
    peak_kib: int = 0
    error: str = ""

    def rate(self, workload: str) -> float | None:
        values = self.rates.get(workload)
        return median(values) if values else None


class Bench:
    def __init__(self, filesystems: list[Filesystem], place: Place, workloads: list[str]) -> None:
        self._filesystems = {filesystem.name: filesystem for filesystem in filesystems}
        self._place = place
        self._workloads = workloads
        self.results = {name: Result(name, filesystem.version) for name, filesystem in self._filesystems.items()}

    def init(self) -> None:
        for name, filesystem in self._filesystems.items():
            with self._keeping_error(name):
                filesystem.init()

    def round(self, number: int, rounds: int) -> None:
        """Each filesystem once: noise of the machine that comes and goes meets them all."""
        for name, filesystem in self._filesystems.items():
            result = self.results[name]
            if result.error:
                continue
            print(f"round {number + 1} of {rounds}: {name} ", end="", file=sys.stderr, flush=True)
            with self._keeping_error(name):
                self._measure(filesystem, result, number)
            print(result.error, file=sys.stderr, flush=True)

    def abandon(self) -> None:
        for filesystem in self._filesystems.values():
            filesystem.abandon()

    def _measure(self, filesystem: Filesystem, result: Result, number: int) -> None:
        place = replace(self._place, top=str(filesystem.top), seed=self._place.seed + number)
        filesystem.mount()
        if not result.idle_kib:
            result.idle_kib = memory_kib(filesystem.pids, "VmRSS")
        for name in self._workloads:
            if WORKLOADS[name].cold:
                self._unmount(filesystem, result)
                filesystem.mount()
            amount, seconds = run_workload(name, place)
            result.rates.setdefault(name, []).append(amount / seconds)
            print(".", end="", file=sys.stderr, flush=True)
        remove_contents(filesystem.top)
        self._unmount(filesystem, result)

    @staticmethod
    def _unmount(filesystem: Filesystem, result: Result) -> None:
        result.peak_kib = max(result.peak_kib, memory_kib(filesystem.pids, "VmHWM"))
        filesystem.unmount()

    def _keeping_error(self, name: str) -> _KeptError:
        return _KeptError(self.results[name], self._filesystems[name])


@dataclass(slots=True)
class _KeptError:
    """A filesystem that fails is left out from then on, and the report says why; the others go on."""

    result: Result
    filesystem: Filesystem

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, BenchError | OSError | subprocess.SubprocessError):
            return False
        self.result.error = str(error)
        self.filesystem.abandon()
        return True


def run_workload(name: str, place: Place) -> tuple[float, float]:
    """In a process of its own: (amount, seconds)."""
    argv = [sys.executable, "-m", "benchlib.workloads", name, place.to_json()]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode != 0:
        raise BenchError(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}")
    answer = json.loads(done.stdout)
    return answer["amount"], answer["seconds"]


def remove_contents(top: Path) -> None:
    for entry in top.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def memory_kib(pids: list[int], name: str) -> int:
    """VmRSS (now) or VmHWM (the most there ever was), summed over processes; proc_pid_status(5)."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith(name + ":"):
                    total += int(line.split()[1])
    return total
