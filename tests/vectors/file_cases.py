"""Vectors of sections 2 and 2.2: sizes and blocks."""

from __future__ import annotations

from envfs.crypto.aead import Suite
from envfs.format.block import BlockCodec
from envfs.format.geometry import Geometry
from envfs.format.header import content_key
from tests.vectors.material import (
    INTEGRITY_ERROR,
    Bytes,
    Given,
    VectorFile,
    fails,
    fixed,
    flip,
    gives,
    identifier,
    repeated,
)

DEK = fixed("DEK")
FILE_ID = identifier("file id")
BLOCK = 4096
SEALED_BLOCK = BLOCK + 28


def _sizes() -> VectorFile:
    """Worked out by hand, so that the arithmetic is not its own witness."""
    by_hand = {
        4096: [(0, 1024), (1, 1053), (4095, 5147), (4096, 5148), (4097, 5177), (8192, 9272), (1_048_576, 1_056_768)],
        16384: [(0, 1024), (1, 1053), (16384, 17436), (16385, 17465), (1_048_576, 1_051_392)],
        65536: [(0, 1024), (1, 1053), (65536, 66588), (65537, 66617), (2**40, 2**40 + 1024 + 28 * 2**24)],
    }
    cases = []
    for block_size, pairs in by_hand.items():
        for plain, cipher in pairs:
            given = {"block_size": block_size, "cipher_size": cipher}
            cases.append(gives(f"{block_size}: {plain} plain bytes", given, {"plain_size": plain, "is_exact": True}))
        torn = [(0, 0), (1023, 0), (1025, 0), (1052, 0), (1024 + block_size + 28 + 1, block_size)]
        torn += [(1024 + block_size + 28 + 28, block_size), (1024 + 2 * (block_size + 28) + 17, 2 * block_size)]
        for cipher, plain in torn:
            given = {"block_size": block_size, "cipher_size": cipher}
            name = f"{block_size}: lower file of {cipher} bytes"
            cases.append(gives(name, given, {"plain_size": plain, "is_exact": False}))
    return VectorFile("sizes", "2", "plain size of a lower file; is_exact: an encoder makes this size", cases)


def _codec(suite: Suite, nonce_label: str, dek: bytes = DEK) -> BlockCodec:
    """Its nonces are fixed: a vector has to come out the same every time, and encrypts nothing."""
    key = content_key(dek, FILE_ID, suite)
    return BlockCodec(suite, key, FILE_ID, Geometry(BLOCK), lambda length: fixed(nonce_label, length))


def _given(cipher: Bytes, suite: Suite = Suite.AES_256_GCM, first: int = 0, holes: tuple[int, int] = (0, 0)) -> Given:
    return {
        "dek": DEK.hex(),
        "suite": suite.label,
        "file_id": FILE_ID.hex(),
        "block_size": BLOCK,
        "first_index": first,
        "holes": list(holes),
        "cipher": cipher,
    }


def _blocks() -> VectorFile:
    short = b"The last block of a file may be short."
    cases = []
    for suite in Suite:
        for index in (0, 1, 2**40, 2**64 - 1):
            cipher = bytes(_codec(suite, f"{suite.label} {index}").seal(index, short)).hex()
            name = f"{suite.label}, block {index}"
            cases.append(gives(name, _given(cipher, suite, index), {"plain": short.hex()}))
    one_byte = bytes(_codec(Suite.AES_256_GCM, "one byte").seal(3, b"x"))
    cases.append(gives("one byte", _given(one_byte.hex(), first=3), {"plain": b"x".hex()}))
    full = bytes(_codec(Suite.AES_256_GCM, "two blocks").seal(7, b"a" * BLOCK + short))
    both = repeated((b"a", BLOCK), (short, 1))
    cases.append(gives("a full block and a short one", _given(full.hex(), first=7), {"plain": both}))
    cases.append(gives("torn rest of one byte", _given(one_byte.hex() + "55", first=3), {"plain": "78"}))
    cases[-1]["given"]["cipher"] = full[:SEALED_BLOCK].hex() + "55"
    cases[-1]["given"]["first_index"] = 7
    cases[-1]["gives"] = {"plain": repeated((b"a", BLOCK))}
    zeros = bytes(_codec(Suite.AES_256_GCM, "zeros").seal(0, bytes(40)))
    cases.append(gives("zeros that were written", _given(zeros.hex()), {"plain": repeated((b"\0", 40))}))
    cases += _holes(short)
    cases += _damage(short, full)
    return VectorFile("blocks", "2.2", "consecutive blocks; `block` is the first damaged one", cases)


