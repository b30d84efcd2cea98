"""Ciphertext blobs of CMKs that another KMS holds (FORMAT.md section 9, algorithm 2).

The other KMS encrypts 32 random bytes, the *foreign secret*. What a blob encrypts is sealed under a key that takes both
this and the key material of our own KMS: neither opens it alone.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from envfs.crypto.aead import TAG_SIZE, Buffer
from envfs.crypto.kdf import Label, derive
from envfs.crypto.secret import Secret
from envfs.errors import IntegrityError, Truncated
from envfs.format.fields import check_id, check_range

MAGIC: Final = b"EK"
BLOB_VERSION: Final = 1
FOREIGN: Final = 2
HEADER_SIZE: Final = 38
SECRET_SIZE: Final = 32
MAX_PLAINTEXT_SIZE: Final = 4096
MAX_FOREIGN_SIZE: Final = 1024

_HEADER: Final = struct.Struct(">2sBB16s16sH")
_ZERO_NONCE: Final = bytes(12)


class ForeignBlob(NamedTuple):
    """A blob as it came, the ids in its header, and what the other KMS has to decrypt."""

    raw: bytes
    key_id: bytes
    backing_key_id: bytes
    foreign: bytes

    @property
    def sealed_at(self) -> int:
        """Where ciphertext and tag begin."""
        return HEADER_SIZE + len(self.foreign)


def read_foreign_blob(raw: bytes) -> ForeignBlob:
    """`raw`, whose magic, version and algorithm were looked at; not authenticated. Truncated or FormatError."""
    if len(raw) < HEADER_SIZE:
        raise Truncated(f"foreign ciphertext blob: {len(raw)} bytes, at least {HEADER_SIZE} are needed")
    *_, key_id, backing_key_id, size = _HEADER.unpack_from(raw)
    check_range(size, 1, MAX_FOREIGN_SIZE, "foreign ciphertext blob: size of the foreign ciphertext")
    start = HEADER_SIZE + size
    if len(raw) < start + 1 + TAG_SIZE:
        raise Truncated(f"foreign ciphertext blob: {len(raw)} bytes, at least {start + 1 + TAG_SIZE} are needed")
    check_range(len(raw) - start - TAG_SIZE, 1, MAX_PLAINTEXT_SIZE, "foreign ciphertext blob: size of the ciphertext")
    return ForeignBlob(raw, key_id, backing_key_id, bytes(raw[HEADER_SIZE:start]))


def seal_foreign_blob(
    backing_key: Secret | bytes,
    foreign_secret: Secret | bytes,
    key_id: bytes,
    backing_key_id: bytes,
    foreign: bytes,
    plaintext: Buffer,
    context_bytes: bytes,
) -> bytes:
    """The blob of `plaintext` (1 to 4,096 bytes) under `context_bytes`, an encoded encryption context.

    `foreign_secret` is 32 fresh random bytes for every call, `foreign` what the other KMS made of them.
    """
    check_range(len(plaintext), 1, MAX_PLAINTEXT_SIZE, "foreign ciphertext blob: size of the plaintext")
    check_range(len(foreign), 1, MAX_FOREIGN_SIZE, "foreign ciphertext blob: size of the foreign ciphertext")
    check_id(key_id, "key id")
    check_id(backing_key_id, "backing key id")
    header = _HEADER.pack(MAGIC, BLOB_VERSION, FOREIGN, key_id, backing_key_id, len(foreign)) + foreign
    # A fixed nonce is unique here: the foreign secret, drawn for this blob, makes a key that encrypts nothing else.
    return header + _cipher(backing_key, foreign_secret).encrypt(_ZERO_NONCE, plaintext, header + context_bytes)


def open_foreign_blob(
    backing_key: Secret | bytes, foreign_secret: Secret | bytes, blob: ForeignBlob, context_bytes: bytes
) -> Secret:
    """The plaintext; IntegrityError for a damaged blob, another key, foreign secret or context."""
    raw, start = blob.raw, blob.sealed_at
    plain = bytearray(len(raw) - start - TAG_SIZE)
    cipher = _cipher(backing_key, foreign_secret)
    try:
        cipher.decrypt_into(_ZERO_NONCE, raw[start:], raw[:start] + context_bytes, plain)
    except InvalidTag:
        plain[:] = bytes(len(plain))  # what stands there is not authentic
        raise IntegrityError("the foreign ciphertext blob is not authentic under this encryption context") from None
    return Secret.adopt(plain)


def _cipher(backing_key: Secret | bytes, foreign_secret: Secret | bytes) -> AESGCM:
    raw = foreign_secret.expose() if isinstance(foreign_secret, Secret) else foreign_secret
    check_range(len(raw), SECRET_SIZE, SECRET_SIZE, "foreign ciphertext blob: size of the foreign secret")
    return AESGCM(derive(backing_key, Label.FOREIGN_BLOB, bytes(raw)))
