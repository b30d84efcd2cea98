"""The undo record: what a block was before it was overwritten (FORMAT.md section 8.1)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Self

from envfs.crypto.mac import MAC_SIZE, Mac
from envfs.errors import FormatError, IntegrityError, Truncated
from envfs.format.fields import check_id, check_range, check_start

MAGIC: Final = b"ENVU"
TAIL_SIZE: Final = 16
#: Where the head begins in the file; the old bytes end there.
HEAD_OFFSET: Final = 2 << 20
PATH_MAX: Final = 1 << 15

_VERSION: Final = 1
_FIXED: Final = struct.Struct(">4sHH16s16sQQQQQ16sIHH")

#: The largest head, and so the bytes to read from HEAD_OFFSET.
HEAD_MAX: Final = _FIXED.size + PATH_MAX + MAC_SIZE


@dataclass(frozen=True, slots=True)
class UndoHead:
    """One write that is about to begin. Offsets and sizes in bytes of the lower file.

    `tail` is the last 16 bytes of what is being written: when they stand before `end`, everything does, since a write
    goes from front to back. An operation that also cuts the file is complete only when the file has `new_size`.
    `boot_id` is the kernel's: the record means nothing after the machine itself went down.
    """

    boot_id: bytes
    file_id: bytes
    inode: int
    offset: int
    end: int
    old_size: int
    new_size: int
    tail: bytes
    old_length: int
    cuts: bool
    path: bytes

    def serialise(self, key: Mac) -> bytes:
        """The head, authenticated. The old bytes are sealed blocks and authenticate themselves."""
        body = (
            _FIXED.pack(
                MAGIC, _VERSION, self.cuts, self.boot_id, self.file_id, self.inode, self.offset, self.end,
                self.old_size, self.new_size, self.tail, self.old_length, len(self.path), 0,
            )
            + self.path
        )  # fmt: skip
        return body + key.tag(body)

    @classmethod
    def parse(cls, raw: bytes, key: Mac) -> Self:
        """The head at the beginning of `raw`; what follows it means nothing.

        Truncated, UnsupportedVersion, FormatError or IntegrityError if there is no whole one: its write had not begun.
        """
        check_start(raw, MAGIC, "undo record")
        if len(raw) < _FIXED.size:
            raise Truncated("undo record: cut off")
        (
            _, _, cuts, boot_id, file_id, inode, offset, end,
            old_size, new_size, tail, old_length, path_length, reserved,
        ) = _FIXED.unpack_from(raw)  # fmt: skip
        check_range(cuts, 0, 1, "undo record: kind")
        check_range(path_length, 1, PATH_MAX, "undo record: length of the path")
        check_range(old_length, 0, HEAD_OFFSET, "undo record: length of the old bytes")
        check_range(offset + TAIL_SIZE, 0, end, "undo record: end")
        if reserved:
            raise FormatError("undo record: reserved bits are set")
        body_end = _FIXED.size + path_length
        if len(raw) < body_end + MAC_SIZE:
            raise Truncated("undo record: cut off")
        if not key.verify(raw[:body_end], raw[body_end : body_end + MAC_SIZE]):
            raise IntegrityError("the undo record is not authentic")
        check_id(file_id, "undo record: file id")
        path = raw[_FIXED.size : body_end]
        return cls(boot_id, file_id, inode, offset, end, old_size, new_size, tail, old_length, bool(cuts), path)
