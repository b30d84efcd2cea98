"""The content of a file: what is written is read, and what the lower file then holds."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from envfs.crypto.aead import Suite
from envfs.errors import IntegrityError
from envfs.format import block
from envfs.format.geometry import HEADER_SIZE
from envfs.fs.attributes import Change
from envfs.fs.content import Content
from tests.unit.fs.lab import Lab, Session, flip, read_all, slots_of

B = 4096
SIZES = [1, 27, 28, 29, B - 1, B, B + 1, 2 * B - 1, 2 * B, 3 * B + 5]


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


@pytest.mark.parametrize("size", SIZES)
def test_what_was_written_is_read_after_a_remount(lab: Lab, size: int) -> None:
    data = noise(size)
    lab.mount().write(b"a", data)
    fs = lab.mount()
    assert fs.read(b"a") == data
    assert fs.size(b"a") == size
    assert fs.stat(b"a").st_size == lab.geometry.cipher_size(size)


@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize("block_size", [4096, 16384, 65536])
def test_every_suite_and_block_size(memory: Path, suite: Suite, block_size: int) -> None:
    lab = Lab(memory, suite=suite, block_size=block_size)
    try:
        data = noise(3 * block_size + 7)
        lab.mount().write(b"a", data)
        fs = lab.mount()
        assert fs.read(b"a") == data
        slot = slots_of(fs.lower(b"a"))[0]
        assert (slot.suite, 1 << slot.block_log2) == (suite, block_size)
    finally:
        lab.close()


@pytest.mark.parametrize("offset", [0, 1, B - 1, B, B + 1, 2 * B - 3])
@pytest.mark.parametrize("length", [1, 5, B, 2 * B + 9])
def test_overwriting_a_part(lab: Lab, offset: int, length: int) -> None:
    fs = lab.mount()
    model = bytearray(noise(3 * B + 100))
    fs.write(b"a", bytes(model))
    patch = noise(length, 2)
    fs.write(b"a", patch, offset)
    model[offset : offset + length] = patch
    assert fs.read(b"a") == model
    assert lab.mount().read(b"a") == model


@pytest.mark.parametrize("offset", [0, 1, B - 1, B, 3 * B - 1, 3 * B + 99, 3 * B + 100, 3 * B + 101, 1 << 40])
@pytest.mark.parametrize("length", [0, 1, B, 4 * B])
def test_reading_a_range(lab: Lab, offset: int, length: int) -> None:
    data = noise(3 * B + 100)
    fs = lab.mount()
    fs.write(b"a", data)
    with fs.opened(b"a") as content:
        assert bytes(content.read(offset, length)) == data[offset : offset + length]
        if length and offset < len(data):
            assert content.read_apart(offset, length) == data[offset : offset + length]


def test_a_read_larger_than_the_buffers(lab: Lab) -> None:
    data = noise((1 << 20) + 5 * B)
    fs = lab.mount()
    fs.write(b"a", data)
    with fs.opened(b"a") as content:
        assert bytes(content.read(3, len(data))) == data[3:]


def test_nothing_of_the_plaintext_stands_in_the_lower_directory(lab: Lab) -> None:
    secret = b"correct horse battery staple"
    fs = lab.mount()
    fs.write(secret, secret * 200)
    fs.symlink(b"link", secret)
    fs.fs.xattrs.set(fs.node(secret), b"user.secret", secret)
    lab.unmount()
    for directory, _, names in os.walk(lab.lower):
        for name in names:
            path = Path(directory, name)
            assert secret.decode() not in name
            assert secret not in (os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes())
            for attribute in os.listxattr(path, follow_symlinks=False):
                assert b"secret" not in os.fsencode(attribute)
                assert secret not in os.getxattr(path, attribute, follow_symlinks=False)


def test_equal_content_is_sealed_differently_each_time(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"a", bytes(B))
    first = fs.lower(b"a").read_bytes()
    fs.write(b"a", bytes(B))
    assert fs.lower(b"a").read_bytes()[HEADER_SIZE:] != first[HEADER_SIZE:]


# Holes


@pytest.mark.parametrize("offset", [1, B - 1, B, B + 1, 5 * B + 5, 1 << 33])
@pytest.mark.parametrize("before", [0, 1, B, B + 100])
def test_a_gap_reads_as_zeros_and_takes_no_space(lab: Lab, before: int, offset: int) -> None:
    fs = lab.mount()
    start = noise(before)
    fs.write(b"a", start)
    fs.write(b"a", b"end", before + offset)
    fs = lab.mount()
    assert fs.size(b"a") == before + offset + 3
    assert fs.read(b"a", 0, before) == start
    tail = min(offset, 3 * B)
    assert fs.read(b"a", before + offset - tail) == bytes(tail) + b"end"
    assert fs.stat(b"a").st_blocks * 512 < (1 << 20)


def test_writing_into_a_hole(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"a", b"", 0)
    fs.truncate(b"a", 10 * B)
    fs.write(b"a", b"middle", 5 * B + 10)
    expected = bytes(5 * B + 10) + b"middle" + bytes(10 * B - 5 * B - 16)
    assert fs.read(b"a") == expected
    assert lab.mount().read(b"a") == expected


def test_the_hole_range_is_in_the_header_before_the_file_is_longer(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"a", noise(B))
    fs.truncate(b"a", 4 * B)
    slot = slots_of(fs.lower(b"a"))[0]
    assert (slot.hole_start, slot.hole_end) == (1, 4)
    fs.truncate(b"a", 6 * B + 1)
    assert (slots_of(fs.lower(b"a"))[0].hole_start, slots_of(fs.lower(b"a"))[0].hole_end) == (1, 7)


def test_truncating_to_nothing_empties_the_hole_range(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"a", b"x", 5 * B)
    fs.truncate(b"a", 0)
    slot = slots_of(fs.lower(b"a"))[0]
    assert (slot.hole_start, slot.hole_end, slot.length_bound) == (0, 0, 0)


def test_zeros_that_were_written_are_no_hole(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"a", bytes(2 * B))
    assert slots_of(fs.lower(b"a"))[0].hole_end == 0
    assert any(fs.lower(b"a").read_bytes()[HEADER_SIZE:])


# Truncating


@pytest.mark.parametrize("old", [1, B, B + 1, 3 * B + 100])
@pytest.mark.parametrize("new", [0, 1, B - 1, B, B + 1, 3 * B, 4 * B, 9 * B + 1])
def test_truncating_both_ways(lab: Lab, old: int, new: int) -> None:
    fs = lab.mount()
    data = noise(old)
    fs.write(b"a", data)
    fs.truncate(b"a", new)
    expected = data[:new] + bytes(max(0, new - old))
    assert fs.read(b"a") == expected
    fs = lab.mount()
    assert fs.read(b"a") == expected
    assert fs.stat(b"a").st_size == lab.geometry.cipher_size(new)


def test_what_was_cut_off_does_not_come_back(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"a", b"s" * (2 * B))
    fs.truncate(b"a", 10)
    fs.truncate(b"a", 2 * B)
    assert fs.read(b"a") == b"s" * 10 + bytes(2 * B - 10)


def test_a_size_beyond_the_format_is_refused(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"a", b"x")
    with pytest.raises(OSError, match="too large") as refused:
        fs.truncate(b"a", 1 << 63)
    assert refused.value.errno == errno.EFBIG
    with pytest.raises(OSError, match="too large") as refused:
        fs.write(b"a", b"y", 1 << 63)
    assert refused.value.errno == errno.EFBIG
    assert fs.read(b"a") == b"x"


def test_truncating_something_that_is_no_file_is_refused(lab: Lab) -> None:
    fs = lab.mount()
    fs.mkdir(b"d")
    with pytest.raises(OSError, match="Invalid") as refused:
        fs.change(b"d", Change(size=0))
    assert refused.value.errno == errno.EINVAL


# Headers


def test_a_file_that_was_only_created_has_a_header_after_its_close(fs: Session) -> None:
    with fs.created(b"a"):
        assert fs.lower(b"a").stat().st_size == 0
    assert fs.lower(b"a").stat().st_size == HEADER_SIZE
    assert fs.read(b"a") == b""


def test_a_file_without_a_header_is_empty_and_can_be_written(lab: Lab) -> None:
    """As a kill right after its creation leaves it."""
    fs = lab.mount()
    fs.write(b"a", b"x")
    for size in (0, 1, 100, HEADER_SIZE):
        lower = fs.lower(b"a")
        lab.unmount()
        lower.write_bytes(bytes(size))
        fs = lab.mount()
        assert fs.read(b"a") == b""
        assert fs.size(b"a") == 0
        fs.write(b"a", b"again")
        fs = lab.mount()
        assert fs.read(b"a") == b"again"


def test_a_writer_comes_to_an_empty_file_that_a_reader_has_open(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"a", b"x")
    lower = fs.lower(b"a")
    lab.unmount()
    lower.write_bytes(b"")
    fs = lab.mount()
    with fs.opened(b"a") as reading:
        assert read_all(reading) == b""
        with fs.opened(b"a", write=True) as writing:
            writing.write(0, b"now")
            assert read_all(reading) == b"now"
    assert lab.mount().read(b"a") == b"now"


def test_a_header_without_place_is_damage_even_in_an_empty_file(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"a", b"")
    lower = fs.lower(b"a")
    lab.unmount()
    flip(lower, 30)
    fs = lab.mount()
    with pytest.raises(IntegrityError):
        fs.read(b"a")


def test_every_header_write_goes_to_the_other_slot(fs: Session) -> None:
    fs.write(b"a", b"1")
    lower = fs.lower(b"a")
    seen = []
    for index in range(4):
        fs.write(b"a", b"more", index * 10)
        raw = lower.read_bytes()
        slots = slots_of(lower)
        seen.append(slots[0].sequence)
        assert len(slots) == 2
        assert slots[0].sequence == slots[1].sequence + 1
        assert (raw[128 + 8 : 128 + 16] > raw[576 + 8 : 576 + 16]) == (slots[0].sequence % 2 == 1)
    assert seen == sorted(set(seen))


def test_a_torn_header_write_leaves_the_one_before(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"a", b"first")
    fs.write(b"a", b"second", 100)
    lower = fs.lower(b"a")
    newest = slots_of(lower)[0].sequence
    lab.unmount()
    position = 128 if newest % 2 == 1 else 576
    for tear in (position + 300, position + 20):
        with open(lower, "r+b") as file:
            file.seek(tear)
            file.write(b"\xaa" * (position + 448 - tear))
        fs = lab.mount()
        assert fs.read(b"a") == b"first" + bytes(95) + b"second"
    fs.write(b"a", b"third", 50)
    assert lab.mount().read(b"a") == b"first" + bytes(45) + b"third" + bytes(45) + b"second"


def test_a_header_write_keeps_the_times(fs: Session) -> None:
    fs.write(b"a", b"x")
    with fs.opened(b"a", write=True) as content:
        fs.change(b"a", Change(atime_ns=1_000_000_001, mtime_ns=2_000_000_002))
        content.write_slot(length_bound=0)
        content.write_place(content.place)
        content.record_length()
    found = fs.stat(b"a")
    assert (found.st_atime_ns, found.st_mtime_ns) == (1_000_000_001, 2_000_000_002)


def test_the_first_header_keeps_the_times_too(lab: Lab) -> None:
    """tar sets the times of an empty file before it closes it."""
    fs = lab.mount()
    with fs.created(b"a"):
        fs.change(b"a", Change(atime_ns=1_000_000_001, mtime_ns=2_000_000_002))
    assert fs.stat(b"a").st_mtime_ns == 2_000_000_002
    assert lab.mount().stat(b"a").st_mtime_ns == 2_000_000_002


def age(fs: Session, path: bytes, mtime_ns: int) -> None:
    """As if the file had been changed then."""
    os.utime(fs.lower(path), ns=(mtime_ns, mtime_ns))


@pytest.mark.parametrize("writeback", [True, False])
def test_with_write_back_only_the_kernel_says_when_a_file_was_changed(lab: Lab, writeback: bool) -> None:
    """A write within the tick of the last attributes it tells nothing of; and what it writes, it writes later."""
    fs = lab.mount(writeback=writeback)
    fs.write(b"a", b"x" * 3 * B)
    changes: list[Callable[[Content], object]] = [
        lambda content: content.write(0, b"y" * B),
        lambda content: content.write(4 * B, b"y"),
        lambda content: content.truncate(B),
        lambda content: content.truncate(0),
    ]
    for change in changes:
        age(fs, b"a", 5_000_000_005)
        with fs.opened(b"a", write=True) as content:
            change(content)
        assert (fs.stat(b"a").st_mtime_ns == 5_000_000_005) == writeback
        with fs.opened(b"a", write=True) as content:
            change(content)
            fs.change(b"a", Change(mtime_ns=6_000_000_006))
            fs.change(b"a", Change(atime_ns=7))
            content.write(0, b"later")
        assert (fs.stat(b"a").st_mtime_ns == 6_000_000_006) == writeback


def test_an_open_that_changes_nothing_writes_nothing(fs: Session) -> None:
    fs.write(b"a", b"x" * 9000)
    before = fs.lower(b"a").read_bytes()
    with fs.opened(b"a", write=True) as content:
        read_all(content)
    assert fs.lower(b"a").read_bytes() == before


# The length bound


def bound(fs: Session, path: bytes = b"a") -> int:
    return slots_of(fs.lower(path))[0].length_bound


def test_the_bound_is_the_size_after_the_last_close(fs: Session) -> None:
    with fs.created(b"a") as content:
        content.write(0, noise(10_000))
        with fs.opened(b"a", write=True):
            pass
        assert bound(fs) == 0  # one handle is still open
    assert bound(fs) == 10_000


def test_the_bound_is_raised_by_what_was_synced_alone(fs: Session) -> None:
    with fs.created(b"a") as content:
        content.write(0, noise(3 * B))
        synced = content.size
        content.write(3 * B, noise(B))  # while fsync(2) waits for the disk
        content.record_length(synced)
        assert bound(fs) == 3 * B
        content.truncate(B)
        assert bound(fs) == B
        content.record_length(synced)  # a sync that ends only now
        assert bound(fs) == B
    assert bound(fs) == B


def test_a_slow_sync_does_not_lower_the_bound(fs: Session) -> None:
    with fs.created(b"a") as content:
        content.write(0, noise(3 * B))
        content.record_length(3 * B)
        content.record_length(10)
        assert bound(fs) == 3 * B


def test_the_bound_is_lowered_before_the_file_is_cut(fs: Session) -> None:
    fs.write(b"a", noise(5 * B))
    with fs.opened(b"a", write=True) as content:
        content.truncate(B + 1)
        assert bound(fs) == B + 1


@pytest.mark.parametrize("left", [0, 1, B - 1, B, 2 * B, 3 * B - 1])
def test_a_file_below_its_bound_is_damaged(lab: Lab, left: int) -> None:
    fs = lab.mount()
    fs.write(b"a", noise(3 * B))
    lower = fs.lower(b"a")
    lab.unmount()
    os.truncate(lower, lab.geometry.cipher_size(left) if left else HEADER_SIZE)
    fs = lab.mount()
    for write in (False, True):
        with pytest.raises(IntegrityError, match="cut"), fs.opened(b"a", write=write):
            pass


def test_a_file_above_its_bound_is_as_long_as_it_is(lab: Lab) -> None:
    """A kill after a write and before the close: nothing is lost."""
    fs = lab.mount()
    fs.write(b"a", noise(B))
    with fs.opened(b"a", write=True) as content:
        content.write(B, noise(B, 2))
        lower = fs.lower(b"a")
        kept = lower.read_bytes()
    lab.unmount()
    lower.write_bytes(kept)
    fs = lab.mount()
    assert bound(fs) == B
    assert fs.read(b"a") == noise(B) + noise(B, 2)


# Counting sealed blocks


def test_sealed_blocks_are_counted(fs: Session) -> None:
    fs.write(b"a", noise(3 * B))
    assert slots_of(fs.lower(b"a"))[0].sealed_blocks == 3
    fs.write(b"a", b"x", 1)
    assert slots_of(fs.lower(b"a"))[0].sealed_blocks == 4


@pytest.fixture
def short_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight blocks under each content key, not two thousand millions."""
    monkeypatch.setattr(block, "GENERATION_LOG2", 3)


