"""Whoever can write the database, but has no root key, changes nothing unnoticed."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

import pytest

from envfs.errors import AccessDenied, IntegrityError
from envfs.kms.engine import DATABASE
from envfs.kms.schema import ALIASES, AliasRow
from tests.unit.kms.kit import ALICE, BOB, CONTEXT, OWNER, THROUGH_MOUNT, open_kms, policy, statement, users_policy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from envfs.kms.engine import Engine

Change = tuple[str, str]

PLANT_A_KEY = (
    "INSERT INTO keys SELECT zeroblob(16), manager, spec, usage, origin, state, description, created, backing_key_id,"
    " policy, deletion_date, rotation_period, next_rotation, due, mac, leaf FROM keys WHERE manager = 'CUSTOMER'"
)
EDITS: list[Change] = [
    ("keys", "UPDATE keys SET policy = replace(policy, 'alice', 'bob')"),
    ("keys", "UPDATE keys SET state = 'Disabled' WHERE manager = 'CUSTOMER'"),
    ("keys", "UPDATE keys SET manager = 'SERVICE' WHERE manager = 'CUSTOMER'"),
    ("keys", "UPDATE keys SET mac = zeroblob(32)"),
    ("keys", "DELETE FROM keys WHERE manager = 'CUSTOMER'"),
    ("keys", PLANT_A_KEY),
    ("backing_keys", "UPDATE backing_keys SET wrapped = zeroblob(48)"),
    ("backing_keys", "DELETE FROM backing_keys"),
    ("aliases", "UPDATE aliases SET created = 1"),
    ("aliases", "DELETE FROM aliases"),
    ("identity_policies", "DELETE FROM identity_policies"),
    ("identity_policies", "UPDATE identity_policies SET name = 'x'"),
    # What a row is looked up by: the row must not just be missing from the answer.
    ("identity_policies", "UPDATE identity_policies SET principal = 'arn:envfs:iam::000000000000:user/nobody'"),
    ("aliases", "UPDATE aliases SET key_id = zeroblob(16)"),
    ("aliases", "UPDATE aliases SET name = 'alias/other'"),
    ("backing_keys", "UPDATE backing_keys SET key_id = zeroblob(16)"),
    ("keys", "UPDATE keys SET leaf = leaf + 1"),
    ("identity_policies", "UPDATE identity_policies SET leaf = leaf + 64"),
    ("table", "DELETE FROM tree"),
    ("table", "DELETE FROM tree WHERE parent = -1"),
    ("identity_policies", "DELETE FROM tree WHERE name = 'identity_policies'"),
    ("state", "UPDATE sets SET digest = zeroblob(32) WHERE name = 'identity_policies'"),
    ("state", "UPDATE sets SET rows = 0 WHERE name = 'aliases'"),
    ("state", "DELETE FROM sets WHERE name = 'aliases'"),
    ("state", "UPDATE state SET generation = generation + 1"),
    ("state", "DELETE FROM state"),
]


def tamper(home: Path, *statements: str) -> None:
    """As an attacker would: with SQLite, and without the root key."""
    connection = sqlite3.connect(home / DATABASE)
    with connection:
        for sql in statements:
            connection.execute(sql)
    connection.close()


def pay_key(engine: Engine) -> str:
    return engine.describe_key(OWNER, "alias/pay").key_id


@pytest.fixture
def blob(engine: Engine) -> bytes:
    """A data key under alias/pay, which alice may decrypt and an identity policy forbids bob to."""
    key = engine.create_key(OWNER, policy=users_policy(ALICE, BOB))
    engine.create_alias(OWNER, "alias/pay", key.key_id)
    engine.put_identity_policy(OWNER, BOB.arn, "no", policy(statement("Deny", None, "kms:*")))
    return engine.generate_data_key(ALICE, "alias/pay", CONTEXT).blob


def use_everything(engine: Engine, blob: bytes) -> None:
    engine.decrypt(ALICE, blob, CONTEXT)
    engine.generate_data_key(ALICE, "alias/pay", CONTEXT)
    with contextlib.suppress(AccessDenied):
        engine.decrypt(BOB, blob, CONTEXT)


@pytest.mark.parametrize(("table", "edit"), EDITS)
def test_an_edit_is_refused_by_a_process_that_opens_later(
    home: Path, engine: Engine, blob: bytes, table: str, edit: str
) -> None:
    engine.close()
    tamper(home, edit)
    with pytest.raises(IntegrityError, match=table), open_kms(home) as later:
        use_everything(later, blob)


@pytest.mark.parametrize(("table", "edit"), EDITS)
def test_an_edit_is_refused_by_a_process_that_runs_and_stays_refused(
    home: Path, engine: Engine, blob: bytes, table: str, edit: str
) -> None:
    use_everything(engine, blob)
    tamper(home, edit)
    for _ in range(3):
        with pytest.raises(IntegrityError, match=table):
            use_everything(engine, blob)


def test_removing_a_deny_denies_everybody(home: Path, engine: Engine, blob: bytes) -> None:
    with pytest.raises(AccessDenied):
        engine.decrypt(BOB, blob, CONTEXT)
    tamper(home, "DELETE FROM identity_policies")
    with pytest.raises(IntegrityError, match="identity_policies"):
        engine.decrypt(BOB, blob, CONTEXT)


def test_the_error_names_table_and_row(home: Path, engine: Engine, blob: bytes) -> None:
    tamper(home, "UPDATE aliases SET created = 1")
    with pytest.raises(IntegrityError, match="table aliases of the KMS's store: the row alias/pay is not authentic"):
        engine.list_aliases(OWNER)[0]


def test_a_row_that_is_put_back_is_refused(home: Path, engine: Engine, blob: bytes) -> None:
    """The old row is authentic by itself; the table's digest knows that it was replaced."""
    connection = sqlite3.connect(home / DATABASE)
    (old,) = connection.execute("SELECT * FROM keys WHERE manager = 'CUSTOMER'").fetchall()
    engine.put_key_policy(OWNER, pay_key(engine), users_policy(BOB))
    with connection:
        connection.execute(f"INSERT OR REPLACE INTO keys VALUES ({','.join('?' * len(old))})", old)
    connection.close()
    with pytest.raises(IntegrityError, match="table keys"):
        engine.decrypt(ALICE, blob, CONTEXT)


