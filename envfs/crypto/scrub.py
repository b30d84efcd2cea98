"""Overwriting what cannot be wiped by any proper means: immutable bytes, and memory that was freed already.

CPython keeps the bytes of an object that is gone where they were until something else is put there. Both functions know
how CPython lays memory out; they do their best, and tests look at what is left.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Final

# pymalloc serves objects of up to 512 bytes out of pools for each multiple of 16 bytes.
_STEP: Final = 16
_LARGEST_SMALL: Final = 512
# So much is taken of each size at once: more than what lies free in the pools of a daemon that has been busy.
_AMOUNT: Final = 8 << 20
_HEADER: Final = bytes.__basicsize__ - 1  # before the content of a bytes object; one byte after it is counted there


def overwrite(key: bytes) -> None:
    """Zeros over the content of `key`, which nobody may use any more. Not for constants, nor one byte alone."""
    if len(key) > 1:
        ctypes.memset(id(key) + _HEADER, 0, len(key))


def scrub_freed_memory() -> None:
    """Zeros over memory that Python and malloc(3) have free, and back to the kernel with it where that can be.

    Takes some tens of milliseconds, and for as long 8 MiB.
    """
    gc.collect()
    for size in range(2 * _STEP, _LARGEST_SMALL + 1, _STEP):
        length = size - sys.getsizeof(b"")
        if length > 0:
            blocks = [bytes(length) for _ in range(_AMOUNT // size)]
            del blocks
    libc = ctypes.CDLL(None)
    for size in (1 << 10, 4 << 10, 16 << 10, 64 << 10):
        buffers = [bytearray(size - 64) for _ in range(_AMOUNT // size)]
        del buffers
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
