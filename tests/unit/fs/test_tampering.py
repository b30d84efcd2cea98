"""Ciphertext that was changed, moved or swapped: an error on what is damaged, and everything else can be read."""

from __future__ import annotations

import os
import random
import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from envfs.errors import EnvfsError, FormatError, IntegrityError, NotFound
from envfs.format.geometry import HEADER_SIZE
from envfs.format.header import SLOT_OFFSETS, SLOT_SIZE
from tests.unit.fs.lab import Lab, Session, flip

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

B = 4096
CIPHER_BLOCK = B + 28
BLOCKS = 5
DATA = random.Random(7).randbytes(BLOCKS * B - 1000)
PLACE, SLOT_0, SLOT_1 = 0, *SLOT_OFFSETS
# Offsets within a slot: magic, version, suite, block size, sequence, file id, bound, sealed, holes, flags, lengths,
# reserved, blob (first, middle), padding, MAC.
SLOT_FIELDS = [0, 4, 6, 7, 8, 15, 16, 31, 32, 39, 40, 48, 56, 64, 66, 68, 70, 72, 90, 150, 187, 200, 415, 416, 447]


@pytest.fixture
def world(lab: Lab) -> Session:
    """Files in two directories, all of the same length, each with content of its own."""
    fs = lab.mount()
    fs.mkdir(b"d")
    for name in OTHERS:
        fs.write(name, content_of(name))
    fs.write(b"f", DATA)
    fs.write(b"f", DATA[:1])  # so that both slots are in use
    return fs


OTHERS = [b"other", b"d/f", b"d/g"]


def content_of(name: bytes) -> bytes:
    return random.Random(name.hex()).randbytes(len(DATA))


def others_are_fine(fs: Session, *but: bytes) -> None:
    for name in {*OTHERS} - {*but}:
        assert fs.read(name) == content_of(name)


def tampered(lab: Lab, fs: Session, change: Callable[[Path], None], name: bytes = b"f") -> Session:
    """The volume mounted anew, after `change` was done to the lower file."""
    lower = fs.lower(name)
    lab.unmount()
    change(lower)
    return lab.mount()


def refused(fs: Session, name: bytes = b"f", *, denied: bool = False) -> None:
    """It cannot be opened, by nobody and for nothing; it can be looked at and removed."""
    for write in (False, True):
        with pytest.raises(EnvfsError) as error, fs.opened(name, write=write):
            pass
        # A blob that names no key is what is left of one that was deleted.
        assert isinstance(error.value, NotFound if denied else (IntegrityError, FormatError))
    with pytest.raises(EnvfsError):
        fs.truncate(name, 0)
    assert fs.stat(name).st_size >= 0
    fs.unlink(name)
    assert not fs.exists(name)


