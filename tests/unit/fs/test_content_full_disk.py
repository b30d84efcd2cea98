"""A lower filesystem that is full: ENOSPC, and everything that was in the files before can still be read."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from envfs.fs import nodes
from envfs.fs.lower import Kind
from tests.unit.fs.lab import Lab, Session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 4 << 20


@pytest.fixture(params=["memory", "disk"])
def small(
    request: pytest.FixtureRequest, tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lab]:
    """A volume on a tmpfs of 4 MiB, once taken for a disk, with a journal; its KMS is elsewhere."""
    if os.getuid() != 0:
        pytest.skip("needs root, to mount a small tmpfs")
    if request.param == "disk":
        monkeypatch.setattr("envfs.fs.lower.kind_of", lambda _fd: Kind.DISK)
        monkeypatch.setattr(nodes, "FRESH", 0.0)
    lower = tmp_path / "small"
    lower.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", lower], check=True, timeout=30)
    try:
        lab = Lab(memory, lower=lower)
        try:
            yield lab
        finally:
            lab.close()
    finally:
        subprocess.run(["umount", lower], check=True, timeout=30)


def fill(lab: Lab, *, leave: int) -> None:
    """Take all space but `leave` bytes, with a file that is no part of the volume."""
    free = os.statvfs(lab.lower)
    size = free.f_bavail * free.f_frsize - leave
    fd = os.open(lab.lower / "filler", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
    finally:
        os.close(fd)


def no_space(fs: Session, path: bytes, data: bytes, offset: int = 0) -> None:
    with pytest.raises(OSError, match="No space") as refused:
        fs.write(path, data, offset)
    assert refused.value.errno == errno.ENOSPC


CONTENT = bytes(range(256)) * 64  # four blocks


def started(lab: Lab) -> Session:
    """A mounted volume that has its undo file, which takes space of its own, and a file of four blocks."""
    fs = lab.mount()
    fs.write(b"a", CONTENT)
    fs.write(b"a", CONTENT[:1])
    return fs


def test_an_append_that_does_not_fit_leaves_the_file_as_it_was(small: Lab) -> None:
    fs = started(small)
    fill(small, leave=3 * 4096)
    no_space(fs, b"a", b"x" * 100_000, len(CONTENT))
    assert fs.read(b"a") == CONTENT
    assert small.mount().read(b"a") == CONTENT


def test_an_append_to_a_short_last_block_that_does_not_fit_leaves_it_readable(small: Lab) -> None:
    fs = started(small)
    fs.write(b"a", b"tail", len(CONTENT))
    fill(small, leave=3 * 4096)
    no_space(fs, b"a", b"x" * 100_000, len(CONTENT) + 4)
    assert fs.read(b"a") == CONTENT + b"tail"
    assert small.mount().read(b"a") == CONTENT + b"tail"


def test_overwriting_needs_no_space(small: Lab) -> None:
    fs = started(small)
    fill(small, leave=0)
    fs.write(b"a", b"new" * 1000, 4000)
    assert fs.read(b"a") == CONTENT[:4000] + b"new" * 1000 + CONTENT[7000:]


def test_overwriting_needs_no_space_either_where_the_disk_was_full_at_the_mount(small: Lab) -> None:
    """The record of a large write does not fit into what was kept for it: the write is made in pieces."""
    content = bytes(range(256)) * 2000
    small.mount().write(b"a", content)
    small.unmount()
    fill(small, leave=0)
    fs = small.mount()
    fs.write(b"a", b"n" * 400_000, 5000)
    expected = content[:5000] + b"n" * 400_000 + content[405_000:]
    assert fs.read(b"a") == expected
    no_space(fs, b"a", b"x" * 400_000, len(content))
    no_space(fs, b"a", b"x" * 400_000, len(content) - 200_000)
    assert fs.read(b"a")[: len(content) - 200_000] == expected[: len(content) - 200_000]
    assert small.mount().size(b"a") >= len(content)


@pytest.mark.parametrize("leave", [0, 4096, 2 * 4096, 3 * 4096, 5 * 4096])
def test_a_write_into_a_hole_that_does_not_fit_leaves_the_hole(small: Lab, leave: int) -> None:
    """Part of the pages of a block is taken, then there are no more: the block must not stay half sealed."""
    fs = started(small)
    fs.write(b"a", b"end", 200_000)
    expected = CONTENT + bytes(200_000 - len(CONTENT)) + b"end"
    fill(small, leave=leave)
    no_space(fs, b"a", b"x" * 60_000, 50_000)
    assert fs.read(b"a") == expected
    assert small.mount().read(b"a") == expected


def test_a_new_file_that_does_not_fit_is_empty(small: Lab) -> None:
    fs = started(small)
    fill(small, leave=3 * 4096)
    no_space(fs, b"new", b"x" * 100_000)
    assert fs.size(b"new") == 0
    small.mount()
    assert small.session is not None
    assert small.session.read(b"new") == b""
    assert small.session.read(b"a") == CONTENT


def test_a_failed_write_does_not_come_back_at_the_next_mount(small: Lab) -> None:
    """Its undo record must not be used on what the file became afterwards: killed then, nothing is put back."""
    fs = started(small)
    fill(small, leave=3 * 4096)
    no_space(fs, b"a", b"x" * 100_000, len(CONTENT))
    os.unlink(small.lower / "filler")
    fs.truncate(b"a", 5 * 4096)
    os.link(small.lower / "envfs.undo", small.lower / "kept")
    small.unmount()
    os.rename(small.lower / "kept", small.lower / "envfs.undo")  # as after a kill
    assert small.mount().read(b"a") == CONTENT + bytes(4096)


def test_no_directory_is_left_half_made(small: Lab) -> None:
    fs = started(small)
    before = set(os.listdir(small.lower))
    fill(small, leave=0)
    with pytest.raises(OSError, match="No space"):
        fs.mkdir(b"d")
    assert set(os.listdir(small.lower)) == before | {"filler"}
    os.unlink(small.lower / "filler")
    fs.mkdir(b"d")
    assert fs.names(b"d") == []


def test_space_that_comes_back_can_be_used(small: Lab) -> None:
    fs = started(small)
    fill(small, leave=0)
    no_space(fs, b"a", b"x" * 50_000, len(CONTENT))
    os.unlink(small.lower / "filler")
    fs.write(b"a", b"x" * 50_000, len(CONTENT))
    assert small.mount().read(b"a") == CONTENT + b"x" * 50_000


def test_a_journal_for_which_there_was_never_room_is_done_without(small: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """New content counts for more than what a power failure may do to the old; and what is free stays free."""
    small.mount().write(b"a", CONTENT)
    small.unmount()
    journal = small.lower / "envfs.journal"
    journal.unlink(missing_ok=True)
    fill(small, leave=8192)
    fs = small.mount()
    fs.write(b"a", CONTENT[::-1])
    fs.write(b"a", b"x" * 10)
    assert fs.read(b"a") == b"x" * 10 + CONTENT[::-1][10:]
    is_disk = not fs.fs.state.never_blocks
    assert caplog.text.count("no room for the journal") == is_disk
    assert (journal.stat().st_size if is_disk else 0) <= 8192


def test_a_record_that_finds_room_is_kept_on_a_full_disk(small: Lab) -> None:
    fs = small.mount()
    is_disk = not fs.fs.state.never_blocks  # in memory there is no journal
    content = bytes(range(256)) * 2000
    fs.write(b"a", content)
    fs.write(b"a", b"n")
    small.unmount()
    fill(small, leave=0)
    fs = small.mount()
    fs.write(b"a", b"m" * 300_000)
    journal = small.lower / "envfs.journal"
    assert (journal.stat().st_size if is_disk else journal.exists()) == (128 << 10 if is_disk else False)
    assert fs.read(b"a") == b"m" * 300_000 + content[300_000:]
