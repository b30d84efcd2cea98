"""The directory file: id, place, and what new files below inherit (FORMAT.md section 5)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from envfs.crypto import mac
from envfs.crypto.aead import Buffer
from envfs.errors import FormatError, IntegrityError
from envfs.format.context import decode_labels, encode_context, validate_labels
from envfs.format.fields import (
    VERSION,
    check_directory_id,
    check_length,
    check_range,
    check_start,
    decode_text,
    encode_text,
)
from envfs.format.place import PLACE_SIZE

MAGIC: Final = b"ENVD"
MAX_DIRECTORY_FILE_SIZE: Final = 4096

_FIXED: Final = struct.Struct(">4sHH16sHH")
_BODY: Final = PLACE_SIZE + _FIXED.size

assert _BODY == 156


@dataclass(frozen=True, slots=True)
class DirectoryFile:
    """`directory_id` is 16 bytes; an empty `key_arn` means the parent's key. FormatError for values that do not fit."""

    directory_id: bytes
    key_arn: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_directory_id(self.directory_id)
        validate_labels(self.labels)
        check_range(self._size(), 0, MAX_DIRECTORY_FILE_SIZE, "directory file: size")

    def _size(self) -> int:
        return _BODY + len(encode_text(self.key_arn, "key ARN")) + len(encode_context(self.labels)) + mac.MAC_SIZE

    def serialise(self, key: Buffer, place_raw: bytes) -> bytes:
        """The whole file, authenticated under the directory file key, behind `place_raw` (128 bytes)."""
        check_length(place_raw, PLACE_SIZE, "place")
        arn = encode_text(self.key_arn, "key ARN")
        labels = encode_context(self.labels)
        body = _FIXED.pack(MAGIC, VERSION, 0, self.directory_id, len(arn), len(labels)) + arn + labels
        return place_raw + body + mac.mac(key, body)

    @classmethod
    def parse(cls, key: Buffer, raw: bytes) -> tuple[Self, bytes]:
        """The directory file in `raw` and its raw place, which `PlaceKey.check` is to look at.

        Truncated, UnsupportedVersion or FormatError; IntegrityError if its MAC is wrong.
        """
        check_start(raw, MAGIC, "directory file", PLACE_SIZE)
        if len(raw) < _BODY:
            check_length(raw, _BODY, "directory file")
        _, _, flags, directory_id, arn_length, labels_length = _FIXED.unpack_from(raw, PLACE_SIZE)
        arn_end = _BODY + arn_length
        labels_end = arn_end + labels_length
        check_range(labels_end + mac.MAC_SIZE, 0, MAX_DIRECTORY_FILE_SIZE, "directory file: size")
        check_length(raw, labels_end + mac.MAC_SIZE, "directory file")
        if flags:
            raise FormatError("directory file: reserved bits are set")
        directory = cls(
            bytes(directory_id), decode_text(raw[_BODY:arn_end], "key ARN"), decode_labels(raw[arn_end:labels_end])
        )
        if not mac.verify(key, raw[PLACE_SIZE:labels_end], raw[labels_end:]):
            raise IntegrityError("the directory file is not authentic")
        return directory, bytes(raw[:PLACE_SIZE])
