"""A file against a bytearray: whatever is done to it, it holds what the bytearray holds, also when it is opened again.

After every last close the header is looked at: it promises no byte that is not there, and permits no zero block that
was not left out.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envfs.crypto.aead import Suite
from envfs.format.geometry import HEADER_SIZE
from tests.unit.fs.lab import Lab, Session, read_all, slots_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envfs.fs.content import Content

EXAMPLES = settings.default.max_examples if settings.default else 100
NAME = b"file"
BLOCKS = 6
# A big gap is a sparse file of this many blocks, compared at its ends and at random places.
GAP = 1 << 20


def positions(block_size: int) -> st.SearchStrategy[int]:
    """Offsets and sizes, mostly close to the edges of blocks."""
    edges = st.builds(lambda block, off: max(0, block * block_size + off), st.integers(0, BLOCKS), st.integers(-30, 30))
    return st.one_of(edges, st.integers(0, BLOCKS * block_size))


def lengths(block_size: int) -> st.SearchStrategy[int]:
    whole = st.builds(lambda block, off: max(0, block * block_size + off), st.integers(0, 2), st.integers(-2, 2))
    return st.one_of(st.integers(0, 40), whole)


def operations(block_size: int) -> st.SearchStrategy[list[tuple[object, ...]]]:
    where, length, seed = positions(block_size), lengths(block_size), st.integers(0, 255)
    return st.lists(
        st.one_of(
            st.tuples(st.just("write"), where, length, seed),
            st.tuples(st.just("append"), length, seed),
            st.tuples(st.just("zeros"), where, length),
            st.tuples(st.just("truncate"), where),
            st.tuples(st.just("read"), where, length),
            st.tuples(st.just("reopen"), st.booleans()),
            st.tuples(st.just("remount"), st.booleans()),
            st.tuples(st.just("fsync"), st.booleans()),
        ),
        min_size=1,
        max_size=14,
    )


def pattern(seed: int, length: int) -> bytes:
    """Bytes none of which is zero, different for each seed."""
    return bytes((seed * 7 + index * 13) % 255 + 1 for index in range(min(length, 255))) * (length // 255 + 1)


class Open:
    """The file under test, open for writing or for reading, with its model."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.fs: Session = lab.mount()
        if self.fs.exists(NAME):
            self.fs.unlink(NAME)
        with self.fs.created(NAME):
            pass
        self.model = bytearray()
        self._open(write=True)

    def _open(self, *, write: bool) -> None:
        node = self.fs.node(NAME)
        self.content: Content = self.fs.fs.state.opener.open(node, self.fs.caller, write=write)
        self.number = self.fs.fs.add_handle(node, self.content)

    def close(self) -> None:
        self.fs.fs.release(self.number)

    # One method for each operation; what a reader may not do is skipped.

    def write(self, offset: int, length: int, seed: int) -> None:
        if self.content.writable and length:
            data = pattern(seed, length)[:length]
            self.content.write(offset, data)
            self.model.extend(bytes(max(0, offset - len(self.model))))
            self.model[offset : offset + length] = data

    def append(self, length: int, seed: int) -> None:
        self.write(len(self.model), length, seed)

    def zeros(self, offset: int, length: int) -> None:
        if self.content.writable and length:
            self.content.write(offset, bytes(length))
            self.model.extend(bytes(max(0, offset - len(self.model))))
            self.model[offset : offset + length] = bytes(length)

    def truncate(self, size: int) -> None:
        if self.content.writable:
            self.content.truncate(size)
            del self.model[size:]
            self.model.extend(bytes(size - len(self.model)))

    def read(self, offset: int, length: int) -> None:
        assert bytes(self.content.read(offset, length)) == self.model[offset : offset + length]
        if offset < len(self.model) and length:
            assert self.content.read_apart(offset, length) == self.model[offset : offset + length]

    def fsync(self, appended_meanwhile: bool) -> None:
        synced = self.content.size
        if appended_meanwhile:
            self.append(3, 1)
        self.content.record_length(synced)
        self.check_header(least=0)

    def reopen(self, write: bool) -> None:
        self.close()
        self.check_header(least=len(self.model))
        self._open(write=write)
        self.check_content()

    def remount(self, write: bool) -> None:
        self.close()
        self.fs = self.lab.mount()
        self._open(write=write)
        self.check_content()

    def check_content(self) -> None:
        assert self.content.size == len(self.model)
        assert read_all(self.content) == self.model

    def check_header(self, *, least: int) -> None:
        """The header on disk against what is true of the file."""
        geometry, lower = self.lab.geometry, self.fs.lower(NAME)
        size = len(self.model)
        raw = lower.read_bytes()
        assert len(raw) == geometry.cipher_size(size) or (not size and len(raw) <= HEADER_SIZE)
        newest, *older = slots_of(lower)
        assert all(slot.sequence == newest.sequence - 1 for slot in older)
        assert least <= newest.length_bound <= size
        for index in range(geometry.block_count(size)):
            block = raw[geometry.block_offset(index) : geometry.block_offset(index + 1)]
            if not any(block):
                assert newest.hole_start <= index < newest.hole_end
                start = index * geometry.block_size
                assert not any(self.model[start : start + geometry.block_size])


