"""The bytes of a backup: a header with root-key slots, and the content in chunks of a STREAM (FORMAT.md 9.9)."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from envfs.crypto.kdf import Label, derive
from envfs.crypto.secret import Secret
from envfs.errors import FormatError, IntegrityError, Truncated, UnsupportedVersion
from envfs.kms.rootkey import MAX_PARAMETERS
from envfs.kms.schema import RootSlotRow

MAGIC: Final = b"ENVFSKMB"
VERSION: Final = 1
CHUNK: Final = 65_536  # bytes of content
MAX_SLOTS: Final = 64
_LOG2_CHUNK: Final = 16
_TAG_SIZE: Final = 16
_SALT_SIZE: Final = 32
_WRAPPED_SIZE: Final = 48
_MAX_CHUNKS: Final = 1 << 24
_HEAD: Final = struct.Struct(">8sBBH16s32s")
_SLOT_HEAD: Final = struct.Struct(">16sQB")
_NONCE: Final = struct.Struct(">QI")
_SIZE: Final = struct.Struct(">Q")
_NAME_LENGTH: Final = struct.Struct(">H")
_MAX_NAME: Final = 255
_HINT: Final = "take another backup: this one was damaged, cut or changed"


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the chunks, and can be read by everybody."""

    store_id: bytes
    salt: bytes
    slots: tuple[RootSlotRow, ...]

    @classmethod
    def new(cls, store_id: bytes, slots: Sequence[RootSlotRow]) -> Header:
        """With a fresh salt, and so for one backup only."""
        return cls(store_id, os.urandom(_SALT_SIZE), tuple(slots))

    def encode(self) -> bytes:
        parts = [_HEAD.pack(MAGIC, VERSION, _LOG2_CHUNK, len(self.slots), self.store_id, self.salt)]
        for slot in self.slots:
            kind = slot.kind.encode("ascii")
            parts += (_SLOT_HEAD.pack(slot.slot_id, slot.created, len(kind)), kind)
            parts += (struct.pack(">I", len(slot.parameters)), slot.parameters, slot.wrapped)
        return b"".join(parts)


def read_header(file: BinaryIO) -> Header:
    """The header at the beginning of `file`, which then stands behind it. Nothing of it is authentic before the first
    chunk has opened. FormatError, UnsupportedVersion, Truncated.
    """
    head = file.read(_HEAD.size)
    if head[: len(MAGIC)] != MAGIC[: len(head)]:
        raise FormatError("this is no backup of a KMS", hint="envfs kms backup writes one")
    if len(head) > len(MAGIC) and head[len(MAGIC)] != VERSION:
        raise UnsupportedVersion(
            f"the backup has version {head[len(MAGIC)]}; this release knows version {VERSION}",
            hint="restore it by the release of envfs that wrote it, or a newer one",
        )
    if len(head) < _HEAD.size:
        raise Truncated("the backup is cut off in its header", hint=_HINT)
    _, _, log2_chunk, count, store_id, salt = _HEAD.unpack(head)
    if log2_chunk != _LOG2_CHUNK or not 1 <= count <= MAX_SLOTS:
        raise FormatError("the header of the backup is damaged", hint=_HINT)
    return Header(store_id, salt, tuple(_read_slot(file) for _ in range(count)))


def _read_slot(file: BinaryIO) -> RootSlotRow:
    slot_id, created, kind_length = _SLOT_HEAD.unpack(_exactly(file, _SLOT_HEAD.size))
    kind = _exactly(file, kind_length)
    (length,) = struct.unpack(">I", _exactly(file, 4))
    if length > MAX_PARAMETERS or not kind.isascii():
        raise FormatError("the header of the backup is damaged", hint=_HINT)
    parameters = _exactly(file, length)
    return RootSlotRow(slot_id, kind.decode("ascii"), parameters, _exactly(file, _WRAPPED_SIZE), created)


def _exactly(file: BinaryIO, size: int) -> bytes:
    found = file.read(size)
    if len(found) != size:
        raise Truncated("the backup is cut off in its header", hint=_HINT)
    return found


