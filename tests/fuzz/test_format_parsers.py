"""Hostile bytes: a parser gives a value that serialises back to the same bytes, or one of our errors, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envfs.crypto.aead import Suite
from envfs.crypto.b64 import decode_bytes, encode_bytes
from envfs.crypto.mac import mac
from envfs.crypto.secret import Secret
from envfs.errors import EnvfsError
from envfs.format.blob import Blob, open_blob, read_any_blob, read_blob
from envfs.format.block import BlockCodec
from envfs.format.context import decode_context, decode_labels, encode_context
from envfs.format.directory import DirectoryFile
from envfs.format.foreign_blob import ForeignBlob, open_foreign_blob, seal_foreign_blob
from envfs.format.geometry import Geometry
from envfs.format.header import Slot, parse_header_area
from envfs.format.journal import ALIGNMENT, Entry, Record
from envfs.format.names import check_name_file
from envfs.format.place import ROOT, Kind, PlaceKey, Where, parse_place
from envfs.format.symlink import link_file_for, parse_link_file, parse_text, to_text
from envfs.format.undo import UndoHead
from envfs.format.volume import VolumeFile
from envfs.format.volume_keys import VolumeKeys

KEY = bytes(range(32))
KEYS = VolumeKeys(Secret(KEY))
OBJECT = b"o" * 16
HERE = Where(b"p" * 16, b"name")
PLACE = KEYS.place.pack(Kind.FILE, OBJECT, HERE, ROOT)
LABELS = encode_context({"project": "apollo", "tier": "gold"})
SLOT = Slot(Suite.AES_256_GCM, 14, 7, OBJECT, 5, 6, 1, 3, b"b" * 116, LABELS)
DIRECTORY = DirectoryFile(OBJECT, "arn:aws:kms:x:1:key/2", {"project": "apollo"})
VOLUME = VolumeFile(Suite.AES_256_GCM_SIV, 12, b"v" * 16, b"k" * 16, b"r" * 16, 1, "arn", b"b" * 116)
BLOB = Blob(b"k" * 16, b"b" * 16, b"s" * 32, b"c" * 32, b"t" * 16)
FOREIGN_BLOB = seal_foreign_blob(b"o" * 32, b"s" * 32, b"k" * 16, b"b" * 16, b"f" * 184, b"p" * 32, b"\0\0")
LONG_NAME = KEYS.names.encrypt(OBJECT, b"n" * 200)
LONG_LINK = KEYS.symlinks.seal(OBJECT, b"t" * 3500, HERE)
UNDO = UndoHead(b"b" * 16, OBJECT, 7, 1024, 5148, 1024, 5148, b"t" * 16, 0, cuts=False, path=b"one/two")
ENTRIES = [Entry(1, b"n" * 12, 4124, b"o" * 100), Entry(2, b"m" * 12, 4124, bytes(4124))]
JOURNAL = Record(b"e" * 16, 0, b"b" * 16, OBJECT, 7, b"one/two", ENTRIES)
CODEC = BlockCodec(Suite.AES_256_GCM, KEY, OBJECT, Geometry(4096))


@dataclass(frozen=True)
class Parser:
    """`again` parses and serialises. `mac_from`: where what is authenticated begins, to make broken bytes authentic."""

    seeds: tuple[bytes, ...]
    again: Callable[[bytes], bytes]
    mac_from: int | None = None


def _slot(raw: bytes) -> bytes:
    return Slot.parse(raw).seal(KEY)[:416] + raw[416:]


def _header_area(raw: bytes) -> bytes:
    area = parse_header_area(raw)
    if area.is_absent:
        assert not any(raw[128:1024])
    for parsed in area.slots:
        assert _slot(parsed.raw) == parsed.raw
        start = 128 + 448 * parsed.position
        assert raw[start : start + 448] == parsed.raw
    return raw


def _place(raw: bytes) -> bytes:
    place = parse_place(raw)
    for kind in Kind:
        KEYS.place.check(raw, kind, OBJECT, HERE)
        KEYS.place.is_anywhere(raw, kind, OBJECT)
    return b"ENVP\0\1\0\0" + b"".join(place) + bytes(24)


def _directory_file(raw: bytes) -> bytes:
    directory, place = DirectoryFile.parse(KEY, raw)
    return directory.serialise(KEY, place)


def _volume_file(raw: bytes) -> bytes:
    VolumeFile.verify(raw, KEY)
    return VolumeFile.parse(raw).serialise(KEY)[:-32] + raw[-32:]


def _blob(raw: bytes) -> bytes:
    blob = Blob.parse(raw)
    with pytest.raises(EnvfsError):
        open_blob(KEY, read_blob(raw), b"\0\0")
    return blob.serialise()


def _foreign_blob(raw: bytes) -> bytes:
    blob = read_any_blob(raw)
    if not isinstance(blob, ForeignBlob):
        return _blob(raw)
    with pytest.raises(EnvfsError):
        open_foreign_blob(KEY, KEY, blob, b"\0\0")
    length = len(blob.foreign).to_bytes(2, "big")
    return b"EK\1\2" + blob.key_id + blob.backing_key_id + length + blob.foreign + raw[blob.sealed_at :]


def _name(raw: bytes) -> bytes:
    return KEYS.names.encrypt(OBJECT, KEYS.names.decrypt(OBJECT, raw)).full


def _link(raw: bytes) -> bytes:
    payload = parse_text(raw)
    try:
        KEYS.symlinks.open(payload, HERE)
    except EnvfsError:
        pass
    return to_text(payload) or b""


def _link_file(raw: bytes) -> bytes:
    return parse_link_file(link_file_for(OBJECT), raw)


def _xattr_name(raw: bytes) -> bytes:
    name = KEYS.xattrs.open_name(OBJECT, raw)
    return raw if name is None else KEYS.xattrs.name(OBJECT, name)


def _undo_record(raw: bytes) -> bytes:
    head = UndoHead.parse(raw, KEYS.undo)
    serialised = head.serialise(KEYS.undo)
    return serialised + raw[len(serialised) :]  # what follows means nothing


def _journal_record(raw: bytes) -> bytes:
    record, size = Record.parse(raw, KEYS.undo)
    serialised = b"".join(record.serialise(KEYS.undo))
    assert size % ALIGNMENT == 0
    # Padding means nothing; a hole may also be written out, and an old block be all zero.
    assert Record.parse(serialised, KEYS.undo)[0] == record
    return raw


def _blocks(raw: bytes) -> bytes:
    for holes in ((0, 0), (0, 2**64 - 1)):
        plain = CODEC.open(0, raw, *holes)
        assert len(plain) == CODEC.opened_length(len(raw))
    return raw


PARSERS: dict[str, Parser] = {
    "context": Parser((LABELS, b"\0\0"), lambda raw: encode_context(decode_context(raw))),
    "labels": Parser((LABELS,), lambda raw: encode_context(decode_labels(raw))),
    "slot": Parser((SLOT.seal(KEY),), _slot),
    "header area": Parser((PLACE + SLOT.seal(KEY) + bytes(448), PLACE + bytes(448) + SLOT.seal(KEY)), _header_area),
    "place": Parser((PLACE, PlaceKey(KEY).pack(Kind.FILE, OBJECT, HERE)), _place),
    "directory file": Parser(
        (DIRECTORY.serialise(KEY, PLACE), DirectoryFile(OBJECT).serialise(KEY, PLACE)), _directory_file, 128
    ),
    "volume file": Parser((VOLUME.serialise(KEY),), _volume_file, 0),
    "blob": Parser((BLOB.serialise(),), _blob),
    "foreign blob": Parser((FOREIGN_BLOB, BLOB.serialise()), _foreign_blob),
    "base64url": Parser((b"QUJDREVG", b"QUI", b"_-8"), lambda raw: encode_bytes(decode_bytes(raw))),
    "name": Parser((KEYS.names.encrypt(OBJECT, b"hello.txt").full, LONG_NAME.full), _name),
    "name file": Parser((LONG_NAME.full,), lambda raw: check_name_file(LONG_NAME.lower, raw)),
    "symlink": Parser((to_text(KEYS.symlinks.seal(OBJECT, b"target", HERE)) or b"",), _link),
    "link file": Parser((LONG_LINK,), _link_file),
    "name of an attribute": Parser((KEYS.xattrs.name(OBJECT, b"user.comment"),), _xattr_name),
    "undo record": Parser((UNDO.serialise(KEYS.undo),), _undo_record),
    "journal record": Parser((b"".join(JOURNAL.serialise(KEYS.undo)),), _journal_record),
    "blocks": Parser((bytes(CODEC.seal(0, b"x" * 5000)), bytes(5000)), _blocks),
}


@st.composite
def broken(draw: st.DrawFn, parser: Parser) -> bytes:
    """A seed with a few edits, sometimes made authentic again, or no seed at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=600))
    raw = bytearray(draw(st.sampled_from(parser.seeds)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(raw)))
        edit = draw(st.sampled_from(["set", "set", "set", "delete", "insert", "cut", "zero"]))
        if edit == "set":
            new = draw(st.binary(min_size=1, max_size=4) | st.sampled_from([b"\0\0", b"\xff\xff", b"\0\1", b"=", b"/"]))
            raw[at : at + len(new)] = new
        elif edit == "delete":
            del raw[at : at + draw(st.integers(1, 20))]
        elif edit == "insert":
            raw[at:at] = draw(st.binary(min_size=1, max_size=20))
        elif edit == "cut":
            del raw[at:]
        else:
            length = draw(st.integers(1, 40))
            raw[at : at + length] = bytes(min(length, len(raw) - at))
    if parser.mac_from is not None and len(raw) > parser.mac_from + 32 and draw(st.booleans()):
        raw[-32:] = mac(KEY, raw[parser.mac_from : -32])
    return bytes(raw)


