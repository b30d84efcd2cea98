"""The way from one schema to the next, tried with a version 2 that this test invents."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from envfs.crypto.secret import Secret
from envfs.errors import IntegrityError, UnsupportedVersion
from envfs.kms.migrations import Change, Migration, open_sealed
from envfs.kms.schema import ALIASES, PINS, SEALED_TABLES, AliasRow, PinRow, Table
from envfs.kms.sealed_store import SealedStore
from envfs.kms.sqlite_store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

STORE_ID = b"s" * 16


class WiderAliasRow(NamedTuple):
    name: str
    key_id: bytes
    created: int
    updated: int


class TagRow(NamedTuple):
    name: str


WIDER_ALIASES = Table("aliases", WiderAliasRow._make, (*ALIASES.columns, ("updated", "INTEGER")))
TAGS = Table("tags", TagRow._make, (("name", "TEXT"),))
TABLES_2 = (*(table for table in SEALED_TABLES if table not in {ALIASES, PINS}), WIDER_ALIASES, TAGS)
TO_2 = Migration(
    SEALED_TABLES,
    (
        Change(ALIASES, WIDER_ALIASES, lambda row: WiderAliasRow(row.name, row.key_id, row.created, row.created)),
        Change(PINS, None),
        Change(None, TAGS),
    ),
)


@pytest.fixture
def root_key() -> Secret:
    return Secret.random()


@pytest.fixture
def path(tmp_path: Path, root_key: Secret) -> Path:
    """A database of version 1 with an alias and a pin."""
    path = tmp_path / "kms.db"
    store = SqliteStore.create(path)
    with store.writing():
        sealed = SealedStore.initialise(store, root_key, STORE_ID)
    with sealed.transaction() as transaction:
        transaction.put(ALIASES, AliasRow("alias/a", b"k" * 16, 7))
        transaction.put(PINS, PinRow(1001, "alice", 7))
    store.close()
    return path


@pytest.fixture
def store(path: Path) -> Generator[SqliteStore, None, None]:
    store = SqliteStore.open(path)
    yield store
    store.close()


def migrate(store: SqliteStore, root_key: Secret, migration: Migration = TO_2) -> SealedStore:
    return open_sealed(store, root_key, STORE_ID, migrations={1: migration}, target=2, tables=TABLES_2)


def test_rows_are_converted_and_sealed_anew(store: SqliteStore, root_key: Secret) -> None:
    sealed = migrate(store, root_key)
    assert store.schema_version == 2
    assert sealed.find(WIDER_ALIASES) == [WiderAliasRow("alias/a", b"k" * 16, 7, 7)]
    assert sealed.find(TAGS) == []
    with sealed.transaction() as transaction:
        transaction.put(TAGS, TagRow("t"))
    assert migrate(store, root_key).find(TAGS) == [TagRow("t")]


def test_a_store_that_is_current_is_left_alone(store: SqliteStore, root_key: Secret) -> None:
    before = open_sealed(store, root_key, STORE_ID)
    assert before.find(ALIASES)
    assert store.schema_version == 1


def test_a_failure_in_the_middle_leaves_the_old_schema(store: SqliteStore, root_key: Secret) -> None:
    def fail(row: object) -> object:
        raise RuntimeError("pulled plug")

    broken = Migration(SEALED_TABLES, (Change(PINS, None), Change(ALIASES, WIDER_ALIASES, fail)))
    with pytest.raises(RuntimeError, match="pulled plug"):
        migrate(store, root_key, broken)
    assert store.schema_version == 1
    old = open_sealed(store, root_key, STORE_ID)
    assert old.find(PINS) == [PinRow(1001, "alice", 7)]
    assert old.find(ALIASES) == [AliasRow("alias/a", b"k" * 16, 7)]


def test_what_was_tampered_with_is_not_converted(store: SqliteStore, root_key: Secret) -> None:
    store._execute("UPDATE aliases SET created = 8")
    with pytest.raises(IntegrityError, match="aliases"):
        migrate(store, root_key)
    assert store.schema_version == 1


def test_a_process_of_the_old_release_stops(path: Path, store: SqliteStore, root_key: Secret) -> None:
    old = open_sealed(store, root_key, STORE_ID)
    old.find(ALIASES)
    newer = SqliteStore.open(path)
    migrate(newer, root_key)
    newer.close()
    for _ in range(2):
        with pytest.raises(UnsupportedVersion, match="schema version 2 now"):
            old.poll()


def test_a_version_from_nowhere_is_refused(store: SqliteStore, root_key: Secret) -> None:
    with store.writing():
        store.set_schema_version(0)
    with pytest.raises(IntegrityError, match="which never was"):
        migrate(store, root_key)
