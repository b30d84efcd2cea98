"""Opening a file of a volume from its bytes alone, for readers without a mount: checks and decision are those of a
mount, and what they need is handed in.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from envfs.crypto.secret import Secret
from envfs.errors import AccessDenied, ConfigError, FormatError, IntegrityError, InvalidCiphertext
from envfs.format.block import BlockCodec
from envfs.format.context import decode_labels
from envfs.format.evidence import Evidence, prove
from envfs.format.file_keys import block_codec
from envfs.format.geometry import Geometry
from envfs.format.header import (
    HeaderArea,
    ParsedSlot,
    Slot,
    dek_context,
    header_key,
    volume_context,
)
from envfs.format.volume import VolumeFile
from envfs.format.volume_keys import VolumeKeys
from envfs.kms.model import Principal, RequestFacts

if TYPE_CHECKING:
    from envfs.kms.engine import Engine

VIA_SERVICE = "envfs"


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A file whose header is authentic, and what opens its blocks."""

    slot: Slot
    position: int
    codec: BlockCodec

    def open(self, first_index: int, cipher: bytes) -> tuple[bytes, int | None]:
        """The plain bytes of whole sealed blocks (the last may be short), up to the first that is not authentic, and
        that block's index.
        """
        plain = bytearray(self.codec.opened_length(len(cipher)))
        try:
            self.codec.open_into(first_index, cipher, plain, 0, self.slot.hole_start, self.slot.hole_end)
        except IntegrityError as error:
            index = first_index if error.block is None else error.block
            return bytes(plain[: (index - first_index) << self.slot.block_log2]), index
        return bytes(plain), None


def open_sealed_file(
    engine: Engine, principal: Principal, evidence: Evidence, facts: RequestFacts, *, path_is_proven: bool
) -> SealedFile | None:
    """The file, if the evidence is authentic and `principal` may decrypt its DEK, which is recorded; None for an empty
    file, which has none. `path_is_proven`: the caller has seen himself that the file stands where `evidence` says.

    ConfigError for a volume of another KMS; IntegrityError, FormatError; the KmsErrors of the decision.
    """
    volume = VolumeFile.parse(evidence.volume_file)
    keys = _volume_keys(engine, volume, evidence.volume_file)
    path, area = prove(evidence, volume, keys)
    if area.is_absent:
        return None
    facts = replace(
        facts, via_service=VIA_SERVICE, path=os.fsdecode(path), access="read", path_is_proven=path_is_proven
    )

    def unwrap(slot: Slot) -> Secret:
        context = dek_context(volume.volume_id, slot.file_id, decode_labels(slot.labels))
        return keys.file_key(engine.decrypt(principal, slot.blob, context, facts), is_bound=volume.is_bound)

    denied: AccessDenied | None = None
    for parsed in area.slots:
        try:
            with unwrap(parsed.slot) as file_key:
                opened = _open_slot(parsed, file_key, volume)
        except AccessDenied as error:
            # As in a mount: a damaged blob may name a key that does not exist, and the other slot's be sound.
            if _all_alike(area):
                raise
            denied = denied or error
        except InvalidCiphertext:
            continue
        else:
            if opened is not None:
                return opened
    if denied is not None:
        raise denied
    raise IntegrityError("neither header slot is authentic")


def _volume_keys(engine: Engine, volume: VolumeFile, raw: bytes) -> VolumeKeys:
    if volume.kms_id != engine.store_id:
        raise ConfigError(
            f"the volume belongs to another KMS ({volume.kms_id.hex()}), this one is {engine.store_id.hex()}",
            hint="set ENVFS_HOME to the directory of the KMS with which the volume was made",
        )
    try:
        volume_key = engine.unwrap_service_owned(volume.blob, volume_context(volume.volume_id))
    except (InvalidCiphertext, FormatError):
        raise IntegrityError("the volume file is damaged: its volume key cannot be unwrapped") from None
    with volume_key:
        keys = VolumeKeys(volume_key)
    if not VolumeFile.verify(raw, keys.volume_file):
        raise IntegrityError("the volume file is not authentic")
    return keys


def _open_slot(parsed: ParsedSlot, file_key: Secret, volume: VolumeFile) -> SealedFile | None:
    slot = parsed.slot
    if not parsed.verify(header_key(file_key, slot.file_id)):
        return None
    if slot.block_log2 != volume.block_log2:
        raise IntegrityError("the file has another block size than its volume")
    codec = block_codec(file_key, slot, Geometry(volume.block_size))
    return SealedFile(slot, parsed.position, codec)


def _all_alike(area: HeaderArea) -> bool:
    return all(other.slot.blob == area.slots[0].slot.blob for other in area.slots)
