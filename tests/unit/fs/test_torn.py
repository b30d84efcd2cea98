"""Every way in which sectors of an old block and of a new one may stand side by side."""

from __future__ import annotations

import itertools
import random

import pytest

from envfs.format.journal import Entry
from envfs.fs.torn import SECTOR, is_torn

FULL = 4096 + 28
rng = random.Random(11)


def sealed(length: int = FULL) -> bytes:
    return rng.randbytes(length)


def mixtures(start: int, versions: list[bytes], size: int) -> list[bytes]:
    """A block of `size` bytes, each sector of which is of some version; what a version does not have is zero."""
    edges = [0, *range(SECTOR - start % SECTOR, size, SECTOR), size]
    found = []
    for _ in range(200):
        parts = [rng.choice(versions)[a:b].ljust(b - a, b"\0") for a, b in itertools.pairwise(edges)]
        found.append(b"".join(parts))
    return found


STARTS = [1024 + index * FULL for index in (0, 1, 17, 18, 19, 36, 100)]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("old_length", [29, 100, 600, FULL])
def test_only_what_is_whole_is_left_alone(start: int, old_length: int) -> None:
    old, new = sealed(old_length), sealed()
    entries = [Entry(0, new[:12], len(new), old)]
    for size in {old_length, FULL}:
        for found in mixtures(start, [old, new], size):
            assert is_torn(start, found, entries) == (found not in {old, new})


@pytest.mark.parametrize("start", STARTS)
def test_of_several_versions_the_whole_ones_are_left_alone(start: int) -> None:
    versions = [sealed() for _ in range(4)]
    entries = [Entry(0, new[:12], FULL, old) for old, new in itertools.pairwise(versions)]
    assert not any(is_torn(start, version, entries) for version in versions)
    for found in mixtures(start, versions, FULL):
        assert is_torn(start, found, entries) == (found not in versions)


@pytest.mark.parametrize("start", STARTS)
def test_a_hole_that_was_being_filled(start: int) -> None:
    old, new = bytes(FULL), sealed()
    entries = [Entry(0, new[:12], FULL, old)]
    for found in mixtures(start, [old, new], FULL):
        assert is_torn(start, found, entries) == (found not in {old, new})


def test_a_shorter_block_whose_file_was_not_yet_cut_or_was_before_it_was_written() -> None:
    start, old, new = STARTS[2], sealed(), sealed(700)
    entries = [Entry(0, new[:12], len(new), old)]
    assert is_torn(start, old[:700], entries)
    assert is_torn(start, new + old[700:], entries)
    assert not is_torn(start, new, entries)


@pytest.mark.parametrize("start", STARTS)
def test_what_the_journal_does_not_know_is_left_alone(start: int) -> None:
    """Restored from a backup, say, or written without a record after the file was cut."""
    old, new, other = sealed(), sealed(), sealed()
    entries = [Entry(0, new[:12], FULL, old)]
    assert not is_torn(start, other, entries)
    assert not is_torn(start, other[:512] + old[512:], entries)
    assert not is_torn(start, b"", entries)
    assert not is_torn(start, bytes(FULL), entries)
