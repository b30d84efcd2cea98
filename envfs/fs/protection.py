"""Which blocks of an open file must be in the journal before they are written over, and by which nonces they follow.

Everything that is there when a file is opened or synced may be on the disk. What is added later is not, for as long as
the kernel leaves dirty pages alone; such blocks are written over as they are.

A reservation is a record of a block as it is now. It is good for one write of that block, which uses its nonce, and
ends with any write or cut of it. So an overwrite can wait for the disk before it begins: what changes meanwhile takes
the reservation with it, and the writer makes a new one.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from envfs.crypto.aead import NONCE_SIZE
from envfs.format.geometry import OVERHEAD
from envfs.format.journal import Entry
from envfs.fs import lower, nodes
from envfs.fs.lower import NO_SPACE

if TYPE_CHECKING:
    from envfs.fs.content import Content
    from envfs.fs.journal import Journal

log = logging.getLogger("envfs.fs")

# So often at most a request waits beside others for its turn; then it waits by itself.
_ATTEMPTS: Final = 8


class _Reservation(NamedTuple):
    ticket: int
    nonce: bytes
    new_length: int


class Protection:
    """Of one content."""

    __slots__ = ("_added_since", "_content", "_journal", "_on_disk", "_reserved")

    def __init__(self, content: Content, journal: Journal) -> None:
        self._content = content
        self._journal = journal
        # Blocks below may be on the disk; the rest was added since then (time.monotonic; None: there is none).
        self._on_disk = content.geometry.block_count(content.size)
        self._added_since: float | None = None
        self._reserved: dict[int, _Reservation] = {}

    # What may be on the disk

    def _limit(self, first: int, end: int) -> int:
        """Blocks below may be on the disk; blocks `first` to `end` (exclusive) are to be written over."""
        since = self._added_since
        if since is None:
            return self._on_disk
        if time.monotonic() - since >= nodes.FRESH or self._has_written_back(max(first, self._on_disk), end):
            self.is_on_disk()
        return self._on_disk

    def _has_written_back(self, first: int, end: int) -> bool:
        """Whether the kernel has begun to write back what was added to these blocks, sooner than it should."""
        content, geometry = self._content, self._content.geometry
        start = geometry.block_offset(first)
        stop = min(geometry.block_offset(end), geometry.cipher_size(content.size))
        return stop > start and lower.is_only_in_memory(content.fd, start, stop - start) is False

    def is_on_disk(self) -> None:
        """All that is there now may be on the disk: it was synced, or has been there for long."""
        self._on_disk = self._content.geometry.block_count(self._content.size)
        self._added_since = None

    def written(self, first: int, end: int) -> None:
        """Blocks from `first` to `end` (exclusive) have been written."""
        if self._reserved:
            for index in range(first, end):
                self._reserved.pop(index, None)
        if end > self._on_disk and self._added_since is None:
            self._added_since = time.monotonic()

    def cut(self, count: int) -> None:
        """So many blocks are left of the file."""
        self._on_disk = min(self._on_disk, count)
        self._reserved.clear()

    # Reservations

    def concerns(self, offset: int, length: int) -> bool:
        """Whether a write to a plain range may have to wait for the disk."""
        first, end = self._content.geometry.blocks(offset, length)
        return first < self._limit(first, end) and bool(
            self._missing(first, end, max(self._content.size, offset + length))
        )

    async def reserve(self, offset: int, length: int) -> None:
        """Reserve what a write to a plain range takes, beside other requests.

        No promise: something may come in between, and the write then waits by itself. Raises OSError.
        """
        content, geometry = self._content, self._content.geometry
        first, end = geometry.blocks(offset, length)
        for _ in range(_ATTEMPTS):  # others may take the reservation, or the journal begin anew
            new_size = max(content.size, offset + length)
            missing = self._missing(first, end, new_size)
            if not missing:
                return
            path_length = len(content.node.lower_path())
            if self._journal.is_full_for(path_length, len(missing), len(missing) * geometry.cipher_block):
                await self._journal.restart()
            else:
                await self._journal.commit(self._add(missing, new_size))

    def nonces(self, first: int, end: int, new_size: int) -> bytes | None:
        """The nonces for blocks `first` to `end` (exclusive), to be sealed now; the file gets `new_size` plain bytes.

        Waits for the disk where nobody has reserved them. None: any will do. Raises OSError, ENOSPC if the journal has
        no room for so many at once.
        """
        limit = min(end, self._limit(first, end))
        if first >= limit or not self._has_name():  # without a name nothing is found after a power failure
            return None
        while missing := self._missing(first, end, new_size):  # again if the journal had to begin anew for it
            self._add(missing, new_size)
            self._journal.commit_now()
        nonces = [self._reserved.pop(index).nonce for index in range(first, limit)]
        if end > limit:
            nonces.append(self._content.codec.new_nonces(end - limit))
        return b"".join(nonces)

    def tell_of_no_room(self, error: OSError) -> None:
        """Something is written over without a record. Said once for each mount."""
        if not self._journal.is_missed:
            self._journal.is_missed = True
            log.warning("no room for the journal (%s): a power failure may tear what is written over now", error)

    def _missing(self, first: int, end: int, new_size: int) -> list[int]:
        if not self._has_name():
            return []
        return [index for index in range(first, min(end, self._on_disk)) if not self._is_reserved(index, new_size)]

    def _has_name(self) -> bool:
        """Also one that we do not know, when the one we knew was removed: the file is found by its inode then."""
        return self._content.node.located or os.fstat(self._content.fd).st_nlink > 0

    def _is_reserved(self, index: int, new_size: int) -> bool:
        found = self._reserved.get(index)
        return (
            found is not None
            and self._journal.holds(found.ticket)
            and found.new_length == self._new_length(index, new_size)
        )

    def _new_length(self, index: int, new_size: int) -> int:
        return self._content.geometry.block_plain_length(index, new_size) + OVERHEAD

    def _add(self, missing: list[int], new_size: int) -> int:
        """A record of blocks as they are now; its ticket. They are reserved when it is on the disk."""
        content = self._content
        cipher_block = content.geometry.cipher_block
        # Each seals one block: it is taken out of `_reserved` for that, and never comes back.
        nonces = content.codec.new_nonces(len(missing))
        raw = content.existing(missing[0], missing[-1] + 1)
        entries = []
        for number, index in enumerate(missing):
            start = (index - missing[0]) * cipher_block
            nonce = nonces[number * NONCE_SIZE : (number + 1) * NONCE_SIZE]
            old = raw[start : start + cipher_block]
            entries.append(Entry(index, nonce, self._new_length(index, new_size), old))
        ticket = self._journal.add(content.slot.file_id, content.fd, content.node.lower_path(), entries)
        for entry in entries:
            self._reserved[entry.index] = _Reservation(ticket, entry.nonce, entry.new_length)
        return ticket


def is_for_want_of_room(error: OSError) -> bool:
    """Whether the disk is full, or the journal may not be written at all."""
    return error.errno in NO_SPACE or error.errno == errno.EACCES
