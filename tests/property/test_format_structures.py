"""Round trips of every structure, and every bit of every structure that is authenticated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envfs.crypto.aead import Suite
from envfs.crypto.b64 import decode_bytes, encode_bytes
from envfs.crypto.secret import Secret
from envfs.crypto.siv import Siv
from envfs.errors import EnvfsError, IntegrityError
from envfs.format.blob import Blob, open_blob, read_blob, seal_blob
from envfs.format.context import decode_context, encode_context
from envfs.format.directory import DirectoryFile
from envfs.format.header import Slot, parse_header_area, verify_slot
from envfs.format.names import check_name_file
from envfs.format.place import ROOT, Kind, Where, parse_place
from envfs.format.symlink import parse_link_file, parse_text, to_text
from envfs.format.volume import VolumeFile
from envfs.format.volume_keys import VolumeKeys
from tests.property import strategies as draw_

KEY = bytes(range(32))
KEYS = VolumeKeys(Secret(KEY))
OBJECT = b"o" * 16
HERE, BEFORE = Where(b"p" * 16, b"name"), Where(b"q" * 16, b"old")
PLACE = KEYS.place.pack(Kind.DIRECTORY, OBJECT, ROOT)


@given(st.binary(max_size=400))
def test_base64url(raw: bytes) -> None:
    assert decode_bytes(encode_bytes(raw)) == raw


@given(draw_.contexts)
def test_contexts(pairs: dict[str, str]) -> None:
    assert decode_context(encode_context(pairs)) == pairs


@given(draw_.contexts, draw_.contexts)
def test_contexts_are_equal_only_if_their_encodings_are(first: dict[str, str], second: dict[str, str]) -> None:
    assert (first == second) == (encode_context(first) == encode_context(second))


@given(draw_.slots())
def test_slots(slot: Slot) -> None:
    raw = slot.seal(KEY)
    assert Slot.parse(raw) == slot
    assert verify_slot(raw, KEY)


@given(draw_.slots(), st.integers(0, 1), st.integers(1, 2**64 - 1))
def test_header_areas(slot: Slot, position: int, sequence: int) -> None:
    other = replace(slot, sequence=sequence)
    pair = (slot, other) if position else (other, slot)
    area = parse_header_area(PLACE + pair[0].seal(KEY) + pair[1].seal(KEY))
    assert area.place_raw == PLACE
    assert sorted(parsed.position for parsed in area.slots) == [0, 1]
    assert area.slots[0].slot.sequence == max(slot.sequence, sequence)
    assert all(parsed.slot == pair[parsed.position] for parsed in area.slots)


@given(draw_.directory_files)
def test_directory_files(directory: DirectoryFile) -> None:
    assert DirectoryFile.parse(KEY, directory.serialise(KEY, PLACE)) == (directory, PLACE)


@given(draw_.volume_files)
def test_volume_files(volume: VolumeFile) -> None:
    raw = volume.serialise(KEY)
    assert VolumeFile.parse(raw) == volume
    assert VolumeFile.verify(raw, KEY)


@given(st.binary(min_size=1, max_size=4096), draw_.contexts, draw_.ids, draw_.ids, st.binary(min_size=32, max_size=32))
def test_blobs(plaintext: bytes, context: dict[str, str], key_id: bytes, backing_key_id: bytes, salt: bytes) -> None:
    raw = seal_blob(KEY, key_id, backing_key_id, plaintext, encode_context(context), salt)
    blob = Blob.parse(raw)
    assert blob.serialise() == raw
    assert (blob.key_id, blob.backing_key_id, blob.salt) == (key_id, backing_key_id, salt)
    assert open_blob(KEY, read_blob(raw), encode_context(context)) == Secret(plaintext)


@given(draw_.names, draw_.ids)
def test_names(name: bytes, directory_id: bytes) -> None:
    cipher = KEYS.names.encrypt(directory_id, name)
    assert KEYS.names.decrypt(directory_id, cipher.full) == name
    if cipher.is_long:
        assert check_name_file(cipher.lower, cipher.full) == cipher.full
    assert len(cipher.lower) <= 255


@given(draw_.targets, draw_.ids, draw_.places, st.none() | draw_.places)
def test_symlinks(target: bytes, link_id: bytes, current: Where, previous: Where | None) -> None:
    payload = KEYS.symlinks.seal(link_id, target, current, previous)
    text = to_text(payload)
    again = parse_text(text) if text else parse_link_file(b"envfs.link." + link_id.hex().encode(), payload)
    assert again == payload
    for where in {current, previous or current}:
        assert KEYS.symlinks.open(payload, where) == target


@given(st.binary(min_size=1, max_size=255).filter(lambda name: b"\0" not in name), st.binary(max_size=300), draw_.ids)
def test_xattrs(name: bytes, value: bytes, object_id: bytes) -> None:
    assert KEYS.xattrs.open_name(object_id, KEYS.xattrs.name(object_id, name)) == name
    assert KEYS.xattrs.open(object_id, name, KEYS.xattrs.seal(object_id, name, value)) == value


@given(draw_.kinds, draw_.ids, draw_.places, st.none() | draw_.places, draw_.places)
def test_places(kind: Kind, object_id: bytes, current: Where, previous: Where | None, elsewhere: Where) -> None:
    raw = KEYS.place.pack(kind, object_id, current, previous)
    known = {current, previous or current}
    for where in (current, previous or current, elsewhere):
        assert KEYS.place.check(raw, kind, object_id, where) == (where in known)
    assert parse_place(raw).has_previous == (previous is not None)


# Every bit. What opens a structure returns quietly or raises; afterwards no flipped bit may have gone unnoticed.


def _open_slot(raw: bytes) -> None:
    Slot.parse(raw)
    if not verify_slot(raw, KEY):
        raise IntegrityError


def _open_directory_file(raw: bytes) -> None:
    directory, place = DirectoryFile.parse(KEY, raw)
    if not KEYS.place.check(place, Kind.DIRECTORY, directory.directory_id, HERE):
        raise IntegrityError


def _open_volume_file(raw: bytes) -> None:
    VolumeFile.parse(raw)
    if not VolumeFile.verify(raw, KEY):
        raise IntegrityError


def _open_blob(raw: bytes) -> None:
    open_blob(KEY, read_blob(raw), b"\0\0")


def _open_name(raw: bytes) -> None:
    KEYS.names.decrypt(OBJECT, raw)


def _open_symlink(raw: bytes) -> None:
    KEYS.symlinks.open(parse_text(raw), HERE)


def _open_xattr_value(raw: bytes) -> None:
    KEYS.xattrs.open(OBJECT, b"user.a", raw)


def _open_siv(raw: bytes) -> None:
    Siv(KEY + KEY).decrypt(raw, b"a")


SLOT = Slot(Suite.AES_256_GCM, 14, 1, OBJECT, 5, 6, 1, 3, b"blob", encode_context({"a": "b"}))
VOLUME = VolumeFile(Suite.AES_256_GCM, 14, b"v" * 16, b"k" * 16, b"r" * 16, 1_700_000_000, "arn", b"blob")
BOTH_PLACES = KEYS.place.pack(Kind.DIRECTORY, OBJECT, HERE)
LINK = to_text(KEYS.symlinks.seal(OBJECT, b"target", HERE))
assert LINK is not None

AUTHENTICATED: dict[str, tuple[bytes, Callable[[bytes], None], range]] = {
    "slot": (SLOT.seal(KEY), _open_slot, range(448)),
    "volume file": (VOLUME.serialise(KEY), _open_volume_file, range(76 + 3 + 4 + 32)),
    "blob": (seal_blob(KEY, b"k" * 16, b"b" * 16, b"plaintext", b"\0\0", b"s" * 32), _open_blob, range(68 + 9 + 16)),
    "name": (KEYS.names.encrypt(OBJECT, b"hello.txt").full, _open_name, range(34)),
    "value of an attribute": (KEYS.xattrs.seal(OBJECT, b"user.a", b"value"), _open_xattr_value, range(21)),
    "AES-SIV": (Siv(KEY + KEY).encrypt(b"plain", b"a"), _open_siv, range(21)),
}


@pytest.mark.parametrize("structure", list(AUTHENTICATED))
def test_no_bit_can_be_flipped(structure: str) -> None:
    raw, open_it, covered = AUTHENTICATED[structure]
    assert len(raw) == len(covered), "the whole structure is covered"
    open_it(raw)
    for offset in covered:
        for bit in range(8):
            broken = bytearray(raw)
            broken[offset] ^= 1 << bit
            with pytest.raises(EnvfsError):
                open_it(bytes(broken))


def test_no_bit_of_a_directory_file_can_be_flipped_but_those_of_its_previous_place() -> None:
    raw = DirectoryFile(OBJECT, "arn", {"a": "b"}).serialise(KEY, BOTH_PLACES)
    _open_directory_file(raw)
    for offset in [*range(56), *range(104, len(raw))]:
        for bit in range(8):
            broken = bytearray(raw)
            broken[offset] ^= 1 << bit
            with pytest.raises(EnvfsError):
                _open_directory_file(bytes(broken))


def test_no_bit_of_a_place_can_be_flipped_without_losing_that_place() -> None:
    raw = KEYS.place.pack(Kind.FILE, OBJECT, HERE, BEFORE)
    for where, covered in ((HERE, range(8, 56)), (BEFORE, range(56, 104))):
        for offset in covered:
            for bit in range(8):
                broken = bytearray(raw)
                broken[offset] ^= 1 << bit
                assert not KEYS.place.check(bytes(broken), Kind.FILE, OBJECT, where)
                other = BEFORE if where is HERE else HERE
                assert KEYS.place.check(bytes(broken), Kind.FILE, OBJECT, other), "the other one stands on its own"


def test_no_bit_of_a_symlink_can_be_flipped_but_those_of_its_previous_tag() -> None:
    payload = parse_text(LINK or b"")
    for offset in [*range(32), *range(48, len(payload))]:
        for bit in range(8):
            broken = bytearray(payload)
            broken[offset] ^= 1 << bit
            with pytest.raises(EnvfsError):
                KEYS.symlinks.open(bytes(broken), HERE)


def test_no_character_of_a_symlink_has_a_second_form() -> None:
    text = LINK or b""
    _open_symlink(text)
    previous_tag = range(32 * 4 // 3, 48 * 4 // 3 + 1)
    for offset in range(len(text)):
        for byte in range(256):
            broken = bytearray(text)
            broken[offset] = byte
            if bytes(broken) == text or offset in previous_tag:
                continue
            with pytest.raises(EnvfsError):
                _open_symlink(bytes(broken))
