from __future__ import annotations

import hashlib
import hmac
import os

import pytest

from envfs.crypto.secret import Secret
from envfs.errors import InvalidMac, Validation
from envfs.kms.material.macs import check_message, compute, verify

# RFC 4231 section 4.3 (test case 2)
JEFE = {
    224: "a30e01098bc6dbbf45690f3a7e9e6d0f8bbea2a39e6148008fd05e44",
    256: "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    384: "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
    512: "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
    "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
}


@pytest.mark.parametrize("bits", sorted(JEFE))
def test_rfc_4231(bits: int) -> None:
    assert compute(Secret(b"Jefe"), f"HMAC_SHA_{bits}", b"what do ya want for nothing?").hex() == JEFE[bits]


@pytest.mark.parametrize("bits", sorted(JEFE))
@pytest.mark.parametrize("size", [28, 64, 65, 128, 129])
def test_against_the_standard_library(bits: int, size: int) -> None:
    key, message = os.urandom(size), os.urandom(100)
    mac = compute(Secret(key), f"HMAC_SHA_{bits}", message)
    assert mac == hmac.new(key, message, getattr(hashlib, f"sha{bits}")).digest()
    verify(Secret(key), f"HMAC_SHA_{bits}", message, mac)


@pytest.mark.parametrize("mac", ["wrong", "short", "long", "empty", "truncated"])
def test_another_mac_is_refused(mac: str) -> None:
    key = Secret.random()
    good = compute(key, "HMAC_SHA_256", b"x")
    bad = {"wrong": bytes(32), "short": good[:-1], "long": good + b"\0", "empty": b"", "truncated": good[:16]}[mac]
    with pytest.raises(InvalidMac):
        verify(key, "HMAC_SHA_256", b"x", bad)


def test_another_message_is_refused() -> None:
    key = Secret.random()
    with pytest.raises(InvalidMac):
        verify(key, "HMAC_SHA_256", b"y", compute(key, "HMAC_SHA_256", b"x"))


def test_how_long_a_message_is() -> None:
    check_message(bytes(1))
    check_message(bytes(4096))
    for size in (0, 4097):
        with pytest.raises(Validation):
            check_message(bytes(size))
