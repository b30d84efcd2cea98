"""The content of an open regular file: blocks and header slots of one lower file.

A content belongs to a node while any handle is open on it; all its handles share it. Every method that writes runs
in the one thread of the event loop and does not await, so within one method nobody else changes the file:

- `size` is the file's plain size, and the lower file has `geometry.cipher_size(size)` bytes;
- the header in force is `slot`, at `position` (-1: none is on disk yet);
- the header on disk never promises more (length bound) or permits more (hole range) than what is true of the blocks.

Reads may run in another thread beside a write; `writes` tells them that what they saw may have been torn.
"""

from __future__ import annotations

import errno
import os

from envfs.errors import IntegrityError
from envfs.format.block import BlockCodec
from envfs.format.geometry import HEADER_SIZE, Geometry
from envfs.format.header import SLOT_SIZE, Slot
from envfs.format.place import PLACE_SIZE
from envfs.fs.lower import write_all

# Random 96-bit nonces: 2^32 blocks under one key keep the collision chance below 2^-32 (NIST SP 800-38D section 8.3).
MOST_SEALED = 1 << 32
# So many sealed blocks at most are not yet in the header, so that a crash forgets few.
_RECORD_EVERY = 1 << 20


class Buffers:
    """Scratch memory for one request at a time, so that a request of 1 MiB touches no fresh pages.

    What lies in it is valid until the next request; a reply is sent before that.
    """

    def __init__(self, geometry: Geometry, largest_request: int = 1 << 20) -> None:
        blocks = largest_request // geometry.block_size + 2
        self.cipher = bytearray(blocks * geometry.cipher_block)
        self.plain = bytearray(blocks * geometry.block_size)


