"""Recovery keys: 160 random bits as text that people write down and type back (FORMAT.md 9.3).

Each group has a check character of its own, so that a typing error is found before anything is computed, and a message
can say in which group it is.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from envfs.crypto.secret import Secret
from envfs.errors import FormatError

SEED_SIZE: Final = 20
GROUPS: Final = 8
_GROUP_SIZE: Final = 5
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # https://www.crockford.com/base32.html
_VALUES: Final = {char: value for value, char in enumerate(_ALPHABET)} | {"O": 0, "I": 1, "L": 1}
_SEPARATORS: Final = str.maketrans("", "", " -\t\r\n")
_EXTRACT_SALT: Final = b"envfs/v1/recovery key"
_POLYNOMIAL: Final = 0b100101  # x^5 + x^2 + 1, primitive: the powers of x are all 31 elements that are not 0


def encode_recovery_key(seed: Secret) -> str:
    """The text of a recovery key of 20 bytes: 8 groups of 5 characters, joined by hyphens."""
    number = int.from_bytes(seed.expose(), "big")
    groups = []
    for group in range(GROUPS):
        bits = number >> (20 * (GROUPS - 1 - group)) & 0xFFFFF
        values = [bits >> shift & 31 for shift in (15, 10, 5, 0)]
        groups.append("".join(_ALPHABET[value] for value in (*values, _check(group, values))))
    return "-".join(groups)


def decode_recovery_key(text: str) -> Secret:
    """The 20 bytes of a recovery key. FormatError, which says in which groups it was mistyped, if it is none."""
    compact = text.translate(_SEPARATORS).upper()
    if len(compact) != GROUPS * _GROUP_SIZE:
        raise FormatError(f"a recovery key has {GROUPS * _GROUP_SIZE} characters, not {len(compact)}")
    number = 0
    wrong = []
    for group in range(GROUPS):
        values = [_VALUES.get(char) for char in compact[group * _GROUP_SIZE : (group + 1) * _GROUP_SIZE]]
        known = [value for value in values if value is not None]
        if len(known) < _GROUP_SIZE or _check(group, known[:-1]) != known[-1]:
            wrong.append(str(group + 1))
            continue
        for value in known[:-1]:
            number = number << 5 | value
    if wrong:
        raise FormatError(f"the recovery key was mistyped in group {', '.join(wrong)} of {GROUPS}")
    return Secret(number.to_bytes(SEED_SIZE, "big"))


def looks_like_recovery_key(text: str) -> bool:
    """Whether somebody who typed this meant a recovery key: the right length, and mostly groups that are right."""
    compact = text.translate(_SEPARATORS).upper()
    if len(compact) != GROUPS * _GROUP_SIZE or "-" not in text:
        return False
    return sum(char in _VALUES for char in compact) >= len(compact) - _GROUP_SIZE


def recovery_kek(seed: Secret) -> Secret:
    """The key-encryption key of a recovery slot: HKDF-Extract (RFC 5869 section 2.2). The seed is random, so that
    nothing has to be made slow.
    """
    return Secret(hmac.new(_EXTRACT_SALT, bytes(seed.expose()), hashlib.sha256).digest())


def _check(group: int, values: list[int]) -> int:
    """Finds every single wrong character and every exchange of two, and groups in another order."""
    total = group + 1
    for power, value in enumerate(values, start=1):
        for _ in range(power):
            value <<= 1  # noqa: PLW2901 - multiplied by x
            value ^= _POLYNOMIAL if value & 32 else 0  # noqa: PLW2901
        total ^= value
    return total