def test_after_so_many_blocks_a_file_gets_a_new_content_key(lab: Lab, short_generations: None) -> None:
    fs = lab.mount()
    fs.write(b"a", b"0" * 7 * B)
    assert slots_of(fs.lower(b"a"))[0].sealed_blocks == 7
    with fs.opened(b"a", write=True) as content:
        assert content.codec.generation == 0
        content.write(2 * B, b"1" * 3 * B)
        assert content.codec.generation == 1
        # Before anything is sealed under the new key, both slots say that there is one.
        assert [slot.sealed_blocks >> 3 for slot in slots_of(fs.lower(b"a"))] == [1, 1]
        assert read_all(content) == b"0" * 2 * B + b"1" * 3 * B + b"0" * 2 * B
        for number in range(30):
            content.write(B - 5, b"%d" % (number % 10) * 10)
    expected = b"0" * (B - 5) + b"9" * 10 + b"0" * (B - 5) + b"1" * 3 * B + b"0" * 2 * B
    assert fs.read(b"a") == expected
    assert lab.mount().read(b"a") == expected
    with lab.mount().opened(b"a", write=True) as content:
        assert content.codec.generation == content.sealed >> 3 > 5
        content.truncate(B + 7)
        assert read_all(content) == expected[: B + 7]


def test_a_damaged_block_is_damaged_under_every_key(lab: Lab, short_generations: None) -> None:
    fs = lab.mount()
    fs.write(b"a", b"0" * 4 * B)
    fs.write(b"a", b"1" * 20 * B, 4 * B)
    flip(fs.lower(b"a"), HEADER_SIZE + fs.lab.geometry.cipher_block + 40)
    fs = lab.mount()
    with pytest.raises(IntegrityError, match="block 1 "):
        fs.read(b"a")
    assert fs.read(b"a", 2 * B) == b"0" * 2 * B + b"1" * 20 * B