class _Chunks:
    """The key of one backup, and the nonces of its chunks."""

    def __init__(self, root_key: Secret, header: Header) -> None:
        self._cipher = AESGCM(derive(root_key, Label.BACKUP, header.salt))
        self._associated = hashlib.sha256(header.encode()).digest()
        self._number = 0

    def _nonce(self, *, last: bool) -> bytes:
        # Unique: the key belongs to the header's salt, which was drawn for this backup, and the number only rises.
        number = self._number
        if number >= _MAX_CHUNKS:
            raise FormatError("a backup has at most 1 TiB")
        self._number += 1
        return _NONCE.pack(0, number << 8 | last)


class BackupWriter(_Chunks):
    """Writes the header and then entries to `file`. Only `close` makes it a backup."""

    def __init__(self, file: BinaryIO, root_key: Secret, header: Header) -> None:
        super().__init__(root_key, header)
        self._file = file
        self._buffer = bytearray()
        file.write(header.encode())

    def add(self, name: str, size: int, content: Iterable[bytes]) -> None:
        """An entry whose `content` comes to `size` bytes. ValueError if it does not."""
        encoded = name.encode("ascii")
        self._write(_NAME_LENGTH.pack(len(encoded)) + encoded + _SIZE.pack(size))
        for piece in content:
            size -= len(piece)
            self._write(piece)
        if size:
            raise ValueError(f"{name}: {-size} bytes more than were announced")

    def close(self) -> None:
        """The end, after which a reader accepts what was written."""
        self._write(_NAME_LENGTH.pack(0))
        self._seal(self._buffer, last=True)

    def _write(self, content: bytes) -> None:
        self._buffer += content
        start = 0
        while len(self._buffer) - start > CHUNK:  # never the last: behind this one there is something
            self._seal(memoryview(self._buffer)[start : start + CHUNK].tobytes(), last=False)
            start += CHUNK
        del self._buffer[:start]

    def _seal(self, content: bytes | bytearray, *, last: bool) -> None:
        self._file.write(self._cipher.encrypt(self._nonce(last=last), content, self._associated))


class BackupReader(_Chunks):
    """Reads entries from `file`, which stands behind the header. What it gives is authentic; that it is whole is known
    when `entries` has ended.
    """

    def __init__(self, file: BinaryIO, root_key: Secret, header: Header) -> None:
        super().__init__(root_key, header)
        self._file = file
        self._ahead = file.read(CHUNK + _TAG_SIZE)
        self._content = b""
        self._offset = 0
        self._is_last = False

    def entries(self) -> Iterator[tuple[str, int, Iterator[bytes]]]:
        """Name, size and content of each entry. The content must be read before the next one. IntegrityError."""
        while True:
            (length,) = _NAME_LENGTH.unpack(self._take(_NAME_LENGTH.size))
            if length == 0:
                break
            if length > _MAX_NAME:
                raise FormatError(f"an entry of the backup has a name of {length} bytes")
            name = self._take(length).decode("ascii", "replace")
            (size,) = _SIZE.unpack(self._take(_SIZE.size))
            yield name, size, self._pieces(size)
        if not self._is_last or self._offset != len(self._content):
            raise IntegrityError("there is something behind the end of the backup", hint=_HINT)

    def _pieces(self, size: int) -> Iterator[bytes]:
        while size:
            if self._offset == len(self._content):
                self._next_chunk()
            piece = self._content[self._offset : self._offset + size]
            self._offset += len(piece)
            size -= len(piece)
            yield piece

    def _take(self, size: int) -> bytes:
        return b"".join(self._pieces(size))

    def _next_chunk(self) -> None:
        if self._is_last:
            raise IntegrityError("the backup ends within an entry", hint=_HINT)
        raw, number = self._ahead, self._number
        self._ahead = self._file.read(CHUNK + _TAG_SIZE) if len(raw) == CHUNK + _TAG_SIZE else b""
        self._is_last = not self._ahead
        if len(raw) <= _TAG_SIZE:
            raise IntegrityError("the backup is cut off", hint=_HINT)
        try:
            self._content = self._cipher.decrypt(self._nonce(last=self._is_last), raw, self._associated)
        except InvalidTag:
            where = "its header or its beginning" if number == 0 else f"its part {number + 1}, or the backup is cut off"
            raise IntegrityError(f"the backup is not authentic: {where}", hint=_HINT) from None
        self._offset = 0
