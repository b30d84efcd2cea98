from __future__ import annotations

import itertools

import pytest

from envfs.errors import FormatError
from envfs.format.fields import ONES_ID, ZERO_ID
from envfs.format.place import ANYWHERE, PLACE_SIZE, ROOT, Kind, PlaceKey, Where, parse_place

KEY = PlaceKey(bytes(range(32)))
OBJECT = b"o" * 16
HERE, BEFORE, ELSEWHERE = Where(b"p" * 16, b"name"), Where(b"q" * 16, b"old"), Where(b"p" * 16, b"nam")


def test_special_places() -> None:
    assert (ZERO_ID, b"") == ROOT
    assert (ONES_ID, b"") == ANYWHERE


def test_without_a_previous_place() -> None:
    raw = KEY.pack(Kind.FILE, OBJECT, HERE)
    assert len(raw) == PLACE_SIZE
    assert raw[56:] == bytes(72)
    assert not parse_place(raw).has_previous
    assert KEY.check(raw, Kind.FILE, OBJECT, HERE)
    assert not KEY.check(raw, Kind.FILE, OBJECT, ELSEWHERE)
    assert not KEY.check(raw, Kind.FILE, OBJECT, ROOT)


def test_during_a_rename_both_places_count() -> None:
    raw = KEY.pack(Kind.FILE, OBJECT, HERE, BEFORE)
    assert parse_place(raw).has_previous
    assert KEY.check(raw, Kind.FILE, OBJECT, HERE)
    assert KEY.check(raw, Kind.FILE, OBJECT, BEFORE)
    assert not KEY.check(raw, Kind.FILE, OBJECT, Where(HERE.parent_id, BEFORE.cipher_name))
    assert not KEY.check(raw, Kind.FILE, OBJECT, Where(BEFORE.parent_id, HERE.cipher_name))
    assert not KEY.is_anywhere(raw, Kind.FILE, OBJECT)


def test_the_root_as_a_previous_place_is_not_its_absence() -> None:
    raw = KEY.pack(Kind.DIRECTORY, OBJECT, HERE, ROOT)
    assert parse_place(raw).has_previous
    assert KEY.check(raw, Kind.DIRECTORY, OBJECT, ROOT)


@pytest.mark.parametrize("places", [(ANYWHERE, None), (ANYWHERE, BEFORE), (HERE, ANYWHERE)])
def test_anywhere_is_everywhere(places: tuple[Where, Where | None]) -> None:
    raw = KEY.pack(Kind.FILE, OBJECT, *places)
    assert KEY.is_anywhere(raw, Kind.FILE, OBJECT)
    assert KEY.check(raw, Kind.FILE, OBJECT, ELSEWHERE)


def test_anywhere_has_to_be_authentic() -> None:
    raw = KEY.pack(Kind.FILE, OBJECT, HERE)
    for offset in (8, 56):
        forged = raw[:offset] + ONES_ID + raw[offset + 16 :]
        assert not KEY.is_anywhere(forged, Kind.FILE, OBJECT)
        assert not KEY.check(forged, Kind.FILE, OBJECT, ELSEWHERE)
    anywhere = KEY.pack(Kind.FILE, OBJECT, ANYWHERE)
    assert not KEY.is_anywhere(anywhere[:8] + HERE.parent_id + anywhere[24:], Kind.FILE, OBJECT)
    assert not KEY.is_anywhere(KEY.pack(Kind.FILE, b"x" * 16, ANYWHERE), Kind.FILE, OBJECT)
    assert not KEY.is_anywhere(KEY.pack(Kind.DIRECTORY, OBJECT, ANYWHERE), Kind.FILE, OBJECT)


def test_moving_checks_the_old_place_and_keeps_it() -> None:
    for raw in (
        KEY.pack(Kind.FILE, OBJECT, HERE, BEFORE),
        KEY.pack(Kind.FILE, OBJECT, BEFORE, HERE),
        KEY.pack(Kind.FILE, OBJECT, ANYWHERE),
        KEY.pack(Kind.FILE, OBJECT, BEFORE, ANYWHERE),
    ):
        assert KEY.moved(raw, Kind.FILE, OBJECT, HERE, ELSEWHERE) == KEY.pack(Kind.FILE, OBJECT, ELSEWHERE, HERE)


def test_what_is_out_of_its_place_is_not_moved() -> None:
    raw = KEY.pack(Kind.FILE, OBJECT, HERE, BEFORE)
    assert KEY.moved(raw, Kind.FILE, OBJECT, ELSEWHERE, HERE) is None
    assert KEY.moved(raw, Kind.FILE, b"x" * 16, HERE, ELSEWHERE) is None
    assert KEY.moved(raw, Kind.DIRECTORY, OBJECT, HERE, ELSEWHERE) is None
    forged = raw[:8] + ONES_ID + raw[24:]
    assert KEY.moved(forged, Kind.FILE, OBJECT, HERE, ELSEWHERE) is None


def test_every_part_counts() -> None:
    kinds, objects = list(Kind), [OBJECT, b"x" * 16]
    parents, names = [b"p" * 16, b"q" * 16], [b"", b"a", b"ab"]
    macs = {KEY.mac(*parts) for parts in itertools.product(kinds, objects, parents, names)}
    assert len(macs) == 3 * 2 * 2 * 3


def test_another_key_knows_nothing() -> None:
    raw = KEY.pack(Kind.FILE, OBJECT, HERE)
    assert not PlaceKey(bytes(32)).check(raw, Kind.FILE, OBJECT, HERE)


def test_the_mac_of_a_place_stands_under_its_own_parent_only() -> None:
    raw = bytearray(KEY.pack(Kind.FILE, OBJECT, HERE))
    raw[8] ^= 1
    assert not KEY.check(bytes(raw), Kind.FILE, OBJECT, HERE)


@pytest.mark.parametrize(("object_id", "parent_id"), [(b"", b"p" * 16), (b"o" * 16, b"p" * 15), (b"o" * 17, b"p" * 15)])
def test_ids_of_another_size_are_refused(object_id: bytes, parent_id: bytes) -> None:
    with pytest.raises(FormatError):
        KEY.mac(Kind.FILE, object_id, parent_id, b"name")