def test_the_last_content_key_is_not_used_beyond_its_limit(
    lab: Lab, short_generations: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("envfs.fs.content.MAX_GENERATIONS", 2)
    fs = lab.mount()
    with fs.created(b"a") as content:
        content.write(0, b"0" * 15 * B)
        with pytest.raises(OSError, match="too large"):
            content.write(0, b"1" * B)
        assert read_all(content) == b"0" * 15 * B
    assert lab.mount().read(b"a") == b"0" * 15 * B


# Damage found while writing


def test_a_partial_write_to_a_damaged_block_is_refused_and_a_whole_one_mends_it(lab: Lab) -> None:
    fs = lab.mount()
    data = noise(3 * B)
    fs.write(b"a", data)
    flip(fs.lower(b"a"), HEADER_SIZE + lab.geometry.cipher_block + 100)
    with pytest.raises(IntegrityError) as refused:
        fs.write(b"a", b"x", B + 5)
    assert refused.value.block == 1
    fs.write(b"a", b"y" * B, B)
    assert fs.read(b"a") == data[:B] + b"y" * B + data[2 * B :]


def test_a_lower_file_that_shrinks_while_it_is_open_is_damage(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"a", noise(3 * B))
    with fs.opened(b"a", write=True) as content:
        os.truncate(fs.lower(b"a"), lab.geometry.block_offset(2) + 10)
        assert bytes(content.read(0, 2 * B)) == noise(3 * B)[: 2 * B]
        for attempt in (
            lambda: content.read(2 * B, B),
            lambda: content.read_apart(2 * B, B),
            lambda: content.write(2 * B + 1, b"x"),
        ):
            with pytest.raises(IntegrityError, match="ends at byte"):
                attempt()
        content.writable = False  # or the close would promise what is not there
