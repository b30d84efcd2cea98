from __future__ import annotations

import hashlib
import hmac
import itertools

import pytest

from envfs.crypto.kdf import Label, derive
from envfs.crypto.secret import Secret
from envfs.errors import FormatError

KEY = bytes(range(32))


def expand(key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand straight from RFC 5869 section 2.3, out of HMAC alone."""
    output, block = b"", b""
    for counter in itertools.count(1):
        block = hmac.digest(key, block + info + bytes([counter]), hashlib.sha256)
        output += block
        if len(output) >= length:
            return output[:length]
    raise AssertionError


@pytest.mark.parametrize("length", [1, 32, 33, 64, 8160])
@pytest.mark.parametrize("label", list(Label))
def test_it_is_hkdf_expand_under_the_label(label: Label, length: int) -> None:
    info = b"envfs/v1/" + label.value.encode() + b"\0" + b"context"
    assert derive(KEY, label, b"context", length) == expand(KEY, info, length)


def test_the_rfc_that_this_follows() -> None:
    """RFC 5869 appendix A.1, which proves `expand` above."""
    prk = bytes.fromhex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
    okm = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    assert expand(prk, bytes.fromhex("f0f1f2f3f4f5f6f7f8f9"), 42).hex() == okm


def test_every_label_gives_another_key() -> None:
    assert len({derive(KEY, label) for label in Label}) == len(Label)


def test_labels_and_contexts_do_not_run_together() -> None:
    for label in Label:
        assert "\0" not in label.value
    assert derive(KEY, Label.PLACE, b"") != derive(KEY, Label.PLACE, b"\0")


def test_every_kind_of_key_gives_the_same() -> None:
    assert derive(Secret(KEY), Label.NAMES) == derive(bytearray(KEY), Label.NAMES) == derive(KEY, Label.NAMES)


def test_a_wiped_secret_derives_nothing() -> None:
    secret = Secret(KEY)
    secret.wipe()
    with pytest.raises(ValueError, match="wiped"):
        derive(secret, Label.NAMES)


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match=f"{size} bytes"):
        derive(bytes(size), Label.NAMES)
