"""The header area of a file: a place and two slots, one of them in force (FORMAT.md section 2).

Nothing here asks for a key before it must: parse, ask the KMS for the DEK with the slot's blob, then `verify_slot`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from envfs.crypto import mac
from envfs.crypto.aead import Buffer, Suite
from envfs.crypto.kdf import Label, derive
from envfs.crypto.secret import Secret
from envfs.errors import FormatError, IntegrityError
from envfs.format.context import EMPTY_CONTEXT, decode_labels
from envfs.format.fields import (
    ID_SIZE,
    MAX_BLOCK_LOG2,
    MIN_BLOCK_LOG2,
    U64_MAX,
    VERSION,
    check_id,
    check_length,
    check_range,
    check_start,
    to_suite,
)
from envfs.format.geometry import HEADER_SIZE
from envfs.format.place import PLACE_SIZE

MAGIC: Final = b"ENVF"
SLOT_SIZE: Final = 448
SLOT_OFFSETS: Final = (PLACE_SIZE, PLACE_SIZE + SLOT_SIZE)
MAC_OFFSET: Final = SLOT_SIZE - mac.MAC_SIZE
MAX_VARIABLE_SIZE: Final = 344
#: Bytes of a previous key: generation, wrapped file key, tag (FORMAT.md section 2.4).
PREVIOUS_KEY_SIZE: Final = 2 + 32 + 16

_FIXED: Final = struct.Struct(">4sHBBQ16sQQQQHHHH")
_PADDED: Final = struct.Struct(f">{MAC_OFFSET}s")

_ID_START: Final = 16
_ID_END: Final = _ID_START + ID_SIZE

assert SLOT_OFFSETS[1] + SLOT_SIZE == HEADER_SIZE
assert _FIXED.size + MAX_VARIABLE_SIZE == MAC_OFFSET


@dataclass(frozen=True, slots=True)
class Slot:
    """What a header says. FormatError for values that a slot cannot hold.

    `length_bound` counts plain bytes, `sealed_blocks` blocks sealed under the DEK so far (a lower bound), the holes are
    block indices [hole_start, hole_end), both 0 for none. `blob` is the KMS's, `labels` are encoded pairs, `previous`
    is a previous key (see `envfs.format.file_keys`) or empty.
    """

    suite: Suite
    block_log2: int
    sequence: int
    file_id: bytes
    length_bound: int
    sealed_blocks: int
    hole_start: int
    hole_end: int
    blob: bytes
    labels: bytes = EMPTY_CONTEXT
    previous: bytes = b""

    def __post_init__(self) -> None:
        # One expression for the usual case: every open and every header write comes here.
        if not (
            MIN_BLOCK_LOG2 <= self.block_log2 <= MAX_BLOCK_LOG2
            and 1 <= self.sequence <= U64_MAX
            and len(self.file_id) == ID_SIZE
            and 0 <= self.length_bound <= U64_MAX
            and 0 <= self.sealed_blocks <= U64_MAX
            and (0 <= self.hole_start < self.hole_end <= U64_MAX or self.hole_start == self.hole_end == 0)
            and 1 <= len(self.blob) <= MAX_VARIABLE_SIZE - len(self.labels)
            and self.labels == EMPTY_CONTEXT
            and not self.previous
        ):
            self._check()

    def _check(self) -> None:
        """FormatError that names the wrong field, if one is wrong."""
        check_range(self.block_log2, MIN_BLOCK_LOG2, MAX_BLOCK_LOG2, "slot: log2 of the block size")
        check_range(self.sequence, 1, U64_MAX, "slot: sequence number")
        check_id(self.file_id, "slot: file id")
        check_range(self.length_bound, 0, U64_MAX, "slot: length bound")
        check_range(self.sealed_blocks, 0, U64_MAX, "slot: sealed blocks")
        if self.hole_end:
            check_range(self.hole_end, 1, U64_MAX, "slot: end of the holes")
            check_range(self.hole_start, 0, self.hole_end - 1, "slot: start of the holes")
        elif self.hole_start:
            raise FormatError("slot: the hole range ends before it starts")
        if len(self.previous) not in {0, PREVIOUS_KEY_SIZE}:
            raise FormatError(f"slot: a previous key of {len(self.previous)} bytes")
        others = len(self.labels) + len(self.previous)
        check_range(len(self.blob), 1, MAX_VARIABLE_SIZE - others, "slot: size of the ciphertext blob")
        decode_labels(self.labels)

    def changed(self, *, sequence: int, length_bound: int, sealed_blocks: int, hole_start: int, hole_end: int) -> Slot:
        """The slot that follows this one; file, suite and DEK stay."""
        return Slot(
            self.suite,
            self.block_log2,
            sequence,
            self.file_id,
            length_bound,
            sealed_blocks,
            hole_start,
            hole_end,
            self.blob,
            self.labels,
            self.previous,
        )

    def facts(self) -> dict[str, object]:
        """What a header says, for people and scripts; sizes in bytes."""
        return {
            "file_id": self.file_id.hex(),
            "suite": self.suite.label,
            "block_size": 1 << self.block_log2,
            "sequence": self.sequence,
            "length_bound": self.length_bound,
            "sealed_blocks": self.sealed_blocks,
            "holes": [self.hole_start, self.hole_end],
            "labels": decode_labels(self.labels),
            "rekey_unfinished": bool(self.previous),
        }

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """The slot in `raw` (448 bytes), still unauthenticated. Truncated, UnsupportedVersion or FormatError."""
        check_start(raw, MAGIC, "header slot")
        check_length(raw, SLOT_SIZE, "header slot")
        (
            _, _, suite, block_log2, sequence, file_id, length_bound, sealed_blocks,
            hole_start, hole_end, flags, blob_length, labels_length, previous_length,
        ) = _FIXED.unpack_from(raw)  # fmt: skip
        if flags:
            raise FormatError("slot: reserved bits are set")
        blob_end = _FIXED.size + blob_length
        labels_end = blob_end + labels_length
        end = labels_end + previous_length
        if end > MAC_OFFSET:
            raise FormatError(f"slot: blob, labels and previous key take more than {MAX_VARIABLE_SIZE} bytes")
        if raw[end:MAC_OFFSET].strip(b"\0"):
            raise FormatError("slot: bytes are left over behind the labels")
        return cls(
            to_suite(suite),
            block_log2,
            sequence,
            file_id,
            length_bound,
            sealed_blocks,
            hole_start,
            hole_end,
            bytes(raw[_FIXED.size : blob_end]),
            bytes(raw[blob_end:labels_end]),
            bytes(raw[labels_end:end]),
        )

    def seal(self, header_key: Buffer) -> bytes:
        """The 448 bytes of this slot, authenticated under `header_key`."""
        fixed = _FIXED.pack(
            MAGIC, VERSION, self.suite, self.block_log2, self.sequence, self.file_id, self.length_bound,
            self.sealed_blocks, self.hole_start, self.hole_end, 0, len(self.blob), len(self.labels),
            len(self.previous),
        )  # fmt: skip
        body = _PADDED.pack(fixed + self.blob + self.labels + self.previous)
        return body + mac.mac(header_key, body)


def verify_slot(raw: bytes, header_key: Buffer) -> bool:
    """Whether a slot that parses is authentic."""
    return mac.verify(header_key, raw[:MAC_OFFSET], raw[MAC_OFFSET:])


@dataclass(frozen=True, slots=True)
class ParsedSlot:
    """A slot that parses, not yet known to be authentic: where it stands (0 or 1) and its 448 bytes."""

    slot: Slot
    position: int
    raw: bytes

    def verify(self, header_key: Buffer) -> bool:
        return verify_slot(self.raw, header_key)


@dataclass(frozen=True, slots=True)
class HeaderArea:
    """The first 1,024 bytes of a lower file: the raw place (fewer than 128 bytes if the file ends there), and the slots
    that parse, in the order in which they are to be tried. `is_absent`: both slots are zero or missing; in a file
    that has no blocks this means an empty file, in a longer one damage.
    """

    place_raw: bytes
    slots: tuple[ParsedSlot, ...]

    @property
    def is_absent(self) -> bool:
        return not self.slots

    @property
    def file_id(self) -> bytes | None:
        """The file id that every slot carries; not authenticated yet."""
        return self.slots[0].slot.file_id if self.slots else None


def parse_header_area(raw: Buffer) -> HeaderArea:
    """The header area in `raw`, the first 1,024 bytes of a lower file or all that it has.

    Where something stands in the slots but none parses, the error of the first: Truncated, UnsupportedVersion or
    FormatError. IntegrityError if the two carry different file ids.
    """
    parsed: list[ParsedSlot] = []
    problem: FormatError | None = None
    for position, offset in enumerate(SLOT_OFFSETS):
        slot_raw = bytes(raw[offset : offset + SLOT_SIZE])
        if not slot_raw.strip(b"\0"):
            continue
        try:
            parsed.append(ParsedSlot(Slot.parse(slot_raw), position, slot_raw))
        except FormatError as error:
            problem = problem or error
    if not parsed and problem is not None:
        raise problem
    if len(parsed) == 2:
        first, second = parsed
        if first.slot.file_id != second.slot.file_id:
            raise IntegrityError("the two header slots belong to different files")
        if second.slot.sequence > first.slot.sequence:
            parsed.reverse()
    return HeaderArea(bytes(raw[:PLACE_SIZE]), tuple(parsed))


def peek_file_id(raw: bytes) -> bytes | None:
    """The file id of the first slot that begins as one, without parsing the rest; None if none does.

    Good enough where the id is authenticated by something else, as a place authenticates it.
    """
    for offset in SLOT_OFFSETS:
        if raw[offset : offset + len(MAGIC)] == MAGIC and len(raw) >= offset + _ID_END:
            return bytes(raw[offset + _ID_START : offset + _ID_END])
    return None


def header_key(file_key: Secret | bytes | bytearray, file_id: bytes) -> bytes:
    """The key of the slots' MAC, 32 bytes."""
    return derive(file_key, Label.FILE_HEADER, file_id)


def content_key(file_key: Secret | bytes | bytearray, file_id: bytes, suite: Suite) -> bytes:
    """The key of the blocks, 32 bytes. It depends on the suite, so no key ever serves two algorithms."""
    return derive(file_key, Label.FILE_CONTENT, file_id + bytes((suite,)))


def generations_key(file_key: Secret | bytes | bytearray, file_id: bytes) -> bytes:
    """The key from which the content keys of later generations come, 32 bytes (FORMAT.md section 2.3)."""
    return derive(file_key, Label.FILE_GENERATIONS, file_id)


def volume_context(volume_id: bytes) -> dict[str, str]:
    """The encryption context under which the volume key is wrapped."""
    return {"envfs:volume": volume_id.hex()}


def dek_context(volume_id: bytes, file_id: bytes, labels: Mapping[str, str]) -> dict[str, str]:
    """The encryption context under which a file's DEK is wrapped: volume, file, and the file's labels."""
    return {**labels, "envfs:volume": volume_id.hex(), "envfs:file": file_id.hex()}
