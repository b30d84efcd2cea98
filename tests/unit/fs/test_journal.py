"""The journal in use: what is recorded, when, and what the next mount makes of it.

On the disk of a machine whose power failed, a block may be of several versions, sector by sector. Here it is made so.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import trio

from envfs.errors import IntegrityError
from envfs.format.journal import MAGIC
from envfs.format.names import RESERVED_PREFIX
from envfs.fs import journal, lower, nodes, recovery, undo
from envfs.fs.journal import JOURNAL_FILE
from envfs.service.fsck import check_volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from envfs.fs.content import Content
    from envfs.fsck.findings import Report
    from tests.unit.fs.lab import Lab, Session

B = 4096
OLD = random.Random(4).randbytes(6 * B + 100)


@pytest.fixture
def disk(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """In memory, for speed, and taken for a disk, with a file `f` on it."""
    monkeypatch.setattr(lower, "kind_of", lambda _fd: lower.Kind.DISK)
    lab.mount().write(b"f", OLD)
    lab.unmount()
    return lab


def journal_of(lab: Lab) -> Path:
    return lab.lower / os.fsdecode(JOURNAL_FILE)


def fail_while(lab: Lab, session: Session, monkeypatch: pytest.MonkeyPatch, *indices: int) -> Path:
    """The power fails when the blocks `indices` of `f` are half written: their first sectors are new. The lower file.

    Everything else is on the disk. The machine starts again.
    """
    path = session.lower(b"f")
    new, saved = path.read_bytes(), journal_of(lab).read_bytes()
    lab.unmount()
    with open(path, "r+b") as file:
        for index in indices:
            start = 1024 + index * (B + 28)
            half = start + 1500 - (start + 1500) % 512
            file.seek(half)
            file.write(old_blocks[half : start + B + 28])
    assert path.read_bytes() != new
    journal_of(lab).write_bytes(saved)
    monkeypatch.setattr(undo, "boot_id", lambda: b"another boot....")
    return path


old_blocks = b""


def write(lab: Lab, session: Session, *writes: tuple[int, bytes]) -> None:
    """Writes over what was there, after `old_blocks` was told what that is."""
    global old_blocks  # noqa: PLW0603
    old_blocks = session.lower(b"f").read_bytes()
    for offset, data in writes:
        session.write(b"f", data, offset)


def fsck(lab: Lab, *, repair: bool = False) -> Report:
    lab.unmount()
    return check_volume(
        lab.lower, lab.engine, lab.me, read_data=True, repair=repair, threads=1, advance=lambda _objects, _bytes: None
    )


def test_torn_blocks_are_put_back_and_whole_ones_stay(disk: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    session = disk.mount()
    write(disk, session, (0, b"n" * (4 * B)))
    fail_while(disk, session, monkeypatch, 1, 2)
    assert disk.mount().read(b"f") == b"n" * B + OLD[B : 3 * B] + b"n" * B + OLD[4 * B :]
    assert recovery.is_retired(disk.session.fs.state.nodes.root.directory_fd)  # type: ignore[union-attr]


def test_what_was_synced_after_it_was_written_over_stays(disk: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of what was long synced do no harm."""
    session = disk.mount()
    write(disk, session, (0, b"n" * (4 * B)))
    path, saved = session.lower(b"f"), journal_of(disk).read_bytes()
    disk.unmount()
    whole = path.read_bytes()
    journal_of(disk).write_bytes(saved)
    monkeypatch.setattr(undo, "boot_id", lambda: b"another boot....")
    disk.mount()
    assert path.read_bytes() == whole


