"""Reading a chain from either end, line by line, of which only authentic ones come out.

A line is authentic if its tag is right for it and for the tag of the line before. So any line can be checked without
all those before it; what is missing or was put in another place is `envfs.kms.audit.verify`'s to find.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, TypeAlias

from envfs.crypto.mac import Mac
from envfs.kms.audit.chain import MAX_LINE, START, TRAILER_SIZE, claimed_tag

_BLOCK: Final = 1 << 16

Wanted: TypeAlias = Callable[[bytes], bool]


def read_forwards(file: BinaryIO, mac: Mac, wanted: Wanted, start: int, end: int) -> Iterator[tuple[bytes, int]]:
    """The authentic lines from `start` (0, or behind a line) to `end` (behind a line) that are `wanted`, each with the
    offset behind it.
    """
    last_tag = _tag_before(file, start)  # of the last line that has one
    tag_before = last_tag
    offset = start
    file.seek(start)
    while line := file.readline(min(MAX_LINE, end - offset)):
        offset += len(line)
        # A line that a crash cut off has no tag; the one after it follows on the last that has.
        if wanted(line) and (_is_authentic(mac, tag_before, line) or _is_authentic(mac, last_tag, line)):
            yield line, offset
        tag_before = claimed_tag(line)
        last_tag = tag_before or last_tag


def read_backwards(file: BinaryIO, mac: Mac, wanted: Wanted, end: int) -> Iterator[bytes]:
    """The authentic lines before `end` (behind a line, or anywhere in one that is not complete) that are `wanted`, last
    one first.
    """
    # Each waits for the tag that it follows on: that of the line before or, after one that a crash cut off, of the line
    # before that.
    first: bytes | None = None
    second: bytes | None = None
    for line in lines_backwards(file, end):
        tag = claimed_tag(line) if first or second else None
        if second is not None and _is_authentic(mac, tag, second):
            yield second
        second = None
        if first is not None:
            if _is_authentic(mac, tag, first):
                yield first
            else:
                second = first
        first = line if wanted(line) else None
    yield from (one for one in (second, first) if one is not None and _is_authentic(mac, START.tag, one))


def end_of_lines(file: BinaryIO) -> int:
    """The offset behind the last complete line."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _BLOCK)
        file.seek(start)
        position = file.read(end - start).rfind(b"\n")
        if position >= 0:
            return start + position + 1
        end = start
    return 0


def _is_authentic(mac: Mac, tag_before: bytes | None, line: bytes) -> bool:
    tag = claimed_tag(line)
    if tag is None or tag_before is None:
        return False
    return hmac.compare_digest(mac.tag(tag_before + line[:-TRAILER_SIZE]), tag)


def _tag_before(file: BinaryIO, offset: int) -> bytes | None:
    """The tag at the end of the line before `offset`."""
    if offset == 0:
        return START.tag
    file.seek(max(0, offset - TRAILER_SIZE))
    return claimed_tag(file.read(min(offset, TRAILER_SIZE)))


def lines_backwards(file: BinaryIO, end: int, block: int = _BLOCK) -> Iterator[bytes]:
    """Complete lines, last one first, in bounded memory: of one that is too long to be a record only the end is
    read.
    """
    rest = b""  # the beginning of what was read last, as far as it may be a part of a line
    while end > 0:
        start = max(0, end - block)
        file.seek(start)
        read = file.read(end - start) + rest
        end = start
        cut = read.find(b"\n") + 1 if start else 0
        if start and cut in {0, len(read)}:
            rest = read[-MAX_LINE:]
            continue
        *lines, _ = read[cut:].split(b"\n")
        for line in reversed(lines):
            yield line + b"\n"
        rest = read[:cut]
