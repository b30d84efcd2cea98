"""`lab`: a KMS and a volume of 4 KiB blocks; `fs`: that volume, mounted without a mount (see lab.py).

Both stand in memory, where no sync waits for a disk. What a filesystem in memory does not show, or does not need, is
tested with `disk_lab`.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.fs.lab import Lab, Session

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """As in the daemon: modes are the callers'."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory on tmpfs, if that takes extended attributes of users (Linux 6.6)."""
    with tempfile.TemporaryDirectory(prefix="envfs-test-", dir=_place_in_memory()) as directory:
        yield Path(directory)


def _place_in_memory() -> str | None:
    if not os.access("/dev/shm", os.W_OK):
        return None
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        try:
            os.setxattr(file.fileno(), "user.envfs-test", b"")
        except OSError:
            return None
    return "/dev/shm"


@pytest.fixture
def lab(memory: Path) -> Iterator[Lab]:
    with _checked(memory, memory / "lower") as lab:
        yield lab


@pytest.fixture
def disk_lab(memory: Path, tmp_path: Path) -> Iterator[Lab]:
    with _checked(memory, tmp_path / "lower") as lab:
        yield lab


@contextmanager
def _checked(base: Path, lower: Path) -> Iterator[Lab]:
    before = _descriptors()
    lab = Lab(base, lower=lower)
    yield lab
    lab.close()
    # What others have closed meanwhile (a socket of an earlier test, when it was collected) is not ours.
    assert _descriptors().items() <= before.items(), "descriptors were left open"


@pytest.fixture
def fs(lab: Lab) -> Session:
    return lab.mount()


def _descriptors() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # the one of the listing itself
            continue
    return found
