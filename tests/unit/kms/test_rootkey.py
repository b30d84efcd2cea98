from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest

from envfs.crypto.secret import Secret
from envfs.errors import ConfigError, FormatError
from envfs.kms.rootkey import (
    Argon2Cost,
    KeyFileUnlock,
    PassphraseUnlock,
    open_slots,
    passphrase_parameters,
    read_key_file,
    seal_slot,
)

if TYPE_CHECKING:
    from pathlib import Path

STORE_ID = b"s" * 16
FAST = Argon2Cost(memory_kib=64, iterations=1, lanes=1)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "root.key"
    path.write_bytes(os.urandom(32))
    path.chmod(0o400)
    return path


def test_a_slot_opens_with_its_key_file(key_file: Path) -> None:
    root_key = Secret.random()
    slot = seal_slot(root_key, STORE_ID, KeyFileUnlock(key_file), b"", 0)
    assert open_slots([slot], STORE_ID, KeyFileUnlock(key_file))[0] == root_key


def test_a_slot_opens_with_its_passphrase_only() -> None:
    root_key = Secret.random()
    right, wrong = PassphraseUnlock(Secret(b"open sesame")), PassphraseUnlock(Secret(b"open barley"))
    slot = seal_slot(root_key, STORE_ID, right, passphrase_parameters(FAST), 0)
    assert open_slots([slot], STORE_ID, right)[0] == root_key
    with pytest.raises(ConfigError, match="the passphrase is wrong"):
        open_slots([slot], STORE_ID, wrong)


def test_any_slot_opens_the_same_root_key(key_file: Path) -> None:
    root_key = Secret.random()
    first, second = PassphraseUnlock(Secret(b"first")), PassphraseUnlock(Secret(b"second"))
    slots = [
        seal_slot(root_key, STORE_ID, first, passphrase_parameters(FAST), 0),
        seal_slot(root_key, STORE_ID, KeyFileUnlock(key_file), b"", 0),
        seal_slot(root_key, STORE_ID, second, passphrase_parameters(FAST), 0),
    ]
    for unlock in (first, second, KeyFileUnlock(key_file)):
        assert open_slots(slots, STORE_ID, unlock)[0] == root_key


@pytest.mark.parametrize("field", ["slot_id", "parameters", "wrapped"])
def test_every_field_of_a_slot_is_authenticated(field: str) -> None:
    unlock = PassphraseUnlock(Secret(b"p"))
    slot = seal_slot(Secret.random(), STORE_ID, unlock, passphrase_parameters(FAST), 0)
    value: bytes = getattr(slot, field)
    changed = slot._replace(**{field: value[:-1] + bytes([value[-1] ^ 1])})  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        open_slots([changed], STORE_ID, unlock)


def test_a_slot_of_another_store_does_not_open(key_file: Path) -> None:
    slot = seal_slot(Secret.random(), STORE_ID, KeyFileUnlock(key_file), b"", 0)
    with pytest.raises(ConfigError, match="is not the root key file of this KMS"):
        open_slots([slot], b"t" * 16, KeyFileUnlock(key_file))


def test_the_hint_says_how_the_kms_is_unlocked(key_file: Path) -> None:
    slot = seal_slot(Secret.random(), STORE_ID, KeyFileUnlock(key_file), b"", 0)
    with pytest.raises(ConfigError) as caught:
        open_slots([slot], STORE_ID, PassphraseUnlock(Secret(b"p")))
    assert caught.value.hint == "it is unlocked by: keyfile"


@pytest.mark.parametrize(
    "parameters",
    [(5_000_000, 1, 1), (64, 101, 1), (64, 0, 1), (4096, 1, 65), (4096, 1, 0), (7, 1, 1)],
)
def test_a_hostile_slot_costs_nothing(parameters: tuple[int, int, int]) -> None:
    unlock = PassphraseUnlock(Secret(b"p"))
    with pytest.raises(FormatError, match="Argon2id"):
        unlock.key_encryption_key(struct.pack(">III16s", *parameters, bytes(16)))


def test_parameters_of_another_length_are_refused(key_file: Path) -> None:
    with pytest.raises(FormatError):
        PassphraseUnlock(Secret(b"p")).key_encryption_key(bytes(27))
    with pytest.raises(FormatError):
        KeyFileUnlock(key_file).key_encryption_key(b"x")


@pytest.mark.parametrize("mode", [0o440, 0o404, 0o604, 0o420, 0o777])
def test_a_key_file_that_others_can_read_is_refused(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)
    with pytest.raises(ConfigError, match="can be read by others") as caught:
        read_key_file(key_file)
    assert "chmod 0400" in caught.value.hint


def test_what_is_no_key_file(tmp_path: Path, key_file: Path) -> None:
    with pytest.raises(ConfigError, match="is missing"):
        read_key_file(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="no root key file"):
        read_key_file(tmp_path)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o400)
    with pytest.raises(ConfigError, match="no root key file"):
        read_key_file(fifo)
    key_file.chmod(0o600)
    key_file.write_bytes(bytes(31))
    with pytest.raises(ConfigError, match="no root key file"):
        read_key_file(key_file)


def test_a_key_file_of_another_user_is_refused(key_file: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(key_file, 4711, -1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        read_key_file(key_file)