def damaged_blocks(fs: Session, *bad: int, name: bytes = b"f", expected: bytes = DATA) -> None:
    """Exactly these blocks give errors, alone and in the middle of a longer read."""
    with fs.opened(name) as content:
        for index in range((len(expected) + B - 1) // B):
            start = index * B
            if index in bad:
                with pytest.raises(IntegrityError) as error:
                    content.read(start, B)
                assert error.value.block == index
                with pytest.raises(IntegrityError):
                    content.read_apart(start, B)
                with pytest.raises(IntegrityError):
                    content.read(max(0, start - 10), 20)
            else:
                assert bytes(content.read(start, B)) == expected[start : start + B]
        if bad:
            with pytest.raises(IntegrityError) as error:
                content.read(0, len(expected))
            assert error.value.block == min(bad)
        else:
            assert bytes(content.read(0, len(expected))) == expected


# The header area


@pytest.mark.parametrize("offset", [0, 3, 4, 6, 8, 20, 24, 55])
def test_a_changed_place(lab: Lab, world: Session, offset: int) -> None:
    fs = tampered(lab, world, lambda lower: flip(lower, PLACE + offset))
    refused(fs)
    others_are_fine(fs)


@pytest.mark.parametrize("offset", SLOT_FIELDS)
@pytest.mark.parametrize("slot", [SLOT_0, SLOT_1])
def test_one_changed_slot_leaves_the_other(lab: Lab, world: Session, slot: int, offset: int) -> None:
    """As a header write that was torn: unless it says that the slots belong to two files, the other one counts."""
    fs = tampered(lab, world, lambda lower: flip(lower, slot + offset))
    if 16 <= offset < 32:
        refused(fs)
    else:
        assert fs.read(b"f") == DATA
        fs.write(b"f", b"!", 100)
        assert lab.mount().read(b"f") == DATA[:100] + b"!" + DATA[101:]
    others_are_fine(lab.mount())


@pytest.mark.parametrize("offset", SLOT_FIELDS)
def test_the_same_change_in_both_slots(lab: Lab, world: Session, offset: int) -> None:
    def change(lower: Path) -> None:
        for slot in SLOT_OFFSETS:
            flip(lower, slot + offset)

    fs = tampered(lab, world, change)
    refused(fs, denied=72 + 4 <= offset < 72 + 36)  # the ids of key and backing key
    others_are_fine(fs)


@pytest.mark.parametrize("start", [0, SLOT_0, SLOT_1])
def test_a_zeroed_part_of_the_header_area(lab: Lab, world: Session, start: int) -> None:
    def change(lower: Path) -> None:
        with open(lower, "r+b") as file:
            file.seek(start)
            file.write(bytes(128 if start == 0 else SLOT_SIZE))

    fs = tampered(lab, world, change)
    if start:
        assert fs.read(b"f") == DATA  # the other slot
    else:
        refused(fs)


def test_blocks_without_a_header(lab: Lab, world: Session) -> None:
    def change(lower: Path) -> None:
        with open(lower, "r+b") as file:
            file.write(bytes(HEADER_SIZE))

    fs = tampered(lab, world, change)
    refused(fs)
    others_are_fine(fs)


def test_slots_of_another_file(lab: Lab, world: Session) -> None:
    other = world.lower(b"other").read_bytes()[SLOT_0:HEADER_SIZE]

    def change(lower: Path) -> None:
        with open(lower, "r+b") as file:
            file.seek(SLOT_0)
            file.write(other)

    fs = tampered(lab, world, change)
    refused(fs)
    others_are_fine(fs)


def test_the_whole_header_area_of_another_file(lab: Lab, world: Session) -> None:
    other = world.lower(b"other").read_bytes()[:HEADER_SIZE]

    def change(lower: Path) -> None:
        with open(lower, "r+b") as file:
            file.write(other)

    fs = tampered(lab, world, change)
    refused(fs)
    others_are_fine(fs)


# Blocks


@pytest.mark.parametrize("index", range(BLOCKS))
@pytest.mark.parametrize("offset", [0, 11, 12, 2000, -17, -16, -1])
def test_a_changed_byte_of_a_block(lab: Lab, world: Session, index: int, offset: int) -> None:
    start = HEADER_SIZE + index * CIPHER_BLOCK
    end = min(start + CIPHER_BLOCK, lab.geometry.cipher_size(len(DATA)))
    fs = tampered(lab, world, lambda lower: flip(lower, (start if offset >= 0 else end) + offset))
    damaged_blocks(fs, index)
    others_are_fine(fs)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 3), (0, 3)])
def test_swapped_blocks(lab: Lab, world: Session, first: int, second: int) -> None:
    def change(lower: Path) -> None:
        raw = bytearray(lower.read_bytes())
        one = slice(HEADER_SIZE + first * CIPHER_BLOCK, HEADER_SIZE + (first + 1) * CIPHER_BLOCK)
        other = slice(HEADER_SIZE + second * CIPHER_BLOCK, HEADER_SIZE + (second + 1) * CIPHER_BLOCK)
        raw[one], raw[other] = raw[other], raw[one]
        lower.write_bytes(raw)

    fs = tampered(lab, world, change)
    damaged_blocks(fs, first, second)


@pytest.mark.parametrize("index", [0, 2, BLOCKS - 1])
def test_a_zeroed_block(lab: Lab, world: Session, index: int) -> None:
    def change(lower: Path) -> None:
        raw = bytearray(lower.read_bytes())
        start = HEADER_SIZE + index * CIPHER_BLOCK
        raw[start : start + CIPHER_BLOCK] = bytes(len(raw[start : start + CIPHER_BLOCK]))
        lower.write_bytes(raw)

    fs = tampered(lab, world, change)
    damaged_blocks(fs, index)


def test_a_zeroed_block_outside_the_hole_range_of_a_sparse_file(lab: Lab, world: Session) -> None:
    world.write(b"f", b"end", 9 * B)
    expected = DATA + bytes(9 * B - len(DATA)) + b"end"

    def change(lower: Path) -> None:
        with open(lower, "r+b") as file:
            for index in (1, 9):
                file.seek(HEADER_SIZE + index * CIPHER_BLOCK)
                file.write(bytes(31 if index == 9 else CIPHER_BLOCK))

    fs = tampered(lab, world, change)
    damaged_blocks(fs, 1, 9, expected=expected)


