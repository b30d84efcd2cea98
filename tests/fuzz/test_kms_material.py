"""Hostile bytes for what reads keys, import tokens and wrapped material: a value or one of our errors, nothing else."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envfs.crypto.secret import Secret
from envfs.errors import EnvfsError, InvalidCiphertext, InvalidSignature
from envfs.kms.material import agreement, encryption, signatures, wrapping
from envfs.kms.material.generate import generate, public_bytes, serialise
from envfs.kms.material.keys import load_private_key, load_public_key
from envfs.kms.material.specs import SPECS
from envfs.kms.material.token import ImportToken, open_token, seal_token

ROOT_KEY, STORE_ID = bytes(range(32)), b"s" * 16
TOKEN = seal_token(
    ROOT_KEY, STORE_ID, ImportToken(b"k" * 16, "RSAES_OAEP_SHA_256", "RSA_2048", 1, Secret(b"p" * 40)), bytes(32)
)
KEY_SPECS = ["RSA_2048", "ECC_NIST_P256", "ECC_NIST_P521", "ECC_NIST_EDWARDS25519", "ML_DSA_44", "ML_KEM_768"]


@functools.cache
def seed(spec: str) -> tuple[bytes, bytes]:
    made = generate(spec)
    return bytes(made.private.expose()), made.public_key


@functools.cache
def signature(spec: str, algorithm: str) -> bytes:
    return signatures.sign(load_private_key(spec, Secret(seed(spec)[0]), trusted=True), algorithm, b"x", "RAW")


@functools.cache
def wrapped(algorithm: str) -> bytes:
    public = load_public_key("RSA_2048", seed("RSA_2048")[1])
    return encryption.encrypt(public, algorithm, b"w" * 32) + bytes(40)  # type: ignore[arg-type]


def broken(draw: st.DataObject, original: bytes) -> bytes:
    """Some bytes of `original` changed, taken out or put in; sometimes anything at all."""
    if draw.draw(st.booleans()):
        position = draw.draw(st.integers(0, len(original) - 1))
        length = draw.draw(st.integers(0, 4))
        return original[:position] + draw.draw(st.binary(max_size=4)) + original[position + length :]
    return draw.draw(st.binary(max_size=200))


@pytest.mark.parametrize("spec", KEY_SPECS)
@given(draw=st.data())
@settings(max_examples=60, deadline=None)
def test_private_keys(spec: str, draw: st.DataObject) -> None:
    raw = broken(draw, seed(spec)[0])
    try:
        key = load_private_key(spec, Secret(raw))
    except EnvfsError:
        return
    made = serialise(key)
    assert serialise(load_private_key(spec, made.private)) == made
    assert public_bytes(load_public_key(spec, made.public_key)) == made.public_key


@pytest.mark.parametrize("spec", KEY_SPECS)
@given(draw=st.data())
@settings(max_examples=60, deadline=None)
def test_public_keys(spec: str, draw: st.DataObject) -> None:
    raw = broken(draw, seed(spec)[1])
    try:
        key = load_public_key(spec, raw)
    except EnvfsError:
        return
    assert public_bytes(load_public_key(spec, public_bytes(key))) == public_bytes(key)


@given(draw=st.data())
@settings(max_examples=200, deadline=None)
def test_import_tokens(draw: st.DataObject) -> None:
    raw = broken(draw, TOKEN)
    try:
        token = open_token(ROOT_KEY, STORE_ID, raw)
    except EnvfsError:
        return
    assert seal_token(ROOT_KEY, STORE_ID, token, raw[29:61]) == raw == TOKEN


@pytest.mark.parametrize("algorithm", wrapping.WRAPPING_ALGORITHMS)
@given(draw=st.data())
@settings(max_examples=40, deadline=None)
def test_wrapped_material(algorithm: str, draw: st.DataObject) -> None:
    """Nobody wrapped these: they are InvalidCiphertext, whatever they are."""
    key = load_private_key("RSA_2048", Secret(seed("RSA_2048")[0]), trusted=True)
    good = wrapped(algorithm)
    raw = broken(draw, good)
    if raw == good[:256]:
        return
    with pytest.raises(InvalidCiphertext):
        wrapping.unwrap(key, algorithm, raw)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", [name for name in KEY_SPECS if "SIGN_VERIFY" in SPECS[name].algorithms])
@given(draw=st.data())
@settings(max_examples=60, deadline=None)
def test_signatures(spec: str, draw: st.DataObject) -> None:
    algorithm = SPECS[spec].algorithms["SIGN_VERIFY"][0]
    good = signature(spec, algorithm)
    raw = broken(draw, good)
    if raw == good:
        return
    with pytest.raises(InvalidSignature):
        signatures.verify(load_public_key(spec, seed(spec)[1]), algorithm, b"x", raw, "RAW")


READERS: list[Callable[[bytes], object]] = [
    lambda raw: agreement.load_peer("ECC_NIST_P256", raw),
    lambda raw: agreement.check_ciphertext("ML_KEM_768", raw),
    lambda raw: wrapping.read_material(SPECS["RSA_2048"], Secret(raw)),
    lambda raw: wrapping.read_material(SPECS["HMAC_256"], Secret(raw)),
]


@pytest.mark.parametrize("reader", READERS)
@given(raw=st.binary(max_size=2000))
@settings(max_examples=60, deadline=None)
def test_anything_at_all(reader: Callable[[bytes], object], raw: bytes) -> None:
    try:
        reader(raw)
    except EnvfsError:
        pass