CONFIGURATIONS = [(suite, size) for suite in Suite for size in (4096, 16384, 65536)]


@pytest.fixture(scope="module", params=CONFIGURATIONS, ids=lambda pair: f"{pair[0].label}-{pair[1]}")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    suite, block_size = request.param
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="envfs-test-", dir=place) as directory:
        lab = Lab(Path(directory), suite=suite, block_size=block_size)
        yield lab
        lab.close()


@settings(max_examples=EXAMPLES * 2 // 5)
@given(data=st.data())
def test_a_file_holds_what_a_bytearray_holds(lab: Lab, data: st.DataObject) -> None:
    opened = Open(lab)
    try:
        for name, *arguments in data.draw(operations(lab.geometry.block_size)):
            getattr(opened, str(name))(*arguments)
        opened.check_content()
    except BaseException:
        lab.unmount()
        raise
    opened.close()
    opened.check_header(least=len(opened.model))
    opened.fs = lab.mount()
    assert opened.fs.read(NAME) == opened.model


PIECES = st.dictionaries(st.integers(0, 40), st.tuples(st.integers(-5, 5), st.integers(1, 300)), min_size=1, max_size=6)


@settings(max_examples=EXAMPLES * 3 // 20)
@given(pieces=PIECES, cut=st.integers(0, 40))
def test_pieces_with_big_gaps_between_them(lab: Lab, pieces: dict[int, tuple[int, int]], cut: int) -> None:
    fs = lab.mount()
    if fs.exists(NAME):
        fs.unlink(NAME)
    block_size = lab.geometry.block_size
    written: dict[int, bytes] = {}
    with fs.created(NAME) as content:
        for number, (off, length) in pieces.items():
            offset = max(0, number * GAP * block_size + off)
            content.write(offset, pattern(number, length)[:length])
            written[offset] = pattern(number, length)[:length]
    size = max(offset + len(piece) for offset, piece in written.items())
    cut_at = min(size, cut * GAP * block_size + 3)
    fs = lab.mount()
    for at, end in ((None, size), (cut_at, cut_at)):
        if at is not None:
            fs.truncate(NAME, at)
            fs = lab.mount()
        assert fs.size(NAME) == end
        for offset, piece in written.items():
            first = max(0, offset - 10)
            expected = (bytes(offset - first) + piece + bytes(10))[: max(0, end - first)]
            got = fs.read(NAME, first, len(piece) + 10 + (offset - first))
            assert got == expected
    assert fs.lower(NAME).stat().st_blocks * 512 < 40 * (2 * lab.geometry.cipher_block + 16384)