def _holes(short: bytes) -> list[Given]:
    nothing = repeated((b"\0", SEALED_BLOCK))
    last = bytes(_codec(Suite.AES_256_GCM, "behind a hole").seal(2, short))
    two_and_last = repeated((b"\0", 2 * SEALED_BLOCK), (last, 1))
    plain_hole = repeated((b"\0", BLOCK))
    sealed_in_range = bytes(_codec(Suite.AES_256_GCM, "in the hole range").seal(1, short))
    return [
        gives("hole", _given(nothing, holes=(0, 1)), {"plain": plain_hole}),
        gives("short hole", _given(repeated((b"\0", 29)), first=9, holes=(4, 10)), {"plain": "00"}),
        gives(
            "content behind holes",
            _given(two_and_last, holes=(0, 2)),
            {"plain": repeated((b"\0", 2 * BLOCK), (short, 1))},
        ),
        gives(
            "content in the hole range", _given(sealed_in_range.hex(), first=1, holes=(0, 5)), {"plain": short.hex()}
        ),
        fails("zeros without a hole range", INTEGRITY_ERROR, _given(nothing), block=0),
        fails("zeros before the hole range", INTEGRITY_ERROR, _given(nothing, first=3, holes=(4, 9)), block=3),
        fails("zeros at the end of the hole range", INTEGRITY_ERROR, _given(nothing, first=9, holes=(4, 9)), block=9),
        fails(
            "zeros run out of the hole range",
            INTEGRITY_ERROR,
            _given(repeated((b"\0", 3 * SEALED_BLOCK)), first=2, holes=(0, 4)),
            block=4,
        ),
        fails(
            "almost a hole",
            INTEGRITY_ERROR,
            _given(repeated((b"\0", SEALED_BLOCK - 1), (b"\1", 1)), holes=(0, 1)),
            block=0,
        ),
        fails(
            "zero nonce alone",
            INTEGRITY_ERROR,
            _given(repeated((b"\0", 12), (b"\1", SEALED_BLOCK - 12)), holes=(0, 1)),
            block=0,
        ),
    ]


def _damage(short: bytes, full: bytes) -> list[Given]:
    cases = []
    for suite in Suite:
        good = bytes(_codec(suite, f"{suite.label} damage").seal(5, short))
        for name, offset in (("nonce", 0), ("ciphertext", 12), ("tag", -1)):
            given = _given(flip(good, offset).hex(), suite, 5)
            cases.append(fails(f"{suite.label}: {name} changed", INTEGRITY_ERROR, given, block=5))
        cases.append(fails(f"{suite.label}: moved", INTEGRITY_ERROR, _given(good.hex(), suite, 6), block=6))
        cases.append(fails(f"{suite.label}: cut", INTEGRITY_ERROR, _given(good[:-1].hex(), suite, 5), block=5))
    good = bytes(_codec(Suite.AES_256_GCM, "damage").seal(5, short))
    other_file = _given(good.hex(), first=5) | {"file_id": identifier("another file id").hex()}
    cases.append(fails("another file's", INTEGRITY_ERROR, other_file, block=5))
    foreign = bytes(_codec(Suite.AES_256_GCM, "foreign", fixed("another DEK")).seal(5, short))
    cases.append(fails("under another DEK", INTEGRITY_ERROR, _given(foreign.hex(), first=5), block=5))
    cases.append(fails("under another suite", INTEGRITY_ERROR, _given(good.hex(), Suite(3), 5), block=5))
    swapped = (full[SEALED_BLOCK:] + full[:SEALED_BLOCK]).hex()
    cases.append(fails("blocks swapped", INTEGRITY_ERROR, _given(swapped, first=7), block=7))
    second = _given(flip(full, SEALED_BLOCK + 12).hex(), first=7)
    cases.append(fails("second block damaged", INTEGRITY_ERROR, second, block=8))
    return cases


def vector_files() -> list[VectorFile]:
    return [_sizes(), _blocks()]
