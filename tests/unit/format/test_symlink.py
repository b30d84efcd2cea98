from __future__ import annotations

import pytest

from envfs.errors import FormatError, IntegrityError, Truncated
from envfs.format.place import ANYWHERE, PlaceKey, Where
from envfs.format.symlink import (
    SymlinkCipher,
    is_link_file,
    link_file_for,
    parse_link_file,
    parse_text,
    plain_length,
    to_text,
)

CIPHER = SymlinkCipher(bytes(range(64)), PlaceKey(bytes(range(32))))
LINK_ID = b"l" * 16
HERE, BEFORE, ELSEWHERE = Where(b"p" * 16, b"name"), Where(b"q" * 16, b"old"), Where(b"p" * 16, b"other")


@pytest.mark.parametrize("length", [1, 2, 3, 3006, 3007])
def test_a_target_that_fits(length: int) -> None:
    target = b"t" * length
    text = to_text(CIPHER.seal(LINK_ID, target, HERE))
    assert text is not None
    assert len(text) <= 4095
    assert plain_length(len(text)) == length
    assert CIPHER.open(parse_text(text), HERE) == target


@pytest.mark.parametrize("length", [3008, 4095])
def test_a_target_that_needs_a_link_file(length: int) -> None:
    target = b"t" * length
    payload = CIPHER.seal(LINK_ID, target, HERE)
    assert to_text(payload) is None
    name = link_file_for(LINK_ID)
    assert name == b"envfs.link." + b"6c" * 16
    assert CIPHER.open(parse_link_file(name, payload), HERE) == target
    with pytest.raises(IntegrityError):
        parse_link_file(link_file_for(b"m" * 16), payload)


def test_a_short_target_needs_none() -> None:
    with pytest.raises(FormatError):
        parse_link_file(link_file_for(LINK_ID), CIPHER.seal(LINK_ID, b"t" * 3007, HERE))


@pytest.mark.parametrize("target", [b"", b"a\0b", b"t" * 4096])
def test_what_is_no_target_is_not_sealed(target: bytes) -> None:
    with pytest.raises(FormatError):
        CIPHER.seal(LINK_ID, target, HERE)


def test_it_belongs_to_its_places() -> None:
    payload = CIPHER.seal(LINK_ID, b"target", HERE, BEFORE)
    assert CIPHER.open(payload, HERE) == CIPHER.open(payload, BEFORE) == b"target"
    with pytest.raises(IntegrityError):
        CIPHER.open(payload, ELSEWHERE)


def test_retagging_moves_it_and_keeps_the_rest() -> None:
    payload = CIPHER.retag(CIPHER.seal(LINK_ID, b"target", HERE, BEFORE), ELSEWHERE, HERE)
    assert CIPHER.open(payload, ELSEWHERE) == CIPHER.open(payload, HERE) == b"target"
    with pytest.raises(IntegrityError):
        CIPHER.open(payload, BEFORE)
    assert CIPHER.retag(payload, ELSEWHERE)[32:48] == bytes(16)


def test_several_hard_links() -> None:
    payload = CIPHER.seal(LINK_ID, b"target", ANYWHERE)
    assert CIPHER.open(payload, HERE) == CIPHER.open(payload, ELSEWHERE) == b"target"


def test_two_links_to_one_target_look_different() -> None:
    first, second = (CIPHER.seal(link_id, b"target", HERE) for link_id in (LINK_ID, b"m" * 16))
    assert first[48:] != second[48:]


@pytest.mark.parametrize("length", [0, 1, 64])
def test_too_short(length: int) -> None:
    payload = CIPHER.seal(LINK_ID, b"target", HERE)[:length]
    for use in (CIPHER.open, CIPHER.retag):
        with pytest.raises(Truncated):
            use(payload, HERE)


@pytest.mark.parametrize("text_length", range(90))
def test_the_length_of_a_target_is_never_negative(text_length: int) -> None:
    assert plain_length(text_length) == max(0, text_length * 3 // 4 - 64)


def test_a_link_id_of_another_size_is_refused() -> None:
    with pytest.raises(FormatError):
        CIPHER.seal(b"short", b"target", HERE)
    with pytest.raises(FormatError):
        link_file_for(b"short")


@pytest.mark.parametrize(
    "text",
    [
        b"envfs.link." + b"0" * 31,
        b"envfs.link." + b"0" * 33,
        b"envfs.link." + b"A" * 32,
        b"envfs.link.x/../" + b"/" * 16 + b"etc/shadow"[:11],
        b"envfs.link./../../../../../../../etc/passwd",
        b"envfs.link." + b"0" * 32 + b"\n",
    ],
)
def test_only_the_exact_name_of_a_link_file_is_one(text: bytes) -> None:
    assert not is_link_file(text)
    assert is_link_file(link_file_for(bytes(range(16))))
