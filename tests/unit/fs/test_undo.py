"""A daemon that ends in the middle of a write, and what the next mount finds.

The end is real: a child process writes a part of what it should and exits there, as a SIGKILL between two pages would
have it.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from envfs.format.undo import HEAD_OFFSET, PATH_MAX
from envfs.fs.undo import PIECE, UNDO_FILE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from envfs.fs.content import Content
    from tests.unit.fs.lab import Lab

B = 4096  # the lab's block size
PAGE = 4096


def die_in(lab: Lab, operation: Callable[[Content], object], pages: int) -> None:
    """Run an operation on the file `f` in a process that ends when its first write has come to `pages` pages."""
    child = os.fork()
    if child == 0:
        try:
            lab.session = None  # the parent's descriptors are not this process's to close in order
            lab.reopen_engine()
            session = lab.mount()
            with session.opened(b"f", write=True) as content:
                whole = os.pwrite

                def torn(fd: int, data: bytes, offset: int) -> int:
                    if fd != content.fd or offset < 1024:
                        return whole(fd, data, offset)
                    # Pages end where the file's do; the last one is never reached.
                    last_edge = (offset + len(data) - 1) // PAGE * PAGE
                    edge = min((offset // PAGE + pages) * PAGE, last_edge)
                    whole(fd, bytes(data)[: max(0, edge - offset) if pages else 0], offset)
                    os._exit(9)

                os.pwrite = torn  # type: ignore[assignment]
                operation(content)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


OPERATIONS = {
    "overwrite a block": lambda content: content.write(B, b"n" * B),
    "overwrite a part of a block": lambda content: content.write(B + 100, b"n" * 50),
    "overwrite several blocks": lambda content: content.write(10, b"n" * (3 * B)),
    "append": lambda content: content.write(content.size, b"n" * (3 * B)),
    "go on behind the end": lambda content: content.write(content.size - 20, b"n" * (2 * B)),
    "leave a gap": lambda content: content.write(content.size + 5 * B, b"n" * 9),
    "shrink": lambda content: content.truncate(B + 77),
    "grow": lambda content: content.truncate(content.size + 3 * B),
}


@pytest.mark.parametrize("pages", [0, 1, 2, 3])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_was_there_is_there_again(lab: Lab, operation: str, pages: int) -> None:
    old = random.Random(1).randbytes(4 * B + 1234)
    session = lab.mount()
    session.write(b"f", old)
    session.write(b"other", b"untouched")
    lower = session.lower(b"f")
    lab.unmount()
    before = lower.stat()

    die_in(lab, OPERATIONS[operation], pages)

    session = lab.mount()
    assert session.read(b"f") == old
    assert session.read(b"other") == b"untouched"
    after = lower.stat()
    assert after.st_size == before.st_size
    assert is_empty(record(lab))


def test_a_write_may_end_within_its_last_bytes(lab: Lab) -> None:
    """A page's edge within a block's tag: neither the old tag stands there nor the new one."""
    old = random.Random(2).randbytes(2 * B)
    lab.mount().write(b"f", old)
    lab.unmount()
    child = os.fork()
    if child == 0:
        lab.session = None
        lab.reopen_engine()
        with lab.mount().opened(b"f", write=True) as content:
            whole = os.pwrite

            def torn(fd: int, data: bytes, offset: int) -> int:
                if fd != content.fd or offset < 1024:
                    return whole(fd, data, offset)
                whole(fd, bytes(data)[:-8], offset)
                os._exit(9)

            os.pwrite = torn  # type: ignore[assignment]
            content.write(0, b"n" * (2 * B))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert lab.mount().read(b"f") == old


@pytest.mark.parametrize("less", [1, 15, 16, 100])
def test_a_shrink_may_end_before_the_file_is_cut(lab: Lab, less: int) -> None:
    """The shorter last block stands over the old one, whose tag it may have overwritten in part."""
    old = random.Random(3).randbytes(B + 1000)
    lab.mount().write(b"f", old)
    lab.unmount()
    child = os.fork()
    if child == 0:
        lab.session = None
        lab.reopen_engine()
        with lab.mount().opened(b"f", write=True) as content:
            os.ftruncate = lambda fd, size: os._exit(9)
            content.truncate(content.size - less)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert lab.mount().read(b"f") == old


def test_a_file_that_lies_too_deep_for_a_record_is_written_all_the_same(lab: Lab) -> None:
    session = lab.mount()
    path = b"/".join([b"d" * 170] * 270)
    for depth in range(170, len(path) + 1, 171):
        session.mkdir(path[:depth])
    assert len(session.node(path).lower_path()) > PATH_MAX
    session.write(path + b"/f", b"o" * B)
    session.write(path + b"/f", b"n" * 10)
    assert session.read(path + b"/f") == b"n" * 10 + b"o" * (B - 10)


def test_the_record_is_never_written_into_a_file_of_somebody_else(lab: Lab) -> None:
    """The name is known before the file is there, and whoever writes the lower directory may take it."""
    session = lab.mount()
    victim = lab.lower.parent / "victim"
    victim.write_bytes(b"v" * 100)
    os.link(victim, record(lab))
    session.write(b"f", b"o" * B)
    session.write(b"f", b"n" * B)
    assert victim.read_bytes() == b"v" * 100


def test_something_else_in_the_place_of_the_record_does_not_keep_a_volume_from_being_mounted(lab: Lab) -> None:
    lab.mount().write(b"f", b"1")
    lab.unmount()
    os.mkfifo(record(lab))
    assert lab.mount().read(b"f") == b"1"
    assert not record(lab).exists()


def is_empty(record: Path) -> bool:
    """Whether it holds no record, and takes little space."""
    return record.read_bytes()[HEAD_OFFSET:].startswith(bytes(4)) and record.stat().st_blocks * 512 <= 2 * PIECE


def test_the_file_is_kept_empty_for_the_next_mount(lab: Lab) -> None:
    """So that a disk that is full by then can still be overwritten."""
    lab.mount().write(b"f", b"o" * (3 * PIECE))
    lab.mount().write(b"f", b"n" * (3 * PIECE))
    first = record(lab).stat()
    assert first.st_size > HEAD_OFFSET
    lab.unmount()
    assert record(lab).stat().st_ino == first.st_ino
    assert record(lab).stat().st_blocks > 0
    assert is_empty(record(lab))
    assert lab.mount().read(b"f") == b"n" * (3 * PIECE)


def record(lab: Lab) -> Path:
    return lab.lower / os.fsdecode(UNDO_FILE)


def crashed_after_overwriting(lab: Lab) -> bytes:
    """A volume whose daemon ended after a complete overwrite of `f`, its undo record still there. The new content."""
    session = lab.mount()
    session.write(b"f", b"o" * (2 * B))
    lab.unmount()
    child = os.fork()
    if child == 0:
        lab.session = None
        lab.reopen_engine()
        with lab.mount().opened(b"f", write=True) as content:
            content.write(0, b"n" * (2 * B))
            os._exit(0)
    os.waitpid(child, 0)
    assert record(lab).exists()
    return b"n" * (2 * B)


def test_a_complete_write_stays(lab: Lab) -> None:
    new = crashed_after_overwriting(lab)
    assert lab.mount().read(b"f") == new


def test_a_record_from_before_the_last_boot_is_not_used(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power loss the record on disk may be older than the file: here, the file was torn in another boot."""
    session = lab.mount()
    session.write(b"f", b"o" * (2 * B))
    lower = session.lower(b"f")
    lab.unmount()
    die_in(lab, lambda content: content.write(0, b"n" * B), 1)
    torn = lower.read_bytes()
    monkeypatch.setattr("envfs.fs.undo.boot_id", lambda: b"another boot id!")
    lab.mount()
    assert lower.read_bytes() == torn


