"""Key derivation: HKDF-Expand with SHA-256 (RFC 5869 section 2.3) and the one table of labels (FORMAT.md section 1).

The Extract step is left out because every input key is 32 uniformly random bytes (RFC 5869 section 3.3).
"""

from __future__ import annotations

import enum
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from envfs.crypto.secret import Secret
from envfs.errors import FormatError

KEY_SIZE: Final = 32
_SHA256: Final = SHA256()


class Label(enum.Enum):
    """What a derived key is for. Two purposes never share a label, so they never share a key."""

    def __init__(self, text: str) -> None:
        # The zero byte ends the label, and no label contains one, so label and context cannot run into each other.
        self.prefix = b"envfs/v1/" + text.encode("ascii") + b"\0"

    FILE_HEADER = "file header"
    FILE_CONTENT = "file content"
    FILE_GENERATIONS = "file generations"
    PREVIOUS_FILE_KEY = "previous file key"
    FILE_BINDING = "file binding"
    BOUND_FILE = "bound file"
    VOLUME_FILE = "volume file"
    DIRECTORY_FILE = "directory file"
    PLACE = "place"
    NAMES = "names"
    SYMLINK = "symlink"
    XATTR = "xattr"
    UNDO_RECORD = "undo record"
    CIPHERTEXT_BLOB = "ciphertext blob"
    FOREIGN_BLOB = "foreign blob"
    BACKING_KEY = "backing key"
    ROOT_SLOT = "root slot"
    STORE = "store"
    AUDIT_CHAIN = "audit chain"
    AUDIT_CHECKPOINT = "audit checkpoint"
    MATERIAL_ID = "material id"
    GRANT_TOKEN = "grant token"  # noqa: S105 - a label
    IMPORT_TOKEN = "import token"  # noqa: S105
    ACCESS_KEY = "access key"
    BACKUP = "backup"


def derive(key: Secret | bytes | bytearray, label: Label, context: bytes = b"", length: int = 32) -> bytes:
    """`length` bytes (at most 8,160) that depend on all of `key` (32 bytes), `label` and `context`.

    FormatError for a key of another length: keys come out of ciphertext blobs, which a stranger may have made.
    """
    raw = key.expose() if isinstance(key, Secret) else key
    if len(raw) != KEY_SIZE:
        raise FormatError(f"a key of {len(raw)} bytes where {KEY_SIZE} are needed")
    return HKDFExpand(_SHA256, length, label.prefix + context).derive(raw)
