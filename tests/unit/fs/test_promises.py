"""Length bounds that are raised after the last close, when the content is known to be on the disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from envfs.errors import IntegrityError
from envfs.format.geometry import HEADER_SIZE
from envfs.fs import promises
from envfs.fs.lower import Kind
from tests.unit.fs.lab import Lab, Session, slots_of

if TYPE_CHECKING:
    from pathlib import Path

B = 4096


@pytest.fixture
def fs(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Session:
    """In memory, for speed, and taken for a disk."""
    monkeypatch.setattr("envfs.fs.lower.kind_of", lambda _fd: Kind.DISK)
    return lab.mount()


def bounds(lower: Path) -> set[int]:
    return {slot.length_bound for slot in slots_of(lower)}


async def keep(fs: Session) -> None:
    await fs.fs.state.promises.keep()


async def test_a_bound_waits_for_the_sync(fs: Session) -> None:
    fs.write(b"f", b"x" * 3 * B)
    lower = fs.lower(b"f")
    assert bounds(lower) == {0}
    assert len(fs.fs.state.promises) == 1
    before = os.stat(lower).st_mtime_ns
    await keep(fs)
    assert bounds(lower) == {3 * B}
    assert len(fs.fs.state.promises) == 0
    assert os.stat(lower).st_mtime_ns == before
    os.truncate(lower, HEADER_SIZE + 2 * 4124)
    with pytest.raises((IntegrityError, OSError)):
        fs.read(b"f")


def test_an_unmount_keeps_all_promises(fs: Session) -> None:
    for number in range(promises._TOO_MANY + 3):
        fs.write(b"%d" % number, b"x" * B)
    lowers = [fs.lower(b"%d" % number) for number in range(promises._TOO_MANY + 3)]
    fs.lab.unmount()
    assert {bound for lower in lowers for bound in bounds(lower)} == {B}


async def test_a_file_that_is_open_again_waits_for_its_own_close(fs: Session) -> None:
    fs.write(b"f", b"x" * 3 * B)
    lower = fs.lower(b"f")
    with fs.opened(b"f", write=True) as content:
        await keep(fs)
        assert bounds(lower) == {0}
        content.truncate(B)
    await keep(fs)
    assert bounds(lower) == {B}
    assert fs.lab.mount().read(b"f") == b"x" * B


async def test_a_reader_in_between_changes_nothing(fs: Session) -> None:
    fs.write(b"f", b"x" * 3 * B)
    with fs.opened(b"f") as content:
        await keep(fs)
        assert bytes(content.read(0, 5)) == b"xxxxx"
    assert len(fs.fs.state.promises) == 1
    await keep(fs)
    assert bounds(fs.lower(b"f")) == {3 * B}


async def test_names_may_change_meanwhile(fs: Session) -> None:
    fs.mkdir(b"d")
    fs.write(b"f", b"x" * B)
    fs.write(b"gone", b"x" * B)
    fs.write(b"over", b"x" * B)
    fs.rename(b"f", b"d/moved")
    fs.rename(b"d", b"e")
    fs.unlink(b"gone")
    fs.write(b"new", b"y" * 2 * B)
    fs.rename(b"new", b"over")
    assert len(fs.fs.state.promises) == 2  # what is gone is not held, nor its space
    await keep(fs)
    assert bounds(fs.lower(b"e/moved")) == {B}
    assert bounds(fs.lower(b"over")) == {2 * B}


async def test_what_the_kernel_forgets_is_found_all_the_same(fs: Session) -> None:
    fs.write(b"f", b"x" * B)
    lower = fs.lower(b"f")
    node = fs.node(b"f")
    for _ in range(node.lookups - 1):
        fs.fs.state.nodes.forget(node.node_id, 1)
    assert node.node_id in fs.fs.state.nodes.by_id
    await keep(fs)
    assert bounds(lower) == {B}
    assert node.node_id not in fs.fs.state.nodes.by_id
    assert fs.read(b"f") == b"x" * B


async def test_a_file_that_was_cut_before_is_found_cut(fs: Session) -> None:
    fs.write(b"f", b"x" * 3 * B)
    os.truncate(fs.lower(b"f"), HEADER_SIZE + 4124)
    await keep(fs)
    with pytest.raises(IntegrityError, match="was cut"):
        fs.lab.mount().read(b"f")


async def test_a_sync_that_fails_is_tried_again(fs: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    fs.write(b"f", b"x" * B)

    def fail(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="Input/output"):
            await keep(fs)
    assert bounds(fs.lower(b"f")) == {0}
    await keep(fs)
    assert bounds(fs.lower(b"f")) == {B}
