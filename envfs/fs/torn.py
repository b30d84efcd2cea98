"""Whether a block was torn when it was written over: from its bytes and what the journal says of it, without its key.

Disks write sectors whole. So a block on the disk is made of pieces, cut where sectors begin, each of which is of one
version of the block. What older versions were, the journal has; the newest is known by the nonce that it begins with.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

from envfs.crypto.aead import NONCE_SIZE
from envfs.format.journal import Entry

SECTOR: Final = 512
# The end of a short last block may be a piece of a byte or two, which is the same in two versions too often to tell.
_TOO_SHORT: Final = 4


def is_torn(start: int, found: bytes, entries: Sequence[Entry]) -> bool:
    """Whether `entries[-1].old` is to be put back: `found` stands at `start` of the lower file where the block should.

    `entries` are those of the block, in the order of the journal. `found` is shorter than a block where the file ends.
    False if the block is whole, in whichever version, and if it is something that the journal does not know.
    """
    if not found.strip(b"\0"):
        return False  # a hole, whichever version of it; of another length, if the file was cut and made longer since
    if not _is_known(start, found, entries):
        return False
    if any(found == entry.old for entry in entries):
        return False
    return not any(_is_new(start, found, entry, entries) for entry in entries)


def _pieces(start: int, length: int) -> list[tuple[int, int]]:
    """Where the sectors of a range of the file begin and end, from the range's beginning."""
    edges = [0, *range(SECTOR - start % SECTOR, length, SECTOR), length]
    return list(itertools.pairwise(edges))


def _is_known(start: int, found: bytes, entries: Sequence[Entry]) -> bool:
    """Whether what stands where the nonce should is of versions that the journal knows."""
    visible = min(NONCE_SIZE, len(found))
    nonces = [entry.nonce for entry in entries] + [_extended(entry.old, NONCE_SIZE) for entry in entries]
    return all(
        any(found[a : min(b, visible)] == nonce[a : min(b, visible)] for nonce in nonces)
        for a, b in _pieces(start, visible)
    )


def _is_new(start: int, found: bytes, entry: Entry, entries: Sequence[Entry]) -> bool:
    """Whether all of `found` may be what was written over `entry.old`."""
    if len(found) != entry.new_length or found[:NONCE_SIZE] != entry.nonce:
        return False
    if any(one.old[:NONCE_SIZE] == entry.nonce for one in entries):
        return False  # what was written is known, and it is not that
    olds = [_extended(one.old, len(found)) for one in entries]
    return not any(
        b - a >= _TOO_SHORT and b > NONCE_SIZE and any(found[a:b] == old[a:b] for old in olds)
        for a, b in _pieces(start, len(found))
    )


def _extended(old: bytes, length: int) -> bytes:
    """What lies behind the end of a file is zeros when the file gets longer."""
    return old[:length].ljust(length, b"\0")