def test_a_hole_that_is_filled_with_something(lab: Lab, world: Session) -> None:
    world.write(b"f", b"end", 9 * B)
    expected = DATA + bytes(9 * B - len(DATA)) + b"end"
    fs = tampered(lab, world, lambda lower: flip(lower, HEADER_SIZE + 7 * CIPHER_BLOCK + 5))
    damaged_blocks(fs, 7, expected=expected)


def test_a_block_of_another_file(lab: Lab, world: Session) -> None:
    start = HEADER_SIZE + 2 * CIPHER_BLOCK
    block = world.lower(b"other").read_bytes()[start : start + CIPHER_BLOCK]

    def change(lower: Path) -> None:
        with open(lower, "r+b") as file:
            file.seek(start)
            file.write(block)

    fs = tampered(lab, world, change)
    damaged_blocks(fs, 2)
    others_are_fine(fs)


def test_an_older_block_of_the_same_file_is_the_one_thing_that_is_not_noticed(lab: Lab, world: Session) -> None:
    """Rolling back is out of reach of a format without a tree of versions; THREAT_MODEL.md says so."""
    start = HEADER_SIZE + 2 * CIPHER_BLOCK
    old = world.lower(b"f").read_bytes()[start : start + CIPHER_BLOCK]
    world.write(b"f", b"new" * 100, 2 * B)

    def change(lower: Path) -> None:
        with open(lower, "r+b") as file:
            file.seek(start)
            file.write(old)

    fs = tampered(lab, world, change)
    damaged_blocks(fs)


# Length


@pytest.mark.parametrize("left", range(BLOCKS))
def test_a_file_cut_at_the_edge_of_a_block(lab: Lab, world: Session, left: int) -> None:
    fs = tampered(lab, world, lambda lower: os.truncate(lower, HEADER_SIZE + left * CIPHER_BLOCK))
    refused(fs)
    others_are_fine(fs)


@pytest.mark.parametrize("more", [1, 28, 29, 3000])
def test_a_file_cut_in_the_middle_of_a_block(lab: Lab, world: Session, more: int) -> None:
    fs = tampered(lab, world, lambda lower: os.truncate(lower, HEADER_SIZE + 3 * CIPHER_BLOCK + more))
    refused(fs)


def test_something_appended(lab: Lab, world: Session) -> None:
    """What stands behind the promised length is what a kill may leave; it must be a block all the same."""

    def change(lower: Path) -> None:
        with open(lower, "ab") as file:
            file.write(b"\xaa" * 3000)

    fs = tampered(lab, world, change)
    damaged_blocks(fs, 4, 5, expected=DATA + b"?" * 1972)


def test_zeros_appended(lab: Lab, world: Session) -> None:
    def change(lower: Path) -> None:
        os.truncate(lower, HEADER_SIZE + 7 * CIPHER_BLOCK)

    fs = tampered(lab, world, change)
    damaged_blocks(fs, 4, 5, 6, expected=DATA + b"?" * (7 * B - len(DATA)))


# Whole files


def test_two_files_swapped(lab: Lab, world: Session) -> None:
    other = world.lower(b"other")

    def change(lower: Path) -> None:
        aside = lab.lower / "aside"
        os.rename(lower, aside)
        os.rename(other, lower)
        os.rename(aside, other)

    fs = tampered(lab, world, change)
    refused(fs, b"f")
    refused(fs, b"other")
    others_are_fine(fs, b"other")


def test_a_file_moved_into_another_directory(lab: Lab, world: Session) -> None:
    """Its name does not decrypt there; under a name that does, its place is wrong."""
    target = world.lower(b"d/f")

    def change(lower: Path) -> None:
        shutil.copy2(lower, target.parent)
        os.rename(lower, target)

    fs = tampered(lab, world, change)
    assert fs.names(b"d") == [b"f", b"g"]
    refused(fs, b"d/f")
    assert not fs.exists(b"f")
    others_are_fine(fs, b"d/f")


def test_a_file_copied_over_another(lab: Lab, world: Session) -> None:
    other = world.lower(b"other")
    fs = tampered(lab, world, lambda lower: (shutil.copyfile(lower, other), None)[1])
    refused(fs, b"other")
    assert fs.read(b"f") == DATA
    others_are_fine(fs, b"other")


