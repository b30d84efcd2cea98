"""How a key begins and ends: CreateKey with all its parameters, deletion, maintenance."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from envfs.crypto.secret import Secret
from envfs.errors import (
    AccessDenied,
    DryRunOperation,
    Internal,
    InvalidArn,
    InvalidMarker,
    InvalidState,
    InvalidTag,
    LimitExceeded,
    NotFound,
    UnsupportedOperation,
    Validation,
)
from envfs.kms.model import KeyState, RequestFacts
from envfs.kms.schedule import DAY
from envfs.kms.schema import ALIASES, BACKING_KEYS, GRANTS, KEYS, TAGS, GrantRow, Table
from tests.unit.kms.kit import (
    ACCOUNT,
    ALICE,
    CONTEXT,
    OWNER,
    audit_records,
    every,
    open_kms,
    owner_statement,
    policy,
    statement,
    users_policy,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from envfs.kms.engine import Engine
    from tests.unit.kms.kit import Clock


@pytest.mark.parametrize(
    ("spec", "usage", "field", "algorithms"),
    [
        ("SYMMETRIC_DEFAULT", None, "encryption_algorithms", ("SYMMETRIC_DEFAULT",)),
        ("RSA_2048", "ENCRYPT_DECRYPT", "encryption_algorithms", ("RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256")),
        ("ECC_NIST_P256", "SIGN_VERIFY", "signing_algorithms", ("ECDSA_SHA_256",)),
        ("ECC_NIST_P384", "KEY_AGREEMENT", "key_agreement_algorithms", ("ECDH",)),
        ("HMAC_384", "GENERATE_VERIFY_MAC", "mac_algorithms", ("HMAC_SHA_384",)),
        ("ML_DSA_44", "SIGN_VERIFY", "signing_algorithms", ("ML_DSA_SHAKE_256",)),
    ],
)
def test_keys_of_every_kind(
    engine: Engine, spec: str, usage: str | None, field: str, algorithms: tuple[str, ...]
) -> None:
    made = engine.create_key(OWNER, spec=spec, usage=usage)
    assert made == engine.describe_key(OWNER, made.key_id)
    assert (made.spec, made.usage, made.state) == (spec, usage or "ENCRYPT_DECRYPT", KeyState.ENABLED)
    listed = {
        name: getattr(made, name) for name in made.__slots__ if name.endswith("_algorithms") and getattr(made, name)
    }
    assert listed == {field: algorithms}
    assert (made.current_material_id is not None) == (spec == "SYMMETRIC_DEFAULT")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"spec": "RSA_2048"}, Validation),
        ({"spec": "HMAC_256"}, Validation),
        ({"spec": "HMAC_256", "usage": "SIGN_VERIFY"}, Validation),
        ({"spec": "SYMMETRIC_DEFAULT", "usage": "SIGN_VERIFY"}, Validation),
        ({"spec": "AES_256"}, Validation),
        ({"spec": "SM2", "usage": "SIGN_VERIFY"}, UnsupportedOperation),
        ({"origin": "SOMEWHERE"}, Validation),
        ({"origin": "AWS_CLOUDHSM"}, UnsupportedOperation),
        ({"origin": "EXTERNAL_KEY_STORE"}, UnsupportedOperation),
        ({"multi_region": True}, UnsupportedOperation),
        ({"spec": "ML_DSA_44", "usage": "SIGN_VERIFY", "origin": "EXTERNAL"}, UnsupportedOperation),
    ],
)
def test_keys_that_there_cannot_be(engine: Engine, options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        engine.create_key(OWNER, **options)  # type: ignore[arg-type]
    assert engine.list_keys(OWNER) == ((), None)


def test_an_external_key_waits_for_its_material(engine: Engine) -> None:
    made = engine.create_key(OWNER, origin="EXTERNAL", policy=users_policy(ALICE))
    assert (made.state, made.origin, made.current_material_id) == (KeyState.PENDING_IMPORT, "EXTERNAL", None)
    assert (made.expiration_model, made.valid_to) == (None, None)
    with pytest.raises(InvalidState, match="is pending import"):
        engine.generate_data_key(ALICE, made.key_id, CONTEXT)


def test_tags_from_the_beginning_need_a_permission_of_their_own(engine: Engine) -> None:
    allow = statement("Allow", None, "kms:CreateKey")
    engine.put_identity_policy(OWNER, ALICE.arn, "make", policy(allow))
    engine.create_key(ALICE)
    with pytest.raises(AccessDenied, match="kms:TagResource"):
        engine.create_key(ALICE, tags={"team": "pay"})
    both = statement("Allow", None, ["kms:CreateKey", "kms:TagResource"])
    both["Condition"] = {
        "StringEquals": {"aws:RequestTag/Team": "pay"},
        "ForAllValues:StringEquals": {"aws:TagKeys": "team"},
    }
    engine.put_identity_policy(OWNER, ALICE.arn, "make", policy(both))
    made = engine.create_key(ALICE, tags={"team": "pay"})
    assert [(tag.name, tag.value) for tag in every(engine.list_resource_tags, OWNER, made.key_id)] == [("team", "pay")]
    for tags in ({"team": "other"}, {"team": "pay", "more": "x"}):
        with pytest.raises(AccessDenied):
            engine.create_key(ALICE, tags=tags)


def test_a_policy_can_say_which_keys_may_be_made(engine: Engine) -> None:
    allow = statement("Allow", None, "kms:CreateKey")
    allow["Condition"] = {"StringEquals": {"kms:KeySpec": "HMAC_256", "kms:KeyOrigin": "AWS_KMS"}}
    engine.put_identity_policy(OWNER, ALICE.arn, "make", policy(allow))
    engine.create_key(ALICE, spec="HMAC_256", usage="GENERATE_VERIFY_MAC")
    with pytest.raises(AccessDenied):
        engine.create_key(ALICE)


@pytest.mark.parametrize(
    ("tags", "error"),
    [
        ({"": "x"}, InvalidTag),
        ({"x" * 129: "x"}, InvalidTag),
        ({"x": "y" * 257}, InvalidTag),
        ({"aws:x": "y"}, InvalidTag),
        ({"AWS:x": "y"}, InvalidTag),
        ({"a;b": "y"}, InvalidTag),
        ({"a": "b\n"}, InvalidTag),
        ({"Team": "a", "team": "b"}, InvalidTag),
        ({f"t{number}": "" for number in range(51)}, LimitExceeded),
    ],
)
def test_tags_that_are_refused(engine: Engine, tags: dict[str, str], error: type[Exception]) -> None:
    key = engine.create_key(OWNER).key_id
    with pytest.raises(error):
        engine.tag_resource(OWNER, key, tags)
    with pytest.raises(error):
        engine.create_key(OWNER, tags=tags)
    assert engine.list_resource_tags(OWNER, key) == ((), None)


def test_tags_are_put_and_taken_off(engine: Engine) -> None:
    key = engine.create_key(OWNER, tags={"a": "1", "Größe ü": "x_.:/=+-@ "}).key_id
    engine.tag_resource(OWNER, key, {"a": "2", "b": ""})
    engine.untag_resource(OWNER, key, ["Größe ü", "never there"])
    assert [(tag.name, tag.value) for tag in every(engine.list_resource_tags, OWNER, key)] == [("a", "2"), ("b", "")]
    with pytest.raises(InvalidTag, match="in case only"):
        engine.tag_resource(OWNER, key, {"A": ""})
    engine.tag_resource(OWNER, key, {f"t{number:02}": "" for number in range(48)})
    with pytest.raises(LimitExceeded):
        engine.tag_resource(OWNER, key, {"one more": ""})


def test_tags_come_in_pages(engine: Engine) -> None:
    key = engine.create_key(OWNER, tags={f"t{number:02}": str(number) for number in range(7)}).key_id
    first, marker = engine.list_resource_tags(OWNER, key, limit=3)
    assert marker is not None
    second, marker = engine.list_resource_tags(OWNER, key, limit=3, marker=marker)
    assert marker is not None
    third, end = engine.list_resource_tags(OWNER, key, limit=3, marker=marker)
    assert [tag.value for tag in (*first, *second, *third)] == list("0123456")
    assert end is None
    for limit in (0, 51):
        with pytest.raises(Validation):
            engine.list_resource_tags(OWNER, key, limit=limit)
    for bad in ("", "x", "tYQ", marker + "A", "iNQ"):
        with pytest.raises(InvalidMarker):
            engine.list_resource_tags(OWNER, key, marker=bad if bad != "tYQ" else "tYR")


def test_keys_and_aliases_come_in_pages(engine: Engine) -> None:
    keys = sorted(engine.create_key(OWNER).key_id for _ in range(5))
    for number, key in enumerate(keys):
        engine.create_alias(OWNER, f"alias/{number}", key)
    found: list[str] = []
    marker = None
    for size in (2, 2, 1):
        entries, marker = engine.list_keys(OWNER, limit=2, marker=marker)
        assert len(entries) == size
        found += [entry.key_id for entry in entries]
    assert (found, marker) == (keys, None)
    names, marker = engine.list_aliases(OWNER, limit=4)
    assert [alias.name for alias in names] == [f"alias/{number}" for number in range(4)]
    assert [alias.name for alias in engine.list_aliases(OWNER, limit=4, marker=marker)[0]] == ["alias/4"]
    with pytest.raises(InvalidMarker):
        engine.list_keys(OWNER, marker=marker)


def test_most_operations_take_no_alias(engine: Engine) -> None:
    key = engine.create_key(OWNER).key_id
    engine.create_alias(OWNER, "alias/pay", key)
    calls: list[Callable[[str], object]] = [
        lambda name: engine.disable_key(OWNER, name),
        lambda name: engine.schedule_key_deletion(OWNER, name),
        lambda name: engine.tag_resource(OWNER, name, {"a": "b"}),
        lambda name: engine.enable_key_rotation(OWNER, name),
        lambda name: engine.create_alias(OWNER, "alias/other", name),
        lambda name: engine.get_key_policy(OWNER, name),
        lambda name: engine.list_aliases(OWNER, name),
        lambda name: engine.get_key_last_usage(OWNER, name),
    ]
    for call in calls:
        with pytest.raises(NotFound, match="takes no alias"):
            call("alias/pay")
        with pytest.raises(InvalidArn):
            call(ACCOUNT.alias_arn("alias/pay"))
    assert engine.describe_key(OWNER, ACCOUNT.alias_arn("alias/pay")).key_id == key


def test_a_description_changes(engine: Engine) -> None:
    key = engine.create_key(OWNER, description="old").key_id
    engine.update_key_description(OWNER, key, "new")
    assert engine.describe_key(OWNER, key).description == "new"
    with pytest.raises(Validation):
        engine.update_key_description(OWNER, key, "x" * 8193)


def test_deletion_is_scheduled_and_cancelled(engine: Engine, clock: Clock) -> None:
    key = engine.create_key(OWNER, policy=users_policy(ALICE)).key_id
    blob = engine.generate_data_key(ALICE, key, CONTEXT).blob
    scheduled = engine.schedule_key_deletion(OWNER, key, 7)
    assert (scheduled.days, scheduled.state) == (7, KeyState.PENDING_DELETION)
    assert scheduled.deletion_date == int(clock.now) + 7 * DAY
    told = engine.describe_key(OWNER, key)
    assert (told.state, told.deletion_date) == (KeyState.PENDING_DELETION, scheduled.deletion_date)
    with pytest.raises(InvalidState, match="is pending deletion"):
        engine.decrypt(ALICE, blob, CONTEXT)
    with pytest.raises(InvalidState, match="is pending deletion"):
        engine.schedule_key_deletion(OWNER, key)
    clock.now += 7 * DAY - 1
    engine.maintain()
    assert engine.cancel_key_deletion(OWNER, key) == told.arn
    told = engine.describe_key(OWNER, key)
    assert (told.state, told.deletion_date) == (KeyState.DISABLED, None)
    engine.enable_key(OWNER, key)
    clock.now += 30 * DAY
    engine.maintain()
    engine.decrypt(ALICE, blob, CONTEXT)
    with pytest.raises(InvalidState, match="is not pending deletion"):
        engine.cancel_key_deletion(OWNER, key)


@pytest.mark.parametrize("days", [-1, 0, 6, 31])
def test_waiting_periods_that_are_refused(engine: Engine, days: int) -> None:
    key = engine.create_key(OWNER).key_id
    with pytest.raises(Validation):
        engine.schedule_key_deletion(OWNER, key, days)
    assert engine.describe_key(OWNER, key).enabled


def test_no_deletion_is_scheduled_by_a_clock_that_is_wrong(engine: Engine, clock: Clock) -> None:
    """A host that began in 1970, say: once its clock is set, there would be no waiting period."""
    key = engine.create_key(OWNER).key_id
    right, clock.now = clock.now, 1_000_000
    with pytest.raises(Internal, match="clock is wrong"):
        engine.schedule_key_deletion(OWNER, key)
    clock.now = right
    engine.maintain()
    assert engine.describe_key(OWNER, key).enabled
    assert engine.schedule_key_deletion(OWNER, key, 7).deletion_date == int(right) + 7 * DAY


def test_a_policy_can_ask_for_a_long_waiting_period(engine: Engine) -> None:
    short = {"NumericLessThan": {"kms:ScheduleKeyDeletionPendingWindowInDays": "30"}}
    deny = statement("Deny", "*", "kms:ScheduleKeyDeletion", Condition=short)
    key = engine.create_key(OWNER, policy=policy(owner_statement(), deny)).key_id
    with pytest.raises(AccessDenied):
        engine.schedule_key_deletion(OWNER, key, 29)
    engine.schedule_key_deletion(OWNER, key)  # the default counts as if it had been written


def fill(engine: Engine) -> str:
    """A key with everything that can hang on one."""
    key = engine.create_key(OWNER, tags={"a": "b"}, policy=users_policy(ALICE))
    engine.create_alias(OWNER, "alias/gone", key.key_id)
    engine.rotate_key_on_demand(OWNER, key.key_id)
    row = GrantRow("g" * 64, _id(key.key_id), "", ALICE.arn, "", ACCOUNT.account_id, "Decrypt", "", b"\0\0", 1)
    with engine._store.transaction() as transaction:
        transaction.put(GRANTS, row)
    return key.key_id


def _id(text: str) -> bytes:
    return bytes.fromhex(text.replace("-", ""))


def rows_of(engine: Engine, key: str) -> list[object]:
    tables: tuple[Table[Any], ...] = (BACKING_KEYS, ALIASES, GRANTS, TAGS, KEYS)
    return [row for table in tables for row in engine._store.find(table, key_id=_id(key))]


def test_after_the_waiting_period_nothing_is_left(home: Path, engine: Engine, clock: Clock) -> None:
    kept = engine.create_key(OWNER, tags={"a": "b"}).key_id
    key = fill(engine)
    blob = engine.generate_data_key(ALICE, key, CONTEXT).blob
    assert len(rows_of(engine, key)) == 6
    engine.schedule_key_deletion(OWNER, key)
    clock.now += 30 * DAY
    engine.maintain()
    assert rows_of(engine, key) == []
    assert len(rows_of(engine, kept)) == 3
    with pytest.raises(NotFound):
        engine.describe_key(OWNER, "alias/gone")
    with pytest.raises(AccessDenied, match="does not exist, or that you are not allowed"):
        engine.decrypt(ALICE, blob, CONTEXT)
    record = audit_records(home)[-3]
    assert (record["eventName"], record["eventType"]) == ("DeleteKey", "AwsServiceEvent")
    assert record["userIdentity"] == {"type": "AWSService", "invokedBy": "envfs"}
    assert record["resources"][0]["ARN"] == ACCOUNT.key_arn(_id(key))
    assert engine._store.verify_all() == []


def test_no_file_holds_what_was_deleted(home: Path, clock: Clock) -> None:
    """Neither the database, nor its free pages, nor its log; with many keys around it, so that pages are full."""
    with open_kms(home, clock=clock) as engine:
        keys = [engine.create_key(OWNER).key_id for _ in range(40)]
        doomed = [fill_once(engine, key) for key in keys[::3]]
        wrapped = [row.wrapped for key in keys[::3] for row in engine._store.find(BACKING_KEYS, key_id=_id(key))]
        assert all(any(piece in path.read_bytes() for path in files(home)) for piece in wrapped)
        for key in doomed:
            engine.schedule_key_deletion(OWNER, key, 7)
        clock.now += 7 * DAY
        with reader(home):
            engine.maintain()
            assert rows_of(engine, doomed[0]) == []
            assert any(piece in path.read_bytes() for path in files(home) for piece in wrapped)  # the log is in use
        engine.maintain()
        assert not [path.name for path in files(home) for piece in wrapped if piece in path.read_bytes()]
        assert len(every(engine.list_keys, OWNER)) == len(keys) - len(doomed)


def fill_once(engine: Engine, key: str) -> str:
    engine.rotate_key_on_demand(OWNER, key)
    return key


def files(home: Path) -> list[Path]:
    return [path for path in home.iterdir() if path.name.startswith("kms.db")]


@contextmanager
def reader(home: Path) -> Iterator[None]:
    """Another process that reads the database at the moment."""
    import sqlite3

    connection = sqlite3.connect(home / "kms.db", isolation_level=None)
    try:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM keys").fetchone()
        yield
        connection.execute("COMMIT")
    finally:
        connection.close()


def test_what_another_process_deleted_before_it_was_killed_goes_too(home: Path, clock: Clock) -> None:
    with open_kms(home, clock=clock) as other:  # keeps the log from being removed
        with open_kms(home, clock=clock) as engine:
            engine.maintain()
            key = engine.create_key(OWNER).key_id
            (row,) = engine._store.find(BACKING_KEYS, key_id=_id(key))
            engine.schedule_key_deletion(OWNER, key, 7)
            clock.now += 7 * DAY
            while engine._attend_to(_id(key)):
                pass  # killed before the checkpoint
        assert any(row.wrapped in path.read_bytes() for path in files(home))
        other.maintain()
        assert not any(row.wrapped in path.read_bytes() for path in files(home))


def test_two_processes_maintain_at_once(home: Path, engine: Engine, clock: Clock) -> None:
    key = fill(engine)
    engine.schedule_key_deletion(OWNER, key, 7)
    clock.now += 7 * DAY
    with open_kms(home, clock=clock) as other:
        due = engine._store.due_keys(int(clock.now))
        other.maintain()
        generation = engine._store.generation
        assert [engine._attend_to(row.key_id) for row in due] == [False]
        engine.maintain()
    assert engine._store.generation > generation
    names = [record["eventName"] for record in audit_records(home)]
    assert names.count("DeleteKey") == 1


def test_maintenance_changes_nothing_when_nothing_is_due(home: Path, engine: Engine, clock: Clock) -> None:
    engine.create_key(OWNER)
    engine.maintain()
    generation = engine._store.generation
    before = len(audit_records(home))
    clock.now += 300 * DAY
    engine.maintain()
    assert (engine._store.generation, len(audit_records(home))) == (generation, before)


def test_maintenance_anchors_the_trail(home: Path, engine: Engine) -> None:
    engine.create_key(OWNER)
    engine.list_keys(OWNER)
    engine.maintain()
    (path,) = (home / "audit").iterdir()
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:-1]))
    assert not engine.verify_audit().is_intact


def test_one_broken_key_does_not_keep_the_others_waiting(home: Path, engine: Engine, clock: Clock) -> None:
    doomed = [engine.create_key(OWNER).key_id for _ in range(3)]
    for key in doomed:
        engine.schedule_key_deletion(OWNER, key, 7)
    clock.now += 7 * DAY
    original = engine._delete_key
    broken = engine._store.due_keys(int(clock.now))[0].key_id

    def failing(transaction: object, row: object) -> object:
        if row.key_id == broken:  # type: ignore[attr-defined]
            raise InvalidState("something is wrong with it")
        return original(transaction, row)  # type: ignore[arg-type]

    engine._delete_key = failing  # type: ignore[method-assign, assignment]
    with pytest.raises(InvalidState, match="something is wrong"):
        engine.maintain()
    assert [_id(entry.key_id) for entry in engine.list_keys(OWNER)[0]] == [broken]


def test_a_dry_run_leaves_everything_as_it_is(engine: Engine, home: Path) -> None:
    key = engine.create_key(OWNER).key_id
    dry = RequestFacts(dry_run=True)
    blob = engine.generate_data_key(OWNER, key, CONTEXT).blob
    before = (engine.describe_key(OWNER, key), engine.list_aliases(OWNER), engine._store.generation)
    calls: list[Callable[[], object]] = [
        lambda: engine.disable_key(OWNER, key, dry),
        lambda: engine.schedule_key_deletion(OWNER, key, facts=dry),
        lambda: engine.create_alias(OWNER, "alias/new", key, dry),
        lambda: engine.rotate_key_on_demand(OWNER, key, dry),
        lambda: engine.generate_data_key(OWNER, key, CONTEXT, dry),
        lambda: engine.generate_data_key_without_plaintext(OWNER, key, CONTEXT, dry),
        lambda: engine.encrypt(OWNER, key, b"x", CONTEXT, dry),
        lambda: engine.decrypt(OWNER, blob, CONTEXT, dry),
        lambda: engine.decrypt_request(OWNER, blob, CONTEXT, dry),
        lambda: engine.generate_random(OWNER, 8, dry),
        lambda: engine.re_encrypt(OWNER, blob, key, source_context=CONTEXT, destination_context={}, facts=dry),
    ]
    for call in calls:
        with pytest.raises(DryRunOperation):
            call()
        assert audit_records(home)[-1]["errorCode"] == "DryRunOperationException"
    assert (engine.describe_key(OWNER, key), engine.list_aliases(OWNER), engine._store.generation) == before
    with pytest.raises(AccessDenied):
        engine.disable_key(ALICE, key, dry)


def test_random_bytes_are_for_whoever_may(engine: Engine) -> None:
    assert len({bytes(engine.generate_random(OWNER, 32).expose()) for _ in range(4)}) == 4
    for size in (0, 1025):
        with pytest.raises(Validation):
            engine.generate_random(OWNER, size)
    with pytest.raises(AccessDenied):
        engine.generate_random(ALICE, 1)
    assert isinstance(engine.generate_random(OWNER, 1024), Secret)


def test_the_record_of_a_new_key_tells_what_was_asked(home: Path, engine: Engine) -> None:
    engine.create_key(OWNER, description="d", tags={"a": "b"}, spec="HMAC_256", usage="GENERATE_VERIFY_MAC")
    parameters = audit_records(home)[-1]["requestParameters"]
    del parameters["keyId"]
    assert parameters == {
        "keySpec": "HMAC_256",
        "keyUsage": "GENERATE_VERIFY_MAC",
        "origin": "AWS_KMS",
        "description": "d",
        "multiRegion": False,
        "bypassPolicyLockoutSafetyCheck": False,
        "tags": [{"tagKey": "a", "tagValue": "b"}],
    }
    assert json.dumps(parameters)
