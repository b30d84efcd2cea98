from __future__ import annotations

import pytest

from envfs.errors import FormatError, IntegrityError, Truncated
from envfs.format.xattr import LONG_PREFIX, VALUE_OVERHEAD, XattrCipher

CIPHER = XattrCipher(bytes(range(64)))
OBJECT = b"o" * 16


@pytest.mark.parametrize("value", [b"", b"v", bytes(65520)])
def test_round_trip(value: bytes) -> None:
    lower, sealed = CIPHER.name(OBJECT, b"user.comment"), CIPHER.seal(OBJECT, b"user.comment", value)
    assert len(sealed) == len(value) + VALUE_OVERHEAD
    assert CIPHER.open_name(OBJECT, lower) == b"user.comment"
    assert CIPHER.open(OBJECT, b"user.comment", sealed) == value


def test_the_longest_name_that_fits_has_167_bytes() -> None:
    assert len(CIPHER.name(OBJECT, b"n" * 167)) == 255
    assert CIPHER.name(OBJECT, b"n" * 168).startswith(LONG_PREFIX)


@pytest.mark.parametrize("length", [168, 255])
@pytest.mark.parametrize("value", [b"", b"v" * 1000])
def test_a_longer_name_stands_with_the_value(length: int, value: bytes) -> None:
    name = b"n" * length
    lower, stored = CIPHER.name(OBJECT, name), CIPHER.seal(OBJECT, name, value)
    assert len(lower) <= 255
    assert CIPHER.open_name(OBJECT, lower) is None
    assert CIPHER.open_long_name(OBJECT, lower, stored) == name
    assert CIPHER.open(OBJECT, name, stored) == value
    assert CIPHER.open_long_name(b"x" * 16, lower, stored) is None
    with pytest.raises(IntegrityError):
        CIPHER.open(OBJECT, b"m" * length, stored)
    with pytest.raises(Truncated):
        CIPHER.open(OBJECT, name, stored[:length])


def test_names_and_values_belong_to_their_object_and_to_each_other() -> None:
    sealed = CIPHER.seal(OBJECT, b"user.a", b"value")
    for object_id, name in ((b"x" * 16, b"user.a"), (OBJECT, b"user.b")):
        with pytest.raises(IntegrityError):
            CIPHER.open(object_id, name, sealed)
    assert CIPHER.open_name(b"x" * 16, CIPHER.name(OBJECT, b"user.a")) is None


def test_a_name_is_no_value_and_a_value_no_name() -> None:
    lower = CIPHER.name(OBJECT, b"user.a")
    assert CIPHER.seal(OBJECT, b"", b"user.a") != lower
    with pytest.raises(IntegrityError):
        CIPHER.open(OBJECT, b"user.a", CIPHER.seal(OBJECT, b"user.a", b"")[:-1])


@pytest.mark.parametrize(
    "lower", [b"", b"user.", b"user.envfs.", b"user.envfs.AAAA", b"user.envfs.%", b"trusted.envfs.x"]
)
def test_foreign_attributes_are_not_ours(lower: bytes) -> None:
    assert CIPHER.open_name(OBJECT, lower) is None


@pytest.mark.parametrize("name", [b"", b"a\0", b"n" * 256])
def test_what_is_no_name_is_refused(name: bytes) -> None:
    with pytest.raises(FormatError):
        CIPHER.name(OBJECT, name)
