from __future__ import annotations

import copy
import pickle

import pytest

from envfs.crypto.secret import Secret


def test_expose_gives_the_bytes() -> None:
    assert Secret(b"key").expose() == b"key"


def test_it_copies_what_it_is_made_of() -> None:
    source = bytearray(b"key")
    secret = Secret(source)
    source[:] = b"xxx"
    assert secret.expose() == b"key"


def test_adopt_takes_the_buffer_itself() -> None:
    buffer = bytearray(b"key")
    secret = Secret.adopt(buffer)
    assert secret.expose() is buffer


def test_random_has_the_length_and_differs() -> None:
    first, second = Secret.random(), Secret.random()
    assert len(first) == 32
    assert first != second
    assert len(Secret.random(64)) == 64


def test_repr_and_str_show_no_content() -> None:
    secret = Secret(b"\x01\x02hunter2")
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!r:>40}"):
        assert "hunter2" not in text
        assert secret.expose().hex() not in text
    assert "9 bytes" in repr(secret)


def test_wipe_overwrites_the_buffer_in_place() -> None:
    secret = Secret(b"key")
    buffer = secret.expose()
    secret.wipe()
    assert buffer == bytes(3)
    assert secret.is_wiped
    assert "wiped" in repr(secret)


def test_a_wiped_secret_gives_nothing_and_may_be_wiped_again() -> None:
    secret = Secret(b"key")
    secret.wipe()
    secret.wipe()
    with pytest.raises(ValueError, match="wiped"):
        secret.expose()


def test_a_context_wipes_also_on_errors() -> None:
    secret = Secret(b"key")
    with pytest.raises(RuntimeError), secret:
        raise RuntimeError
    assert secret.is_wiped


def test_equality() -> None:
    secret = Secret(b"key")
    assert secret == Secret(b"key")
    assert secret != Secret(b"kez")
    assert secret != Secret(b"key ")
    assert secret != b"key"


def test_wiped_secrets_are_not_equal_because_both_are_zero() -> None:
    first, second = Secret(b"abc"), Secret(b"xyz")
    first.wipe()
    second.wipe()
    assert first != second
    assert first == first  # noqa: PLR0124 - identity is what is tested
    assert Secret(bytes(3)) != first


@pytest.mark.parametrize(
    "attempt", [pickle.dumps, copy.copy, copy.deepcopy, hash, lambda secret: secret.__getstate__()]
)
def test_it_is_not_pickled_copied_or_hashed(attempt: object) -> None:
    assert callable(attempt)
    with pytest.raises(TypeError):
        attempt(Secret(b"key"))


def test_it_has_no_place_for_further_attributes() -> None:
    with pytest.raises(AttributeError):
        Secret(b"key").note = "x"  # type: ignore[attr-defined]
