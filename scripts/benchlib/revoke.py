"""The time from the moment at which a policy is changed until open files of who lost access say EACCES.

A mount, and a process of the user `nobody` that has files open, has read them, and reads them again and again, out of
the page cache. Another process (this one) puts a key policy that leaves him out; counted is, for each file, when
reading it fails for the first time, from right before the call. Then he is let in again, and the next round begins.
"""

from __future__ import annotations

import argparse
import errno
import json
import mmap
import os
import pwd
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import quantiles
from typing import NoReturn

from envfs.access.resolver import Resolver
from envfs.kms.engine import Engine
from envfs.kms.rootkey import KEY_FILE_NAME, KeyFileUnlock

LIMIT = 1.0  # seconds, of the 99th percentile
USER = "nobody"
_PAUSE = 60.0  # seconds: after so long something is wrong
_BREATH = 0.005  # seconds between two rounds of the reader through all files: he is to use them, not the machine
_MOMENT = struct.Struct("=d")
ENVFS = [sys.executable, "-m", "envfs.cli"]


def policy(engine: Engine, *, lets_in: bool) -> str:
    root, user = f"arn:envfs:iam::{engine.account.account_id}:root", engine.account.user_arn(USER)
    everything = {"Effect": "Allow", "Principal": {"AWS": root}, "Action": "kms:*", "Resource": "*"}
    use = {"Effect": "Allow", "Principal": {"AWS": user}, "Action": ["kms:Decrypt", "kms:GenerateDataKey"]}
    statements = [everything, use | {"Resource": "*"}] if lets_in else [everything]
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def envfs(home: Path, *words: str | Path) -> None:
    environment = os.environ | {"ENVFS_HOME": str(home)}
    command = [*ENVFS, *map(str, words)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=_PAUSE)


@contextmanager
def mount(directory: Path, options: str, files: int) -> Iterator[tuple[Path, Path]]:
    """The KMS's home, and a directory in a mount with files of 4 KiB under a key of their own."""
    with tempfile.TemporaryDirectory(prefix="envfs-bench-", dir=directory) as name:
        base = Path(name)
        base.chmod(0o755)
        home, mountpoint = base / "kms", base / "mount"
        mountpoint.mkdir()
        envfs(home, "init", base / "lower")
        envfs(home, "mount", base / "lower", mountpoint, *(("-o", options) if options else ()))
        try:
            envfs(home, "key", "create", "--alias", "bench")
            shared = mountpoint / "shared"
            shared.mkdir(0o755)
            envfs(home, "dir", "set-key", shared, "alias/bench")
            for number in range(files):
                (shared / str(number)).write_bytes(bytes(4096))
                (shared / str(number)).chmod(0o666)
            yield home, shared
        finally:
            envfs(home, "umount", mountpoint)


class Reader:
    """The process that has the files open. What it finds stands in memory that it shares with us."""

    def __init__(self, shared: Path, files: int, *, write: bool) -> None:
        self._files = files
        self._times = mmap.mmap(-1, _MOMENT.size * files)  # when each was refused; 0: not yet
        self._pid = os.fork()
        if self._pid == 0:
            self._read(shared, write=write)

    def _read(self, shared: Path, *, write: bool) -> NoReturn:
        try:
            entry = pwd.getpwnam(USER)
            os.setgroups([])
            os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
            os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
            flags = os.O_RDWR if write else os.O_RDONLY
            fds = [os.open(shared / str(number), flags) for number in range(self._files)]
            while True:
                for number, fd in enumerate(fds):
                    try:
                        os.pread(fd, 4096, 0)
                    except OSError as error:
                        if error.errno != errno.EACCES:
                            raise
                        if _MOMENT.unpack_from(self._times, number * _MOMENT.size)[0] <= 0:
                            _MOMENT.pack_into(self._times, number * _MOMENT.size, time.monotonic())
                    else:
                        _MOMENT.pack_into(self._times, number * _MOMENT.size, -1.0)
                time.sleep(_BREATH)
        except BaseException as error:  # noqa: BLE001
            print(f"the reader ended: {error!r}", file=sys.stderr)
        finally:
            os._exit(1)

    def times(self) -> tuple[float, ...]:
        return struct.unpack_from(f"={self._files}d", self._times)

    def forget(self) -> None:
        self._times[:] = bytes(len(self._times))

    def wait(self, *, refused: bool) -> tuple[float, ...]:
        """Until each file was refused (when), or could be read (-1) since `forget`."""
        end = time.monotonic() + _PAUSE
        while True:
            times = self.times()
            if all(moment > 0 if refused else moment < 0 for moment in times):
                return times
            if time.monotonic() > end or os.waitpid(self._pid, os.WNOHANG)[0]:
                sys.exit("the reader does not find what it should: access was not taken away, or not given back")
            time.sleep(0.01)

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def measure(home: Path, shared: Path, arguments: argparse.Namespace) -> list[float]:
    """Seconds, of all files in all rounds."""
    found: list[float] = []
    with Engine.open(home, KeyFileUnlock(home / KEY_FILE_NAME)) as engine:
        me = Resolver(engine).resolve(os.getuid(), os.getgid(), os.getpid())
        key = engine.describe_key(me, "alias/bench").arn
        engine.put_key_policy(me, key, policy(engine, lets_in=True))
        reader = Reader(shared, arguments.files, write=arguments.write)
        try:
            for _ in range(arguments.rounds):
                reader.forget()
                reader.wait(refused=False)
                time.sleep(arguments.pause)
                reader.forget()
                start = time.monotonic()
                engine.put_key_policy(me, key, policy(engine, lets_in=False))
                found += [moment - start for moment in reader.wait(refused=True)]
                engine.put_key_policy(me, key, policy(engine, lets_in=True))
        finally:
            reader.end()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/bench-revoke", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--files", type=int, default=1000, help="that are open")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--write", action="store_true", help="open them for writing")
    parser.add_argument("--pause", type=float, default=0.37, help="seconds between rounds, so that they start anywhere")
    parser.add_argument("--options", default="", metavar="OPT,...", help="of envfs mount")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="for the volume and the KMS")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if os.getuid() != 0:
        sys.exit("bench-revoke needs root: it reads as another user")
    with mount(arguments.directory, arguments.options, arguments.files) as (home, shared):
        found = measure(home, shared, arguments)
    parts = quantiles(found, n=100)
    times = {"p50": parts[49], "p99": parts[98], "max": max(found)}
    if arguments.json:
        print(json.dumps({"files": arguments.files, "rounds": arguments.rounds, **times}, indent=1))
        return
    verdict = "met" if times["p99"] <= LIMIT else "MISSED"
    print("| seconds until EACCES | p50 | p99 | max |", "| --- | --- | --- | --- |", sep="\n")
    shown = " | ".join(f"{times[name]:.2f}" for name in ("p50", "p99", "max"))
    print(f"| {arguments.files} open files, {arguments.rounds} rounds (p99 at most {LIMIT:g}: {verdict}) | {shown} |")


if __name__ == "__main__":
    main()
