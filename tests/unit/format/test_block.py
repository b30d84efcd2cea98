from __future__ import annotations

import os

import pytest

from envfs.crypto.aead import Suite
from envfs.errors import FormatError, IntegrityError
from envfs.format.block import BlockCodec
from envfs.format.geometry import Geometry

GEOMETRY = Geometry(4096)
BLOCK, SEALED = GEOMETRY.block_size, GEOMETRY.cipher_block
KEY, FILE_ID = bytes(range(32)), b"f" * 16


def codec(suite: Suite = Suite.AES_256_GCM) -> BlockCodec:
    return BlockCodec(suite, KEY, FILE_ID, GEOMETRY)


def content(length: int) -> bytes:
    return bytes(index * 7 & 0xFF for index in range(length))


@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize("length", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 5])
def test_round_trip(suite: Suite, length: int) -> None:
    plain = content(length)
    cipher = codec(suite).seal(3, plain)
    assert len(cipher) == GEOMETRY.cipher_size(length) - 1024
    assert codec(suite).open(3, cipher) == plain


def test_every_block_gets_a_nonce_of_its_own_and_a_new_one_each_time() -> None:
    plain = bytes(8 * BLOCK)
    sealed = codec().seal(0, plain) + codec().seal(0, plain)
    sealed += b"".join(codec().seal_one(0, plain[:BLOCK]) for _ in range(8))
    nonces = {bytes(sealed[start : start + 12]) for start in range(0, len(sealed), SEALED)}
    assert len(nonces) == 24


def test_nonces_come_from_the_random_source_whole() -> None:
    asked = []

    def random(length: int) -> bytes:
        asked.append(length)
        return bytes(range(length))

    sealed = BlockCodec(Suite.AES_256_GCM, KEY, FILE_ID, GEOMETRY, random).seal(0, content(2 * BLOCK + 1))
    assert asked == [36]
    assert [bytes(sealed[start : start + 12]) for start in (0, SEALED, 2 * SEALED)] == [
        bytes(range(first, first + 12)) for first in (0, 12, 24)
    ]


def test_one_block_is_the_same_as_many() -> None:
    blocks = codec()
    plain = content(2 * BLOCK + 100)
    cipher = blocks.seal(5, plain)
    assert blocks.open_one(5, cipher[:SEALED]) == plain[:BLOCK]
    assert blocks.open_one(7, cipher[2 * SEALED :]) == plain[2 * BLOCK :]
    again = b"".join(blocks.seal_one(5 + index, plain[index * BLOCK : (index + 1) * BLOCK]) for index in range(3))
    assert blocks.open(5, again) == plain


@pytest.mark.parametrize("length", [0, 28, SEALED + 1])
def test_what_cannot_be_one_block_is_refused(length: int) -> None:
    with pytest.raises(FormatError):
        codec().open_one(0, bytes(length))


@pytest.mark.parametrize("length", [0, BLOCK + 1])
def test_no_more_and_no_less_than_a_block_is_sealed_as_one(length: int) -> None:
    with pytest.raises(ValueError, match="a block of"):
        codec().seal_one(0, bytes(length))


def test_sealing_into_a_longer_buffer_fills_its_beginning() -> None:
    out = bytearray(b"\xee" * (2 * SEALED))
    assert codec().seal(0, b"short", out) is out
    assert codec().open(0, out[:33]) == b"short"
    assert out[33:] == b"\xee" * (2 * SEALED - 33)


def test_opening_into_a_buffer_leaves_the_rest_alone() -> None:
    plain = content(BLOCK + 10)
    cipher = codec().seal(0, plain)
    out = bytearray(b"\xee" * (len(plain) + 20))
    assert codec().open_into(0, cipher, out, 8) == len(plain)
    assert out == b"\xee" * 8 + plain + b"\xee" * 12
    codec().open_into(0, cipher, memoryview(out)[4:], 0)
    assert out[4 : 4 + len(plain)] == plain


