"""HMAC (FIPS 198-1, RFC 2104) with a truncation of SHA-2 or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidSignature as WrongMac
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC

from envfs.crypto.secret import Secret
from envfs.errors import InvalidMac, Validation

MAX_MESSAGE_SIZE: Final = 4096

_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "HMAC_SHA_224": hashes.SHA224(),
    "HMAC_SHA_256": hashes.SHA256(),
    "HMAC_SHA_384": hashes.SHA384(),
    "HMAC_SHA_512": hashes.SHA512(),
}


def check_message(message: bytes) -> None:
    """Validation unless it has 1 to 4,096 bytes."""
    if not 1 <= len(message) <= MAX_MESSAGE_SIZE:
        raise Validation(f"a message has 1 to {MAX_MESSAGE_SIZE} bytes, not {len(message)}")


def compute(key: Secret, algorithm: str, message: bytes) -> bytes:
    """The MAC, as long as the algorithm's digest."""
    context = HMAC(key.expose(), _HASHES[algorithm])
    context.update(message)
    return context.finalize()


def verify(key: Secret, algorithm: str, message: bytes, mac: bytes) -> None:
    """InvalidMac unless `mac` is that of the message, compared in constant time."""
    context = HMAC(key.expose(), _HASHES[algorithm])
    context.update(message)
    try:
        context.verify(mac)
    except WrongMac:
        raise InvalidMac(f"the MAC is not that of this message under {algorithm} and this key") from None
