"""The block codec against a bytearray."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envfs.crypto.aead import Suite
from envfs.errors import IntegrityError
from envfs.format.block import BlockCodec
from envfs.format.geometry import HEADER_SIZE, OVERHEAD, Geometry
from tests.property.strategies import ids, suites

GEOMETRY = Geometry(4096)
BLOCK = GEOMETRY.block_size
MAX_BLOCKS = 6


@dataclass
class ModelFile:
    """A lower file written through the codec, and beside it what it should hold."""

    codec: BlockCodec
    lower: bytearray
    plain: bytearray
    holes: tuple[int, int] = (0, 0)

    def write(self, offset: int, data: bytes) -> None:
        """A read-modify-write of whole blocks, with a hole where the write leaves a gap."""
        if offset > len(self.plain):
            self.extend(offset)
        self.plain[offset : offset + len(data)] = data
        first, end = GEOMETRY.blocks(offset, len(data))
        sealed = self.codec.seal(first, memoryview(self.plain)[first * BLOCK : end * BLOCK])
        start = GEOMETRY.block_offset(first)
        self.lower[start : start + len(sealed)] = sealed

    def extend(self, size: int) -> None:
        last = len(self.plain) // BLOCK
        tail = self.plain[last * BLOCK :] if len(self.plain) % BLOCK else b""
        self.plain.extend(bytes(size - len(self.plain)))
        hole_start = last + bool(tail)
        self.holes = (min(self.holes[0], hole_start) if self.holes[1] else hole_start, GEOMETRY.block_count(size))
        if self.holes[0] >= self.holes[1]:
            self.holes = (0, 0)
        self.lower.extend(bytes(GEOMETRY.cipher_size(size) - len(self.lower)))
        if tail:
            start = GEOMETRY.block_offset(last)
            whole = self.codec.seal_one(last, self.plain[last * BLOCK : (last + 1) * BLOCK])
            self.lower[start : start + len(whole)] = whole

    def truncate(self, size: int) -> None:
        if size >= len(self.plain):
            if size > len(self.plain):
                self.extend(size)
            return
        last, keep = divmod(size, BLOCK)
        del self.plain[size:]
        del self.lower[GEOMETRY.block_offset(last) :]
        if keep:
            self.lower += self.codec.seal_one(last, self.plain[last * BLOCK :])

    def read(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, len(self.plain) - offset))
        first, end = GEOMETRY.blocks(offset, length)
        cipher = memoryview(self.lower)[GEOMETRY.block_offset(first) : GEOMETRY.block_offset(end)]
        out = bytearray(b"\xee" * ((end - first) * BLOCK))
        self.codec.open_into(first, cipher, out, 0, *self.holes)
        return bytes(out[offset - first * BLOCK :][:length])


offsets = st.integers(0, MAX_BLOCKS * BLOCK) | st.integers(0, MAX_BLOCKS).map(lambda index: index * BLOCK)
steps = st.lists(
    st.tuples(
        st.sampled_from(["write", "truncate", "read"]), offsets, st.integers(1, 2 * BLOCK + 1), st.integers(0, 99)
    ),
    max_size=8,
)


@given(suites, ids, steps)
def test_any_history_reads_like_a_bytearray(
    suite: Suite, file_id: bytes, history: list[tuple[str, int, int, int]]
) -> None:
    file = ModelFile(BlockCodec(suite, bytes(32), file_id, GEOMETRY), bytearray(HEADER_SIZE), bytearray())
    for operation, offset, length, seed in history:
        if operation == "write":
            file.write(offset, random.Random(seed).randbytes(length))
        elif operation == "truncate":
            file.truncate(offset)
        else:
            assert file.read(offset, length) == file.plain[offset : offset + length]
        assert GEOMETRY.plain_size(len(file.lower)) == len(file.plain)
    assert file.read(0, len(file.plain)) == file.plain


@given(suites, st.integers(1, 3 * BLOCK), st.data())
def test_any_flipped_bit_is_damage_of_its_block_alone(suite: Suite, length: int, data: st.DataObject) -> None:
    codec = BlockCodec(suite, bytes(32), b"f" * 16, GEOMETRY)
    plain = random.Random(length).randbytes(length)
    cipher = codec.seal(0, plain)
    bit = data.draw(st.integers(0, 8 * len(cipher) - 1))
    cipher[bit // 8] ^= 1 << bit % 8
    damaged = bit // 8 // GEOMETRY.cipher_block
    for index in range(GEOMETRY.block_count(length)):
        sealed = cipher[index * GEOMETRY.cipher_block : (index + 1) * GEOMETRY.cipher_block]
        if index != damaged:
            assert codec.open_one(index, sealed) == plain[index * BLOCK : (index + 1) * BLOCK]
            continue
        with pytest.raises(IntegrityError) as caught:
            codec.open_one(index, sealed)
        assert caught.value.block == index


@given(suites, st.integers(1, 2 * BLOCK), st.data())
def test_a_cut_block_is_damage(suite: Suite, length: int, data: st.DataObject) -> None:
    """However a lower file is cut, what is left is whole blocks, a torn rest, or damage: never other content."""
    codec = BlockCodec(suite, bytes(32), b"f" * 16, GEOMETRY)
    plain = random.Random(length).randbytes(length)
    cipher = codec.seal(0, plain)
    cut = data.draw(st.integers(0, len(cipher) - 1))
    whole, rest = divmod(cut, GEOMETRY.cipher_block)
    if rest <= OVERHEAD:
        assert codec.open(0, cipher[:cut]) == plain[: whole * BLOCK]
        return
    with pytest.raises(IntegrityError) as caught:
        codec.open(0, cipher[:cut])
    assert caught.value.block == whole
