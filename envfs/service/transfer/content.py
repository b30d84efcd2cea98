"""The content of one regular file: copied with its holes, and read back."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from envfs.fs.lower import write_all

if TYPE_CHECKING:
    from hashlib import _Hash

CHUNK: Final = 1 << 20
_PIECE: Final = 4096  # where only the bytes tell what is a hole
_ZEROS: Final = bytes(CHUNK)


class SourceChanged(Exception):
    """The file was written to, or replaced, while it was read."""


def copy(source: int, target: int, status: os.stat_result, advance: Callable[[int], None]) -> bytes:
    """Copies the content, which has the size that `status` says, and returns its digest. Holes stay holes.

    `advance` hears of each piece how many bytes it had, and may raise to end it. SourceChanged if the file got shorter.
    """
    size = status.st_size
    digest = hashlib.sha256()
    is_sparse = status.st_blocks * 512 < size
    tells_holes = is_sparse and _tells_holes(source, size)
    position = 0
    while position < size:
        end = min(size, position + CHUNK)
        if tells_holes:
            # Whole chunks within a hole need not be read.
            data = min(size, _next_data(source, position))
            while position < data and end <= data:
                _add(digest, _ZEROS[: end - position])
                advance(end - position)
                position, end = end, min(size, end + CHUNK)
            if position >= size:
                break
        chunk = read_exactly(source, end - position, position)
        _add(digest, chunk)
        if not is_sparse:
            write_all(target, chunk, position)
        else:
            ranges = _data_in(source, position, end) if tells_holes else _not_zero(chunk, position)
            view = memoryview(chunk)
            for start, stop in ranges:
                write_all(target, view[start - position : stop - position], start)
        advance(end - position)
        position = end
    os.ftruncate(target, size)
    return digest.digest()


def digest_of(fd: int, size: int, advance: Callable[[int], None]) -> bytes:
    """The digest of what a reader gets: all of `fd`, which has `size` bytes. SourceChanged if it has fewer."""
    digest = hashlib.sha256()
    for position in range(0, size, CHUNK):
        chunk = read_exactly(fd, min(CHUNK, size - position), position)
        _add(digest, chunk)
        advance(0)
    return digest.digest()


def read_exactly(fd: int, length: int, offset: int) -> bytes:
    chunk = os.pread(fd, length, offset)
    while len(chunk) < length:
        more = os.pread(fd, length - len(chunk), offset + len(chunk))
        if not more:
            raise SourceChanged
        chunk += more
    return chunk


def _add(digest: _Hash, chunk: bytes) -> None:
    """A chunk of zeros is told apart from data, and costs nothing: large holes are many of them."""
    if chunk == _ZEROS or chunk == _ZEROS[: len(chunk)]:
        digest.update(b"Z%d" % len(chunk))
    else:
        digest.update(b"D%d:" % len(chunk))
        digest.update(chunk)


def _tells_holes(fd: int, size: int) -> bool:
    """Whether the filesystem knows of a hole in a file that takes less space than it is long. A mount does not."""
    try:
        return os.lseek(fd, 0, os.SEEK_HOLE) < size
    except OSError:
        return False


def _next_data(fd: int, position: int) -> int:
    try:
        return os.lseek(fd, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # there is none any more
            return 1 << 63
        raise


def _data_in(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    while start < end:
        data = _next_data(fd, start)
        if data >= end:
            return
        start = min(end, os.lseek(fd, data, os.SEEK_HOLE))
        yield data, start


def _not_zero(chunk: bytes, offset: int) -> Iterator[tuple[int, int]]:
    """The ranges of whole pieces of `chunk`, which stands at `offset`, that are not all zero."""
    begin: int | None = None
    for start in range(0, len(chunk), _PIECE):
        piece = chunk[start : start + _PIECE]
        is_zero = piece == _ZEROS[: len(piece)]
        if is_zero and begin is not None:
            yield offset + begin, offset + start
            begin = None
        elif not is_zero and begin is None:
            begin = start
    if begin is not None:
        yield offset + begin, offset + len(chunk)
