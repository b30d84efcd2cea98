from __future__ import annotations

from dataclasses import replace

import pytest

from envfs.crypto.secret import Secret
from envfs.errors import FormatError, IntegrityError
from envfs.format.blob import MAX_BLOB_SIZE, Blob, open_blob, read_blob, seal_blob

BACKING_KEY = Secret(bytes(range(32)))
KEY_ID, BACKING_KEY_ID, SALT = b"k" * 16, b"b" * 16, b"s" * 32


def sealed(plaintext: bytes = b"p" * 32, context: bytes = b"\0\0") -> bytes:
    return seal_blob(BACKING_KEY, KEY_ID, BACKING_KEY_ID, plaintext, context, SALT)


def test_a_wrapped_dek_has_116_bytes() -> None:
    assert len(sealed()) == 116
    assert len(sealed(b"p" * 4096)) == MAX_BLOB_SIZE


def test_what_was_sealed_is_opened_as_a_secret() -> None:
    secret = open_blob(BACKING_KEY, read_blob(sealed(b"plaintext")), b"\0\0")
    assert isinstance(secret, Secret)
    assert secret == Secret(b"plaintext")


def test_the_header_names_the_keys() -> None:
    blob = Blob.parse(sealed())
    assert (blob.key_id, blob.backing_key_id, blob.salt) == (KEY_ID, BACKING_KEY_ID, SALT)
    assert blob.header == sealed()[:68]


@pytest.mark.parametrize("change", ["key_id", "backing_key_id", "salt", "ciphertext", "tag"])
def test_every_field_is_authenticated(change: str) -> None:
    blob = Blob.parse(sealed())
    value: bytes = getattr(blob, change)
    broken = replace(blob, **{change: bytes([value[0] ^ 1]) + value[1:]})
    with pytest.raises(IntegrityError):
        open_blob(BACKING_KEY, read_blob(broken.serialise()), b"\0\0")


def test_the_context_is_authenticated() -> None:
    with pytest.raises(IntegrityError):
        open_blob(BACKING_KEY, read_blob(sealed(context=b"\0\1\0\1a\0\2bc")), b"\0\1\0\2ab\0\1c")


def test_another_salt_makes_another_key() -> None:
    other = seal_blob(BACKING_KEY, KEY_ID, BACKING_KEY_ID, b"p" * 32, b"\0\0", b"t" * 32)
    assert other[68:] != sealed()[68:]


@pytest.mark.parametrize("size", [0, 4097])
def test_plaintexts_out_of_range_are_refused(size: int) -> None:
    with pytest.raises(FormatError):
        sealed(b"p" * size)


@pytest.mark.parametrize(("key_id", "backing_key_id", "salt"), [(b"k", BACKING_KEY_ID, SALT), (KEY_ID, b"", SALT)])
def test_ids_of_another_size_are_refused(key_id: bytes, backing_key_id: bytes, salt: bytes) -> None:
    with pytest.raises(FormatError):
        seal_blob(BACKING_KEY, key_id, backing_key_id, b"p", b"\0\0", salt)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_salt_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(FormatError):
        seal_blob(BACKING_KEY, KEY_ID, BACKING_KEY_ID, b"p", b"\0\0", bytes(size))
