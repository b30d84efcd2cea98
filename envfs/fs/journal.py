"""Keeping what blocks were until what replaces them is on the disk, in case the power fails.

A block that is written over in place lies on two or three pages of the lower file, and the kernel writes each back when
it likes: were the power to fail in between, neither the old block, which may long have been synced, nor the new one
could be read again. So before blocks that may be on the disk are written over, what they were goes to `envfs.journal`
in the root of the lower directory, and is synced there. The next mount puts torn blocks back (`recovery`).

- A record also says by which nonce the new block will be known, so that a block that is whole is left alone: records of
  what was long synced do no harm, and nothing need be written to make them void.
- Requests that wait for the disk at the same time share one sync of the journal.
- When the journal is full, the files in it are synced, and it begins from its start again, under a new epoch.

In memory nothing survives a power failure: there is no journal.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
from collections.abc import Sequence
from typing import Final

import trio

from envfs.crypto.mac import Mac
from envfs.format.journal import ALIGNMENT, MAGIC, PATH_MAX, Entry, Record, record_size
from envfs.format.names import RESERVED_PREFIX
from envfs.fs import lower
from envfs.fs.durability import Remembered
from envfs.fs.own_file import is_ours, open_kept

log = logging.getLogger("envfs.fs")

JOURNAL_FILE: Final = RESERVED_PREFIX + b"journal"
#: Bytes of records until the files in them are synced. More than twelve requests, as many as the kernel sends at once.
LIMIT: Final = 16 << 20
#: Kept while nothing is mounted: room for the record of one piece (`undo.PIECE`) on a full disk.
_KEPT: Final = 128 << 10
# The file grows by so much, filled with zeros: a sync of what has its place on the disk already is far cheaper.
_STEP: Final = 1 << 20
_PAGE: Final = 4096
# From so many files on, one syncfs(2) is cheaper than a sync of each.
_TOO_MANY: Final = 64


class Journal:
    """The journal of one mount. Everything but the syncs in threads happens in the one thread of the event loop.

    A record is known by a ticket, counted from 0. What it speaks of may be written over while `holds(ticket)`.
    """

    def __init__(self, root_fd: int, key: Mac, boot_id: bytes) -> None:
        self._root_fd = root_fd
        self._key = key
        self._boot_id = boot_id
        self._fd = -1
        self._is_refused = False
        self.is_missed = False  # whether something was written over without a record, and the log says so
        self._allocated = 0
        self._begin_epoch()
        self._added = 0  # tickets given out
        self._committed = 0  # those below are on the disk
        self._valid_from = 0  # those below are void: the journal has begun anew
        self._files: dict[int, Remembered] = {}  # by inode number: those that records of this epoch speak of
        self._is_gone = False  # whether one of them was removed
        self._syncing: trio.Event | None = None
        self._restarting: trio.Event | None = None

    def _begin_epoch(self) -> None:
        self._epoch = secrets.token_bytes(16)
        self._position = self._number = 0

    def holds(self, ticket: int) -> bool:
        """Whether the record is on the disk and will stay there until its file has been synced."""
        return self._valid_from <= ticket < self._committed

    # Without awaiting

    def add(self, file_id: bytes, fd: int, path: bytes, entries: Sequence[Entry]) -> int:
        """Append a record of the file behind `fd`; its ticket. Raises OSError, ENOSPC if there is no room for it."""
        if self._fd < 0:
            self._open()
        inode = os.fstat(fd).st_ino
        known = path if len(path) <= PATH_MAX else b""
        record = Record(self._epoch, self._number, self._boot_id, file_id, inode, known, entries)
        parts = record.serialise(self._key)
        size = sum(map(len, parts))
        if not self._has_room(size) or self._restarting is not None:
            self.restart_now()
            return self._append_first(file_id, fd, inode, known, entries)
        return self._append(parts, size, fd, inode)

    def _append_first(self, file_id: bytes, fd: int, inode: int, path: bytes, entries: Sequence[Entry]) -> int:
        parts = Record(self._epoch, 0, self._boot_id, file_id, inode, path, entries).serialise(self._key)
        size = sum(map(len, parts))
        if not self._has_room(size):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._append(parts, size, fd, inode)

    def _append(self, parts: list[bytes], size: int, fd: int, inode: int) -> int:
        written = os.pwritev(self._fd, parts, self._position)
        if written < size:
            lower.write_all(self._fd, b"".join(parts)[written:], self._position + written)
        if inode not in self._files and len(self._files) <= _TOO_MANY:
            self._files[inode] = Remembered(_opened_anew(fd))
        self._position += size
        self._number += 1
        self._added += 1
        return self._added - 1

    def gone(self, inode: int) -> None:
        """The last name of a file was removed: the disk is to have its space back, now and not with the next epoch."""
        if self._files.pop(inode, None) is not None:
            self._is_gone = True

    def _has_room(self, size: int) -> bool:
        """Takes more of the disk if need be, and if there is some left."""
        end = self._position + size
        if end > LIMIT:
            return False
        if end <= self._allocated:
            return True
        needed = -(-end // _PAGE) * _PAGE
        return self._grow(min(LIMIT, max(needed, self._allocated + _STEP))) or self._grow(min(LIMIT, needed))

    def _grow(self, size: int) -> bool:
        """Let the file have `size` bytes, or leave it as it was if the disk is full."""
        try:
            lower.write_all(self._fd, bytes(size - self._allocated), self._allocated)
        except OSError as error:
            if error.errno not in lower.NO_SPACE:
                raise
            os.ftruncate(self._fd, self._allocated)
            return False
        self._allocated = size
        return True

    def commit_now(self) -> None:
        """Have all records on the disk; everything waits for it. Raises OSError."""
        if self._committed < self._added:
            try:
                os.fdatasync(self._fd)
            except OSError:
                self._give_up()
                raise
            self._committed = self._added

    def _give_up(self) -> None:
        """A sync of the journal has failed: what it holds may not be on the disk, nor what follows be found."""
        self._valid_from = self._added
        self._position = LIMIT

    def restart_now(self) -> None:
        """Sync everything, and begin anew; everything waits for it. Raises OSError."""
        if self._position:
            self._valid_from = self._added
            lower.syncfs(self._root_fd)
            self._files, self._is_gone = {}, False
            self._begin_epoch()
        if self._restarting is not None:
            self._restarting.set()
            self._restarting = None

    # Beside other requests

    def is_full_for(self, path_length: int, entries: int, old_bytes: int) -> bool:
        """Whether the journal would have to begin anew for such a record."""
        return self._restarting is not None or self._position + record_size(path_length, entries, old_bytes) > LIMIT

    async def commit(self, ticket: int) -> None:
        """Wait until a record is on the disk, or void. One sync serves all who wait when it begins."""
        while self._valid_from <= ticket and self._committed <= ticket:
            if self._syncing is not None:
                await self._syncing.wait()
                continue
            self._syncing = trio.Event()
            upto = -1
            try:
                while upto != self._added:  # the more requests share a sync, the better: let those that are there come
                    upto = self._added
                    await trio.lowlevel.checkpoint()
                await trio.to_thread.run_sync(os.fdatasync, self._fd)
                self._committed = max(self._committed, upto)
            except OSError:
                self._give_up()
                raise
            finally:
                self._syncing.set()
                self._syncing = None

    async def restart(self) -> None:
        """As `restart_now`, in a thread. Records that nobody has used yet are void from the beginning of it on."""
        if self._restarting is not None:
            await self._restarting.wait()
            return
        mine = self._restarting = trio.Event()
        self._valid_from = self._added  # nothing is written over any more without a record in the next epoch
        files, all_at_once = list(self._files.values()), self._must_sync_all()
        try:
            await trio.to_thread.run_sync(_sync_files, self._root_fd, files, all_at_once)
            if self._restarting is mine:  # `restart_now` was not faster
                self._files, self._is_gone = {}, False
                self._begin_epoch()
        finally:
            mine.set()
            if self._restarting is mine:
                self._restarting = None

    # The file

    def _open(self) -> None:
        if self._is_refused:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        fd = open_kept(self._root_fd, JOURNAL_FILE)
        if fd < 0:
            with contextlib.suppress(PermissionError):
                lower.unlink_if_there(self._root_fd, JOURNAL_FILE)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            try:
                fd = os.open(JOURNAL_FILE, flags, 0o600, dir_fd=self._root_fd)
            except PermissionError:
                self._is_refused = True
                raise
            os.fsync(self._root_fd)
        self._allocated = min(LIMIT, os.fstat(fd).st_size // ALIGNMENT * ALIGNMENT)
        self._fd = fd

    def _must_sync_all(self) -> bool:
        """Whether one syncfs(2) is cheaper, or needed, so that a file without a name cannot be back without records."""
        return self._is_gone or len(self._files) > _TOO_MANY

    def close(self) -> None:
        """At the end of a mount. A journal that could not be made void stays: the next mount looks at it."""
        if self._fd < 0:
            return
        try:
            if self._position:
                _sync_files(self._root_fd, list(self._files.values()), self._must_sync_all())
            retire(self._root_fd)
        except OSError:
            log.exception("the journal is left to the next mount")
        self._files = {}
        os.close(self._fd)
        self._fd = -1


def _opened_anew(fd: int) -> int:
    """A descriptor of the same file that is no copy: the kernel tells each, once, what it could not write to the disk,
    and what a sync of ours is told must not be kept from the fsync(2) of whoever has the file open.
    """
    try:
        return os.open(lower.proc_path(fd), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # somebody's file that he lets nobody read
        return os.dup(fd)


def _sync_files(root_fd: int, files: Sequence[Remembered], all_at_once: bool) -> None:
    if all_at_once:
        lower.syncfs(root_fd)
        return
    for file in files:
        os.fdatasync(file.fd)


def retire(root_fd: int) -> None:
    """What the journal speaks of is on the disk. Keep a little of its space, or remove it if that cannot be."""
    fd = open_kept(root_fd, JOURNAL_FILE)
    if fd < 0:
        lower.unlink_if_there(root_fd, JOURNAL_FILE)
        return
    try:
        if is_ours(os.fstat(fd)):
            os.pwrite(fd, bytes(len(MAGIC)), 0)
            if os.fstat(fd).st_size > _KEPT:
                os.ftruncate(fd, _KEPT)
    finally:
        os.close(fd)
