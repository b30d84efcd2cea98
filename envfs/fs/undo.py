"""Keeping the undo record, in case the daemon is killed in the middle of a write.

A SIGKILL can end a write(2) between two pages, and half a sealed block is none: neither the old content, which may
long have been synced, nor the new could be read again. So before blocks are written, those that exist go to
`envfs.undo` in the root of the lower directory; the next mount puts them back if the write did not come to its end,
and cuts off what was being appended. Writes never run side by side, so one record is enough, and each replaces the
one before.

The old bytes are written before the head that speaks of them, in one system call: cut off, it leaves the head of the
write before, which is complete. It protects against the end of the process, not against power loss: nothing here is
synced, and a record from before the last boot is not used.

The file stays when the volume is unmounted, empty but for the space that the record of a short write takes: so a
volume on a full disk can still be overwritten after the next mount (in pieces: see `Content`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat as stat_module
from pathlib import Path
from typing import Final

from envfs.crypto.mac import Mac
from envfs.errors import EnvfsError
from envfs.format.geometry import HEADER_SIZE
from envfs.format.header import peek_file_id
from envfs.format.names import RESERVED_PREFIX
from envfs.format.undo import HEAD_MAX, HEAD_OFFSET, MAGIC, TAIL_SIZE, UndoHead
from envfs.fs import lower
from envfs.fs.journal import Journal
from envfs.fs.own_file import is_ours, is_without_record, open_kept, open_regular
from envfs.fs.raised_mode import open_writable

log = logging.getLogger("envfs.fs")

UNDO_FILE: Final = RESERVED_PREFIX + b"undo"
# Room for the largest request and a usual path, so that overwriting on a full disk needs no new space.
_RESERVED_BEFORE: Final = (1 << 20) + (1 << 18)
_RESERVED_AFTER: Final = 8192
#: Plain bytes of a write whose record fits into what is kept while nothing is mounted: one block of the largest size.
PIECE: Final = 1 << 16
_KEPT_BEFORE: Final = PIECE + 4096


def boot_id() -> bytes:
    """16 bytes that change with every start of the kernel (random(4))."""
    return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip().replace("-", ""))


class Undo:
    """Keeps the record of the write that is under way.

    `journal`: where what may be on the disk goes before it is written over; None if the volume's is in memory, or
    nobody wants it.
    """

    def __init__(self, root_fd: int, key: Mac, *, has_journal: bool = False) -> None:
        self._root_fd = root_fd
        self._key = key
        self._fd = -1
        self._is_refused = False
        self.boot_id = boot_id()
        self.journal = Journal(root_fd, key, self.boot_id) if has_journal else None

    def begin(self, head: UndoHead, old: bytes) -> None:
        """To be called right before the write. Raises OSError if the record cannot be kept: then do not write."""
        if self._fd < 0 and not self._open():
            return
        parts = [old, head.serialise(self._key)]
        written = os.pwritev(self._fd, parts, HEAD_OFFSET - len(old))
        if written < len(old) + len(parts[1]):
            lower.write_all(self._fd, b"".join(parts), HEAD_OFFSET - len(old))

    def clear(self) -> None:
        """The record means nothing any more: the file is about to change in a way that it would misread."""
        if self._fd >= 0:
            os.pwrite(self._fd, bytes(len(MAGIC)), HEAD_OFFSET)

    def _open(self) -> bool:
        """Whether there is a record at all: an ordinary user may have forbidden himself to write in the root."""
        if self._is_refused:
            return False
        self._fd = open_kept(self._root_fd, UNDO_FILE)
        if self._fd < 0:
            with contextlib.suppress(PermissionError):
                lower.unlink_if_there(self._root_fd, UNDO_FILE)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            try:
                self._fd = os.open(UNDO_FILE, flags, 0o600, dir_fd=self._root_fd)
            except PermissionError:
                self._is_refused = True
                log.warning("no undo record: the root directory is not writable; a kill may tear what is overwritten")
                return False
        if not _reserve(self._fd, _RESERVED_BEFORE):
            _reserve(self._fd, _KEPT_BEFORE)
        return True

    def close(self) -> None:
        """At the end of a mount: every write has come to its end."""
        if self.journal is not None:
            self.journal.close()
        if self._fd >= 0:
            try:
                _retire(self._root_fd, self._fd)
            except OSError:  # the lower filesystem became read-only, say
                log.exception("the undo file is left to the next mount")
            os.close(self._fd)
            self._fd = -1


def _reserve(fd: int, before: int) -> bool:
    """Take the space for records of `before` old bytes. Where that cannot be, it is taken when needed."""
    try:
        os.posix_fallocate(fd, HEAD_OFFSET - before, before + _RESERVED_AFTER)
    except OSError:
        return False
    return True


def _retire(root_fd: int, fd: int) -> None:
    """The record means nothing any more. Keep the file and a little of its space, or remove it if that cannot be."""
    try:
        if is_ours(os.fstat(fd)):
            os.pwrite(fd, bytes(len(MAGIC)), HEAD_OFFSET)
            os.ftruncate(fd, HEAD_OFFSET + _RESERVED_AFTER)
            lower.punch_hole(fd, 0, HEAD_OFFSET - _KEPT_BEFORE)
            return
    except OSError as error:
        log.debug("the undo file is not kept: %s", error)
    lower.unlink_if_there(root_fd, UNDO_FILE)


def is_retired(root_fd: int) -> bool:
    """Whether the undo file holds no record, as after an orderly unmount. Raises OSError."""
    return is_without_record(root_fd, UNDO_FILE, len(MAGIC), HEAD_OFFSET)


def recover(root_fd: int, key: Mac) -> None:
    """At mount: put back what a killed daemon had half overwritten. Raises OSError if that fails; nothing is lost."""
    if not _is_there(root_fd):
        return
    try:
        found = _read(root_fd, key)
        if found is not None:
            _put_back(root_fd, *found)
    except EnvfsError:
        log.info("the undo record is empty or was never completed: nothing to put back")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        log.info("the file of the undo record is gone: nothing to put back")
    except OSError as error:
        if error.errno not in lower.SOMETHING_ELSE:
            raise
        log.info("something else stands where the file of the undo record did: nothing to put back")
    kept = open_kept(root_fd, UNDO_FILE)
    if kept < 0:
        lower.unlink_if_there(root_fd, UNDO_FILE)
        return
    _retire(root_fd, kept)
    os.close(kept)


def _is_there(root_fd: int) -> bool:
    """Whether something stands there that is not what was kept from the last mount. Raises OSError."""
    try:
        kept = is_retired(root_fd)
    except FileNotFoundError:
        return False
    fd = open_kept(root_fd, UNDO_FILE)
    if fd >= 0:
        os.close(fd)
    return fd < 0 or not kept


def _read(root_fd: int, key: Mac) -> tuple[UndoHead, bytes] | None:
    """The record, if it is of this boot; EnvfsError if there is no whole one. Raises OSError."""
    fd = open_regular(root_fd, UNDO_FILE)
    try:
        head = UndoHead.parse(os.pread(fd, HEAD_MAX, HEAD_OFFSET), key)
        old = os.pread(fd, head.old_length, HEAD_OFFSET - head.old_length)
    finally:
        os.close(fd)
    return (head, old) if head.boot_id == boot_id() and len(old) == head.old_length else None


def waiting(root_fd: int, key: Mac) -> UndoHead | None:
    """The write that the next mount would take back, as far as its record says. Raises OSError."""
    try:
        found = _read(root_fd, key)
    except (EnvfsError, FileNotFoundError):
        return None
    return found[0] if found is not None else None


def _put_back(root_fd: int, head: UndoHead, old: bytes) -> None:
    with contextlib.ExitStack() as stack:
        fd = root_fd
        *directories, name = head.path.split(b"/")
        for part in directories:
            fd = os.open(part, lower.OPEN_DIRECTORY, dir_fd=fd)
            stack.callback(os.close, fd)
        fd = open_writable(root_fd, b"/".join(directories), fd, name)
        stack.callback(os.close, fd)
        found = os.fstat(fd)
        if not _is_the_file(fd, found, head) or not _was_cut_off(fd, found.st_size, head):
            return
        lower.write_all(fd, old, head.offset)
        os.ftruncate(fd, head.old_size)
        os.utime(fd, ns=(found.st_atime_ns, found.st_mtime_ns))
        os.fsync(fd)
        log.warning("put back %d bytes of a file whose writing was cut off", len(old))


def _is_the_file(fd: int, found: os.stat_result, head: UndoHead) -> bool:
    """Not another one that has its name since, nor a copy put in its place."""
    if not stat_module.S_ISREG(found.st_mode) or found.st_ino != head.inode:
        return False
    return peek_file_id(os.pread(fd, HEADER_SIZE, 0)) == head.file_id


def _was_cut_off(fd: int, size: int, head: UndoHead) -> bool:
    """Whether the operation began and did not end."""
    # A write goes from front to back. One that has not begun is none the worse for being taken back.
    ended = os.pread(fd, TAIL_SIZE, head.end - TAIL_SIZE) == head.tail
    if ended and (size == head.new_size or not head.cuts):
        return False
    # Smaller than ever: somebody else has cut it, and the length bound is to say so.
    return size >= min(head.old_size, head.new_size)
