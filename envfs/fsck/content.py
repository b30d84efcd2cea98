"""One regular file: its header area, its place, the length it must have, and its blocks."""

from __future__ import annotations

import errno
import os
import stat as stat_module
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from envfs.crypto.secret import Secret
from envfs.errors import EnvfsError, FormatError, IntegrityError, InvalidCiphertext, KmsError
from envfs.format.block import BlockCodec
from envfs.format.file_keys import block_codec
from envfs.format.geometry import HEADER_SIZE, Geometry
from envfs.format.header import (
    SLOT_OFFSETS,
    SLOT_SIZE,
    HeaderArea,
    ParsedSlot,
    Slot,
    header_key,
    parse_header_area,
)
from envfs.format.place import Kind, PlaceKey, Where
from envfs.fs.lower import proc_path, write_all
from envfs.fsck.findings import Finding, Outcome, Problem, Spot

#: Gives the file key of a slot, as the KMS decides about its DEK; KmsError where it refuses.
Unwrap = Callable[[Slot, Spot], Secret]

_CHUNK_BLOCKS = 256


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file whose header is authentic: what it takes to read its blocks. `key` is its header key."""

    spot: Spot
    slot: Slot
    key: bytes
    codec: BlockCodec

    def newest_slot(self, fd: int) -> Slot:
        """The header in force now: a mount may have changed it since."""
        try:
            area = parse_header_area(os.pread(fd, HEADER_SIZE, 0))
        except (FormatError, IntegrityError):
            return self.slot
        return next((parsed.slot for parsed in area.slots if parsed.verify(self.key)), self.slot)

    def has_other_keys(self, fd: int) -> bool:
        """Whether the file has got a new DEK since it was opened: nothing can be said of its blocks then."""
        try:
            area = parse_header_area(os.pread(fd, HEADER_SIZE, 0))
        except (FormatError, IntegrityError):
            return False
        return bool(area.slots) and not any(parsed.verify(self.key) for parsed in area.slots)


class FileCheck:
    """Checks regular files of one volume."""

    def __init__(self, geometry: Geometry, place_key: PlaceKey, unwrap: Unwrap) -> None:
        self._geometry = geometry
        self._place_key = place_key
        self._unwrap = unwrap

    def check(self, fd: int, spot: Spot, where: Where, found: list[Finding], *, repair: bool) -> OpenFile | None:
        """Adds what is wrong with the file behind `fd` to `found`. The file, if its blocks can be looked at next."""
        status = os.fstat(fd)
        if not stat_module.S_ISREG(status.st_mode):
            found.append(spot.finding(Problem.UNREADABLE, "it was replaced while it was looked at"))
            return None
        raw = os.pread(fd, HEADER_SIZE, 0)
        try:
            area = parse_header_area(raw)
        except (FormatError, IntegrityError) as error:
            found.append(spot.finding(Problem.HEADER, error.message))
            return None
        if area.is_absent:
            if status.st_size > HEADER_SIZE:
                found.append(spot.finding(Problem.HEADER, "it has blocks but no header"))
            return None
        self._check_place(area, spot, where, found)
        return self._check_slots(fd, raw, area, status.st_size, spot, found, repair=repair)

    def _check_place(self, area: HeaderArea, spot: Spot, where: Where, found: list[Finding]) -> None:
        try:
            if self._place_key.check(area.place_raw, Kind.FILE, area.slots[0].slot.file_id, where):
                return
            detail = "it does not belong where it stands: it was moved, swapped or copied"
        except FormatError as error:
            detail = error.message
        found.append(spot.finding(Problem.PLACE, detail))

    def _check_slots(
        self, fd: int, raw: bytes, area: HeaderArea, size: int, spot: Spot, found: list[Finding], *, repair: bool
    ) -> OpenFile | None:
        good: tuple[ParsedSlot, bytes, BlockCodec] | None = None
        bad = [
            position
            for position, offset in enumerate(SLOT_OFFSETS)
            if raw[offset : offset + SLOT_SIZE].strip(b"\0")
            and all(parsed.position != position for parsed in area.slots)
        ]
        for parsed in area.slots:
            try:
                opened = self._open_slot(parsed, spot)
            except InvalidCiphertext:
                opened = None
            except (KmsError, FormatError) as error:
                detail = f"not checked, the KMS says: {error.message or type(error).__name__}"
                found.append(spot.finding(Problem.KEY, detail, Outcome.NOT_CHECKED))
                return None
            if opened is None:
                bad.append(parsed.position)
            elif good is None:
                good = parsed, *opened
        if good is None:
            found.append(spot.finding(Problem.HEADER, "neither header slot is authentic"))
            return None
        parsed, key, codec = good
        other = raw[SLOT_OFFSETS[1 - parsed.position] :][:SLOT_SIZE]
        if parsed.slot.sequence > 1 and not other.strip(b"\0"):
            bad.append(1 - parsed.position)  # only a file that was never closed or synced has one
        self._tell_bad_slots(fd, bad, parsed, key, spot, found, repair=repair)
        self._check_size(parsed.slot, size, spot, found)
        return OpenFile(spot, parsed.slot, key, codec)

    def _open_slot(self, parsed: ParsedSlot, spot: Spot) -> tuple[bytes, BlockCodec] | None:
        """The slot's header key and its blocks' codec; None if it is not authentic."""
        slot = parsed.slot
        with self._unwrap(slot, spot) as file_key:
            key = header_key(file_key, slot.file_id)
            if not parsed.verify(key) or slot.block_log2 != self._geometry.block_log2:
                return None
            codec = block_codec(file_key, slot, self._geometry)
        return key, codec

    def _tell_bad_slots(
        self,
        fd: int,
        bad: list[int],
        good: ParsedSlot,
        key: bytes,
        spot: Spot,
        found: list[Finding],
        *,
        repair: bool,
    ) -> None:
        for position in bad:
            finding = spot.finding(Problem.SLOT, f"header slot {position} is damaged, the other one is authentic")
            found.append(finding)
            if repair:
                slot = good.slot
                # The next number, as a rewrite has it: what the damaged slot said, perhaps more, is lost for good.
                copy = slot.changed(
                    sequence=slot.sequence + 1,
                    length_bound=slot.length_bound,
                    sealed_blocks=slot.sealed_blocks,
                    hole_start=slot.hole_start,
                    hole_end=slot.hole_end,
                ).seal(key)
                _write_slot(fd, copy, SLOT_OFFSETS[position])
                finding.outcome = Outcome.REPAIRED

    def _check_size(self, slot: Slot, size: int, spot: Spot, found: list[Finding]) -> None:
        plain_size = self._geometry.plain_size(size)
        if plain_size < slot.length_bound:
            found.append(
                spot.finding(Problem.CUT, f"it was cut: {plain_size} bytes are left of at least {slot.length_bound}")
            )


def _write_slot(read_fd: int, raw: bytes, offset: int) -> None:
    # The very file that was checked, whatever its name means by now.
    fd = os.open(proc_path(read_fd), os.O_RDWR | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        write_all(fd, raw, offset)
        os.fsync(fd)
        os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
    finally:
        os.close(fd)


def damaged_blocks(
    fd: int, file: OpenFile, geometry: Geometry, advance: Callable[[int], None]
) -> Iterator[tuple[int, int]]:
    """The blocks that are not authentic, as ranges of indices. `advance` hears how many plain bytes were looked at.

    Where the lower file has no data there is nothing to be read, however long somebody has made it: within the hole
    range these are zeros, and elsewhere damaged.
    """
    slot = file.newest_slot(fd)
    size = os.fstat(fd).st_size
    count = geometry.block_count(geometry.plain_size(size))
    index = 0
    while index < count:
        data, hole = _data_from(fd, geometry.block_offset(index), size)
        first = min(count, max(index, (data - HEADER_SIZE) // geometry.cipher_block))
        if first > index:
            yield from _outside(index, first, slot)
            advance((first - index) * geometry.block_size)
        end = min(count, -(-(hole - HEADER_SIZE) // geometry.cipher_block))
        for start in range(first, end, _CHUNK_BLOCKS):
            length = min(_CHUNK_BLOCKS, end - start) * geometry.cipher_block
            raw = os.pread(fd, length, geometry.block_offset(start))
            yield from _damaged_in(raw, start, file.codec, slot, geometry)
            advance(geometry.plain_size(HEADER_SIZE + len(raw)))
        index = max(end, index + 1)


def _data_from(fd: int, offset: int, size: int) -> tuple[int, int]:
    """Where the next data begins and ends; both the size where none is left. Lower filesystems that cannot say so say
    that everything is data.
    """
    try:
        data = os.lseek(fd, offset, os.SEEK_DATA)
        return data, os.lseek(fd, data, os.SEEK_HOLE)
    except OSError as error:
        return (size, size) if error.errno == errno.ENXIO else (offset, size)


def _outside(first: int, end: int, slot: Slot) -> Iterator[tuple[int, int]]:
    """The parts of a range of zero blocks that are not in the hole range."""
    start, stop = max(first, min(slot.hole_start, end)), min(end, max(slot.hole_end, first))
    if start >= stop:
        yield first, end
        return
    if first < start:
        yield first, start
    if stop < end:
        yield stop, end


def _damaged_in(raw: bytes, first: int, codec: BlockCodec, slot: Slot, geometry: Geometry) -> Iterator[tuple[int, int]]:
    while raw:
        try:
            codec.open(first, raw, slot.hole_start, slot.hole_end)
        except IntegrityError as error:
            index = first if error.block is None else error.block
            yield index, index + 1
            raw = raw[(index + 1 - first) * geometry.cipher_block :]
            first = index + 1
        except EnvfsError:
            yield first, first + 1
            return
        else:
            return
