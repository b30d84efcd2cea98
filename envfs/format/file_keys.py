"""From a file key to what opens and seals a file's blocks, and the previous key of one that is being rekeyed
(FORMAT.md sections 1, 2.3 and 2.4).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from envfs.crypto.kdf import Label, derive
from envfs.crypto.secret import Secret
from envfs.errors import IntegrityError
from envfs.format.block import MAX_GENERATIONS, BlockCodec, ContentKeys, generation_of
from envfs.format.fields import check_range
from envfs.format.header import content_key, generations_key

if TYPE_CHECKING:
    from envfs.format.geometry import Geometry
    from envfs.format.header import Slot

_ZERO_NONCE: Final = bytes(12)
_GENERATION: Final = struct.Struct(">H")


def block_codec(file_key: Secret, slot: Slot, geometry: Geometry) -> BlockCodec:
    """What opens the blocks of a file with this header, and seals new ones. IntegrityError for a wrong previous key."""
    previous = None
    if slot.previous:
        generation, key = open_previous(file_key, slot.file_id, slot.previous)
        with key:
            previous = ContentKeys(*_content_keys(key, slot), generation)
    first, later = _content_keys(file_key, slot)
    return BlockCodec(
        slot.suite,
        first,
        slot.file_id,
        geometry,
        later=later,
        generation=generation_of(slot.sealed_blocks),
        previous=previous,
    )


def _content_keys(file_key: Secret, slot: Slot) -> tuple[bytes, bytes]:
    return content_key(file_key, slot.file_id, slot.suite), generations_key(file_key, slot.file_id)


def seal_previous(file_key: Secret, file_id: bytes, generation: int, previous: Secret) -> bytes:
    """The previous key for a header under `file_key`, which must have been drawn for this. `generation`: the newest
    one under which the previous file key has sealed blocks.
    """
    number = _GENERATION.pack(generation)
    cipher = AESGCM(derive(file_key, Label.PREVIOUS_FILE_KEY, file_id))
    # A fixed nonce is unique here: the file key is new, and wraps one previous key ever.
    return number + cipher.encrypt(_ZERO_NONCE, previous.expose(), file_id + number)


def open_previous(file_key: Secret, file_id: bytes, raw: bytes) -> tuple[int, Secret]:
    """Generation and previous file key. FormatError for a generation that there cannot be; IntegrityError."""
    number = raw[: _GENERATION.size]
    generation = _GENERATION.unpack(number)[0]
    check_range(generation, 0, MAX_GENERATIONS - 1, "previous key: generation")
    cipher = AESGCM(derive(file_key, Label.PREVIOUS_FILE_KEY, file_id))
    try:
        return generation, Secret(cipher.decrypt(_ZERO_NONCE, raw[_GENERATION.size :], file_id + number))
    except InvalidTag:
        raise IntegrityError("the previous key in the header is not authentic") from None