def test_a_whole_table_that_is_put_back_with_its_digest_is_refused(home: Path, engine: Engine, blob: bytes) -> None:
    connection = sqlite3.connect(home / DATABASE)
    query = "SELECT generation, rows, digest FROM sets WHERE name = 'identity_policies'"
    digest = connection.execute(query).fetchone()
    engine.delete_identity_policy(OWNER, BOB.arn, "no")
    engine.put_identity_policy(OWNER, BOB.arn, "no", policy(statement("Deny", None, "kms:Decrypt")))
    with connection:
        update = "UPDATE sets SET generation = ?, rows = ?, digest = ? WHERE name = 'identity_policies'"
        connection.execute(update, digest)
    connection.close()
    with pytest.raises(IntegrityError, match="state"):
        engine.decrypt(ALICE, blob, CONTEXT)


def test_a_running_process_refuses_the_whole_database_of_yesterday(
    home: Path, engine: Engine, blob: bytes, tmp_path: Path
) -> None:
    backup = sqlite3.connect(tmp_path / "backup")
    live = sqlite3.connect(home / DATABASE)
    live.backup(backup)
    engine.put_key_policy(OWNER, pay_key(engine), users_policy(BOB))
    backup.backup(live)
    live.close()
    backup.close()
    with pytest.raises(IntegrityError, match="put back to an older state"):
        engine.decrypt(ALICE, blob, CONTEXT)


def test_a_write_does_not_seal_what_somebody_tampered_with(home: Path, engine: Engine, blob: bytes) -> None:
    engine.create_alias(OWNER, "alias/second", pay_key(engine))
    engine.close()
    tamper(home, "DELETE FROM aliases WHERE name = 'alias/pay'")
    with open_kms(home) as later:
        key_id = later.list_keys(OWNER)[0][0].key_id
        with pytest.raises(IntegrityError, match="aliases"):
            later.create_alias(OWNER, "alias/third", key_id)
        with pytest.raises(IntegrityError, match="aliases"):
            later.list_aliases(OWNER)[0]


def test_what_was_verified_before_is_verified_again_before_a_write(home: Path, engine: Engine, blob: bytes) -> None:
    """Between the look at the state and the transaction."""
    store = engine._store
    (row,) = store.find(ALIASES)
    tamper(home, "DELETE FROM aliases")

    def write() -> None:
        with store.transaction() as transaction:
            transaction.put(ALIASES, AliasRow("alias/new", row.key_id, 1))

    with pytest.raises(IntegrityError, match="aliases"):
        write()


def test_rows_cannot_move_between_tables_or_columns(home: Path, engine: Engine, blob: bytes) -> None:
    """A MAC is over table and columns: the description is no place to prepare a policy in."""
    tamper(home, "UPDATE keys SET description = policy, policy = description WHERE manager = 'CUSTOMER'")
    with pytest.raises(IntegrityError, match="table keys"):
        engine.decrypt(ALICE, blob, CONTEXT)


def test_a_harmless_commit_of_a_stranger_changes_nothing(home: Path, engine: Engine, blob: bytes) -> None:
    tamper(home, "CREATE TABLE strange (x)", "DROP TABLE strange")
    use_everything(engine, blob)


def test_failed_transactions_leave_no_trace(engine: Engine, blob: bytes) -> None:
    before = engine._store.generation
    failing: Callable[[], None] = lambda: engine.create_alias(OWNER, "alias/pay", pay_key(engine))  # noqa: E731
    for _ in range(2):
        with pytest.raises(Exception, match="exists"):
            failing()
    assert engine._store.generation == before
    use_everything(engine, blob)
    assert len(engine.list_aliases(OWNER)[0]) == 1


def test_what_a_second_engine_changes_counts_at_the_next_call(home: Path, engine: Engine, blob: bytes) -> None:
    with open_kms(home) as other:
        engine.decrypt(ALICE, blob, CONTEXT, THROUGH_MOUNT)
        other.put_key_policy(OWNER, pay_key(other), users_policy(BOB))
        with pytest.raises(AccessDenied):
            engine.decrypt(ALICE, blob, CONTEXT, THROUGH_MOUNT)
        other.put_key_policy(OWNER, pay_key(other), users_policy(ALICE))
        engine.decrypt(ALICE, blob, CONTEXT, THROUGH_MOUNT)