def test_outputs_that_are_too_short_are_refused() -> None:
    cipher = codec().seal(0, b"four")
    with pytest.raises(ValueError, match="output"):
        codec().open_into(0, cipher, bytearray(5), 2)
    with pytest.raises(ValueError, match="output"):
        codec().seal(0, b"four", bytearray(31))


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_every_buffer_is_sealed_and_opened(wrap: type[bytes | bytearray | memoryview]) -> None:
    plain = content(BLOCK + 1)
    assert codec().open(0, wrap(codec().seal(0, wrap(plain)))) == plain


@pytest.mark.parametrize("rest", [1, 12, 28])
def test_a_torn_rest_holds_nothing(rest: int) -> None:
    cipher = codec().seal(0, content(BLOCK))
    assert codec().open(0, cipher + os.urandom(rest)) == content(BLOCK)
    assert codec().open(0, bytes(rest)) == b""


@pytest.mark.parametrize("suite", list(Suite))
def test_damage_names_the_block_and_gives_what_is_before_it(suite: Suite) -> None:
    plain = content(3 * BLOCK)
    cipher = codec(suite).seal(10, plain)
    cipher[SEALED + 500] ^= 1
    out = bytearray(b"\xee" * (3 * BLOCK))
    with pytest.raises(IntegrityError) as caught:
        codec(suite).open_into(10, cipher, out)
    assert caught.value.block == 11
    assert out[:BLOCK] == plain[:BLOCK]
    assert out[BLOCK : 2 * BLOCK] == bytes(BLOCK), "nothing that is not authentic may stay"


def test_a_block_belongs_to_its_index_file_and_key() -> None:
    cipher = codec().seal(1, b"content")
    for other, index in (
        (codec(), 0),
        (BlockCodec(Suite.AES_256_GCM, KEY, b"g" * 16, GEOMETRY), 1),
        (BlockCodec(Suite.AES_256_GCM, bytes(32), FILE_ID, GEOMETRY), 1),
        (codec(Suite.AES_256_GCM_SIV), 1),
    ):
        with pytest.raises(IntegrityError):
            other.open(index, cipher)
        with pytest.raises(IntegrityError):
            other.open_one(index, cipher)


def test_holes_are_zeros_whatever_stood_in_the_buffer() -> None:
    cipher = bytes(2 * SEALED) + bytes(codec().seal(4, b"end"))
    out = bytearray(b"\xee" * (2 * BLOCK + 3))
    codec().open_into(2, cipher, out, 0, 2, 4)
    assert out == bytes(2 * BLOCK) + b"end"


@pytest.mark.parametrize(("holes", "damaged"), [((0, 0), 2), ((0, 2), 2), ((3, 9), 2), ((2, 3), 3), ((0, 4), 4)])
def test_zeros_outside_the_hole_range_are_damage(holes: tuple[int, int], damaged: int) -> None:
    with pytest.raises(IntegrityError) as caught:
        codec().open(2, bytes(3 * SEALED), *holes)
    assert caught.value.block == damaged


def test_a_hole_of_one_byte() -> None:
    assert codec().open(0, bytes(29), 0, 1) == b"\0"
    assert codec().open_one(0, bytes(29), 0, 1) == b"\0"


def test_a_hole_is_zero_to_its_last_byte() -> None:
    for offset in (11, 12, SEALED - 1):
        almost = bytearray(SEALED)
        almost[offset] = 1
        with pytest.raises(IntegrityError):
            codec().open(0, almost, 0, 1)


def test_zeros_that_were_written_are_sealed_like_all_else() -> None:
    assert any(codec().seal(0, bytes(BLOCK)))


def test_a_file_id_of_another_size_is_refused() -> None:
    with pytest.raises(FormatError):
        BlockCodec(Suite.AES_256_GCM, KEY, b"short", GEOMETRY)
