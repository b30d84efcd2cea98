"""New material under the same key, and when it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from envfs.errors import (
    AccessDenied,
    Conflict,
    Disabled,
    InvalidState,
    LimitExceeded,
    UnsupportedOperation,
    Validation,
)
from envfs.format.blob import Blob
from envfs.kms.model import KeyState
from envfs.kms.schedule import DAY
from envfs.kms.schema import BACKING_KEYS, KEYS
from tests.unit.kms.kit import (
    ALICE,
    CONTEXT,
    OWNER,
    THROUGH_MOUNT,
    audit_records,
    every,
    open_kms,
    owner_statement,
    policy,
    statement,
    users_policy,
)

if TYPE_CHECKING:
    from pathlib import Path

    from envfs.kms.engine import Engine
    from tests.unit.kms.kit import Clock


@pytest.fixture
def key(engine: Engine) -> str:
    return engine.create_key(OWNER, policy=users_policy(ALICE)).key_id


def kinds(engine: Engine, key: str, include: str = "ROTATIONS_ONLY") -> list[tuple[str | None, str]]:
    found = every(lambda marker=None: engine.list_key_rotations(OWNER, key, include=include, limit=2, marker=marker))
    return [(one.rotation_type, one.material_state) for one in found]


def test_what_was_encrypted_before_decrypts_after(engine: Engine, key: str) -> None:
    before = engine.describe_key(OWNER, key)
    old = engine.generate_data_key(ALICE, key, CONTEXT)
    assert engine.rotate_key_on_demand(OWNER, key) == before.arn
    new = engine.generate_data_key(ALICE, key, CONTEXT)
    assert Blob.parse(old.blob).backing_key_id != Blob.parse(new.blob).backing_key_id
    assert engine.decrypt(ALICE, old.blob, CONTEXT) == old.plaintext
    assert engine.decrypt(ALICE, new.blob, CONTEXT) == new.plaintext
    after = engine.describe_key(OWNER, key)
    assert (before.key_id, before.arn, before.created) == (after.key_id, after.arn, after.created)
    assert (old.material_id, new.material_id) == (before.current_material_id, after.current_material_id)
    assert old.material_id != new.material_id
    assert engine.get_key_policy(OWNER, key) == users_policy(ALICE)
    told = engine.decrypt_request(ALICE, old.blob, CONTEXT)
    assert told.material_id == old.material_id


def test_rotations_are_listed(engine: Engine, key: str, clock: Clock) -> None:
    assert kinds(engine, key) == []
    assert kinds(engine, key, "ALL_KEY_MATERIAL") == [(None, "CURRENT")]
    clock.now += 10
    engine.rotate_key_on_demand(OWNER, key)
    engine.enable_key_rotation(OWNER, key, 90)
    clock.now += 90 * DAY
    engine.maintain()
    assert kinds(engine, key) == [("ON_DEMAND", "NON_CURRENT"), ("AUTOMATIC", "CURRENT")]
    everything = engine.list_key_rotations(OWNER, key, include="ALL_KEY_MATERIAL")[0]
    assert [one.rotated for one in everything] == [None, int(clock.now) - 90 * DAY, int(clock.now)]
    assert everything[-1].material_id == engine.describe_key(OWNER, key).current_material_id
    assert {(one.import_state, one.expiration_model, one.description) for one in everything} == {(None, None, None)}
    with pytest.raises(Validation):
        engine.list_key_rotations(OWNER, key, include="SOME")


def test_on_demand_has_a_limit_of_its_own(engine: Engine, key: str, clock: Clock) -> None:
    engine.enable_key_rotation(OWNER, key, 90)
    status = engine.get_key_rotation_status(OWNER, key)
    for _ in range(25):
        engine.rotate_key_on_demand(OWNER, key)
    with pytest.raises(LimitExceeded):
        engine.rotate_key_on_demand(OWNER, key)
    assert engine.get_key_rotation_status(OWNER, key) == status
    clock.now += 90 * DAY
    engine.maintain()
    assert kinds(engine, key)[-1] == ("AUTOMATIC", "CURRENT")


def test_automatic_rotation_comes_when_it_is_due(engine: Engine, key: str, clock: Clock, home: Path) -> None:
    assert not engine.get_key_rotation_status(OWNER, key).enabled
    engine.enable_key_rotation(OWNER, key)
    start = int(clock.now)
    status = engine.get_key_rotation_status(OWNER, key)
    assert (status.enabled, status.period_days, status.next_rotation) == (True, 365, start + 365 * DAY)
    clock.now += 365 * DAY - 1
    engine.maintain()
    assert kinds(engine, key) == []
    clock.now += 1
    engine.maintain()
    engine.maintain()
    assert kinds(engine, key) == [("AUTOMATIC", "CURRENT")]
    assert engine.get_key_rotation_status(OWNER, key).next_rotation == start + 2 * 365 * DAY
    record = next(one for one in audit_records(home) if one["eventName"] == "RotateKey")
    assert (record["eventType"], record["userIdentity"]["invokedBy"]) == ("AwsServiceEvent", "envfs")
    engine.disable_key_rotation(OWNER, key)
    clock.now += 1000 * DAY
    engine.maintain()
    assert len(kinds(engine, key)) == 1
    assert not engine.get_key_rotation_status(OWNER, key).enabled


def test_several_missed_dates_are_one_rotation(engine: Engine, key: str, clock: Clock) -> None:
    engine.enable_key_rotation(OWNER, key, 90)
    clock.now += 1000 * DAY
    engine.maintain()
    engine.maintain()
    assert len(kinds(engine, key)) == 1
    assert engine.get_key_rotation_status(OWNER, key).next_rotation == int(clock.now) + 90 * DAY


def test_a_disabled_key_rotates_after_it_is_enabled(engine: Engine, key: str, clock: Clock) -> None:
    engine.enable_key_rotation(OWNER, key, 90)
    date = engine.get_key_rotation_status(OWNER, key).next_rotation
    engine.disable_key(OWNER, key)
    clock.now += 100 * DAY
    engine.maintain()
    assert kinds(engine, key) == []
    status = engine.get_key_rotation_status(OWNER, key)
    assert (status.enabled, status.next_rotation) == (True, date)
    engine.enable_key(OWNER, key)
    engine.maintain()
    assert len(kinds(engine, key)) == 1


def test_a_key_that_is_to_be_deleted_does_not_rotate(engine: Engine, key: str, clock: Clock) -> None:
    engine.enable_key_rotation(OWNER, key, 90)
    clock.now += 80 * DAY
    engine.schedule_key_deletion(OWNER, key)
    status = engine.get_key_rotation_status(OWNER, key)
    assert (status.enabled, status.next_rotation) == (False, None)
    clock.now += 20 * DAY
    engine.maintain()
    assert kinds(engine, key) == []
    with pytest.raises(InvalidState):
        engine.rotate_key_on_demand(OWNER, key)
    engine.cancel_key_deletion(OWNER, key)
    assert engine.get_key_rotation_status(OWNER, key).enabled
    with pytest.raises(Disabled):
        engine.enable_key_rotation(OWNER, key)
    engine.enable_key(OWNER, key)
    engine.maintain()
    assert len(kinds(engine, key)) == 1


@pytest.mark.parametrize("days", [-1, 0, 89, 2561])
def test_periods_that_are_refused(engine: Engine, key: str, days: int) -> None:
    with pytest.raises(Validation):
        engine.enable_key_rotation(OWNER, key, days)
    assert not engine.get_key_rotation_status(OWNER, key).enabled


def test_asking_for_the_same_period_again_puts_nothing_off(engine: Engine, key: str, clock: Clock) -> None:
    engine.enable_key_rotation(OWNER, key, 100)
    date = engine.get_key_rotation_status(OWNER, key).next_rotation
    clock.now += 50 * DAY
    engine.enable_key_rotation(OWNER, key, 100)
    assert engine.get_key_rotation_status(OWNER, key).next_rotation == date
    engine.enable_key_rotation(OWNER, key, 90)
    assert engine.get_key_rotation_status(OWNER, key).next_rotation == int(clock.now) + 90 * DAY


def test_a_policy_can_bound_the_period(engine: Engine) -> None:
    deny = statement(
        "Deny", "*", "kms:EnableKeyRotation", Condition={"NumericNotEquals": {"kms:RotationPeriodInDays": "365"}}
    )
    key = engine.create_key(OWNER, policy=policy(owner_statement(), deny)).key_id
    with pytest.raises(AccessDenied):
        engine.enable_key_rotation(OWNER, key, 90)
    engine.enable_key_rotation(OWNER, key)


@pytest.mark.parametrize(("spec", "usage"), [("ECC_NIST_P256", "SIGN_VERIFY"), ("HMAC_256", "GENERATE_VERIFY_MAC")])
def test_only_symmetric_encryption_keys_rotate(engine: Engine, spec: str, usage: str) -> None:
    key = engine.create_key(OWNER, spec=spec, usage=usage).key_id
    for call in (
        engine.rotate_key_on_demand,
        engine.enable_key_rotation,
        engine.disable_key_rotation,
        engine.get_key_rotation_status,
        engine.list_key_rotations,
    ):
        with pytest.raises(UnsupportedOperation):
            call(OWNER, key)


def test_service_managed_keys_rotate_yearly(engine: Engine, clock: Clock) -> None:
    arn = engine.service_managed_key("alias/envfs/volume")
    status = engine.get_key_rotation_status(OWNER, arn)
    assert (status.enabled, status.period_days) == (True, 365)
    with pytest.raises(AccessDenied, match="managed by envfs"):
        engine.rotate_key_on_demand(OWNER, arn)
    blob = engine.generate_data_key(ALICE, arn, CONTEXT, THROUGH_MOUNT).blob
    clock.now += 366 * DAY
    engine.maintain()
    assert kinds(engine, arn) == [("AUTOMATIC", "CURRENT")]
    engine.decrypt(ALICE, blob, CONTEXT, THROUGH_MOUNT)


def imported(engine: Engine, valid_to: int = 0) -> str:
    """The id of a key with material that was imported, which expires at `valid_to`."""
    key = engine.create_key(OWNER, origin="EXTERNAL", policy=users_policy(ALICE)).key_id
    add_material(engine, key, 1, valid_to)
    return key


def add_material(engine: Engine, key: str, version: int, valid_to: int = 0) -> None:
    key_id = bytes.fromhex(key.replace("-", ""))
    row = engine._store.get(KEYS, key_id)
    assert row is not None
    made = engine._keyring.new_backing_key(key_id, version, row.spec, engine._now())._replace(valid_to=valid_to)
    with engine._store.transaction() as transaction:
        transaction.put(BACKING_KEYS, made)
        if version == 1:
            row = row._replace(backing_key_id=made.backing_key_id, state=KeyState.ENABLED.value)
        engine._put_key(transaction, row)


def test_imported_material_rotates_to_what_was_imported_for_it(engine: Engine, clock: Clock) -> None:
    key = imported(engine)
    blob = engine.generate_data_key(ALICE, key, CONTEXT).blob
    with pytest.raises(Conflict):
        engine.rotate_key_on_demand(OWNER, key)
    with pytest.raises(UnsupportedOperation):
        engine.enable_key_rotation(OWNER, key)
    add_material(engine, key, 2)
    assert kinds(engine, key, "ALL_KEY_MATERIAL") == [(None, "CURRENT"), (None, "PENDING_ROTATION")]
    engine.rotate_key_on_demand(OWNER, key)
    assert kinds(engine, key, "ALL_KEY_MATERIAL") == [(None, "NON_CURRENT"), ("ON_DEMAND", "CURRENT")]
    found = engine.list_key_rotations(OWNER, key)[0][0]
    assert (found.import_state, found.expiration_model) == ("IMPORTED", "KEY_MATERIAL_DOES_NOT_EXPIRE")
    engine.decrypt(ALICE, blob, CONTEXT)


def test_expired_material_counts_no_more_from_that_very_second(home: Path, engine: Engine, clock: Clock) -> None:
    """Whether or not any maintenance has run: also in a process that had the key in its memory."""
    end = int(clock.now) + 100
    key = imported(engine, valid_to=end)
    told = engine.describe_key(OWNER, key)
    assert (told.expiration_model, told.valid_to) == ("KEY_MATERIAL_EXPIRES", end)
    blob = engine.generate_data_key(ALICE, key, CONTEXT).blob
    clock.now = end - 0.1
    engine.decrypt(ALICE, blob, CONTEXT)
    clock.now = float(end)
    with pytest.raises(InvalidState, match="is pending import"):
        engine.decrypt(ALICE, blob, CONTEXT)
    told = engine.describe_key(OWNER, key)
    assert (told.state, told.expiration_model, told.valid_to) == (KeyState.PENDING_IMPORT, None, None)
    (row,) = engine._store.find(BACKING_KEYS, key_id=bytes.fromhex(key.replace("-", "")))
    assert row.wrapped
    engine.maintain()
    (after,) = engine._store.find(BACKING_KEYS, key_id=row.key_id)
    assert after == row._replace(wrapped=b"")
    assert not any(row.wrapped in path.read_bytes() for path in home.glob("kms.db*"))
    assert engine.describe_key(OWNER, key) == told
    assert "DeleteExpiredKeyMaterial" in [record["eventName"] for record in audit_records(home)]
    engine.maintain()
    with open_kms(home, clock=clock) as other, pytest.raises(InvalidState):
        other.decrypt(ALICE, blob, CONTEXT)


def test_material_that_waited_for_a_rotation_expires_alone(engine: Engine, clock: Clock) -> None:
    key = imported(engine)
    add_material(engine, key, 2, valid_to=int(clock.now) + 10)
    clock.now += 10
    with pytest.raises(Conflict):
        engine.rotate_key_on_demand(OWNER, key)
    engine.maintain()
    assert kinds(engine, key, "ALL_KEY_MATERIAL") == [(None, "CURRENT")]
    assert engine.describe_key(OWNER, key).enabled


def test_a_cancelled_deletion_does_not_bring_material_back(engine: Engine, clock: Clock) -> None:
    key = imported(engine, valid_to=int(clock.now) + 10)
    engine.schedule_key_deletion(OWNER, key)
    clock.now += 10
    engine.maintain()
    assert engine.describe_key(OWNER, key).state is KeyState.PENDING_DELETION
    engine.cancel_key_deletion(OWNER, key)
    assert engine.describe_key(OWNER, key).state is KeyState.PENDING_IMPORT
