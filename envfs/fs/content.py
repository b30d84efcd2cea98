"""The content of an open regular file: blocks and header slots of one lower file.

A content belongs to a node while any handle is open on it; all its handles share it. Every method that writes runs
in the one thread of the event loop and does not await, so within one method nobody else changes the file:

- `size` is the file's plain size, and the lower file has `geometry.cipher_size(size)` bytes;
- the header in force is `slot`, at `position` (-1: none is on disk yet);
- the header on disk never promises more (length bound) or permits more (hole range) than what is true of the blocks.

Reads may run in another thread beside a write; `writes` tells them that what they saw may have been torn.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from typing import TYPE_CHECKING

from envfs.crypto.scrub import overwrite
from envfs.errors import IntegrityError
from envfs.format.block import MAX_GENERATIONS, BlockCodec, generation_of
from envfs.format.geometry import HEADER_SIZE, OVERHEAD, Geometry
from envfs.format.header import Slot
from envfs.format.undo import PATH_MAX, TAIL_SIZE, UndoHead
from envfs.fs.file_header import FileHeader
from envfs.fs.lower import NO_SPACE, write_all
from envfs.fs.protection import Protection, is_for_want_of_room
from envfs.fs.undo import PIECE, Undo

if TYPE_CHECKING:
    from envfs.fs.nodes import Node
    from envfs.kms.model import Principal, RequestFacts

# So many sealed blocks at most are not yet in the header, so that a crash forgets few.
_RECORD_EVERY = 1 << 20
_PAGE = os.sysconf("SC_PAGE_SIZE")

log = logging.getLogger("envfs.fs")


class Buffers:
    """Scratch memory for one request at a time, so that a request of 1 MiB touches no fresh pages.

    What lies in it is valid until the next request; a reply is sent before that.
    """

    def __init__(self, geometry: Geometry, largest_request: int = 1 << 20) -> None:
        blocks = largest_request // geometry.block_size + 2
        self.cipher = bytearray(blocks * geometry.cipher_block)
        self.plain = bytearray(blocks * geometry.block_size)


class Content(FileHeader):
    """See the module. `place` is written together with the first header."""

    __slots__ = (
        "buffers",
        "cached_by",
        "codec",
        "cuts",
        "direct_handles",
        "failed_syncs",
        "geometry",
        "handles",
        "node",
        "old_fds",
        "readers",
        "undo",
    )

    def __init__(
        self,
        node: Node,
        fd: int,
        *,
        undo: Undo,
        ordered: bool,
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
        super().__init__(
            fd,
            slot,
            position,
            header_key,
            place,
            size,
            writable=writable,
            keyed=keyed,
            ordered=ordered,
        )
        self.node = node
        self.undo = undo
        self.old_fds: list[int] = []
        self.geometry = geometry
        self.buffers = buffers
        self.readers: dict[int, tuple[Principal, RequestFacts]] = {}  # by uid; who has it open without a key
        self.codec = codec
        self.handles = 0
        self.direct_handles = 0  # of them, those that go past the page cache
        self.cached_by = -1  # the uid of who uses the page cache; -1: nobody, or several
        # Their errnos. The kernel tells a descriptor once what it could not write; each handle is to hear of it.
        self.failed_syncs: list[int] = []
        self.cuts = 0  # how often it was made shorter
        if undo.journal is not None:
            self.protection = Protection(self, undo.journal)

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

    def existing(self, first: int, end: int) -> bytes:
        """The sealed bytes of blocks `first` to `end` (exclusive), as far as the file has them."""
        start = self.geometry.block_offset(first)
        count = min(self.geometry.block_offset(end), self.geometry.cipher_size(self.size)) - start
        if count <= 0:
            return b""
        cipher = os.pread(self.fd, count, start)
        if len(cipher) < count:
            raise self.cut_off(start + len(cipher))
        return cipher

    # Writing

    def write(self, offset: int, data: bytes) -> int:
        """Write all of `data` at a plain offset; a gap before it becomes a hole.

        Raises OSError(ENOSPC …) with everything that was in the file before still readable, and IntegrityError if a
        block that is only partly overwritten cannot be read.
        """
        if not data:
            return 0
        self.require_keys()
        end = offset + len(data)
        if end > self.geometry.max_plain_size:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        if offset > self.size:
            self._grow(offset)
        first, last_end = self.geometry.blocks(offset, len(data))
        old = self.existing(first, last_end) if first * self.geometry.block_size < self.size else b""
        plain = self._merge(first, last_end, offset, data, old) if old else data
        self._replace(first, plain, old, max(self.size, end))
        return len(data)

    def _merge(self, first: int, last_end: int, offset: int, data: bytes, old: bytes) -> bytes | bytearray:
        """The plain bytes of all the blocks that a write touches: old ones around the new."""
        block_size, cipher_block = self.geometry.block_size, self.geometry.cipher_block
        start, end = first * block_size, offset + len(data)
        tail_kept = end < self.size and end % block_size != 0
        if offset == start and not tail_kept:
            return data
        plain = bytearray(max(end, min(self.size, last_end * block_size)) - start)
        if offset != start or last_end == first + 1:
            kept = self._open_blocks(first, old[:cipher_block])
            plain[: len(kept)] = kept
        if tail_kept and last_end > first + 1:
            skip = last_end - 1 - first
            kept = self._open_blocks(last_end - 1, old[skip * cipher_block :])
            plain[skip * block_size : skip * block_size + len(kept)] = kept
        plain[offset - start : end - start] = data
        return plain

    def _open_blocks(self, first: int, cipher: bytes) -> bytearray:
        return self.codec.open(first, cipher, self.slot.hole_start, self.slot.hole_end)

    def _replace(self, first: int, plain: bytes | bytearray, old: bytes, new_size: int) -> None:
        """Seal `plain` into the blocks from `first` on, which are `old` where they exist; the file gets `new_size`."""
        blocks = self.geometry.block_count(len(plain))
        try:
            nonces = self._protect(first, first + blocks, new_size) if old else None
        except OSError as error:
            if error.errno not in NO_SPACE or len(plain) <= self._piece:
                raise
            self._replace_in_pieces(first, plain, old, new_size)
            return
        self._count_sealed(blocks)
        count = len(plain) + blocks * OVERHEAD
        out = self.buffers.cipher if count <= len(self.buffers.cipher) else bytearray(count)
        self.codec.seal(first, plain, out, nonces)
        view = memoryview(out)[:count]
        self.writes += 1
        if self.position < 0:
            if first == 0:
                if HEADER_SIZE + count > _PAGE:  # a kill cannot tear a page
                    self._record_undo(0, view, b"", new_size, cuts=False)
                self._write_with_header(view)
                self.size = new_size
                self._written(0, blocks)
                return
            self.write_first_header()
        try:
            self._record_undo(first, view, old, new_size, cuts=False)
        except OSError as error:
            if error.errno not in NO_SPACE or not old or len(plain) <= self._piece:
                raise
            self._replace_in_pieces(first, plain, old, new_size)
            return
        offset = self.geometry.block_offset(first)
        try:
            written = os.pwrite(self.fd, view, offset)
            if written < count:
                write_all(self.fd, view[written:], offset + written)
        except OSError:
            self._put_back(offset, old)
            raise
        self.size = new_size
        self._written(first, first + blocks)

    # A new DEK

    def begin_rekey(self, slot: Slot, key: bytes, codec: BlockCodec) -> None:
        """Seal under a new DEK from now on: `slot` has its blob and the previous key. The header says so first, in both
        slots, and on the disk. Nothing has changed if it raises.
        """
        if self.position < 0:
            self.write_first_header()
        kept = self.header_key, self.codec, self.sealed
        self.header_key, self.codec, self.sealed = key, codec, 0
        try:
            self.renew_slots(self.fd, blob=slot.blob, previous=slot.previous)
        except BaseException:
            self.header_key, self.codec, self.sealed = kept
            raise
        self.order_header()
        self.writes += 1

    def reseal(self, first: int, end: int) -> list[int]:
        """Seal blocks `first` to `end` (exclusive) anew, as they are; holes stay. The damaged ones, which stay too."""
        damaged: list[int] = []
        old = self.existing(first, end)
        step = self.geometry.cipher_block
        index, before = first, os.fstat(self.fd)
        while old:
            whole = self._run_of_blocks(index, old)
            if whole:
                cipher = old[: whole * step]
                try:
                    plain = self._open_blocks(index, cipher)
                except IntegrityError as error:
                    whole = 0 if error.block is None else error.block - index
                    if not whole:
                        damaged.append(index)
                    else:
                        cipher = cipher[: whole * step]
                        self._replace(index, self._open_blocks(index, cipher), cipher, self.size)
                else:
                    self._replace(index, plain, cipher, self.size)
            skip = whole or 1  # a hole, or a damaged block
            index, old = index + skip, old[skip * step :]
        self.keep_times(before)
        return damaged

    def _run_of_blocks(self, first: int, cipher: bytes) -> int:
        """How many blocks there are before the first hole."""
        step = self.geometry.cipher_block
        count = -(-len(cipher) // step)
        for number in range(max(0, self.slot.hole_start - first), min(count, self.slot.hole_end - first)):
            if not cipher[number * step : (number + 1) * step].strip(b"\0"):
                return number
        return count

    def end_rekey(self) -> None:
        """No block is under the previous DEK any more, and that is so on the disk."""
        self.undo.clear()  # what it has is sealed under the previous one
        self.renew_slots(self.fd, previous=b"")
        self.codec.forget_previous()
        self.writes += 1

    def _protect(self, first: int, end: int, new_size: int) -> bytes | None:
        """The nonces to seal blocks with, once the journal has on the disk what they are now; None: any will do.

        Raises OSError, ENOSPC if there is no room in the journal for so many at once. Where there is none for a piece,
        new content counts for more than what a power failure in the next seconds may do to the old.
        """
        if self.protection is None:
            return None
        try:
            return self.protection.nonces(first, end, new_size)
        except OSError as error:
            if not is_for_want_of_room(error) or (end - first) * self.geometry.block_size > self._piece:
                raise
            self.protection.tell_of_no_room(error)
            return None

    def _written(self, first: int, end: int) -> None:
        if self.protection is not None:
            self.protection.written(first, end)

    @property
    def _piece(self) -> int:
        """Plain bytes of whole blocks whose undo record fits into the space that is always kept for one."""
        return max(1, PIECE // self.geometry.block_size) * self.geometry.block_size

    def _replace_in_pieces(self, first: int, plain: bytes | bytearray, old: bytes, new_size: int) -> None:
        """The disk is full, and takes no record of the whole: each piece gets its own, in the space of the last.

        Sealed anew, with new nonces: what was sealed for the whole was not written.
        """
        step = self._piece
        step_old = step // self.geometry.block_size * self.geometry.cipher_block
        start = first * self.geometry.block_size
        for number, offset in enumerate(range(0, len(plain), step)):
            piece = plain[offset : offset + step]
            size = min(new_size, max(self.size, start + offset + len(piece)))
            piece_old = old[number * step_old : (number + 1) * step_old]
            self._replace((start + offset) // self.geometry.block_size, piece, piece_old, size)

    def _record_undo(self, first: int, view: memoryview, old: bytes, new_size: int, *, cuts: bool) -> None:
        """Before blocks are written; without old ones, what a kill leaves of the new ones is cut off again.

        A file whose name we do not know, or whose path is longer than a record may say, could not be found again: no
        record, and no older one either.
        """
        path = self.node.lower_path()
        if not 0 < len(path) <= PATH_MAX:
            self.undo.clear()
            return
        offset = self.geometry.block_offset(first)
        head = UndoHead(
            boot_id=self.undo.boot_id,
            file_id=self.slot.file_id,
            inode=self.node.lower_ino,
            offset=offset,
            end=offset + len(view),
            old_size=self.geometry.cipher_size(self.size),
            new_size=self.geometry.cipher_size(new_size),
            tail=bytes(view[-TAIL_SIZE:]),
            old_length=len(old),
            cuts=cuts,
            path=path,
        )
        self.undo.begin(head, old)

    def _put_back(self, offset: int, old: bytes) -> None:
        """After a write that failed (a full disk, say): the file is what it was, and the undo record means nothing.

        Pages that were written need no new space. Those of a hole may be refused again; they were not written then.
        """
        with contextlib.suppress(OSError):
            write_all(self.fd, old, offset)
        os.ftruncate(self.fd, self.geometry.cipher_size(self.size))
        self.undo.clear()

    def _count_sealed(self, blocks: int) -> None:
        """Before blocks are sealed. Raises OSError(EFBIG) when the last content key of the file has sealed enough."""
        self.sealed += blocks
        generation = generation_of(self.sealed)
        if generation != self.codec.generation:
            self._new_generation(generation, blocks)
        elif self.sealed - self.slot.sealed_blocks >= _RECORD_EVERY and self.position >= 0:
            self.write_slot(length_bound=self.slot.length_bound)

    def _new_generation(self, generation: int, blocks: int) -> None:
        """Seal under a new content key from now on. The header says so first, in both slots, and on the disk."""
        if generation >= MAX_GENERATIONS:
            self.sealed -= blocks
            log.error("%s has used up its content keys: copy it to get a new DEK", self.node.path())
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        if self.position < 0:
            self.slot = self.next_slot(self.slot.sequence, self.slot.length_bound, None)
        else:
            self.write_slot(length_bound=self.slot.length_bound, both=True)
            self.order_header()
        self.codec.advance(generation)

    def truncate(self, size: int) -> None:
        """Set the plain size. Shrinking lowers the length bound first; growing makes a hole."""
        self.require_keys()
        if size > self.geometry.max_plain_size:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        if size < self.size:
            self._shrink(size)
        elif size > self.size:
            self._grow(size)

    def _shrink(self, size: int) -> None:
        if not size and self.position >= 0 and not _has_xattrs(self.fd):
            self._empty()
            return
        if self.slot.length_bound > size:
            self.write_slot(length_bound=size)
            self.order_header()
        self.writes += 1
        self.cuts += 1
        index, rest = divmod(size, self.geometry.block_size)
        if rest:
            old = self.existing(index, index + 1)
            nonces = self._protect(index, index + 1, size)
            self._count_sealed(1)
            sealed = self.codec.seal(index, self._open_blocks(index, old)[:rest], None, nonces)
            self._record_undo(index, memoryview(sealed), old, size, cuts=True)
            try:
                write_all(self.fd, sealed, self.geometry.block_offset(index))
                os.ftruncate(self.fd, self.geometry.cipher_size(size))
            except OSError:
                self._put_back(self.geometry.block_offset(index), old)
                raise
        else:
            self.undo.clear()
            os.ftruncate(self.fd, self.geometry.cipher_size(size))
        self.size = size
        self._cut()
        if not size and self.slot.hole_end:
            self.write_slot(length_bound=0, holes=(0, 0))

    def _empty(self) -> None:
        """Cut the file to nothing, header and all, and write the header anew: what is on the disk meanwhile is empty.

        Without a wait for the disk: the old header goes in the same step as the rest, and there is no new one before
        its page is written. Not for a file with extended attributes, which belong to the file id in the header.
        """
        self.undo.clear()
        os.ftruncate(self.fd, 0)
        self.writes += 1
        self.cuts += 1
        first = self.next_slot(self.slot.sequence + 1, 0, (0, 0))
        self.slot = self.next_slot(self.slot.sequence + 2, 0, (0, 0))
        self.size, self.position = 0, -1
        self._cut()
        with contextlib.suppress(OSError):  # no space: then it is written together with the first block
            slots = first.seal(self.header_key) + self.slot.seal(self.header_key)
            write_all(self.fd, self.place + slots, 0)
            self.position, self.has_older_slot = 1, False

    def _cut(self) -> None:
        if self.protection is not None:
            self.protection.cut(self.geometry.block_count(self.size))

    def _grow(self, size: int) -> None:
        block_size = self.geometry.block_size
        index, rest = divmod(self.size, block_size)
        if rest:
            keep = min(size, (index + 1) * block_size)
            old = self.existing(index, index + 1)
            plain = self._open_blocks(index, old)
            plain.extend(bytes(keep - self.size))
            self._replace(index, plain, old, keep)
        if size <= self.size:
            return
        first, end = self.size // block_size, self.geometry.block_count(size)
        if self.slot.hole_end > self.slot.hole_start:
            first, end = min(first, self.slot.hole_start), max(end, self.slot.hole_end)
        if self.position < 0:
            self.slot = self.next_slot(self.slot.sequence, 0, (first, end))
            self.write_first_header()
            self.order_header()
        elif (first, end) != (self.slot.hole_start, self.slot.hole_end):
            self.write_slot(length_bound=self.slot.length_bound, holes=(first, end))
            self.order_header()
        self.writes += 1
        os.ftruncate(self.fd, self.geometry.cipher_size(size))
        self._written(self.geometry.block_count(self.size), self.geometry.block_count(size))
        self.size = size

    # The header, and the keys

    def _write_with_header(self, blocks: memoryview) -> None:
        """Header and first blocks in one system call: a file is never seen with one and not the other."""
        header = self.header_bytes()
        written = os.pwritev(self.fd, [header, blocks], 0)
        if written < HEADER_SIZE + len(blocks):
            try:
                write_all(self.fd, header + bytes(blocks), 0)
            except OSError:
                os.ftruncate(self.fd, 0)
                self.undo.clear()
                raise
        self.position = 0

    def take_key(self, fresh: Content) -> None:
        """The keys of a content that was made for the same file, now that somebody writes it."""
        self.slot, self.header_key, self.codec, self.place = fresh.slot, fresh.header_key, fresh.codec, fresh.place
        self.keyed, self.is_locked = True, False
        self.readers.clear()

    def forget_keys(self) -> None:
        """Overwrites them, after all that they are needed for was done. Until `take_back_keys`, what needs one raises
        KeyUnavailable.
        """
        if self.header_key:
            overwrite(self.header_key)
        self.header_key = b""
        self.codec.forget()
        self.is_locked = True

    def take_back_keys(self, header_key: bytes, codec: BlockCodec) -> None:
        """The same keys again, unwrapped anew."""
        self.header_key, self.codec, self.is_locked = header_key, codec, False

    def make_writable(self, fd: int) -> None:
        """Go on with a descriptor that may write. The old one stays open: a thread may be reading through it."""
        self.old_fds.append(self.fd)
        self.fd, self.writable = fd, True

    def close(self, *, keep_header_key: bool = False) -> None:
        """Close the descriptors and let go of the keys. The header key may be needed for `record_length_by`."""
        for fd in (self.fd, *self.old_fds):
            os.close(fd)
        self.fd = -1
        self.old_fds.clear()
        if not keep_header_key:
            self.forget_header_key()
        del self.codec

    def forget_header_key(self) -> None:
        """From now on no header can be written."""
        overwrite(self.header_key)
        self.header_key = b""


def _has_xattrs(fd: int) -> bool:
    try:
        return any(name.startswith("user.envfs.") for name in os.listxattr(fd))
    except OSError as error:  # the lower filesystem has none, or the file has more than can be listed
        return error.errno in {errno.E2BIG, errno.ERANGE}
