"""From plain bytes to sealed blocks and back: integers alone (FORMAT.md section 2)."""

from __future__ import annotations

from typing import Final

from envfs.crypto.aead import NONCE_SIZE, TAG_SIZE
from envfs.errors import FormatError
from envfs.format.fields import MAX_BLOCK_LOG2, MIN_BLOCK_LOG2, check_range

HEADER_SIZE: Final = 1024
OVERHEAD: Final = NONCE_SIZE + TAG_SIZE

_MAX_CIPHER_SIZE: Final = 2**63 - 1


class Geometry:
    """Sizes and offsets in files of one block size (bytes; a power of two from 4,096 to 65,536).

    `plain_` numbers count bytes of content, `cipher_` numbers bytes of the lower file.
    """

    __slots__ = ("block_log2", "block_size", "cipher_block", "max_plain_size")

    def __init__(self, block_size: int) -> None:
        check_range(block_size, 1 << MIN_BLOCK_LOG2, 1 << MAX_BLOCK_LOG2, "block size")
        if block_size & (block_size - 1):
            raise FormatError(f"block size: {block_size} is not a power of two")
        self.block_size: Final = block_size
        self.block_log2: Final = block_size.bit_length() - 1
        self.cipher_block: Final = block_size + OVERHEAD
        #: The largest content whose lower file still has a size that off_t can say.
        self.max_plain_size: Final = self.plain_size(_MAX_CIPHER_SIZE)

    def plain_size(self, cipher_size: int) -> int:
        """Content bytes in a lower file of `cipher_size` bytes. A torn rest of 1 to 28 bytes holds none."""
        if cipher_size <= HEADER_SIZE:
            return 0
        full, rest = divmod(cipher_size - HEADER_SIZE, self.cipher_block)
        return full * self.block_size + (rest - OVERHEAD if rest > OVERHEAD else 0)

    def cipher_size(self, plain_size: int) -> int:
        """Size of the lower file, header included, that holds `plain_size` content bytes; 1,024 for none."""
        return HEADER_SIZE + plain_size + OVERHEAD * self.block_count(plain_size)

    def block_offset(self, index: int) -> int:
        """Where block `index` begins in the lower file."""
        return HEADER_SIZE + index * self.cipher_block

    def block_count(self, plain_size: int) -> int:
        """How many blocks hold `plain_size` bytes."""
        return (plain_size + self.block_size - 1) >> self.block_log2

    def blocks(self, offset: int, length: int) -> tuple[int, int]:
        """Indices (first, end) of the blocks with plain bytes `offset` to `offset + length`; first = end for none."""
        first = offset >> self.block_log2
        if length <= 0:
            return first, first
        return first, (offset + length + self.block_size - 1) >> self.block_log2

    def block_plain_length(self, index: int, plain_size: int) -> int:
        """How many plain bytes block `index` has in a file of `plain_size`; 0 beyond its end."""
        return max(0, min(self.block_size, plain_size - (index << self.block_log2)))

    def __repr__(self) -> str:
        return f"Geometry({self.block_size})"
