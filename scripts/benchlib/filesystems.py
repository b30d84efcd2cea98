"""The filesystems that are measured, each behind the same three steps: init once, mount, unmount."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

TIMEOUT = 120.0  # seconds, for any one command
PASSWORD = "benchmark"  # noqa: S105  (of volumes that live for minutes)


class BenchError(Exception):
    """A filesystem that cannot be measured, and why."""


def run(argv: list[str], *, text: str = "", env: dict[str, str] | None = None) -> str:
    """Run a command to its end; its output. Raises BenchError with what it said if it fails."""
    done = subprocess.run(
        argv,
        input=text,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        env=os.environ | (env or {}),
    )
    if done.returncode != 0:
        raise BenchError(f"{' '.join(argv)}: exit status {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


@dataclass(slots=True)
class Filesystem:
    """Lower directory and mountpoint below `base`. This one is no filesystem of its own: a plain directory."""

    name: str
    base: Path
    pids: list[int] = field(default_factory=list)

    @property
    def lower(self) -> Path:
        return self.base / "lower"

    @property
    def top(self) -> Path:
        """Where applications see the files."""
        return self.lower

    @property
    def version(self) -> str:
        return os.uname().release

    def init(self) -> None:
        self.lower.mkdir(parents=True)

    def mount(self) -> None:
        pass

    def unmount(self) -> None:
        pass

    def abandon(self) -> None:
        """After a failure: take everything away, whatever it takes."""


@dataclass(slots=True)
class FuseFilesystem(Filesystem):
    """One that is mounted by a daemon. Subclasses give its commands."""

    @property
    def top(self) -> Path:
        return self.base / "mount"

    def init(self) -> None:
        self.lower.mkdir(parents=True)
        self.top.mkdir()
        (self.base / "state").mkdir()
        self.init_volume()

    def mount(self) -> None:
        self.start()
        self.pids = fuse_daemons(self.top)
        if not os.path.ismount(self.top) or not self.pids:
            raise BenchError(f"{self.name} is not mounted on {self.top}")

    def unmount(self) -> None:
        run(["umount", str(self.top)] if os.getuid() == 0 else ["fusermount3", "-u", str(self.top)])
        for pid in self.pids:
            wait_for_end(pid)
        self.pids = []

    def abandon(self) -> None:
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        detach = ["umount", "-l"] if os.getuid() == 0 else ["fusermount3", "-uz"]
        subprocess.run([*detach, str(self.top)], check=False, capture_output=True, timeout=TIMEOUT)

    def init_volume(self) -> None:
        pass

    def start(self) -> None:
        raise BenchError(f"{self.name} has no mount command")


@dataclass(slots=True)
class Gocryptfs(FuseFilesystem):
    def init_volume(self) -> None:
        (self.base / "state" / "password").write_text(PASSWORD)
        # scrypt's cost is paid once, at the mount, and is not what is measured.
        run(["gocryptfs", "-init", "-q", "-scryptn", "10", *self._password(), str(self.lower)])

    def start(self) -> None:
        run(["gocryptfs", "-q", *self._options(), *self._password(), str(self.lower), str(self.top)])

    def _options(self) -> list[str]:
        return []

    def _password(self) -> list[str]:
        return ["-passfile", str(self.base / "state" / "password")]

    @property
    def version(self) -> str:
        return run(["gocryptfs", "-version"]).split(";")[0].removeprefix("gocryptfs ")


@dataclass(slots=True)
class GocryptfsForAll(Gocryptfs):
    """For many users, as envfs is when root mounts it: then the kernel checks the modes, and asks more often."""

    def _options(self) -> list[str]:
        return ["-allow_other"]


@dataclass(slots=True)
class Securefs(FuseFilesystem):
    def init_volume(self) -> None:
        run(["securefs", "create", "--pass", PASSWORD, "--rounds", "1", str(self.lower)])

    def start(self) -> None:
        run(["securefs", "mount", "--background", "--pass", PASSWORD, str(self.lower), str(self.top)])
        wait_until_mounted(self.top)

    @property
    def version(self) -> str:
        return package_version("securefs")


@dataclass(slots=True)
class Encfs(FuseFilesystem):
    def init_volume(self) -> None:
        self.start()
        wait_until_mounted(self.top)
        run(["umount", str(self.top)] if os.getuid() == 0 else ["fusermount", "-u", str(self.top)])

    def start(self) -> None:
        run(["encfs", "--standard", "--stdinpass", str(self.lower), str(self.top)], text=f"{PASSWORD}\n")

    @property
    def version(self) -> str:
        return package_version("encfs")


@dataclass(slots=True)
class Cryfs(FuseFilesystem):
    def start(self) -> None:
        environment = {
            "CRYFS_FRONTEND": "noninteractive",
            "CRYFS_NO_UPDATE_CHECK": "true",
            "CRYFS_LOCAL_STATE_DIR": str(self.base / "state"),
        }
        run(["cryfs", str(self.lower), str(self.top)], text=f"{PASSWORD}\n", env=environment)

    @property
    def version(self) -> str:
        return package_version("cryfs")


@dataclass(slots=True)
class Envfs(FuseFilesystem):
    """A variant: the arguments of `envfs init`, and the mount options."""

    init_arguments: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)

    def init_volume(self) -> None:
        self._envfs("init", str(self.lower), *self.init_arguments)

    def start(self) -> None:
        options = ["-o", ",".join(self.options)] if self.options else []
        self._envfs("mount", str(self.lower), str(self.top), *options)

    def _envfs(self, *arguments: str) -> str:
        command = str(Path(sys.executable).parent / "envfs")
        return run([command, *arguments], env={"ENVFS_HOME": str(self.base / "state" / "kms")})

    @property
    def version(self) -> str:
        return self._envfs("--version").split()[-1]


PEERS: dict[str, type[Filesystem]] = {
    "none": Filesystem,
    "gocryptfs": Gocryptfs,
    "gocryptfs-all": GocryptfsForAll,
    "securefs": Securefs,
    "encfs": Encfs,
    "cryfs": Cryfs,
}


def missing_peers(names: list[str]) -> list[str]:
    """The programs that are not installed; the Debian packages have the same names."""
    programs = sorted({name.partition("-")[0] for name in names if name != "none"})
    return [program for program in programs if shutil.which(program) is None]


def package_version(name: str) -> str:
    return run(["dpkg-query", "-W", "-f", "${Version}", name])


def fuse_daemons(top: Path) -> list[int]:
    """The processes that were started for the mountpoint `top` and hold /dev/fuse open; nobody else's."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        with suppress(OSError):
            if os.fsencode(top) not in (process / "cmdline").read_bytes().split(b"\0"):
                continue
            if any(_leads_to(entry, "/dev/fuse") for entry in (process / "fd").iterdir()):
                found.append(int(process.name))
    return found


def _leads_to(entry: Path, target: str) -> bool:
    with suppress(OSError):
        return str(entry.readlink()) == target
    return False


def wait_for_end(pid: int) -> None:
    """Until the process has ended: only then has it written everything and freed its memory."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([handle], [], [], TIMEOUT)[0]:
            raise BenchError(f"process {pid} does not end after its mount has gone")
    finally:
        os.close(handle)


def wait_until_mounted(top: Path) -> None:
    """For those whose mount command returns too early: the kernel says when its list of mounts changes."""
    with Path("/proc/self/mounts").open() as mounts:
        poll = select.poll()
        poll.register(mounts, select.POLLERR | select.POLLPRI)
        while not os.path.ismount(top):
            if not poll.poll(TIMEOUT * 1000):
                raise BenchError(f"nothing was mounted on {top}")
