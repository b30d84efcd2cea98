"""A volume with a bit of everything in it, and its check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from envfs.service.fsck import check_volume
from tests.unit.fs.conftest import _umask, memory
from tests.unit.fs.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from envfs.fsck.findings import Report

__all__ = ["_umask", "memory"]

LONG = b"n" * 200
CONTENT = bytes(range(256)) * 100


@dataclass
class Volume:
    """What is not damaged reads the same after every check and repair."""

    lab: Lab

    @property
    def lower(self) -> Path:
        return self.lab.lower

    def check(self, *, repair: bool = False, read_data: bool = True) -> Report:
        self.lab.unmount()
        return check_volume(
            self.lower,
            self.lab.engine,
            self.lab.me,
            read_data=read_data,
            repair=repair,
            threads=2,
            advance=lambda _objects, _size: None,
        )

    def path(self, plain: bytes) -> Path:
        found = self.lab.mount().lower(plain)
        self.lab.unmount()
        return found

    def read(self, plain: bytes) -> bytes:
        try:
            return self.lab.mount().read(plain)
        finally:
            self.lab.unmount()


@pytest.fixture
def volume(memory: Path) -> Iterator[Volume]:
    lab = Lab(memory)
    fs = lab.mount()
    fs.mkdir(b"dir")
    fs.mkdir(b"dir/inner")
    fs.mkdir(b"empty")
    fs.mkdir(LONG)
    for name in (b"top", b"dir/file", b"dir/inner/deep", LONG + b"/" + LONG):
        fs.write(name, CONTENT)
    fs.symlink(b"dir/link", b"../top")
    fs.symlink(b"dir/far", b"t" * 4000)
    fs.link(b"top", b"dir/second")
    lab.unmount()
    yield Volume(lab)
    lab.close()
