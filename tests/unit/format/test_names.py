from __future__ import annotations

import pytest

from envfs.errors import FormatError, IntegrityError
from envfs.format.names import (
    CIPHER_NAME_MAX,
    DIRECTORY_FILE,
    LINK_FILE_PREFIX,
    LONG_PREFIX,
    NAME_FILE_PREFIX,
    RESERVED_PREFIX,
    TEMPORARY_PREFIX,
    VOLUME_BACKUP,
    VOLUME_FILE,
    NameCipher,
    check_name_file,
    name_file_for,
)

CIPHER = NameCipher(bytes(range(64)))
DIRECTORY = b"d" * 16


@pytest.mark.parametrize("length", [1, 2, 100, 174, 175, 176, 254, 255])
def test_round_trip_and_lengths(length: int) -> None:
    name = b"n" * length
    cipher = CIPHER.encrypt(DIRECTORY, name)
    assert CIPHER.decrypt(DIRECTORY, cipher.full) == name
    assert cipher.is_long == (length > 175)
    assert len(cipher.lower) <= 255
    assert len(cipher.full) <= CIPHER_NAME_MAX
    if cipher.is_long:
        assert cipher.lower.startswith(LONG_PREFIX)
        assert len(cipher.full) > 255
    else:
        assert cipher.lower == cipher.full


def test_the_longest_name_has_the_longest_cipher_name() -> None:
    assert len(CIPHER.encrypt(DIRECTORY, b"n" * 255).full) == CIPHER_NAME_MAX


def test_every_byte_but_two_may_stand_in_a_name() -> None:
    name = bytes(byte for byte in range(1, 256) if byte != ord("/"))
    assert CIPHER.decrypt(DIRECTORY, CIPHER.encrypt(DIRECTORY, name).full) == name


def test_equal_names_are_equal_in_one_directory_only() -> None:
    first = CIPHER.encrypt(DIRECTORY, b"name")
    assert CIPHER.encrypt(DIRECTORY, b"name") == first
    assert CIPHER.encrypt(b"e" * 16, b"name") != first
    with pytest.raises(IntegrityError):
        CIPHER.decrypt(b"e" * 16, first.full)


def test_no_cipher_name_is_reserved() -> None:
    reserved = [LONG_PREFIX, NAME_FILE_PREFIX, LINK_FILE_PREFIX, TEMPORARY_PREFIX]
    reserved += [DIRECTORY_FILE, VOLUME_FILE, VOLUME_BACKUP]
    assert all(name.startswith(RESERVED_PREFIX) for name in reserved)
    for name in (*reserved, b"envfs.", b"a"):
        assert b"." not in CIPHER.encrypt(DIRECTORY, name).full


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/", b"a\0", b"n" * 256])
def test_what_is_no_name_is_not_encrypted(name: bytes) -> None:
    with pytest.raises(FormatError):
        CIPHER.encrypt(DIRECTORY, name)


def test_name_files() -> None:
    cipher = CIPHER.encrypt(DIRECTORY, b"n" * 200)
    assert name_file_for(cipher.lower) == NAME_FILE_PREFIX + cipher.lower.removeprefix(LONG_PREFIX)
    assert check_name_file(cipher.lower, cipher.full) == cipher.full
    with pytest.raises(IntegrityError):
        check_name_file(cipher.lower, CIPHER.encrypt(DIRECTORY, b"m" * 200).full)
    with pytest.raises(FormatError):
        name_file_for(b"envfs.tmp.x")


def test_a_key_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        NameCipher(bytes(32))
