"""The arithmetic against a model that walks from block to block."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from envfs.format.geometry import HEADER_SIZE, OVERHEAD, Geometry

geometries = st.integers(12, 16).map(lambda log2: Geometry(1 << log2))
#: A few blocks, so that the model is quick, and often close to an edge.
near_edges = st.builds(
    lambda blocks, sealed, rest: max(0, blocks * (65536 + sealed) + rest),
    st.integers(0, 4),
    st.sampled_from([0, 28]),
    st.integers(-1100, 1100),
)
sizes = st.integers(0, 300_000) | near_edges


def walk_cipher_size(geometry: Geometry, plain_size: int) -> int:
    cipher_size = HEADER_SIZE
    while plain_size > 0:
        taken = min(plain_size, geometry.block_size)
        cipher_size += taken + OVERHEAD
        plain_size -= taken
    return cipher_size


def walk_plain_size(geometry: Geometry, cipher_size: int) -> int:
    plain_size, rest = 0, cipher_size - HEADER_SIZE
    while rest > 0:
        taken = min(rest, geometry.cipher_block)
        plain_size += max(0, taken - OVERHEAD)
        rest -= taken
    return plain_size


@given(geometries, sizes)
def test_sizes(geometry: Geometry, size: int) -> None:
    assert geometry.cipher_size(size) == walk_cipher_size(geometry, size)
    assert geometry.plain_size(size) == walk_plain_size(geometry, size)
    assert geometry.plain_size(geometry.cipher_size(size)) == size


@given(geometries, sizes, sizes)
def test_more_content_never_needs_less_room(geometry: Geometry, first: int, second: int) -> None:
    smaller, larger = sorted((first, second))
    assert geometry.cipher_size(smaller) <= geometry.cipher_size(larger)
    assert geometry.plain_size(smaller) <= geometry.plain_size(larger)
    assert (smaller < larger) == (geometry.cipher_size(smaller) < geometry.cipher_size(larger))


@given(geometries, sizes, st.integers(0, 200_000))
def test_the_blocks_of_a_range_are_those_of_its_bytes(geometry: Geometry, offset: int, length: int) -> None:
    first, end = geometry.blocks(offset, length)
    edges = {offset, offset + length - 1} | set(range(offset, offset + length, geometry.block_size))
    touched = {byte // geometry.block_size for byte in edges} if length else set()
    assert set(range(first, end)) == touched


@given(geometries, sizes)
def test_blocks_make_up_the_file(geometry: Geometry, plain_size: int) -> None:
    count = geometry.block_count(plain_size)
    lengths = [geometry.block_plain_length(index, plain_size) for index in range(count + 2)]
    assert sum(lengths) == plain_size
    assert all(length > 0 for length in lengths[:count])
    assert lengths[count:] == [0, 0]
    offsets = [geometry.block_offset(index) for index in range(count + 1)]
    assert offsets[0] == HEADER_SIZE
    assert all(after - before == geometry.cipher_block for before, after in itertools.pairwise(offsets))
    if plain_size:
        last = geometry.block_offset(count - 1) + lengths[count - 1] + OVERHEAD
        assert last == geometry.cipher_size(plain_size)