class Content:
    """See the module. `place` is written together with the first header."""

    __slots__ = (
        "buffers",
        "codec",
        "fd",
        "geometry",
        "handles",
        "header_key",
        "keyed",
        "old_fds",
        "place",
        "position",
        "sealed",
        "size",
        "slot",
        "writable",
        "writes",
    )

    def __init__(
        self,
        fd: int,
        *,
        writable: bool,
        geometry: Geometry,
        buffers: Buffers,
        slot: Slot,
        position: int,
        header_key: bytes,
        keyed: bool = True,
        codec: BlockCodec,
        size: int,
        place: bytes,
    ) -> None:
        self.fd = fd
        self.old_fds: list[int] = []
        self.writable = writable
        self.geometry = geometry
        self.buffers = buffers
        self.slot = slot
        self.position = position
        self.header_key = header_key
        self.keyed = keyed  # False: the file has no header and was opened for reading
        self.codec = codec
        self.size = size
        self.place = place
        self.sealed = slot.sealed_blocks
        self.handles = 0
        self.writes = 0

    # Reading

    def cipher_range(self, offset: int, length: int) -> tuple[int, int, int]:
        """Where the sealed blocks for a plain range lie: (first block index, lower offset, lower length)."""
        geometry = self.geometry
        first, end = geometry.blocks(offset, length)
        start = geometry.block_offset(first)
        return first, start, min(geometry.block_offset(end), geometry.cipher_size(self.size)) - start

    def read(self, offset: int, length: int, flags: int = 0) -> memoryview | bytes:
        """Plain bytes from `offset`, at most `length`, fewer only at the end of the file.

        With `os.RWF_NOWAIT` raises BlockingIOError if the lower filesystem would have to wait. The result lies in the
        shared buffer: it is valid until the next request. Raises IntegrityError where a block is damaged or cut off.
        """
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        first, start, count = self.cipher_range(offset, length)
        cipher, plain = self.buffers.cipher, self.buffers.plain
        if count > len(cipher):
            cipher, plain = bytearray(count), bytearray(count)
        view = memoryview(cipher)[:count]
        if flags:
            got = os.preadv(self.fd, [view], start, flags)
            if got < count:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        else:
            got = os.preadv(self.fd, [view], start)
            if got < count:
                raise self.cut_off(start + got)
        self.codec.open_into(first, view, plain, 0, self.slot.hole_start, self.slot.hole_end)
        skip = offset - first * self.geometry.block_size
        return memoryview(plain)[skip : skip + length]

    def read_apart(self, offset: int, length: int) -> bytearray:
        """The same into memory of its own, for a thread of its own."""
        first, start, count = self.cipher_range(offset, length)
        cipher = os.pread(self.fd, count, start)
        if len(cipher) < count:
            raise self.cut_off(start + len(cipher))
        plain = self.codec.open(first, cipher, self.slot.hole_start, self.slot.hole_end)
        skip = offset - first * self.geometry.block_size
        return plain[skip : skip + length]

    def cut_off(self, at: int) -> IntegrityError:
        """The lower file ends too early."""
        return IntegrityError(f"the lower file ends at byte {at}, before its blocks do", block=None)

    def _read_block(self, index: int) -> bytearray:
        """The plain bytes of one whole block that exists."""
        start = self.geometry.block_offset(index)
        plain_length = self.geometry.block_plain_length(index, self.size)
        count = plain_length + self.geometry.cipher_block - self.geometry.block_size
        cipher = os.pread(self.fd, count, start)
        if len(cipher) < count:
            raise self.cut_off(start + len(cipher))
        return self.codec.open(index, cipher, self.slot.hole_start, self.slot.hole_end)

    # Writing

    def write(self, offset: int, data: bytes) -> int:
        """Write all of `data` at a plain offset; a gap before it becomes a hole.

        Raises OSError(ENOSPC …) with everything that was in the file before still readable, and IntegrityError if a block
        that is only partly overwritten cannot be read.
        """
        if not data:
            return 0
        end = offset + len(data)
        if end > self.geometry.max_plain_size:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        if offset > self.size:
            self._grow(offset)
        first, plain = self._whole_blocks(offset, end, data)
        self._seal_and_write(first, plain, end)
        return len(data)

    def _whole_blocks(self, offset: int, end: int, data: bytes) -> tuple[int, bytes | bytearray]:
        """The first block index and the plain bytes of all the blocks that a write touches, old bytes around the new."""
        block_size = self.geometry.block_size
        first, last = offset // block_size, (end - 1) // block_size
        skip = offset - first * block_size
        tail_kept = end < self.size and end % block_size != 0
        if not skip and not tail_kept:
            return first, data
        start = first * block_size
        plain = bytearray(max(end, min(self.size, (last + 1) * block_size)) - start)
        if skip or (tail_kept and last == first):
            old = self._read_block(first)
            plain[: len(old)] = old
        if tail_kept and last != first:
            old = self._read_block(last)
            plain[(last - first) * block_size : (last - first) * block_size + len(old)] = old
        plain[skip : skip + len(data)] = data
        return first, plain

    def _seal_and_write(self, first: int, plain: bytes | bytearray, end: int) -> None:
        blocks = self.geometry.block_count(len(plain))
        self._count_sealed(blocks)
        count = len(plain) + blocks * (self.geometry.cipher_block - self.geometry.block_size)
        out = self.buffers.cipher if count <= len(self.buffers.cipher) else bytearray(count)
        self.codec.seal(first, plain, out)
        view = memoryview(out)[:count]
        self.writes += 1
        if self.position < 0:
            if first:
                self.write_first_header()
            else:
                self._write_with_header(view)
                self.size = max(self.size, end)
                return
        written = os.pwrite(self.fd, view, self.geometry.block_offset(first))
        if written < count:
            self._write_rest(first, plain, view, written)
        self.size = max(self.size, end)

    def _write_rest(self, first: int, plain: bytes | bytearray, view: memoryview, written: int) -> None:
        """After a short write: go on, or, if the disk is full, leave every block that existed readable."""
        offset = self.geometry.block_offset(first)
        try:
            write_all(self.fd, view[written:], offset + written)
        except OSError:
            self._mend_after_short_write(first, plain)
            raise

    def _mend_after_short_write(self, first: int, plain: bytes | bytearray) -> None:
        """Seal the blocks that existed before again at the length they had, then cut the lower file to its old size.

        Their pages are allocated, so this needs no space.
        """
        existing = min(len(plain), self.size - first * self.geometry.block_size)
        if existing > 0:
            again = bytes(memoryview(plain)[:existing])
            self._count_sealed(self.geometry.block_count(existing))
            write_all(self.fd, self.codec.seal(first, again), self.geometry.block_offset(first))
        os.ftruncate(self.fd, self.geometry.cipher_size(self.size))

    def _count_sealed(self, blocks: int) -> None:
        self.sealed += blocks
        if self.sealed > MOST_SEALED:
            self.sealed -= blocks
            raise IntegrityError(
                "as many blocks were sealed under this file's DEK as is safe; copy the file to get a new DEK"
            )
        if self.sealed - self.slot.sealed_blocks >= _RECORD_EVERY and self.position >= 0:
            self.write_slot(length_bound=self.slot.length_bound)

    def truncate(self, size: int) -> None:
        """Set the plain size. Shrinking lowers the length bound first; growing makes a hole."""
        if size > self.geometry.max_plain_size:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        if size < self.size:
            self._shrink(size)
        elif size > self.size:
            self._grow(size)

    def _shrink(self, size: int) -> None:
        if self.slot.length_bound > size:
            self.write_slot(length_bound=size)
        self.writes += 1
        index, rest = divmod(size, self.geometry.block_size)
        if rest:
            head = self._read_block(index)[:rest]
            self._count_sealed(1)
            write_all(self.fd, self.codec.seal(index, head), self.geometry.block_offset(index))
        os.ftruncate(self.fd, self.geometry.cipher_size(size))
        self.size = size
        if not size and self.slot.hole_end:
            self.write_slot(length_bound=0, holes=(0, 0))

    def _grow(self, size: int) -> None:
        block_size = self.geometry.block_size
        index, rest = divmod(self.size, block_size)
        if rest:
            keep = min(size, (index + 1) * block_size)
            plain = self._read_block(index)
            plain.extend(bytes(keep - self.size))
            self._seal_and_write(index, plain, keep)
        if size <= self.size:
            return
        first, end = self.size // block_size, self.geometry.block_count(size)
        if self.slot.hole_end > self.slot.hole_start:
            first, end = min(first, self.slot.hole_start), max(end, self.slot.hole_end)
        if self.position < 0:
            self.slot = self._next_slot(1, 0, (first, end))
            self.write_first_header()
        elif (first, end) != (self.slot.hole_start, self.slot.hole_end):
            self.write_slot(length_bound=self.slot.length_bound, holes=(first, end))
        self.writes += 1
        os.ftruncate(self.fd, self.geometry.cipher_size(size))
        self.size = size

    # The header

    def _header_bytes(self) -> bytes:
        """The header area of a file that has none yet: place, slot 0, nothing in slot 1."""
        return self.place + self.slot.seal(self.header_key) + bytes(SLOT_SIZE)

    def write_first_header(self) -> None:
        """Put the header before the first block. A file that has none reads as empty."""
        write_all(self.fd, self._header_bytes(), 0)
        self.position = 0

    def _write_with_header(self, blocks: memoryview) -> None:
        """Header and first blocks in one system call: a file is never seen with one and not the other."""
        header = self._header_bytes()
        written = os.pwritev(self.fd, [header, blocks], 0)
        if written < HEADER_SIZE + len(blocks):
            try:
                write_all(self.fd, header + bytes(blocks), 0)
            except OSError:
                os.ftruncate(self.fd, 0)
                raise
        self.position = 0

    def _next_slot(self, sequence: int, length_bound: int, holes: tuple[int, int] | None) -> Slot:
        start, end = holes or (self.slot.hole_start, self.slot.hole_end)
        return self.slot.changed(
            sequence=sequence,
            length_bound=length_bound,
            sealed_blocks=self.sealed,
            hole_start=start,
            hole_end=end,
        )

    def write_slot(self, *, length_bound: int, holes: tuple[int, int] | None = None) -> None:
        """Write a header to the slot that is not in force; from then on it is. The file's times stay."""
        slot = self._next_slot(self.slot.sequence + 1, length_bound, holes)
        position = 1 - self.position
        before = os.fstat(self.fd)
        write_all(self.fd, slot.seal(self.header_key), PLACE_SIZE + SLOT_SIZE * position)
        os.utime(self.fd, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.slot, self.position = slot, position

    def write_place(self, place: bytes) -> None:
        """Record a new place (before a rename or link)."""
        self.place = place
        if self.position < 0:
            self.write_first_header()
            return
        before = os.fstat(self.fd)
        write_all(self.fd, place, 0)
        os.utime(self.fd, ns=(before.st_atime_ns, before.st_mtime_ns))

    def record_length(self) -> None:
        """Raise the length bound to the size and record the sealed blocks; only after the content was written."""
        if not self.writable:
            return
        if self.position < 0:
            self.write_first_header()
        elif self.slot.length_bound != self.size or self.slot.sealed_blocks != self.sealed:
            self.write_slot(length_bound=self.size)

    def make_writable(self, fd: int) -> None:
        """Go on with a descriptor that may write. The old one stays open: a thread may be reading through it."""
        self.old_fds.append(self.fd)
        self.fd, self.writable = fd, True

    def close(self) -> None:
        """Close the descriptors and let go of the keys."""
        for fd in (self.fd, *self.old_fds):
            os.close(fd)
        self.old_fds.clear()
        self.header_key = b""
        del self.codec
