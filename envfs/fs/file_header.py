"""The header of an open regular file: its two slots, its place, and what they say of the blocks.

The base of `envfs.fs.content.Content`, which has the blocks. A header never promises more (length bound) or permits
more (hole range) than what is true of them; writing it leaves the file's times as they were.
"""

from __future__ import annotations

import contextlib
import os
import stat as stat_module
from dataclasses import replace
from typing import TYPE_CHECKING

from envfs.errors import KeyUnavailable
from envfs.format.geometry import HEADER_SIZE
from envfs.format.header import SLOT_SIZE, Slot
from envfs.format.place import PLACE_SIZE
from envfs.fs.lower import write_all, write_through

if TYPE_CHECKING:
    from envfs.fs.protection import Protection


class FileHeader:
    """`slot` is the one in force, at `position` (-1: no header is on the disk yet). `place` is written together with
    the first header. `sealed`: how many blocks were sealed until now, which the slot may not say yet.
    """

    __slots__ = (
        "fd",
        "has_older_slot",
        "header_key",
        "is_locked",
        "keyed",
        "mtime_ns",
        "ordered",
        "place",
        "position",
        "protection",
        "sealed",
        "size",
        "slot",
        "writable",
        "writes",
    )

    def __init__(
        self,
        fd: int,
        slot: Slot,
        position: int,
        header_key: bytes,
        place: bytes,
        size: int,
        *,
        writable: bool,
        keyed: bool,
        ordered: bool,
    ) -> None:
        self.fd = fd
        self.slot = slot
        self.position = position
        self.header_key = header_key
        self.place = place
        self.size = size
        self.protection: Protection | None = None  # of what is written over, on a disk
        self.writable = writable
        self.keyed = keyed  # False: the file has no header and was opened for reading
        self.ordered = ordered  # whether what is on the disk may lag behind, and must do so in the right order
        self.sealed = slot.sealed_blocks
        self.is_locked = False  # whether its keys were wiped from memory
        self.writes = 0
        self.has_older_slot = False  # whether the slot that is not in force promises something else
        # With write-back the time that the kernel knows, and tells us when it changes; None: the lower file's counts.
        self.mtime_ns: int | None = None

    def require_keys(self) -> None:
        """KeyUnavailable while they are wiped: a header that is sealed without its key would be the end of the file."""
        if self.is_locked:
            raise KeyUnavailable("the keys of the file were wiped by a lock", hint="open it again")

    # What it says

    def header_bytes(self) -> bytes:
        """The header area of a file that has none: place, slot 0; nothing in slot 1, unless there was one before."""
        self.require_keys()
        second = bytes(SLOT_SIZE)
        if self.slot.sequence > 1:
            before = self.next_slot(self.slot.sequence - 1, self.slot.length_bound, None)
            second = before.seal(self.header_key)
        return self.place + self.slot.seal(self.header_key) + second

    def write_first_header(self) -> None:
        """Put the header before the first block. A file that has none reads as empty. The file's times stay."""
        before = os.fstat(self.fd)
        write_all(self.fd, self.header_bytes(), 0)
        self.keep_times(before)
        self.position = 0

    def order_header(self) -> None:
        """What the header says now must be on the disk before what comes next."""
        if self.ordered:
            write_through(self.fd, HEADER_SIZE)

    def next_slot(self, sequence: int, length_bound: int, holes: tuple[int, int] | None) -> Slot:
        start, end = holes or (self.slot.hole_start, self.slot.hole_end)
        return self.slot.changed(
            sequence=sequence,
            length_bound=length_bound,
            sealed_blocks=self.sealed,
            hole_start=start,
            hole_end=end,
        )

    def write_slot(self, *, length_bound: int, holes: tuple[int, int] | None = None, both: bool = False) -> None:
        """Write a header to the slot that is not in force; from then on it is. The file's times stay.

        `both`: then to the other one, too, so that no older header can be put in force by damaging the newer.
        """
        self.require_keys()
        before = os.fstat(self.fd)
        for _ in range(2 if both else 1):
            slot = self.next_slot(self.slot.sequence + 1, length_bound, holes)
            position = 1 - self.position
            write_all(self.fd, slot.seal(self.header_key), PLACE_SIZE + SLOT_SIZE * position)
            self.slot, self.position = slot, position
        self.has_older_slot = not both
        self.keep_times(before)

    def renew_slots(self, fd: int, **changes: object) -> None:
        """Both slots anew, in one write through a descriptor that may write: members of the header other than those
        that follow from the blocks, a new blob of the DEK for instance. Nothing has changed if it raises.
        """
        self.require_keys()
        before = os.fstat(fd)
        kept, key = self.slot, self.header_key
        self.slot = replace(kept, **changes)  # type: ignore[arg-type]
        if self.position < 0:
            return  # there is none on the disk; the first one will say so
        try:
            first = self.next_slot(kept.sequence + 1, kept.length_bound, None)
            second = self.next_slot(kept.sequence + 2, kept.length_bound, None)
            pair = [second.seal(key), first.seal(key)]
            # A kill cannot tear a page; and of two sectors, the second has all of slot 1, so that one is always whole.
            write_all(fd, b"".join(pair if self.position == 0 else reversed(pair)), PLACE_SIZE)
        except BaseException:
            self.slot = kept
            raise
        self.slot, self.has_older_slot = second, False
        self.keep_times(before, fd)

    def keep_times(self, before: os.stat_result, fd: int | None = None) -> None:
        mtime_ns = before.st_mtime_ns if self.mtime_ns is None else self.mtime_ns
        with contextlib.suppress(PermissionError):  # an ordinary user who writes somebody else's file
            os.utime(self.fd if fd is None else fd, ns=(before.st_atime_ns, mtime_ns))

    def hold_mtime(self) -> None:
        """From now on the kernel alone decides: a write that reaches us says nothing of when it was made."""
        if self.mtime_ns is None:
            self.mtime_ns = os.fstat(self.fd).st_mtime_ns

    def prepare_sync(self) -> None:
        """Before a sync: let both slots be on disk. Then one is left when the disk tears a later write of them."""
        if self.protection is not None:
            self.protection.is_on_disk()  # from now on: what is written over while the sync runs may be torn by it
        if not (self.writable and self.keyed) or self.is_locked:
            return
        if self.position < 0:
            self.write_first_header()
        if self.slot.sequence == 1:
            self.write_slot(length_bound=self.slot.length_bound)

    def write_place(self, place: bytes) -> None:
        """Record a new place (before a rename or link)."""
        self.place = place
        if self.position < 0:
            self.write_first_header()
            return
        before = os.fstat(self.fd)
        write_all(self.fd, place, 0)
        self.keep_times(before)

    def record_length(self, synced: int | None = None) -> None:
        """Raise the length bound to the size and record the sealed blocks; only after the content was written.

        `synced`: the size when a sync began, which says nothing of what came after; 0 if the file was cut since.
        """
        if not self.writable or self.is_locked:  # locked: done before
            return
        if self.protection is not None:
            self.protection.is_on_disk()
        if self.position < 0:
            self.write_first_header()
            return
        bound = self.size if synced is None else max(self.slot.length_bound, min(synced, self.size))
        if self.has_older_slot or self.slot.length_bound != bound or self.slot.sealed_blocks != self.sealed:
            self.write_slot(length_bound=bound, both=True)
        else:
            self.put_time_back()

    def put_time_back(self) -> None:
        """With write-back: our writes have changed the lower file's time, and nobody else is to know."""
        if self.writes and self.mtime_ns is not None:
            self.keep_times(os.fstat(self.fd))

    def promises_too_little(self) -> bool:
        """Whether `record_length` would raise the bound, and not only record what was sealed."""
        return self.position >= 0 and self.slot.length_bound < self.size

    def record_length_by(self, fd: int) -> None:
        """`record_length` of a content that was closed, through a descriptor that stays the caller's."""
        self.fd, self.mtime_ns = fd, None
        mode = stat_module.S_IMODE(os.fstat(fd).st_mode)
        try:
            self.record_length()
            if mode & 0o6000:  # which a write by anybody but root takes away
                os.fchmod(fd, mode)
        finally:
            self.fd = -1
