"""`lab`: a KMS and a volume of 4 KiB blocks; `fs`: that volume, mounted without a mount (see lab.py)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.unit.fs.lab import Lab, Session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """As in the daemon: modes are the callers'."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    before = _descriptors()
    lab = Lab(tmp_path)
    yield lab
    lab.close()
    assert _descriptors() == before, "descriptors were left open"


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
