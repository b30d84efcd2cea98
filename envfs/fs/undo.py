"""The undo record: what a block was before it is overwritten, in case the daemon is killed in the middle.

A SIGKILL can end a write(2) between two pages, and half a sealed block is none: neither the old content, which may
long have been synced, nor the new could be read again. So before blocks that exist are overwritten, their bytes go to
`envfs.undo` in the root of the lower directory; the next mount puts them back if the write did not come to its end,
and cuts off what was being appended. Writes never run side by side, so one record is enough, and each replaces the
one before. FORMAT.md section 8 has its bytes.

It protects against the end of the process, not against power loss: nothing here is synced.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat as stat_module
import struct
from dataclasses import dataclass
from typing import Final, Self

from envfs.crypto.mac import MAC_SIZE, Mac
from envfs.errors import EnvfsError, FormatError, IntegrityError
from envfs.format.fields import check_start
from envfs.format.geometry import HEADER_SIZE
from envfs.format.header import peek_file_id
from envfs.format.names import RESERVED_PREFIX
from envfs.fs import lower

log = logging.getLogger("envfs.fs")

UNDO_FILE: Final = RESERVED_PREFIX + b"undo"
MAGIC: Final = b"ENVU"
TAIL_SIZE: Final = 16

_FIXED: Final = struct.Struct(">4sHH16sQQQQ16sHH")
_VERSION: Final = 1
# Room for the largest request and a long path, so that overwriting a full disk needs no new space.
_RESERVED_SIZE: Final = (1 << 20) + (1 << 17)


@dataclass(frozen=True, slots=True)
class UndoRecord:
    """One write that begins. Offsets and sizes in bytes of the lower file, whose path is relative to the root.

    `tail` is the last tag of what is being written: when it stands before `end`, everything does, since a write goes
    from front to back. An operation that also cuts the file is complete only when the file has `new_size`.
    """

    file_id: bytes
    offset: int
    end: int
    old_size: int
    new_size: int
    tail: bytes
    cuts: bool
    path: bytes
    old: bytes

    def head(self, key: Mac) -> bytes:
        """Everything before the old bytes, authenticated."""
        fixed = _FIXED.pack(
            MAGIC, _VERSION, int(self.cuts), self.file_id, self.offset, self.end, self.old_size, self.new_size,
            self.tail, len(self.path), 0,
        )  # fmt: skip
        body = fixed + len(self.old).to_bytes(4, "big") + self.path
        return body + key.tag(body)

    @classmethod
    def parse(cls, raw: bytes, key: Mac) -> Self:
        """The record in `raw`. FormatError or IntegrityError if there is no whole one: then its write had not begun."""
        check_start(raw, MAGIC, "undo record")
        if len(raw) < _FIXED.size + 4:
            raise FormatError("undo record: cut off")
        _, _, cuts, file_id, offset, end, old_size, new_size, tail, path_length, _ = _FIXED.unpack_from(raw)
        path_start = _FIXED.size + 4
        old_length = int.from_bytes(raw[_FIXED.size : path_start], "big")
        body_end = path_start + path_length
        old_start = body_end + MAC_SIZE
        if len(raw) < old_start + old_length:
            raise FormatError("undo record: cut off")
        if not key.verify(raw[:body_end], raw[body_end:old_start]):
            raise IntegrityError("the undo record is not authentic")
        path, old = raw[path_start:body_end], raw[old_start : old_start + old_length]
        return cls(file_id, offset, end, old_size, new_size, tail, bool(cuts), path, old)


class Undo:
    """Keeps the record of the write that is under way."""

    def __init__(self, root_fd: int, key: Mac) -> None:
        self._root_fd = root_fd
        self._key = key
        self._fd = -1

    def begin(self, record: UndoRecord) -> None:
        """To be called right before the write. Raises OSError if the record cannot be kept: then do not write."""
        if self._fd < 0:
            self._open()
        parts = [record.head(self._key), record.old]
        written = os.pwritev(self._fd, parts, 0)
        if written < len(parts[0]) + len(record.old):
            lower.write_all(self._fd, b"".join(parts), 0)

    def clear(self) -> None:
        """The record means nothing any more: the file is about to change in a way that it would misread."""
        if self._fd >= 0:
            os.pwrite(self._fd, bytes(len(MAGIC)), 0)

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(UNDO_FILE, flags, 0o600, dir_fd=self._root_fd)
        with contextlib.suppress(OSError):  # not every lower filesystem can; then the space is taken when needed
            os.posix_fallocate(self._fd, 0, _RESERVED_SIZE)

    def close(self) -> None:
        """At the end of a mount: every write has come to its end."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            lower.unlink_if_there(self._root_fd, UNDO_FILE)


def recover(root_fd: int, key: Mac) -> None:
    """At mount: put back what a killed daemon had half overwritten."""
    try:
        raw = lower.read_small_file(root_fd, UNDO_FILE, 1 << 24)
    except FileNotFoundError:
        return
    try:
        record = UndoRecord.parse(raw, key)
    except EnvfsError:
        log.info("the undo record is empty or was never completed: nothing to put back")
    else:
        try:
            _put_back(root_fd, record)
        except FileNotFoundError:
            log.info("the file of the undo record is gone: nothing to put back")
    lower.unlink_if_there(root_fd, UNDO_FILE)


def _put_back(root_fd: int, record: UndoRecord) -> None:
    with contextlib.ExitStack() as stack:
        fd = root_fd
        *directories, name = record.path.split(b"/")
        for part in directories:
            fd = os.open(part, lower.OPEN_DIRECTORY, dir_fd=fd)
            stack.callback(os.close, fd)
        fd = os.open(name, lower.OPEN_WRITE, dir_fd=fd)
        stack.callback(os.close, fd)
        found = os.fstat(fd)
        same = stat_module.S_ISREG(found.st_mode) and peek_file_id(os.pread(fd, HEADER_SIZE, 0)) == record.file_id
        if not same or _is_complete(fd, found.st_size, record):
            return
        lower.write_all(fd, record.old, record.offset)
        os.ftruncate(fd, record.old_size)
        os.utime(fd, ns=(found.st_atime_ns, found.st_mtime_ns))
        os.fsync(fd)
        log.warning("put back %d bytes of a file whose overwriting was cut off", len(record.old))


def _is_complete(fd: int, size: int, record: UndoRecord) -> bool:
    if record.cuts and size != record.new_size:
        return False
    return os.pread(fd, TAIL_SIZE, record.end - TAIL_SIZE) == record.tail
