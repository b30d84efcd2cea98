"""Slots of the root key: who may change them, what stays, and what is gone from the files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from envfs.crypto.secret import Secret
from envfs.errors import AccessDenied, ConfigError, FormatError, LimitExceeded, NotFound, Validation
from envfs.kms.engine import Engine
from envfs.kms.operations.root_slots import MAX_SLOTS
from envfs.kms.rootkey import (
    KEY_FILE_NAME,
    Argon2Cost,
    KeyFileUnlock,
    PassphraseUnlock,
    RecoveryUnlock,
    passphrase_parameters,
    typed_unlock,
)
from envfs.kms.schema import KEYS
from envfs.kms.slot_foreign import ForeignKey, ForeignParameters
from envfs.kms.unlocking import find_unlock, slots_of
from tests.integration.kms.killing import killed_at_every_line
from tests.unit.kms.kit import ALICE, OWNER, ROOT, audit_records, make_kms, open_kms

if TYPE_CHECKING:
    from pathlib import Path

    from envfs.kms.schema import RootSlotRow

FAST = Argon2Cost(memory_kib=64, iterations=1, lanes=1)
OLD, NEW = Secret(b"the old passphrase"), Secret(b"the new passphrase")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_kms(tmp_path / "kms")


def add_passphrase(engine: Engine, secret: Secret) -> RootSlotRow:
    return engine.add_root_slot(OWNER, PassphraseUnlock(secret), passphrase_parameters(FAST))


def replace(engine: Engine, slot_id: bytes, secret: Secret) -> RootSlotRow:
    return engine.replace_root_slot(OWNER, slot_id, PassphraseUnlock(secret), passphrase_parameters(FAST))


def opens(home: Path, secret: Secret) -> bool:
    try:
        Engine.open(home, PassphraseUnlock(secret)).close()
    except ConfigError:
        return False
    return True


def in_the_files(home: Path, content: bytes) -> list[str]:
    return [path.name for path in sorted(home.glob("kms.db*")) if content in path.read_bytes()]


def nobody_asks(_: str) -> Secret:
    raise ConfigError("somebody was asked")


@pytest.mark.parametrize("principal", [ALICE, ROOT], ids=["alice", "root"])
def test_slots_are_the_owners_affair_alone(home: Path, principal: object) -> None:
    assert principal in {ALICE, ROOT}
    who = ALICE if principal is ALICE else ROOT
    with open_kms(home) as engine:
        (slot,) = engine.root_slots(OWNER)
        unlock = PassphraseUnlock(NEW)
        with pytest.raises(AccessDenied):
            engine.root_slots(who)
        with pytest.raises(AccessDenied):
            engine.add_root_slot(who, unlock, passphrase_parameters(FAST))
        with pytest.raises(AccessDenied):
            engine.replace_root_slot(who, slot.slot_id, unlock, passphrase_parameters(FAST))
        with pytest.raises(AccessDenied):
            engine.remove_root_slot(who, slot.slot_id)
        assert engine.root_slots(OWNER) == [slot]
    denied = [one["eventName"] for one in audit_records(home) if one.get("errorCode") == "AccessDeniedException"]
    assert denied == ["ListRootSlots", "AddRootSlot", "ReplaceRootSlot", "RemoveRootSlot"]


def test_a_slot_that_was_added_opens_and_one_that_was_removed_does_not(home: Path) -> None:
    with open_kms(home) as engine:
        slot = add_passphrase(engine, OLD)
        assert opens(home, OLD)
        with Engine.open(home, PassphraseUnlock(OLD)) as other:
            assert other.opened_by == slot.slot_id
        engine.remove_root_slot(OWNER, slot.slot_id)
        assert not opens(home, OLD)
        assert engine.check_store(OWNER) == []
        assert engine.check_audit(OWNER).problems == ()
    recorded = [one["requestParameters"] for one in audit_records(home) if one["eventName"] == "AddRootSlot"]
    assert recorded == [{"slotId": slot.slot_id.hex(), "kind": "passphrase"}]


def test_the_last_slot_stays(home: Path) -> None:
    with open_kms(home) as engine:
        (slot,) = engine.root_slots(OWNER)
        with pytest.raises(Validation, match="last root-key slot"):
            engine.remove_root_slot(OWNER, slot.slot_id)
        with pytest.raises(NotFound):
            engine.remove_root_slot(OWNER, bytes(16))
        with pytest.raises(NotFound):
            replace(engine, bytes(16), NEW)
        assert engine.root_slots(OWNER) == [slot]
    open_kms(home).close()


def test_there_is_an_end_of_slots(home: Path) -> None:
    with open_kms(home) as engine:
        for _ in range(MAX_SLOTS - 1):
            engine.add_root_slot(OWNER, RecoveryUnlock(Secret(bytes(20))), b"")
        with pytest.raises(LimitExceeded):
            engine.add_root_slot(OWNER, RecoveryUnlock(Secret(bytes(20))), b"")


def test_nothing_of_a_removed_slot_stays_in_the_files(home: Path) -> None:
    with open_kms(home) as engine:
        slot = add_passphrase(engine, OLD)
        assert in_the_files(home, slot.wrapped)
        new = replace(engine, slot.slot_id, NEW)
        assert list(home.glob("kms.db-erase.*"))
        assert engine.erase_removed()
        assert in_the_files(home, slot.wrapped) == []
        assert in_the_files(home, slot.parameters) == []
        assert in_the_files(home, new.wrapped)
        assert not list(home.glob("kms.db-erase.*"))


def test_where_another_process_reads_the_maintenance_erases_later(home: Path) -> None:
    with open_kms(home) as engine, open_kms(home) as other:
        slot = add_passphrase(engine, OLD)
        with other._database.reading():
            other._database.select(KEYS, {})
            engine.remove_root_slot(OWNER, slot.slot_id)
            assert not engine.erase_removed()
            assert in_the_files(home, slot.wrapped)
        other.maintain()
        assert in_the_files(home, slot.wrapped) == []


def test_a_kill_while_a_passphrase_is_changed_leaves_one_that_works(home: Path) -> None:
    with open_kms(home) as engine:
        slot = add_passphrase(engine, OLD)

    def change() -> None:
        with Engine.open(home, PassphraseUnlock(OLD)) as engine:
            replace(engine, slot.slot_id, NEW)
            engine.erase_removed()

    modules = ("envfs.kms.operations.root_slots", "envfs.kms.sealed_store", "envfs.kms.sqlite_store")
    kills = 0
    for _ in killed_at_every_line(change, *modules, step=31):
        kills += 1
        assert opens(home, OLD) != opens(home, NEW)
        with Engine.open(home, KeyFileUnlock(home / KEY_FILE_NAME)) as engine:
            assert engine.check_store(OWNER) == []
            if opens(home, NEW):  # the change was made: the maintenance does what is left, and it is undone by hand
                engine.maintain()
                assert in_the_files(home, slot.wrapped) == []
                (now,) = [one for one in engine.root_slots(OWNER) if one.kind == "passphrase"]
                slot = replace(engine, now.slot_id, OLD)
                engine.erase_removed()
    assert kills > 5
    assert opens(home, NEW)
    assert not opens(home, OLD)
    assert in_the_files(home, slot.wrapped) == []


def test_the_key_file_comes_first_and_nobody_is_asked(home: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "usb.key"
    elsewhere.write_bytes(os.urandom(32))
    elsewhere.chmod(0o400)
    with open_kms(home) as engine:
        add_passphrase(engine, OLD)
        engine.add_root_slot(OWNER, KeyFileUnlock(elsewhere), os.fsencode(elsewhere))
    Engine.open(home, find_unlock(home, *slots_of(home), nobody_asks)).close()
    (home / KEY_FILE_NAME).rename(tmp_path / "away")
    Engine.open(home, find_unlock(home, *slots_of(home), nobody_asks)).close()
    elsewhere.write_bytes(bytes(32)) if os.geteuid() == 0 else elsewhere.unlink()
    asked = []

    def ask(prompt: str) -> Secret:
        asked.append(prompt)
        return OLD

    Engine.open(home, find_unlock(home, *slots_of(home), ask)).close()
    assert asked == ["Passphrase of the KMS: "]
    with pytest.raises(ConfigError, match=r"root.key is missing.*somebody was asked"):
        find_unlock(home, *slots_of(home), nobody_asks)


def test_without_a_slot_to_type_for_nobody_is_asked(home: Path) -> None:
    (home / KEY_FILE_NAME).unlink()
    with pytest.raises(ConfigError, match=r"the root key file .* is missing"):
        find_unlock(home, *slots_of(home), nobody_asks)


def test_a_typed_passphrase_opens(home: Path) -> None:
    with open_kms(home) as engine:
        add_passphrase(engine, OLD)
    Engine.open(home, typed_unlock(OLD)).close()


def test_what_was_typed_is_forgotten(home: Path) -> None:
    with open_kms(home) as engine:
        add_passphrase(engine, OLD)
    typed = Secret(bytes(OLD.expose()))
    unlock = typed_unlock(typed)
    Engine.open(home, unlock).close()
    unlock.wipe()
    assert typed.is_wiped


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{}", b"null", b"\xff", b'{"ciphertext":1,"endpoint":"","key":"","region":""}', b"[" * 60_000,
     b'{"ciphertext":"A","endpoint":"","key":"","region":""}'],
    ids=range(8),
)  # fmt: skip
def test_damaged_parameters_of_a_foreign_slot(raw: bytes) -> None:
    with pytest.raises(FormatError):
        ForeignParameters.parse(raw)


def test_the_parameters_of_a_foreign_slot_are_read_back() -> None:
    parameters = ForeignParameters(ForeignKey("https://kms.example", "eu-north-1", "arn:ü"), b"\0\xff")
    assert ForeignParameters.parse(parameters.encode()) == parameters
