from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from envfs.errors import ConfigError, IntegrityError, Internal
from envfs.kms import sqlite_store
from envfs.kms.schema import ALIASES, KEYS, SEALED_TABLES, SETS, TREE, AliasRow, SetRow, Table, Value
from envfs.kms.sqlite_store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

MAC = bytes(32)
LEAF = 5
ROW = (*AliasRow("alias/a", b"k" * 16, 7), MAC, LEAF)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "kms.db"
    SqliteStore.create(path).close()
    return path


@pytest.fixture
def store(path: Path) -> Generator[SqliteStore, None, None]:
    store = SqliteStore.open(path)
    yield store
    store.close()


def test_a_new_database_is_one_private_file(path: Path, tmp_path: Path) -> None:
    assert [entry.name for entry in tmp_path.iterdir()] == ["kms.db"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_rows_come_back_in_the_order_of_their_keys(store: SqliteStore) -> None:
    with store.writing():
        for name in ("b", "a", "c"):
            store.put(SETS, SetRow(name, 1, 2, b""))
        store.put(SETS, SetRow("b", 3, 4, b"x"))
        store.delete(SETS, ("c",))
    assert store.select(SETS, {}) == [("a", 1, 2, b""), ("b", 3, 4, b"x")]
    assert store.select(SETS, {"generation": 3}) == [("b", 3, 4, b"x")]
    assert store.select(SETS, {"name": "b", "rows": 5}) == []


def test_an_exception_undoes_a_transaction(store: SqliteStore) -> None:
    def fail() -> None:
        with store.writing():
            store.put(ALIASES, ROW)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert store.select(ALIASES, {}) == []


def test_changes_of_another_connection_are_noticed_once(path: Path, store: SqliteStore) -> None:
    other = SqliteStore.open(path)
    assert not store.changed()
    with other.writing():
        other.put(ALIASES, ROW)
    assert store.changed()
    assert not store.changed()
    with store.writing():
        store.delete(ALIASES, ("alias/a",))
    assert not store.changed()
    other.close()


def test_a_reader_sees_one_state(path: Path, store: SqliteStore) -> None:
    other = SqliteStore.open(path)
    with store.reading():
        assert store.select(ALIASES, {}) == []
        with other.writing():
            other.put(ALIASES, ROW)
        assert store.select(ALIASES, {}) == []
    assert store.select(ALIASES, {}) == [ROW]
    other.close()


def test_a_second_writer_waits_and_then_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "BUSY_TIMEOUT", 0.0)
    first, second = SqliteStore.open(path), SqliteStore.open(path)
    with first.writing(), pytest.raises(Internal, match="in use"), second.writing():
        pass
    with second.writing():
        second.put(ALIASES, ROW)
    first.close()
    second.close()


def test_types_are_enforced(store: SqliteStore) -> None:
    with pytest.raises(Internal), store.writing():
        store.put(ALIASES, ("alias/a", "text", 7, 7, MAC, LEAF))


def test_deleted_rows_leave_no_bytes(path: Path, store: SqliteStore) -> None:
    secret = b"wrapped key material of a key that has been deleted"
    with store.writing():
        store.put(ALIASES, ("alias/a", secret, 7, 7, MAC, LEAF))
    with store.writing():
        store.delete(ALIASES, ("alias/a",))
    store.close()  # the last one to close folds the log into the database and removes it
    assert not path.with_name("kms.db-wal").exists()
    assert secret not in path.read_bytes()


def test_no_database(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no KMS"):
        SqliteStore.open(tmp_path / "kms.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"not a database, whatever its name may say" * 40, b"SQLite format 3\0" + b"\xff" * 4096]
)
def test_a_damaged_database(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="is damaged"):
        SqliteStore.open(path)


def test_a_damaged_page(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[4096:] = b"\xff" * (len(raw) - 4096)
    path.write_bytes(raw)
    with pytest.raises(IntegrityError, match="is damaged"):
        SqliteStore.open(path).select(ALIASES, {})


@pytest.mark.parametrize(
    ("table", "where", "index"),
    [
        *((table, "leaf", f"{table.name}_leaf") for table in SEALED_TABLES),
        (KEYS, "manager", "keys_manager"),
        (ALIASES, "name", "PRIMARY KEY"),
        (TREE, "parent", "PRIMARY KEY"),
    ],
)
def test_few_rows_are_read(store: SqliteStore, table: Table[Any], where: str, index: str) -> None:
    """The statements that `select` runs go through an index and need no sorting."""
    plans: list[str] = []

    def explain(statement: str) -> None:
        if statement.startswith("SELECT"):
            plans.extend(row[3] for row in explained.execute(f"EXPLAIN QUERY PLAN {statement}"))

    explained = sqlite3.connect(store._path)
    store._connection.set_trace_callback(explain)
    values: dict[str, dict[str, Value]] = {"parent": {"name": "keys", "parent": 1}, "name": {"name": "alias/a"}}
    store.select(table, values.get(where, {where: "x" if where == "manager" else 1}))
    explained.close()
    (plan,) = plans
    assert plan.startswith(f"SEARCH {table.name} USING")
    assert index in plan


def test_the_index_on_due_is_used(store: SqliteStore) -> None:
    plan = store._execute("EXPLAIN QUERY PLAN SELECT * FROM keys WHERE due BETWEEN 1 AND 2").fetchall()
    assert [row[3] for row in plan] == ["SEARCH keys USING INDEX keys_due (due>? AND due<?)"]
