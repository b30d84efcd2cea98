from __future__ import annotations

import pytest

from envfs.errors import FormatError
from envfs.format.geometry import HEADER_SIZE, OVERHEAD, Geometry

SIZES = [1 << log2 for log2 in range(12, 17)]


@pytest.mark.parametrize("block_size", [0, 1, 1024, 2048, 4095, 4097, 12288, 65535, 131072, -4096])
def test_other_block_sizes_are_refused(block_size: int) -> None:
    with pytest.raises(FormatError):
        Geometry(block_size)


@pytest.mark.parametrize("block_size", SIZES)
def test_constants(block_size: int) -> None:
    geometry = Geometry(block_size)
    assert (HEADER_SIZE, OVERHEAD) == (1024, 28)
    assert geometry.cipher_block == block_size + 28
    assert 1 << geometry.block_log2 == block_size
    assert str(block_size) in repr(geometry)


def test_by_hand() -> None:
    geometry = Geometry(4096)
    assert [geometry.cipher_size(plain) for plain in (0, 1, 4096, 4097)] == [1024, 1053, 5148, 5177]
    assert [geometry.plain_size(cipher) for cipher in (0, 128, 1024, 1025, 1052, 1053, 5148, 5149, 5176, 5177)] == [
        *([0] * 5),
        1,
        *([4096] * 3),
        4097,
    ]
    assert [geometry.block_offset(index) for index in (0, 1, 2)] == [1024, 5148, 9272]
    assert [geometry.block_count(plain) for plain in (0, 1, 4096, 4097)] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, 0, (0, 0)),
        (0, 1, (0, 1)),
        (0, 4096, (0, 1)),
        (0, 4097, (0, 2)),
        (4095, 1, (0, 1)),
        (4095, 2, (0, 2)),
        (4096, 4096, (1, 2)),
        (5000, 0, (1, 1)),
        (2**62, 8192, (2**50, 2**50 + 2)),
    ],
)
def test_ranges(offset: int, length: int, expected: tuple[int, int]) -> None:
    assert Geometry(4096).blocks(offset, length) == expected


def test_lengths_of_blocks() -> None:
    geometry = Geometry(4096)
    assert [geometry.block_plain_length(index, 5000) for index in range(4)] == [4096, 904, 0, 0]
    assert geometry.block_plain_length(0, 0) == 0


@pytest.mark.parametrize("block_size", SIZES)
def test_the_largest_file_is_the_largest(block_size: int) -> None:
    geometry = Geometry(block_size)
    assert geometry.cipher_size(geometry.max_plain_size) <= 2**63 - 1
    assert geometry.cipher_size(geometry.max_plain_size + 1) > 2**63 - 1
