"""Somebody who can write the lower directory, and whom the KMS lets make data keys by himself, forges a file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from envfs.errors import IntegrityError
from envfs.format.block import BlockCodec
from envfs.format.header import content_key, dek_context, header_key, volume_context
from envfs.format.place import PLACE_SIZE
from envfs.format.volume_keys import VolumeKeys
from envfs.service.volume import open_volume
from tests.unit.fs.lab import slots_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.fs.lab import Lab

FORGED = b"pay the forger"


def forge(lab: Lab, path: Path) -> None:
    """The file's place and file id, and a header and a block under a DEK of the forger's own."""
    slot = slots_of(path)[0]
    context = dek_context(open_volume(lab.lower, lab.engine).file.volume_id, slot.file_id, {})
    made = lab.engine.generate_data_key(lab.me, lab.engine.key_arn_of_blob(slot.blob), context)
    own = replace(slot, sequence=slot.sequence + 1, length_bound=0, blob=made.blob)
    codec = BlockCodec(own.suite, content_key(made.plaintext, own.file_id, own.suite), own.file_id, lab.geometry)
    sealed = own.seal(header_key(made.plaintext, own.file_id))
    path.write_bytes(path.read_bytes()[:PLACE_SIZE] + 2 * sealed + codec.seal(0, FORGED))


def make_file(lab: Lab) -> Path:
    fs = lab.mount()
    fs.fs.state.directories.set_key(fs.node(b""), lab.engine.create_key(lab.me).arn)
    fs.write(b"order", b"pay the baker")
    path = fs.lower(b"order")
    lab.unmount()
    return path


def test_a_file_under_the_forgers_dek_is_refused(lab: Lab) -> None:
    path = make_file(lab)
    forge(lab, path)
    with pytest.raises(IntegrityError, match="no header slot"):
        lab.mount().read(b"order")


def test_only_the_binding_to_the_volume_key_refuses_it(lab: Lab) -> None:
    """In a volume of the time before, the same forgery is read: so the test above tests what it says."""
    opened = open_volume(lab.lower, lab.engine)
    with lab.engine.unwrap_service_owned(opened.file.blob, volume_context(opened.file.volume_id)) as volume_key:
        raw = replace(opened.file, is_bound=False).serialise(VolumeKeys(volume_key).volume_file)
    for name in ("envfs.volume", "envfs.volume.backup"):
        (lab.lower / name).write_bytes(raw)
    path = make_file(lab)
    assert lab.mount().read(b"order") == b"pay the baker"
    forge(lab, path)
    assert lab.mount().read(b"order") == FORGED


def test_the_flag_cannot_be_taken_away(lab: Lab) -> None:
    for name in ("envfs.volume", "envfs.volume.backup"):
        raw = bytearray((lab.lower / name).read_bytes())
        assert raw[69] == 1
        raw[69] = 0
        (lab.lower / name).write_bytes(raw)
    with pytest.raises(IntegrityError):
        lab.mount()
