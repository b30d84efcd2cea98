from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.cmac import CMAC

from envfs.crypto.siv import Siv
from envfs.errors import IntegrityError

KEY = bytes(range(64))


def _cmac(key: bytes, data: bytes) -> int:
    context = CMAC(AES(key))
    context.update(data)
    return int.from_bytes(context.finalize(), "big")


def _double(value: int) -> int:
    return (value << 1) & (2**128 - 1) ^ (0x87 if value >> 127 else 0)


def rfc5297(key: bytes, plain: bytes, *associated: bytes) -> bytes:
    """AES-SIV out of CMAC and CTR, straight from RFC 5297 sections 2.4 and 2.6."""
    mac_key, ctr_key = key[: len(key) // 2], key[len(key) // 2 :]
    value = _cmac(mac_key, bytes(16))
    for data in associated:
        value = _double(value) ^ _cmac(mac_key, data)
    if len(plain) >= 16:
        last = plain[:-16] + (int.from_bytes(plain[-16:], "big") ^ value).to_bytes(16, "big")
    else:
        padded = int.from_bytes((plain + b"\x80").ljust(16, b"\0"), "big")
        last = (_double(value) ^ padded).to_bytes(16, "big")
    siv = _cmac(mac_key, last)
    counter = (siv & ~((1 << 63) | (1 << 31))).to_bytes(16, "big")
    encryptor = Cipher(AES(ctr_key), CTR(counter)).encryptor()
    return siv.to_bytes(16, "big") + encryptor.update(plain)


def test_the_rfc_that_this_follows() -> None:
    """RFC 5297 appendix A.1, which proves `rfc5297` above (with the shorter key that it uses)."""
    key = bytes.fromhex("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    associated = bytes.fromhex("101112131415161718191a1b1c1d1e1f2021222324252627")
    plain = bytes.fromhex("112233445566778899aabbccddee")
    assert rfc5297(key, plain, associated).hex() == "85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c"


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 31, 32, 255, 4095])
@pytest.mark.parametrize(
    "associated", [(), (b"a",), (b"a", b"b"), (b"b", b"a"), (b"", b""), (b"x" * 40, b"y" * 16, b"")]
)
def test_it_is_aes_siv(length: int, associated: tuple[bytes, ...]) -> None:
    plain = bytes(index & 0xFF for index in range(length))
    sealed = Siv(KEY).encrypt(plain, *associated)
    assert sealed == rfc5297(KEY, plain, *associated)
    assert Siv(KEY).decrypt(sealed, *associated) == plain


def test_associated_data_is_a_list() -> None:
    siv = Siv(KEY)
    made = {siv.encrypt(b"p", *parts) for parts in [(), (b"",), (b"ab",), (b"a", b"b"), (b"b", b"a"), (b"ab", b"")]}
    assert len(made) == 6


@pytest.mark.parametrize("broken", [b"", b"short", bytes(15), bytes(16), bytes(40)])
def test_what_was_not_made_by_it_is_refused(broken: bytes) -> None:
    with pytest.raises(IntegrityError):
        Siv(KEY).decrypt(broken, b"a")


def test_other_associated_data_or_another_key_is_refused() -> None:
    sealed = Siv(KEY).encrypt(b"plain", b"a")
    for siv, associated in ((Siv(KEY), (b"b",)), (Siv(KEY), ()), (Siv(KEY), (b"a", b"")), (Siv(bytes(64)), (b"a",))):
        with pytest.raises(IntegrityError):
            siv.decrypt(sealed, *associated)


@pytest.mark.parametrize("size", [0, 32, 48, 63])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        Siv(bytes(size))
