"""Ciphertext blobs of symmetric CMKs (FORMAT.md section 9)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from envfs.crypto.aead import TAG_SIZE, Buffer
from envfs.crypto.kdf import Label, derive
from envfs.crypto.secret import Secret
from envfs.errors import FormatError, IntegrityError, Truncated, UnsupportedVersion
from envfs.format.fields import check_id, check_range
from envfs.format.foreign_blob import FOREIGN, ForeignBlob, read_foreign_blob

MAGIC: Final = b"EK"
BLOB_VERSION: Final = 1
SYMMETRIC_DEFAULT: Final = 1
SALT_SIZE: Final = 32
HEADER_SIZE: Final = 68
MAX_PLAINTEXT_SIZE: Final = 4096
MAX_BLOB_SIZE: Final = HEADER_SIZE + MAX_PLAINTEXT_SIZE + TAG_SIZE

_HEADER: Final = struct.Struct(">2sBB16s16s32s")
_ZERO_NONCE: Final = bytes(12)


@dataclass(frozen=True, slots=True)
class Blob:
    """The parts of a blob, in bytes: ids 16 each, salt 32, ciphertext 1 to 4,096, tag 16. FormatError otherwise."""

    key_id: bytes
    backing_key_id: bytes
    salt: bytes
    ciphertext: bytes
    tag: bytes

    def __post_init__(self) -> None:
        check_id(self.key_id, "key id")
        check_id(self.backing_key_id, "backing key id")
        check_range(len(self.salt), SALT_SIZE, SALT_SIZE, "blob: size of the salt")
        check_range(len(self.ciphertext), 1, MAX_PLAINTEXT_SIZE, "blob: size of the ciphertext")
        check_range(len(self.tag), TAG_SIZE, TAG_SIZE, "blob: size of the tag")

    @property
    def header(self) -> bytes:
        """Bytes 0 to 67."""
        return blob_header(self.key_id, self.backing_key_id, self.salt)

    def serialise(self) -> bytes:
        return self.header + self.ciphertext + self.tag

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """The parts of `raw`, not authenticated (see `open_blob`). Truncated, UnsupportedVersion or FormatError."""
        found = read_blob(raw)
        return cls(*found[1:], bytes(raw[HEADER_SIZE:-TAG_SIZE]), bytes(raw[-TAG_SIZE:]))


class SealedBlob(NamedTuple):
    """A blob as it came, and the ids and the salt in its header: all that opening it takes."""

    raw: bytes
    key_id: bytes
    backing_key_id: bytes
    salt: bytes


def read_any_blob(raw: bytes) -> SealedBlob | ForeignBlob:
    """As `read_blob`, also for a blob of a foreign key."""
    if len(raw) > 3 and raw[:2] == MAGIC and raw[2] == BLOB_VERSION and raw[3] == FOREIGN:
        return read_foreign_blob(raw)
    return read_blob(raw)


def read_blob(raw: bytes) -> SealedBlob:
    """`raw`, if it has the structure of a blob; not authenticated. Truncated, UnsupportedVersion or FormatError."""
    if len(raw) < 3:
        raise Truncated(f"ciphertext blob: {len(raw)} bytes do not even hold its start")
    if raw[:2] != MAGIC:
        raise FormatError("not a ciphertext blob of this KMS: it does not begin with EK")
    if raw[2] != BLOB_VERSION:
        raise UnsupportedVersion(f"ciphertext blob of version {raw[2]}; this release reads version {BLOB_VERSION}")
    if len(raw) < HEADER_SIZE + 1 + TAG_SIZE:
        raise Truncated(f"ciphertext blob: {len(raw)} bytes, at least {HEADER_SIZE + 1 + TAG_SIZE} are needed")
    check_range(len(raw) - HEADER_SIZE - TAG_SIZE, 1, MAX_PLAINTEXT_SIZE, "blob: size of the ciphertext")
    _, _, algorithm, key_id, backing_key_id, salt = _HEADER.unpack_from(raw)
    if algorithm != SYMMETRIC_DEFAULT:
        raise FormatError(f"ciphertext blob: algorithm {algorithm} is none")
    return SealedBlob(raw, key_id, backing_key_id, salt)


def blob_ids(raw: bytes) -> tuple[bytes, bytes]:
    """Key id and backing key id of a blob, unparsed: they stand at the same place in all kinds of blobs."""
    return raw[4:20], raw[20:36]


def blob_header(key_id: bytes, backing_key_id: bytes, salt: bytes) -> bytes:
    return _HEADER.pack(MAGIC, BLOB_VERSION, SYMMETRIC_DEFAULT, key_id, backing_key_id, salt)


def seal_blob(
    backing_key: Secret | bytes,
    key_id: bytes,
    backing_key_id: bytes,
    plaintext: Buffer,
    context_bytes: bytes,
    salt: bytes,
) -> bytes:
    """The blob of `plaintext` (1 to 4,096 bytes) under `context_bytes`, an encoded encryption context.

    `salt` is 32 fresh random bytes for every call: the key depends on it and serves this one encryption.
    """
    check_range(len(plaintext), 1, MAX_PLAINTEXT_SIZE, "blob: size of the plaintext")
    check_range(len(salt), SALT_SIZE, SALT_SIZE, "blob: size of the salt")
    check_id(key_id, "key id")
    check_id(backing_key_id, "backing key id")
    header = blob_header(key_id, backing_key_id, salt)
    # A fixed nonce is unique here: 256 random bits of salt make a key that encrypts nothing else.
    sealed = AESGCM(derive(backing_key, Label.CIPHERTEXT_BLOB, salt)).encrypt(
        _ZERO_NONCE, plaintext, header + context_bytes
    )
    return header + sealed


def open_blob(backing_key: Secret | bytes, blob: SealedBlob, context_bytes: bytes) -> Secret:
    """The plaintext; IntegrityError for a damaged blob, another backing key or another context."""
    raw = blob.raw
    plain = bytearray(len(raw) - HEADER_SIZE - TAG_SIZE)
    cipher = AESGCM(derive(backing_key, Label.CIPHERTEXT_BLOB, blob.salt))
    try:
        cipher.decrypt_into(_ZERO_NONCE, raw[HEADER_SIZE:], raw[:HEADER_SIZE] + context_bytes, plain)
    except InvalidTag:
        plain[:] = bytes(len(plain))  # what stands there is not authentic
        raise IntegrityError("the ciphertext blob is not authentic under this encryption context") from None
    return Secret.adopt(plain)
