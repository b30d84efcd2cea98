"""What the daemon of a mount uses: from its status, and from /proc."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """`resident` in bytes; `nodes` are the inodes that the kernel holds."""

    resident: int
    descriptors: int
    nodes: int
    open_files: int

    def __str__(self) -> str:
        return f"{self.resident / 2**20:.1f} MiB, {self.descriptors} descriptors, {self.nodes} inodes"


class Daemon:
    """The daemon behind a mountpoint; `command` is envfs."""

    def __init__(self, command: str, mountpoint: Path) -> None:
        self._command = command
        self._mountpoint = mountpoint
        self._pid = 0

    def cpu_seconds(self) -> float:
        """User and system time of the daemon so far: unlike a clock, it does not mind what else the machine does."""
        if not self._pid:
            self.usage()
        fields = Path(f"/proc/{self._pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def usage(self) -> Usage:
        done = subprocess.run(
            [self._command, "status", "--json", self._mountpoint], capture_output=True, text=True, check=True
        )
        status = json.loads(done.stdout)
        status = status[0] if isinstance(status, list) else status.get("mounts", [status])[0]
        pid, counters = status["pid"], status["counters"]
        self._pid = int(pid)
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        resident = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        return Usage(resident * 1024, descriptors, counters["nodes"], counters["open_files"])


def drop_caches() -> bool:
    """Let the kernel forget inodes and names that nobody uses (root alone). Whether it could be asked."""
    try:
        Path("/proc/sys/vm/drop_caches").write_text("2", encoding="ascii")
    except OSError:
        return False
    return True