@pytest.mark.parametrize("position", [HEAD_OFFSET, HEAD_OFFSET + 60, HEAD_OFFSET + 120])
def test_a_record_that_is_not_authentic_changes_nothing(lab: Lab, position: int) -> None:
    session = lab.mount()
    session.write(b"f", b"o" * (2 * B))
    lower = session.lower(b"f")
    lab.unmount()
    die_in(lab, lambda content: content.write(0, b"n" * B), 1)
    torn = lower.read_bytes()
    with open(record(lab), "r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 1]))
    lab.mount()
    assert lower.read_bytes() == torn


def test_a_copy_in_the_place_of_the_file_is_left_alone(lab: Lab) -> None:
    """Restored from a backup in the meantime: another inode, whatever its content."""
    session = lab.mount()
    session.write(b"f", b"o" * (2 * B))
    lower = session.lower(b"f")
    lab.unmount()
    die_in(lab, lambda content: content.write(0, b"n" * B), 1)
    copy = lower.with_suffix(".copy")
    copy.write_bytes(lower.read_bytes())
    copy.rename(lower)
    restored = lower.read_bytes()
    lab.mount()
    assert lower.read_bytes() == restored


@pytest.mark.parametrize(
    "make",
    [lambda path: path.symlink_to("target"), lambda path: path.mkdir(), os.mkfifo, None],
    ids=["symlink", "directory", "FIFO", "nothing"],
)
def test_something_else_in_the_place_of_the_file_keeps_no_volume_from_being_mounted(
    lab: Lab, make: Callable[[Path], None] | None
) -> None:
    """Renamed over it, say, before the daemon was killed."""
    session = lab.mount()
    session.write(b"f", b"o" * 3 * B)
    session.write(b"other", b"untouched")
    lower = session.lower(b"f")
    lab.unmount()
    die_in(lab, OPERATIONS["overwrite several blocks"], 1)
    lower.unlink()
    if make is not None:
        make(lower)
    assert lab.mount().read(b"other") == b"untouched"
    assert is_empty(record(lab))


def test_a_cut_that_came_after_the_record_is_not_undone(lab: Lab) -> None:
    session = lab.mount()
    session.write(b"f", b"o" * (4 * B))
    lab.unmount()
    child = os.fork()
    if child == 0:
        lab.session = None
        lab.reopen_engine()
        with lab.mount().opened(b"f", write=True) as content:
            content.write(0, b"n" * (4 * B))
            content.truncate(2 * B)  # at a block's edge: nothing is sealed again, so nothing is recorded
            os._exit(0)
    os.waitpid(child, 0)
    assert lab.mount().read(b"f") == b"n" * (2 * B)


def test_an_orderly_end_leaves_no_record(lab: Lab) -> None:
    session = lab.mount()
    session.write(b"f", b"o" * B)
    session.write(b"f", b"n" * B)
    assert not is_empty(record(lab))
    lab.unmount()
    assert is_empty(record(lab))


@pytest.mark.parametrize("size", [100, 3044, 3045, B, 5 * B + 100])
@pytest.mark.parametrize("pages", [0, 1, 2, 5])
def test_the_first_write_to_a_file_is_there_whole_or_not_at_all(lab: Lab, size: int, pages: int) -> None:
    """Header and blocks in one call; nothing was there before, and half a block would be unreadable for ever."""
    lab.mount().write(b"other", b"untouched" * 1000)
    lab.unmount()
    child = os.fork()
    if child == 0:
        try:
            lab.session = None
            lab.reopen_engine()
            session = lab.mount()
            with session.created(b"f") as content:
                whole = os.pwritev

                def torn(fd: int, buffers: list[bytes], offset: int) -> int:
                    if fd != content.fd:
                        return whole(fd, buffers, offset)
                    data = b"".join(bytes(buffer) for buffer in buffers)
                    whole(fd, [data[: min(pages * PAGE, (len(data) - 1) // PAGE * PAGE)]], offset)
                    os._exit(9)

                os.pwritev = torn  # type: ignore[assignment]
                content.write(0, b"n" * size)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    session = lab.mount()
    assert session.read(b"f") == b""
    assert session.size(b"f") == 0
    assert session.read(b"other") == b"untouched" * 1000
    session.write(b"f", b"again")
    assert lab.mount().read(b"f") == b"again"