def test_an_old_journal_does_not_bring_back_old_blocks(disk: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept by somebody who can write the lower directory, and put there when the file has moved on."""
    session = disk.mount()
    write(disk, session, (0, b"1" * (2 * B)))
    kept = journal_of(disk).read_bytes()
    session.write(b"f", b"2" * (2 * B))
    with session.opened(b"f", write=True) as content:
        content.write(0, b"3" * (2 * B))
    disk.unmount()
    journal_of(disk).write_bytes(kept)
    monkeypatch.setattr(undo, "boot_id", lambda: b"another boot....")
    assert disk.mount().read(b"f") == b"3" * (2 * B) + OLD[2 * B :]


@pytest.mark.parametrize("position", [6, 30, 100, 700, 3000])
def test_a_journal_that_somebody_changed_changes_nothing(
    disk: Lab, monkeypatch: pytest.MonkeyPatch, position: int
) -> None:
    session = disk.mount()
    write(disk, session, (0, b"n" * B))
    path = fail_while(disk, session, monkeypatch, 0)
    torn = path.read_bytes()
    with open(journal_of(disk), "r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 1]))
    session = disk.mount()
    assert path.read_bytes() == torn
    with pytest.raises(IntegrityError):
        session.read(b"f")


def test_the_journal_of_one_file_says_nothing_of_another(disk: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    session = disk.mount()
    session.write(b"g", b"g" * B)
    write(disk, session, (0, b"n" * B))
    victim = session.lower(b"g")
    path = fail_while(disk, session, monkeypatch, 0)
    before = victim.read_bytes()
    path.unlink()
    os.link(victim, path)
    disk.mount()
    assert victim.read_bytes() == before


@pytest.mark.parametrize("name", [JOURNAL_FILE, undo.UNDO_FILE])
def test_something_else_in_the_place_of_our_files_is_not_written_to_and_goes(disk: Lab, name: bytes) -> None:
    outside = disk.lower.parent / "outside"
    outside.write_bytes(b"mine")
    path = disk.lower / os.fsdecode(name)
    for make in (os.symlink, os.link, lambda _outside, path: os.mkfifo(path)):
        path.unlink(missing_ok=True)
        make(outside, path)
        session = disk.mount()
        session.write(b"f", b"n" * 10)
        disk.unmount()
        assert outside.read_bytes() == b"mine"
        assert path.lstat().st_nlink == 1
        assert path.is_file()
        assert not path.is_symlink()


@pytest.mark.parametrize(
    "make", [os.symlink, lambda _target, path: os.mkfifo(path), lambda _target, path: path.mkdir()]
)
def test_something_else_where_the_file_was_does_not_keep_a_volume_from_being_mounted(
    disk: Lab, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path, Path], None]
) -> None:
    session = disk.mount()
    write(disk, session, (0, b"n" * B))
    path = fail_while(disk, session, monkeypatch, 0)
    path.rename(path.with_suffix(".moved"))
    make(path.with_suffix(".moved"), path)
    disk.mount()
    fd = os.open(disk.lower, os.O_RDONLY)
    assert recovery.is_retired(fd)
    os.close(fd)
    assert path.with_suffix(".moved").read_bytes()[1024:] == old_blocks[1024:]  # found by its inode number


def test_a_copy_of_the_lower_directory_is_put_right_as_well(disk: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    session = disk.mount()
    write(disk, session, (0, b"n" * (2 * B)))
    fail_while(disk, session, monkeypatch, 1)
    copy = disk.lower.with_name("copy")
    shutil.copytree(disk.lower, copy, symlinks=True)
    disk.lower = copy
    assert disk.mount().read(b"f") == b"n" * B + OLD[B:]


def test_a_part_of_the_last_block_is_there_again(disk: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    session = disk.mount()
    write(disk, session, (len(OLD), b"n" * (2 * B)))
    path = session.lower(b"f")
    saved = journal_of(disk).read_bytes()
    new = path.read_bytes()
    disk.unmount()
    start = 1024 + 6 * (B + 28)
    path.write_bytes(new[:start] + old_blocks[start : start + 20] + new[start + 20 :])  # no sector ends here
    edge = start - start % 512 + 512
    path.write_bytes(new[:edge] + new[edge:])
    path.write_bytes(
        old_blocks[: start - start % 512] + new[start - start % 512 :][: len(old_blocks) - start + start % 512]
    )
    journal_of(disk).write_bytes(saved)
    monkeypatch.setattr(undo, "boot_id", lambda: b"another boot....")
    assert disk.mount().read(b"f") == OLD


def test_fsck_says_what_the_next_mount_puts_back(disk: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    session = disk.mount()
    write(disk, session, (0, b"n" * (3 * B)))
    path = fail_while(disk, session, monkeypatch, 1)
    torn = path.read_bytes()
    report = fsck(disk)
    assert report.is_clean
    found = {(finding.problem.value, finding.path): finding for finding in report.findings}
    assert found.keys() == {("block", "/f"), ("leaving", "/envfs.journal")}
    assert "the next mount or a repair puts them back: 1" in found["block", "/f"].detail
    assert path.read_bytes() == torn
    with open(path, "r+b") as file:  # and another one, which nobody puts back
        file.seek(1024 + 4 * (B + 28) + 1000)
        file.write(b"x")
    assert not fsck(disk).is_clean
    assert not fsck(disk, repair=True).is_clean
    disk.mount()
    with disk.mount().opened(b"f") as content:
        assert bytes(content.read(0, 4 * B)) == b"n" * B + OLD[B : 2 * B] + b"n" * B + OLD[3 * B : 4 * B]


def test_a_mount_that_must_not_write_says_what_it_finds(
    disk: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session = disk.mount()
    write(disk, session, (0, b"n" * (3 * B)))
    path = fail_while(disk, session, monkeypatch, 1)
    torn = path.read_bytes()
    session = disk.mount(read_only=True)
    assert "mount the volume once without -o ro" in caplog.text
    assert path.read_bytes() == torn
    with pytest.raises(IntegrityError):
        session.read(b"f")
    assert disk.mount().read(b"f", B, B) == OLD[B : 2 * B]


# What goes to the journal, and when


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Each fdatasync(2) that there was."""
    found: list[int] = []
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        found.append(fd)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    return found


def test_what_is_new_is_not_recorded(disk: Lab, syncs: list[int]) -> None:
    session = disk.mount()
    with session.created(b"new") as content:
        for number in range(30):
            content.write(number * 1000, b"x" * 1000)
        content.truncate(5000)
        assert not syncs
    assert not journal_of(disk).exists()


def test_what_was_added_long_ago_is(disk: Lab, syncs: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    session = disk.mount()
    with session.created(b"new") as content:
        content.write(0, b"x" * 1000)
        monkeypatch.setattr(nodes, "FRESH", 0.0)
        content.write(1000, b"x" * 1000)
        assert len(syncs) == 1


def test_what_was_synced_is(disk: Lab, syncs: list[int]) -> None:
    with disk.mount().created(b"new") as content:
        content.write(0, b"x" * 1000)
        content.record_length(1000)
        content.write(1000, b"x" * 1000)
        assert len(syncs) == 1


def test_what_is_being_synced_is(disk: Lab, syncs: list[int]) -> None:
    """The sync may have one page of a block on the disk as it was, and the next as it has become meanwhile."""
    with disk.mount().created(b"new") as content:
        content.write(0, b"x" * 1000)
        content.prepare_sync()
        content.write(500, b"y" * 1000)
        assert len(syncs) == 1


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_file_that_has_lost_the_name_it_was_opened_by_and_has_another(
    disk: Lab, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    global old_blocks  # noqa: PLW0603
    session = disk.mount()
    session.link(b"f", b"g")
    path = session.lower(b"g")
    with session.opened(b"f", write=True) as content:
        session.unlink(b"f")
        assert not content.node.located
        old_blocks = path.read_bytes()
        content.write(0, b"n" * B)
        torn, saved = path.read_bytes(), journal_of(disk).read_bytes()
    disk.unmount()
    half = 1024 + 1536
    path.write_bytes(torn[:half] + old_blocks[half:])
    journal_of(disk).write_bytes(saved)
    if not is_killed:
        monkeypatch.setattr(undo, "boot_id", lambda: b"another boot....")
    assert disk.mount().read(b"g") == OLD


@pytest.mark.parametrize("remove", [lambda it: it.unlink(b"f"), lambda it: it.rename(b"g", b"f")])
def test_the_space_of_a_removed_file_is_free_at_once(disk: Lab, remove: Callable[[Session], None]) -> None:
    session = disk.mount()
    session.write(b"f", b"n" * B)
    session.write(b"g", OLD)
    inode = session.lower(b"f").stat().st_ino
    assert holders(inode)
    remove(session)
    assert not holders(inode)


def holders(inode: int) -> list[int]:
    """Descriptors of ours through which a file could be read: they keep it when it has no name any more."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            is_held = os.fstat(fd).st_ino == inode and not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH
        except OSError:  # that of listing them
            continue
        if is_held:
            found.append(fd)
    return found


def test_what_the_disk_could_not_take_is_told_to_who_has_the_file_open_and_not_to_the_journal_alone(disk: Lab) -> None:
    """The kernel tells each open file description once (fsync(2)), and a copy of a descriptor is none of its own."""
    with disk.mount().opened(b"f", write=True) as content:
        content.write(0, b"n" * B)
        os.lseek(content.fd, 7, os.SEEK_SET)
        inode = os.fstat(content.fd).st_ino
        others = [fd for fd in holders(inode) if fd != content.fd]
        assert others
        assert all(os.lseek(fd, 0, os.SEEK_CUR) == 0 for fd in others)


def test_one_sync_for_one_write_and_none_without_a_journal(disk: Lab, syncs: list[int]) -> None:
    with disk.mount().opened(b"f", write=True) as content:
        content.write(0, b"x" * (5 * B + 10))
        assert len(syncs) == 1
    with disk.mount(journal=False).opened(b"f", write=True) as content:
        syncs.clear()
        content.write(0, b"x" * (5 * B + 10))
        assert not syncs


def test_in_memory_there_is_no_journal(lab: Lab) -> None:
    session = lab.mount()
    session.write(b"f", OLD)
    session.write(b"f", OLD[::-1])
    lab.unmount()
    assert not journal_of(lab).exists()


async def reserve_and_write(content: Content, offset: int, data: bytes) -> None:
    assert content.protection is not None
    if content.protection.concerns(offset, len(data)):
        await content.protection.reserve(offset, len(data))
    content.write(offset, data)


def test_requests_that_wait_share_a_sync(disk: Lab, syncs: list[int]) -> None:
    async def run() -> None:
        with disk.mount().opened(b"f", write=True) as content:
            async with trio.open_nursery() as nursery:
                for index in range(6):
                    nursery.start_soon(reserve_and_write, content, index * B, bytes([index]) * B)

    trio.run(run)
    assert len(syncs) <= 4
    assert disk.mount().read(b"f", 0, 6 * B) == b"".join(bytes([index]) * B for index in range(6))


def test_two_who_wait_for_one_block_write_it_one_after_the_other(disk: Lab) -> None:
    """The first takes the reservation with it: no nonce is used for two contents."""
    seen: set[bytes] = set()

    async def run() -> None:
        with disk.mount().opened(b"f", write=True) as content:
            whole = content.codec.seal

            def seal(first: int, plain: Any, out: Any = None, nonces: bytes | None = None) -> bytearray:
                if nonces is not None:
                    parts = {nonces[at : at + 12] for at in range(0, len(nonces), 12)}
                    assert not parts & seen
                    seen.update(parts)
                return whole(first, plain, out, nonces)

            monkey = pytest.MonkeyPatch()
            monkey.setattr(type(content.codec), "seal", lambda _self, *args: seal(*args))
            try:
                async with trio.open_nursery() as nursery:
                    for number in range(20):
                        nursery.start_soon(reserve_and_write, content, number * 200, bytes([number]) * 200)
            finally:
                monkey.undo()

    trio.run(run)
    assert len(seen) == 20
    assert disk.mount().read(b"f", 0, 4000) == b"".join(bytes([number]) * 200 for number in range(20))


def test_a_full_journal_begins_anew_when_its_files_are_synced(
    disk: Lab, monkeypatch: pytest.MonkeyPatch, syncs: list[int]
) -> None:
    monkeypatch.setattr(journal, "LIMIT", 64 << 10)
    session = disk.mount()
    plain = bytearray(OLD)

    async def run() -> None:
        with session.opened(b"f", write=True) as content:
            for number in range(40):
                offset = number * 997 % (5 * B)
                plain[offset : offset + B] = bytes([number]) * B
                await reserve_and_write(content, offset, bytes([number]) * B)
                assert journal_of(disk).stat().st_size <= 64 << 10

    trio.run(run)
    write(disk, session, (3 * B, b"z" * B))
    plain[3 * B : 4 * B] = b"z" * B
    assert session.read(b"f") == plain
    fail_while(disk, session, monkeypatch, 3)
    with disk.mount().opened(b"f") as content:
        assert bytes(content.read(0, 3 * B)) == plain[: 3 * B]
        assert bytes(content.read(3 * B, B)) != plain[3 * B : 4 * B]
        assert bytes(content.read(4 * B, B)) == plain[4 * B : 5 * B]


def test_a_sync_of_the_journal_that_fails_keeps_the_block(disk: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    with disk.mount().opened(b"f", write=True) as content:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fail)
            with pytest.raises(OSError, match="broken"):
                content.write(0, b"n" * B)
        assert bytes(content.read(0, B)) == OLD[:B]
        content.write(0, b"n" * B)  # under a new epoch: what was not synced is not relied upon
    assert disk.mount().read(b"f") == b"n" * B + OLD[B:]


def test_it_is_small_while_nothing_is_mounted_and_shows_nowhere(disk: Lab) -> None:
    session = disk.mount()
    session.write(b"f", b"n" * (5 * B))
    assert session.names() == [b"f"]
    disk.unmount()
    assert 0 < journal_of(disk).stat().st_size <= 128 << 10
    assert JOURNAL_FILE.startswith(RESERVED_PREFIX)
    assert fsck(disk).findings == []


# Holes look alike, whenever they were made


@pytest.mark.parametrize(("before", "after"), [(100, 20 * B), (20 * B, 100)])
def test_a_hole_that_was_made_since_is_not_what_the_journal_knows(
    disk: Lab, monkeypatch: pytest.MonkeyPatch, before: int, after: int
) -> None:
    """Nothing was torn: the file was cut to nothing and is a hole of another length since, with data behind it."""
    with disk.mount().created(b"sparse") as content:
        content.truncate(before)
    session = disk.mount()
    with session.opened(b"sparse", write=True) as content:
        content.write(0, b"first")
        content.truncate(0)
        content.truncate(after)
        content.write(after, b"synced")
        os.fsync(content.fd)
        content.record_length(content.size)
    path, saved = session.lower(b"sparse"), journal_of(disk).read_bytes()
    assert saved.startswith(MAGIC)
    disk.unmount()
    whole = path.read_bytes()
    journal_of(disk).write_bytes(saved)
    monkeypatch.setattr(undo, "boot_id", lambda: b"another boot....")
    assert disk.mount().read(b"sparse") == bytes(after) + b"synced"
    assert path.read_bytes() == whole
