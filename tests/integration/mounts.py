"""Real mounts for tests: making them, killing their daemons, and finding what a test has left behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.users import TIMEOUT

if TYPE_CHECKING:
    from tests.integration.command import Envfs
    from tests.integration.users import UnixUser


@dataclass(slots=True)
class Mount:
    lower: Path
    path: Path
    options: tuple[str, ...]
    user: UnixUser | None
    home: Path | None
    envfs: Envfs

    @property
    def pid(self) -> int:
        """The daemon."""
        found = daemons(self.path)
        if len(found) != 1:
            pytest.fail(f"{len(found)} daemons serve {self.path}")
        return found[0]

    @property
    def is_mounted(self) -> bool:
        return str(self.path) in mountpoints(self.path)

    def mount(self, *more: str | Path) -> Mount:
        options = ("-o", ",".join(self.options)) if self.options else ()
        self.envfs("mount", self.lower, self.path, *options, *more, user=self.user, home=self.home)
        return self

    def umount(self) -> None:
        self.envfs("umount", self.path, user=self.user, home=self.home)

    def remount(self) -> Mount:
        """Unmount (if it is mounted) and mount again: nothing that comes after is answered from a cache."""
        if self.is_mounted:
            self.umount()
        return self.mount()

    def kill(self) -> None:
        """SIGKILL to the daemon, as when the power fails for it alone; then the dead mount is detached."""
        end_process(self.pid)
        detach(self.path)

    def descriptors(self) -> int:
        """How many descriptors the daemon has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def mountpoints(below: Path) -> list[str]:
    """Mountpoints at or below a path, from the kernel's list: asks no filesystem."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == str(below) or point.startswith(f"{below}/"):
            found.append(point)
    return found


def daemons(below: Path) -> list[int]:
    """Processes that hold /dev/fuse open and were started for something at or below a path."""
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if not process.name.isdecimal() or os.fsencode(below) not in (process / "cmdline").read_bytes():
                continue
            if any(os.readlink(process / "fd" / name) == "/dev/fuse" for name in os.listdir(process / "fd")):
                found.append(int(process.name))
    return found


def end_process(pid: int) -> None:
    """SIGKILL, and wait until it is gone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        if not select.select([handle], [], [], TIMEOUT)[0]:
            pytest.fail(f"process {pid} survives SIGKILL")
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def detach(mountpoint: Path | str) -> None:
    command = ["umount", "--lazy"] if os.getuid() == 0 else ["fusermount3", "-u", "-z"]
    subprocess.run([*command, mountpoint], timeout=TIMEOUT, check=False, capture_output=True)


def clear_away(below: Path) -> list[str]:
    """Take away the mounts and daemons that are left at or below a path; what they were, in words."""
    left = [f"mount {point}" for point in mountpoints(below)]
    left += [f"daemon {pid}" for pid in daemons(below)]
    for pid in daemons(below):
        end_process(pid)
    for point in reversed(mountpoints(below)):
        detach(point)
    return left


def descriptors() -> dict[int, str]:
    """This process's open descriptors and what they lead to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one of the listing itself
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found
