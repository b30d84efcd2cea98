"""Each system call that changes something fails in its turn: the caller hears of it, and finds the old state or new.

The call is not made and raises, as on a disk that is full or broken. The filesystem goes on: what it shows then, what
the next mount shows, and what `envfs fsck` says of it must be one and the same.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from envfs.fs.attributes import Change
from envfs.service.fsck import check_volume
from tests.unit.fs.test_crash_points import (
    BETWEEN,
    CHANGING,
    OPERATIONS,
    fresh,
    operation_again,
    state_of,
    template,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from tests.unit.fs.lab import Lab, Session

__all__ = ["template"]

FAILING = CHANGING | {"fsync", "fdatasync", "pread", "preadv"}
MOST_CALLS = 200


def set_key(fs: Session) -> None:
    key = fs.lab.engine.service_managed_key("alias/envfs/volume")
    fs.fs.state.directories.set_key(fs.node(b"d"), key)


def attribute(fs: Session) -> None:
    fs.fs.xattrs.set(fs.node(b"f"), b"user.note", b"hello")


def open_and_close(fs: Session) -> None:
    """The header is written when nothing else is."""
    with fs.opened(b"f", write=True) as content:
        content.sealed += 1


MORE: dict[str, Callable[[Session], object]] = {
    "set-key": set_key,
    "attribute": attribute,
    "header": open_and_close,
    "times": lambda fs: fs.change(b"f", Change(mtime_ns=5)),
}


class _Faults:
    """Makes the `count`-th call fail; `happened` says whether there was one."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._code = (errno.EIO, errno.ENOSPC)[count % 2]
        self.happened = ""

    def watch(self, _frame: FrameType, event: str, called: object) -> None:
        if event != "c_call" or getattr(called, "__module__", None) != "posix":
            return
        name = getattr(called, "__name__", "")
        if name in FAILING:
            self._left -= 1
            if self._left < 0:
                sys.setprofile(None)
                self.happened = name
                raise OSError(self._code, os.strerror(self._code))


@contextmanager
def faulty(count: int) -> Iterator[_Faults]:
    faults = _Faults(count)
    sys.setprofile(faults.watch)
    try:
        yield faults
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("name", [*OPERATIONS, *MORE])
def test_a_failing_call_leaves_the_old_state_or_the_new(lab: Lab, template: Path, name: str) -> None:
    operation = (OPERATIONS | MORE)[name]
    fresh(lab, template)
    old = state_of(lab.mount())
    assert lab.session is not None
    operation(lab.session)
    new = state_of(lab.mount())
    allowed = [old, new, *(BETWEEN[name](old, new) if name in BETWEEN else [])]
    for count in range(MOST_CALLS):
        lab.unmount()
        fresh(lab, template)
        fs = lab.mount()
        failed = False
        with faulty(count) as faults:
            try:
                operation(fs)
            except OSError:
                failed = True
        if not faults.happened:
            break
        where = f"call {count}, {faults.happened}"
        found = state_of(fs)
        assert found in allowed, where
        if not failed:
            assert found == new, where
        fs = lab.mount()
        assert state_of(fs) == found, where
        lab.unmount()
        report = check_volume(
            lab.lower, lab.engine, lab.me, read_data=True, repair=False, threads=1, advance=lambda _one, _other: None
        )
        assert report.is_clean, (where, report.findings)
        if count % 4 == 3:
            operation_again(lab.mount(), found)
    else:
        pytest.fail("the operation does not end")