def test_a_file_renamed_within_its_directory(lab: Lab, world: Session) -> None:
    cipher = world.fs.tree.cipher_name(world.node(b""), b"renamed")
    fs = tampered(lab, world, lambda lower: os.rename(lower, lower.with_name(os.fsdecode(cipher.lower))))
    assert fs.names() == [b"d", b"other", b"renamed"]
    refused(fs, b"renamed")


def test_a_file_of_another_volume_of_the_same_kms(lab: Lab, world: Session, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    kept, lab.lower = lab.lower, foreign
    lab.make_volume(4096)
    fs = lab.mount()
    fs.write(b"f", b"foreign")
    raw = fs.lower(b"f").read_bytes()
    lab.unmount()
    lab.lower = kept
    fs = lab.mount()
    fs = tampered(lab, fs, lambda lower: (lower.write_bytes(raw), None)[1])
    refused(fs)
    others_are_fine(fs)


def test_something_that_is_no_file_in_place_of_one(lab: Lab, world: Session) -> None:
    for make in (os.mkdir, os.mkfifo, lambda path: os.symlink("/etc/passwd", path)):
        fs = lab.mount()
        if not fs.exists(b"f"):
            fs.write(b"f", DATA)
        lower = fs.lower(b"f")
        lab.unmount()
        os.unlink(lower)
        make(lower)
        fs = lab.mount()
        with pytest.raises((EnvfsError, OSError)), fs.opened(b"f"):
            pass
        others_are_fine(fs)
        if lower.is_dir() and not lower.is_symlink():
            fs.rmdir(b"f")
        else:
            fs.unlink(b"f")


def test_damage_while_a_file_is_open_is_found_by_the_next_read(lab: Lab, world: Session) -> None:
    with world.opened(b"f") as content:
        assert bytes(content.read(2 * B, B)) == DATA[2 * B : 3 * B]
        flip(world.lower(b"f"), HEADER_SIZE + 2 * CIPHER_BLOCK + 100)
        with pytest.raises(IntegrityError) as error:
            content.read(2 * B, B)
        assert error.value.block == 2
        assert bytes(content.read(3 * B, B)) == DATA[3 * B : 4 * B]


def test_an_older_state_that_is_put_back_while_mounted_is_noticed(
    lab: Lab, world: Session, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the same size, with an older header: neither size nor file id say so."""
    lower = world.lower(b"f")
    old = lower.read_bytes()
    world.write(b"f", b"n" * len(DATA))
    lower.write_bytes(old)
    with pytest.raises(OSError, match="Stale"):
        world.read(b"f")
    assert "/f was changed in the lower directory while mounted" in caplog.text
    assert world.read(b"f") == DATA  # what is there is what is seen, and nothing of what was


def test_a_file_that_is_made_endless(lab: Lab, world: Session) -> None:
    fs = tampered(lab, world, lambda lower: os.truncate(lower, 1 << 42))
    assert fs.read(b"f", 0, len(DATA) - B) == DATA[: len(DATA) - B]
    with fs.opened(b"f") as content:
        for offset in (len(DATA) + B, 1 << 38, content.size - 5):
            with pytest.raises(IntegrityError):
                content.read(offset, B)
    others_are_fine(fs)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to make a device")
@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK, stat.S_IFIFO])
def test_a_device_or_socket_that_comes_between_the_look_and_the_open(lab: Lab, world: Session, kind: int) -> None:
    """The kernel has been told of a file, and somebody replaces it before it is opened."""
    lower = world.lower(b"f")
    node = world.node(b"f")
    os.unlink(lower)
    os.mknod(lower, kind | 0o666, os.makedev(1, 3) if kind != stat.S_IFSOCK else 0)
    for write in (False, True):
        with pytest.raises((EnvfsError, OSError)):
            world.fs.state.opener.open(node, world.caller, write=write)
    with pytest.raises((EnvfsError, OSError)), world.opened(b"f"):
        pass
    others_are_fine(world)


def test_two_directories_exchanged_while_mounted(lab: Lab, world: Session) -> None:
    world.mkdir(b"e")
    world.write(b"e/f", b"e's")
    one, other = world.lower(b"d"), world.lower(b"e")
    for fs in (world, lab.mount()):
        middle = one.with_name("envfs.middle")
        os.rename(one, middle)
        os.rename(other, one)
        os.rename(middle, other)
        for path in (b"d/f", b"e/f"):
            with pytest.raises((EnvfsError, OSError)):
                fs.read(path)
        os.rename(one, middle)
        os.rename(other, one)
        os.rename(middle, other)