@pytest.mark.parametrize("name", list(PARSERS))
@settings(max_examples=max(250, settings.default.max_examples if settings.default else 0))
@given(data=st.data())
def test_only_our_errors_come_out(name: str, data: st.DataObject) -> None:
    parser = PARSERS[name]
    raw = data.draw(broken(parser))
    try:
        again = parser.again(raw)
    except EnvfsError:
        return
    assert again == raw


@pytest.mark.parametrize("name", list(PARSERS))
def test_the_seeds_are_accepted(name: str) -> None:
    """Otherwise the edits would only ever reach the first check."""
    if name == "blocks":
        assert CODEC.open(0, PARSERS[name].seeds[0]) == b"x" * 5000
        return
    for seed in PARSERS[name].seeds:
        assert PARSERS[name].again(seed) == seed


@pytest.mark.parametrize("name", list(PARSERS))
def test_every_beginning_of_a_seed(name: str) -> None:
    parser = PARSERS[name]
    for seed in parser.seeds:
        for length in range(len(seed)):
            try:
                again = parser.again(seed[:length])
            except EnvfsError:
                continue
            assert again == seed[:length]


@pytest.mark.parametrize("name", list(PARSERS))
def test_the_corpus(name: str) -> None:
    """What coverage-guided fuzzing (scripts/fuzz) has found to reach every branch."""
    inputs = sorted((Path(__file__).with_name("corpus") / name.replace(" ", "-")).iterdir())
    assert inputs
    for path in inputs:
        raw = path.read_bytes()
        try:
            again = PARSERS[name].again(raw)
        except EnvfsError:
            continue
        assert again == raw, path.name
