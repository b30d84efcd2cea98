"""`-o idle=`: a mount that nobody uses ends by itself, and one that somebody uses does not."""

from __future__ import annotations

import os
import select
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.mounts import mountpoints

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount
    from tests.integration.users import UnixUser

TIMEOUT = 60


def wait_for_end(mount: Mount, daemon: int) -> None:
    """`daemon` is a pidfd, taken while the mount was in use."""
    try:
        assert select.select([daemon], [], [], TIMEOUT)[0], "the mount does not end"
    finally:
        os.close(daemon)
    assert mountpoints(mount.path) == []


def log_says(home: Path, text: str, process: subprocess.Popen[bytes]) -> None:
    """Follow the daemon's log until it has said so."""
    (log,) = (home / "log").iterdir()
    with subprocess.Popen(["tail", "-n", "+1", "-F", log], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tail:
        assert tail.stdout is not None
        try:
            while True:
                assert select.select([tail.stdout], [], [], TIMEOUT)[0], f"the log does not say {text!r}"
                if text.encode() in os.read(tail.stdout.fileno(), 1 << 16):
                    break
        finally:
            tail.kill()
    assert process.poll() is None


def test_an_idle_mount_ends_and_keeps_what_was_written(mounted: Callable[..., Mount]) -> None:
    mount = mounted("idle=2s")
    with open(mount.path / "f", "wb") as file:
        daemon = os.pidfd_open(mount.pid)
        file.write(b"x" * 3_000_000)
    wait_for_end(mount, daemon)
    mount.options = ()
    mount.mount()
    assert (mount.path / "f").read_bytes() == b"x" * 3_000_000


@pytest.mark.parametrize("use", ["cwd", "mapping"])
def test_a_mount_that_somebody_stands_in_does_not_end(mounted: Callable[..., Mount], kms_home: Path, use: str) -> None:
    """Neither has anything open, as the daemon sees it, nor asks for anything."""
    mount = mounted("idle=2s")
    held = os.open(mount.path, os.O_RDONLY)
    script, directory = "read line", mount.path
    if use == "mapping":
        program = mount.path / "program"
        program.write_bytes(Path("/bin/cat").read_bytes())
        program.chmod(0o755)
        script, directory = f"exec {program}", mount.path.parent
    with subprocess.Popen(
        ["sh", "-c", script], cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        daemon = os.pidfd_open(mount.pid)
        assert process.stdin is not None
        os.close(held)
        if use == "cwd":
            log_says(kms_home, "idle, and not unmounted", process)
        assert mountpoints(mount.path) == [str(mount.path)]
        process.stdin.close()
        process.wait(TIMEOUT)
    wait_for_end(mount, daemon)


@pytest.mark.users
def test_an_ordinary_users_mount_ends_too(
    mounted: Callable[..., Mount], envfs: Envfs, unix_users: Callable[..., list[UnixUser]]
) -> None:
    (alice,) = unix_users("alice")
    lower = alice.home / "lower"
    envfs("init", lower, user=alice)
    mount = mounted("idle=2s", lower=lower, user=alice)
    fd = os.pidfd_open(mount.pid)
    wait_for_end(mount, fd)
