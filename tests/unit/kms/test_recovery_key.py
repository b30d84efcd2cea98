from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envfs.crypto.secret import Secret
from envfs.errors import ConfigError, FormatError
from envfs.kms.recovery_key import (
    GROUPS,
    SEED_SIZE,
    decode_recovery_key,
    encode_recovery_key,
    looks_like_recovery_key,
)
from envfs.kms.rootkey import (
    Argon2Cost,
    FirstOf,
    PassphraseUnlock,
    RecoveryUnlock,
    open_slots,
    passphrase_parameters,
    seal_slot,
    typed_unlock,
)

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
FAST = Argon2Cost(memory_kib=64, iterations=1, lanes=1)
STORE_ID = b"s" * 16
SEED = bytes(range(100, 120))
TEXT = encode_recovery_key(Secret(SEED))


@given(st.binary(min_size=SEED_SIZE, max_size=SEED_SIZE))
def test_what_is_written_down_is_read_back(seed: bytes) -> None:
    text = encode_recovery_key(Secret(seed))
    assert len(text.split("-")) == GROUPS
    assert bytes(decode_recovery_key(text).expose()) == seed
    careless = text.lower().replace("-", " ").replace("0", "o").replace("1", "l")
    assert bytes(decode_recovery_key(careless).expose()) == seed


def test_every_single_wrong_character_is_found_and_its_group_named() -> None:
    for place, char in itertools.product(range(len(TEXT)), ALPHABET):
        if TEXT[place] in {char, "-"}:
            continue
        with pytest.raises(FormatError, match=f"in group {place // 6 + 1} of 8"):
            decode_recovery_key(TEXT[:place] + char + TEXT[place + 1 :])


def test_exchanged_characters_and_groups_are_found() -> None:
    groups = TEXT.split("-")
    for number, group in enumerate(groups):
        for one, other in itertools.combinations(range(5), 2):
            if group[one] == group[other]:
                continue
            chars = list(group)
            chars[one], chars[other] = chars[other], chars[one]
            with pytest.raises(FormatError, match=f"in group {number + 1} of"):
                decode_recovery_key("-".join([*groups[:number], "".join(chars), *groups[number + 1 :]]))
    for one, other in itertools.combinations(range(GROUPS), 2):
        moved = list(groups)
        moved[one], moved[other] = moved[other], moved[one]
        with pytest.raises(FormatError, match=f"in group {one + 1}, {other + 1} of"):
            decode_recovery_key("-".join(moved))


@pytest.mark.parametrize("text", ["", "x", TEXT[:-1], TEXT + "0", "U" + TEXT[1:], "ä" + TEXT[1:], "\0" * 40])
def test_what_is_no_recovery_key(text: str) -> None:
    with pytest.raises(FormatError):
        decode_recovery_key(text)


def test_a_recovery_key_opens_where_a_passphrase_is_typed_and_a_passphrase_may_look_like_one() -> None:
    root_key = Secret.random()
    recovery = seal_slot(root_key, STORE_ID, RecoveryUnlock(Secret(SEED)), b"", 0)
    typed = Secret(TEXT.lower().encode())
    same = seal_slot(root_key, STORE_ID, PassphraseUnlock(typed), passphrase_parameters(FAST), 0)
    assert isinstance(typed_unlock(typed), FirstOf)
    for slots in ([recovery], [same], [same, recovery]):
        assert open_slots(slots, STORE_ID, typed_unlock(typed))[0] == root_key


def test_another_recovery_key_and_a_typo_are_told_apart() -> None:
    root_key = Secret.random()
    slots = [
        seal_slot(root_key, STORE_ID, RecoveryUnlock(Secret(SEED)), b"", 0),
        seal_slot(root_key, STORE_ID, PassphraseUnlock(Secret(b"p")), passphrase_parameters(FAST), 0),
    ]
    other = encode_recovery_key(Secret(bytes(20)))
    with pytest.raises(ConfigError, match="not of this KMS"):
        open_slots(slots[:1], STORE_ID, typed_unlock(Secret(other.encode())))
    typo = TEXT[:-1] + ("0" if TEXT[-1] != "0" else "1")
    assert looks_like_recovery_key(typo)
    with pytest.raises(ConfigError) as caught:
        open_slots(slots, STORE_ID, typed_unlock(Secret(typo.encode())))
    assert "mistyped in group 8" in caught.value.hint
    assert not looks_like_recovery_key("correct horse battery staple and some mor")
