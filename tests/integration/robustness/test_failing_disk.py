"""A disk that does not take what was written, which the kernel finds out when it writes back, long after write(2).

The lower directory is on ext4 in an image, which lies on a tmpfs that is too small for it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.integration.mounts import clear_away
from tests.integration.robustness.test_power_loss import _can_make_disks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount

if not _can_make_disks():
    pytest.skip("needs root, loop devices and mkfs.ext4", allow_module_level=True)


@pytest.fixture
def failing(directory: Callable[..., Path]) -> Iterator[Path]:
    """A directory on a disk of 64 MiB that takes half of it."""
    base = directory("failing")
    for name in ("small", "disk"):
        (base / name).mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=32m", "none", base / "small")
    with open(base / "small" / "image", "wb") as file:
        file.truncate(64 << 20)
    # No journal, which would end with the first block that it cannot write, and the disk would be read-only.
    run("mkfs.ext4", "-q", "-F", "-E", "nodiscard", "-O", "^has_journal", base / "small" / "image")
    run("mount", "-o", "loop,errors=continue", base / "small" / "image", base / "disk")
    yield base / "disk"
    clear_away(base)


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, timeout=60, capture_output=True)


def test_everybody_who_has_the_file_open_hears_of_it_from_fsync(
    failing: Path, envfs: Envfs, mounted: Callable[..., Mount]
) -> None:
    """As of a file of the disk's own: what one is told is not kept from another, who would take his data to be safe."""
    lower = failing / "lower"
    lower.mkdir()
    envfs("init", lower)
    mount = mounted(lower=lower)
    with contextlib.ExitStack() as stack:
        fds = []
        for _ in range(5):
            fds.append(os.open(mount.path / "f", os.O_RDWR | os.O_CREAT))
            stack.callback(os.close, fds[-1])
        for _ in range(40):
            os.write(fds[0], os.urandom(1 << 20))
        for fd in fds:
            with pytest.raises(OSError, match=r"No space left|Input/output error"):
                os.fsync(fd)
