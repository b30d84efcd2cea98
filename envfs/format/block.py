"""Blocks of content: nonce, ciphertext, tag, bound to file and index (FORMAT.md section 2.2).

The hottest code of envfs: a request of 1 MiB is up to 256 blocks, so each call allocates one output, takes all nonces
at once, and copies nothing between `cryptography` and the buffer that the system call uses.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from cryptography.exceptions import InvalidTag

from envfs.crypto.aead import NONCE_SIZE, Buffer, Suite, new_cipher
from envfs.crypto.kdf import Label, derive
from envfs.crypto.scrub import overwrite
from envfs.errors import FormatError, IntegrityError, KeyUnavailable
from envfs.format.fields import check_id, check_range
from envfs.format.geometry import OVERHEAD, Geometry

#: Random 96-bit nonces: among 2^32 blocks under one key two are equal with a chance below 2^-32 (NIST SP 800-38D
#: section 8.3). A new content key comes after half as many, since a crash may forget some that were sealed.
GENERATION_LOG2 = 31
#: Content keys of one file; a bound on what a damaged block costs, which is tried under each.
MAX_GENERATIONS: Final = 1 << 10

#: Associated data of a block: file id, block index.
_ASSOCIATED: Final = struct.Struct(">16sQ")
_ZERO_NONCE: Final = bytes(NONCE_SIZE)

Decrypt: TypeAlias = Callable[[Buffer, Buffer, Buffer, Buffer], int]


def generation_of(sealed_blocks: int) -> int:
    """Which content key seals the next block of a file, when so many were sealed."""
    return sealed_blocks >> GENERATION_LOG2


def _refuse_without_key(*_: Buffer | None) -> int:
    raise KeyUnavailable("the keys of the file were wiped from memory")


class ContentKeys(NamedTuple):
    """The content keys of a DEK: the first, what later ones come from, and the newest generation that sealed blocks."""

    first: bytes
    later: bytes
    generation: int


class BlockCodec:
    """Seals and opens the blocks of one file.

    `random` gives the nonces; it is there for test vectors alone. `later` is the key that the content keys of later
    generations come from (`header.generations_key`), `generation` the newest that may have sealed a block. `previous`:
    of the DEK that is being replaced; it opens blocks and seals none.
    """

    __slots__ = (
        "_block_size",
        "_cipher_block",
        "_decrypt_into",
        "_encrypt_into",
        "_file_id",
        "_first_key",
        "_later",
        "_older",
        "_previous",
        "_random",
        "_suite",
        "generation",
    )

    def __init__(
        self,
        suite: Suite,
        content_key: Buffer,
        file_id: bytes,
        geometry: Geometry,
        random: Callable[[int], bytes] = os.urandom,
        *,
        later: bytes = b"",
        generation: int = 0,
        previous: ContentKeys | None = None,
    ) -> None:
        check_id(file_id, "file id")
        self._suite = suite
        self._first_key = bytes(content_key)
        self._later = later
        self._file_id = file_id
        self._previous = previous
        self._use(generation)
        self._block_size = geometry.block_size
        self._cipher_block = geometry.cipher_block
        self._random = random

    def _use(self, generation: int) -> None:
        check_range(generation, 0, MAX_GENERATIONS - 1, "generation of the content key")
        cipher = new_cipher(self._suite, self._key(generation))
        self._encrypt_into: Callable[..., int] = cipher.encrypt_into
        self._decrypt_into: Callable[..., int] = cipher.decrypt_into
        self._older: list[Decrypt] = []  # made when the first block is met that the newest key does not open
        self.generation = generation

    def forget(self) -> None:
        """Overwrites the keys: KeyUnavailable for whoever uses the codec."""
        overwrite(self._first_key)
        overwrite(self._later)
        if self._previous is not None:
            for key in (self._previous.first, self._previous.later):
                overwrite(key)
        self._encrypt_into = self._decrypt_into = _refuse_without_key
        self._older.clear()

    def _key(self, generation: int) -> bytes:
        return self._derive(self._first_key, self._later, generation)

    def _derive(self, first: bytes, later: bytes, generation: int) -> bytes:
        if not generation:
            return first
        context = self._file_id + bytes((self._suite,)) + generation.to_bytes(4, "big")
        return derive(later, Label.FILE_CONTENT, context)

    @property
    def has_previous(self) -> bool:
        """Whether there may be blocks under a DEK that is being replaced."""
        return self._previous is not None

    def forget_previous(self) -> None:
        """No block is under the previous DEK any more."""
        self._previous = None
        self._older = []

    def _previous_ciphers(self) -> list[Decrypt]:
        """Of the previous DEK, the newest first."""
        if self._previous is None:
            return []
        first, later, newest = self._previous
        keys = (self._derive(first, later, number) for number in range(newest, -1, -1))
        return [new_cipher(self._suite, key).decrypt_into for key in keys]

    def advance(self, generation: int) -> None:
        """From now on blocks are sealed under the content key of this generation; older ones can still be opened.

        Only when the header says so on the disk: who reads it must know which keys to try.
        """
        self._use(generation)

    def _open_older(self, index: int, nonce: Buffer, body: Buffer, out: memoryview) -> bool:
        """Whether a block was sealed under an older content key; then its plain bytes are in `out`."""
        if not self._older:
            generations = range(self.generation - 1, -1, -1)
            own = [new_cipher(self._suite, self._key(number)).decrypt_into for number in generations]
            self._older = own + self._previous_ciphers()
        for decrypt_into in self._older:
            try:
                decrypt_into(nonce, body, _ASSOCIATED.pack(self._file_id, index), out)
            except InvalidTag:
                continue
            return True
        return False

    def seal(
        self, first_index: int, plain: Buffer, out: bytearray | None = None, nonces: bytes | None = None
    ) -> bytearray:
        """The sealed blocks of `plain`, which begins at block `first_index`; only its last block may be short.

        With `out`, they are written to its beginning and it is returned; it may be longer than needed, not shorter.
        `nonces`, one behind the other, were made by `new_nonces`, and are used here and nowhere else.
        """
        plain_length = len(plain)
        block_size = self._block_size
        count = (plain_length + block_size - 1) // block_size
        sealed_length = plain_length + OVERHEAD * count
        if out is None:
            out = bytearray(sealed_length)
        elif len(out) < sealed_length:
            raise ValueError(f"an output of {len(out)} bytes for {sealed_length}")
        # Unique because random: 96 bits from getrandom(2) for each block, at most 2^32 blocks under this key. Sealing a
        # block again takes a new nonce too, so nothing depends on knowing what was written before a crash.
        if nonces is None:
            nonces = self._random(NONCE_SIZE * count)
        elif len(nonces) != NONCE_SIZE * count:
            raise ValueError(f"{len(nonces)} bytes of nonces for {count} blocks")
        encrypt_into, file_id, pack = self._encrypt_into, self._file_id, _ASSOCIATED.pack
        source, target = memoryview(plain), memoryview(out)
        position = nonce_position = 0
        index = first_index
        for start in range(0, plain_length, block_size):
            piece = source[start : start + block_size]
            nonce = nonces[nonce_position : nonce_position + NONCE_SIZE]
            nonce_position += NONCE_SIZE
            body = position + NONCE_SIZE
            end = position + OVERHEAD + len(piece)
            target[position:body] = nonce
            encrypt_into(nonce, piece, pack(file_id, index), target[body:end])
            position = end
            index += 1
        return out

    def new_nonces(self, count: int) -> bytes:
        """Nonces for `seal`, made beforehand: random ones, as it would make itself. Each seals one block at most."""
        return self._random(NONCE_SIZE * count)

    def open(self, first_index: int, cipher: Buffer, hole_start: int = 0, hole_end: int = 0) -> bytearray:
        """The plain bytes of the consecutive blocks in `cipher`, the first of which is `first_index`.

        Blocks that are all zero are holes if their index is in [hole_start, hole_end). IntegrityError, with the index
        of the first damaged block in `block`. A rest of 1 to 28 bytes, trace of a torn write, is ignored.
        """
        out = bytearray(self.opened_length(len(cipher)))
        self.open_into(first_index, cipher, out, 0, hole_start, hole_end)
        return out

    def opened_length(self, cipher_length: int) -> int:
        """How many plain bytes `open` gives for `cipher_length` bytes."""
        full, rest = divmod(cipher_length, self._cipher_block)
        return full * self._block_size + (rest - OVERHEAD if rest > OVERHEAD else 0)

    def open_into(
        self,
        first_index: int,
        cipher: Buffer,
        out: bytearray | memoryview,
        out_offset: int = 0,
        hole_start: int = 0,
        hole_end: int = 0,
    ) -> int:
        """As `open`, into `out` from `out_offset` on; returns how many bytes it wrote there.

        When it raises, the blocks before the damaged one stand in `out`, and zeros where the damaged one would.
        """
        cipher_length = len(cipher)
        cipher_block = self._cipher_block
        plain_length = self.opened_length(cipher_length)
        if len(out) < out_offset + plain_length:
            raise ValueError(f"an output of {len(out) - out_offset} bytes for {plain_length}")
        # Outside the hole range a zero block needs no test: its tag is wrong. So ordinary files pay one comparison.
        may_have_holes = hole_start < first_index + cipher_length // cipher_block + 1 and first_index < hole_end
        decrypt_into, file_id, pack = self._decrypt_into, self._file_id, _ASSOCIATED.pack
        block_size = self._block_size
        source, target = memoryview(cipher), memoryview(out)
        position = out_offset
        index = first_index
        for start in range(0, cipher_length, cipher_block):
            body = start + NONCE_SIZE
            end = min(start + cipher_block, cipher_length)
            length = end - start - OVERHEAD
            if length <= 0:
                break
            nonce = source[start:body]
            piece = target[position : position + length]
            if (
                may_have_holes
                and nonce == _ZERO_NONCE
                and hole_start <= index < hole_end
                and not source[start:end].tobytes().strip(b"\0")
            ):
                piece[:] = bytes(length)
            else:
                try:
                    decrypt_into(nonce, source[body:end], pack(file_id, index), piece)
                except InvalidTag:
                    has_older = self.generation or self._previous is not None
                    if has_older and self._open_older(index, nonce, source[body:end], piece):
                        position += block_size
                        index += 1
                        continue
                    piece[:] = bytes(length)  # what stands there is not authentic
                    raise IntegrityError(f"block {index} is damaged", block=index) from None
            position += block_size
            index += 1
        return plain_length

    def seal_one(self, index: int, plain: Buffer) -> bytearray:
        """One sealed block of 1 to block-size plain bytes."""
        length = len(plain)
        if not 0 < length <= self._block_size:
            raise ValueError(f"a block of {length} bytes")
        # Unique because random, as in `seal`.
        nonce = self._random(NONCE_SIZE)
        out = bytearray(length + OVERHEAD)
        out[:NONCE_SIZE] = nonce
        self._encrypt_into(nonce, plain, _ASSOCIATED.pack(self._file_id, index), memoryview(out)[NONCE_SIZE:])
        return out

    def open_one(self, index: int, cipher: Buffer, hole_start: int = 0, hole_end: int = 0) -> bytearray:
        """The plain bytes of one whole sealed block; IntegrityError with its index, FormatError if it can be none."""
        length = len(cipher) - OVERHEAD
        if not 0 < length <= self._block_size:
            raise FormatError(f"block {index}: {length + OVERHEAD} bytes are no block")
        out = bytearray(length)
        self.open_into(index, cipher, out, 0, hole_start, hole_end)
        return out
