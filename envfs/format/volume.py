"""The volume file at the root of a lower directory (FORMAT.md section 8)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Self

from envfs.crypto import mac
from envfs.crypto.aead import Buffer, Suite
from envfs.errors import FormatError
from envfs.format.fields import (
    MAX_BLOCK_LOG2,
    MIN_BLOCK_LOG2,
    U64_MAX,
    VERSION,
    check_directory_id,
    check_id,
    check_length,
    check_range,
    check_start,
    decode_text,
    encode_text,
    to_suite,
)

MAGIC: Final = b"ENVFSVOL"
MAX_VOLUME_FILE_SIZE: Final = 8192

_FIXED: Final = struct.Struct(">8sHBB16s16s16sQHHHH")

assert _FIXED.size == 76

_BOUND: Final = 1  # the one flag


@dataclass(frozen=True, slots=True)
class VolumeFile:
    """What a volume is. FormatError for values that do not fit.

    Ids are 16 bytes; `created` is seconds since 1970; `key_arn` names the CMK of its files; `blob` is the wrapped
    volume key. `is_bound`: the keys of its files come from their DEKs and the volume key, not from the DEKs alone.
    """

    suite: Suite
    block_log2: int
    volume_id: bytes
    kms_id: bytes
    root_id: bytes
    created: int
    key_arn: str
    blob: bytes
    is_bound: bool = True

    def __post_init__(self) -> None:
        check_range(self.block_log2, MIN_BLOCK_LOG2, MAX_BLOCK_LOG2, "volume file: log2 of the block size")
        check_id(self.volume_id, "volume id")
        check_id(self.kms_id, "KMS id")
        check_directory_id(self.root_id)
        check_range(self.created, 0, U64_MAX, "volume file: time of creation")
        arn_length = len(encode_text(self.key_arn, "key ARN"))
        check_range(arn_length, 1, MAX_VOLUME_FILE_SIZE, "volume file: size of the key ARN")
        check_range(len(self.blob), 1, MAX_VOLUME_FILE_SIZE, "volume file: size of the ciphertext blob")
        size = _FIXED.size + arn_length + len(self.blob) + mac.MAC_SIZE
        check_range(size, 0, MAX_VOLUME_FILE_SIZE, "volume file: size")

    @property
    def block_size(self) -> int:
        return 1 << self.block_log2

    def serialise(self, key: Buffer) -> bytes:
        """The whole file, authenticated under the volume file key."""
        arn = encode_text(self.key_arn, "key ARN")
        fixed = _FIXED.pack(
            MAGIC, VERSION, self.suite, self.block_log2, self.volume_id, self.kms_id, self.root_id, self.created,
            _BOUND if self.is_bound else 0, len(arn), len(self.blob), 0,
        )  # fmt: skip
        body = fixed + arn + self.blob
        return body + mac.mac(key, body)

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """What `raw` says, unauthenticated: its blob has to be opened before `verify` can tell.

        Truncated, UnsupportedVersion or FormatError.
        """
        check_start(raw, MAGIC, "volume file")
        if len(raw) < _FIXED.size:
            check_length(raw, _FIXED.size, "volume file")
        (
            _, _, suite, block_log2, volume_id, kms_id, root_id, created, flags, arn_length, blob_length, reserved,
        ) = _FIXED.unpack_from(raw)  # fmt: skip
        arn_end = _FIXED.size + arn_length
        blob_end = arn_end + blob_length
        check_range(blob_end + mac.MAC_SIZE, 0, MAX_VOLUME_FILE_SIZE, "volume file: size")
        check_length(raw, blob_end + mac.MAC_SIZE, "volume file")
        if flags & ~_BOUND or reserved:
            raise FormatError("volume file: reserved bits are set")
        return cls(
            to_suite(suite),
            block_log2,
            volume_id,
            kms_id,
            root_id,
            created,
            decode_text(raw[_FIXED.size : arn_end], "key ARN"),
            bytes(raw[arn_end:blob_end]),
            is_bound=bool(flags & _BOUND),
        )

    @staticmethod
    def verify(raw: bytes, key: Buffer) -> bool:
        """Whether a volume file that parses is authentic under the volume file key."""
        return mac.verify(key, raw[: -mac.MAC_SIZE], raw[-mac.MAC_SIZE :])
