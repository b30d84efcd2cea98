from __future__ import annotations

import base64

import pytest

from envfs.crypto.b64 import decode, decode_bytes, encode, encode_bytes
from envfs.errors import FormatError

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.mark.parametrize("length", range(70))
def test_it_is_base64url_without_padding(length: int) -> None:
    raw = bytes((index * 37 + length) & 0xFF for index in range(length))
    text = base64.urlsafe_b64encode(raw).rstrip(b"=")
    assert encode_bytes(raw) == text
    assert decode_bytes(text) == raw
    assert encode(raw) == text.decode()
    assert decode(text.decode()) == raw


def test_the_last_character_has_one_form() -> None:
    """Of the 64 characters that could end two, only 16 are the text of a byte; the others would be second names."""
    accepted = []
    for last in ALPHABET:
        try:
            accepted.append(decode_bytes(b"A" + bytes([last])))
        except FormatError:
            continue
    assert accepted == [bytes([value]) for value in range(4)]


@pytest.mark.parametrize("character", sorted(set(range(256)) - set(ALPHABET)))
def test_foreign_characters_are_refused(character: int) -> None:
    for text in (b"AAA" + bytes([character]), bytes([character]) + b"AAA", b"AAAA" + bytes([character])):
        with pytest.raises(FormatError):
            decode_bytes(text)


def test_text_beyond_ascii_is_refused() -> None:
    with pytest.raises(FormatError):
        decode("AAA\uff21")
