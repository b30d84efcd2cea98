"""Records of the journal: what blocks were before they are written over (FORMAT.md section 8.2)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from envfs.crypto.mac import MAC_SIZE, Mac
from envfs.errors import FormatError, IntegrityError, Truncated
from envfs.format.fields import MAX_BLOCK_LOG2, check_id, check_range, check_start
from envfs.format.geometry import OVERHEAD

MAGIC: Final = b"ENVJ"
PATH_MAX: Final = 1 << 15
#: Records begin at multiples of this, so that no record touches a sector of one that is on the disk already.
ALIGNMENT: Final = 512
#: No record is larger: the blocks of the largest request, a path, and what stands before them.
RECORD_MAX: Final = (1 << 20) + (1 << 18)

_VERSION: Final = 1
_FIXED: Final = struct.Struct(">4sHH16sQ16s16sQIIIHH")
_ENTRY: Final = struct.Struct(">Q12sII")
_IS_ZERO: Final = 1 << 31
_BLOCK_MAX: Final = (1 << MAX_BLOCK_LOG2) + OVERHEAD


@dataclass(frozen=True, slots=True)
class Entry:
    """One block that is about to be written over.

    `old` are its sealed bytes; all zero for a hole. What will be written has `new_length` bytes and begins with
    `nonce`, which nothing else ever does: so it is known by it.
    """

    index: int
    nonce: bytes
    new_length: int
    old: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """Blocks of one file. `number` counts the records of an epoch, a random id of one filling of the journal, from 0.

    `path` is empty where it is longer than PATH_MAX: then the inode number tells the file.
    """

    epoch: bytes
    number: int
    boot_id: bytes
    file_id: bytes
    inode: int
    path: bytes
    entries: Sequence[Entry]

    def serialise(self, key: Mac) -> list[bytes]:
        """The record in parts to be written one behind the other; together a multiple of ALIGNMENT long."""
        lengths = [len(entry.old) for entry in self.entries]
        zero = [not entry.old.strip(b"\0") for entry in self.entries]
        olds = [entry.old for entry, is_zero in zip(self.entries, zero, strict=True) if not is_zero]
        checksum = 0
        for old in olds:
            checksum = zlib.crc32(old, checksum)
        table = b"".join(
            _ENTRY.pack(entry.index, entry.nonce, entry.new_length, length | (_IS_ZERO if is_zero else 0))
            for entry, length, is_zero in zip(self.entries, lengths, zero, strict=True)
        )
        size = _FIXED.size + len(self.path) + len(table) + MAC_SIZE + sum(map(len, olds))
        padded = -(-size // ALIGNMENT) * ALIGNMENT
        head = (
            _FIXED.pack(
                MAGIC, _VERSION, 0, self.epoch, self.number, self.boot_id, self.file_id, self.inode,
                padded, checksum, len(self.entries), len(self.path), 0,
            )
            + self.path
            + table
        )  # fmt: skip
        return [head, key.tag(head), *olds, bytes(padded - size)]

    @classmethod
    def parse(cls, raw: bytes, key: Mac) -> tuple[Self, int]:
        """The record at the beginning of `raw`, and how long it is.

        Truncated, UnsupportedVersion, FormatError or IntegrityError if there is no whole one: nothing it speaks of was
        written over yet.
        """
        check_start(raw, MAGIC, "journal record")
        if len(raw) < _FIXED.size:
            raise Truncated("journal record: cut off")
        (
            _, _, reserved, epoch, number, boot_id, file_id, inode, size, checksum, count, path_length, more_reserved,
        ) = _FIXED.unpack_from(raw)  # fmt: skip
        if reserved or more_reserved or size % ALIGNMENT:
            raise FormatError("journal record: reserved bits are set")
        check_range(size, ALIGNMENT, RECORD_MAX, "journal record: length")
        check_range(path_length, 0, PATH_MAX, "journal record: length of the path")
        check_range(count, 1, RECORD_MAX // _ENTRY.size, "journal record: number of blocks")
        table = _FIXED.size + path_length
        body_end = table + count * _ENTRY.size
        if len(raw) < size or size < body_end + MAC_SIZE:
            raise Truncated("journal record: cut off")
        if not key.verify(raw[:body_end], raw[body_end : body_end + MAC_SIZE]):
            raise IntegrityError("the journal record is not authentic")
        check_id(file_id, "journal record: file id")
        entries = []
        begin = position = body_end + MAC_SIZE
        for index, nonce, new_length, flagged in _ENTRY.iter_unpack(raw[table:body_end]):
            length = flagged & ~_IS_ZERO
            check_range(length, 1, _BLOCK_MAX, "journal record: length of an old block")
            check_range(new_length, 1, _BLOCK_MAX, "journal record: length of a new block")
            if flagged & _IS_ZERO:
                entries.append(Entry(index, nonce, new_length, bytes(length)))
                continue
            entries.append(Entry(index, nonce, new_length, raw[position : position + length]))
            position += length
        if position > size:
            raise FormatError("journal record: the old blocks end behind it")
        if zlib.crc32(raw[begin:position]) != checksum:
            raise IntegrityError("the journal record's blocks are not complete")
        return cls(epoch, number, boot_id, file_id, inode, raw[_FIXED.size : table], entries), size


def record_size(path_length: int, entries: int, old_bytes: int) -> int:
    """How many bytes a record takes at most."""
    size = _FIXED.size + path_length + entries * _ENTRY.size + MAC_SIZE + old_bytes
    return -(-size // ALIGNMENT) * ALIGNMENT
