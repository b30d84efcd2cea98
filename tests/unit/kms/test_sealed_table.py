"""Reading few rows proves as much about them as reading all would, whatever was done to the database file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from envfs.errors import IntegrityError, Internal
from envfs.kms.digest_tree import leaf_number
from envfs.kms.schema import (
    ALIASES,
    BACKING_KEYS,
    GRANTS,
    IDENTITY_POLICIES,
    KEYS,
    PINS,
    SEALED_TABLES,
    IdentityPolicyRow,
    PinRow,
)
from envfs.kms.sqlite_store import SqliteStore
from tests.unit.kms.stores import alias, backing_key, create, edit, grant, insert, key, key_id, opened, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from typing import Any

    from envfs.kms.schema import Table, Value
    from envfs.kms.sealed_store import SealedStore

    Look = Callable[[SealedStore], Any]

COUNT = 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Keys 0 to 39, each with a backing key, an alias and two grants, and two identity policies."""
    path = tmp_path / "kms.db"
    create(path)
    with opened(path) as store, store.transaction() as transaction:
        for number in range(COUNT):
            transaction.put(KEYS, key(number))
            transaction.put(BACKING_KEYS, backing_key(number, number))
            transaction.put(ALIASES, alias(f"{number:02}", number))
            transaction.put(GRANTS, grant(f"first {number}", number))
            transaction.put(GRANTS, grant(f"second {number}", number, retiring="bob"))
        transaction.put(IDENTITY_POLICIES, IdentityPolicyRow("alice", "allow", "{}", 1))
        transaction.put(IDENTITY_POLICIES, IdentityPolicyRow("alice", "deny", "{}", 1))
        transaction.put(PINS, PinRow(1001, "alice", 1))
    return path


@pytest.fixture
def store(path: Path) -> Iterator[SealedStore]:
    with opened(path) as store:
        yield store


def refused(path: Path, running: SealedStore, *looks: Look) -> None:
    """A process that had looked before, and one that opens only now, refuse each look; and `verify_all` knows why."""
    for look in looks:
        with pytest.raises(IntegrityError):
            look(running)
        with opened(path) as later, pytest.raises(IntegrityError):
            look(later)
    with opened(path) as later:
        assert later.verify_all()


def put(table: Any, row: Any) -> Look:
    def change(store: SealedStore) -> None:
        with store.transaction() as transaction:
            transaction.put(table, row)

    return change


def delete(table: Any, *primary_key: Any) -> Look:
    def change(store: SealedStore) -> None:
        with store.transaction() as transaction:
            transaction.delete(table, *primary_key)

    return change


def look_at_everything(store: SealedStore) -> None:
    tables: tuple[Table[Any], ...] = SEALED_TABLES
    for table in tables:
        store.find(table)
    for number in range(COUNT):
        store.find(GRANTS, key_id=key_id(number))


# What stands in the way of an attacker


@pytest.mark.parametrize("by", [1, -1, 64, 4096])
def test_a_row_in_another_leaf(path: Path, store: SealedStore, by: int) -> None:
    look_at_everything(store)
    edit(path, f"UPDATE grants SET leaf = leaf + {by} WHERE grant_id = 'first 7'")
    refused(
        path,
        store,
        lambda s: s.get(GRANTS, "first 7"),
        lambda s: s.find(GRANTS, key_id=key_id(7)),
        lambda s: s.find(GRANTS, grant_id="first 7", key_id=key_id(7)),
        lambda s: s.find(GRANTS),
        lambda s: s.one(GRANTS, grant_id="first 7"),
        put(GRANTS, grant("third 7", 7)),
        delete(GRANTS, "first 7"),
    )


@pytest.mark.parametrize("by", [0, 1])
def test_a_revoked_grant_that_is_put_back(path: Path, store: SealedStore, by: int) -> None:
    """Its MAC is right; in its own leaf it is one row too many, in another it is in the wrong place."""
    look_at_everything(store)
    rows = rows_of(path, "SELECT * FROM grants WHERE grant_id = 'first 7'")
    delete(GRANTS, "first 7")(store)
    assert store.get(GRANTS, "first 7") is None
    insert(path, "grants", [(*rows[0][:-1], rows[0][-1] + by)])  # type: ignore[operator]
    refused(path, store, lambda s: s.get(GRANTS, "first 7"), lambda s: s.find(GRANTS))
    if by == 0:
        refused(path, store, lambda s: s.find(GRANTS, key_id=key_id(7)))
    else:
        assert [row.grant_id for row in store.find(GRANTS, key_id=key_id(7))] == ["second 7"]


def test_a_revoked_grant_that_is_put_back_with_the_digests_of_its_leaf_and_node(path: Path, store: SealedStore) -> None:
    look_at_everything(store)
    rows = rows_of(path, "SELECT * FROM grants")
    tree = rows_of(path, "SELECT * FROM tree WHERE name = 'grants'")
    delete(GRANTS, "first 7")(store)
    insert(path, "grants", rows)
    insert(path, "tree", tree)
    refused(path, store, lambda s: s.get(GRANTS, "first 7"), lambda s: s.find(GRANTS, key_id=key_id(7)))


def test_a_table_that_is_put_back_with_all_its_digests(path: Path, store: SealedStore) -> None:
    look_at_everything(store)
    tables = ("grants", "tree", "sets")
    before = {name: rows_of(path, f"SELECT * FROM {name}") for name in tables}
    delete(GRANTS, "first 7")(store)
    for name, rows in before.items():
        insert(path, name, rows)
    refused(path, store, lambda s: s.get(GRANTS, "first 7"), lambda s: s.find(KEYS, key_id=key_id(1)))


def test_a_deny_that_is_given_to_somebody_else(path: Path, store: SealedStore) -> None:
    """The table has as many MACs as before, and each is the old one: the row's place is what shows it."""
    look_at_everything(store)
    edit(path, "UPDATE identity_policies SET principal = 'nobody' WHERE name = 'deny'")
    refused(
        path,
        store,
        lambda s: s.find(IDENTITY_POLICIES, principal="alice"),
        lambda s: s.get(IDENTITY_POLICIES, "alice", "deny"),
        lambda s: s.get(IDENTITY_POLICIES, "alice", "none"),
    )


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM tree WHERE name = 'grants' AND parent >= 0",
        "DELETE FROM tree WHERE name = 'grants' AND parent = -1",
        "UPDATE tree SET digest = zeroblob(32) WHERE name = 'grants' AND parent = -1",
        "UPDATE tree SET digest = zeroblob(32) WHERE name = 'grants' AND parent >= 0",
        "UPDATE tree SET number = -number WHERE name = 'grants' AND parent = -1",
        "UPDATE tree SET name = 'tags' WHERE name = 'grants'",
    ],
)
def test_the_tree_is_no_place_to_lie_in(path: Path, statement: str) -> None:
    edit(path, statement)
    for number in range(COUNT):
        with opened(path) as later, pytest.raises(IntegrityError):
            later.find(GRANTS, key_id=key_id(number))
    with opened(path) as later:
        assert any("digest tree" in problem or "rows were added" in problem for problem in later.verify_all())
        with pytest.raises(IntegrityError):
            put(GRANTS, grant("third 7", 7))(later)


def test_digests_for_leaves_that_are_empty_vouch_for_nothing(path: Path) -> None:
    number = next(n for n in range(4096) if not rows_of(path, f"SELECT 1 FROM tree WHERE parent >= 0 AND number = {n}"))
    insert(path, "tree", [("grants", number // 64, number, bytes(32))])
    node = {leaf_number("grants", (key_id(n),)) // 64 for n in range(COUNT)}
    with opened(path) as later:
        assert later.verify_all()
        if number // 64 in node:
            with pytest.raises(IntegrityError):
                later.find(GRANTS)


@pytest.mark.parametrize(
    "look",
    [
        lambda s: s.get(ALIASES, "alias/07"),
        lambda s: s.find(ALIASES, key_id=key_id(7)),
        put(ALIASES, alias("07", 8)),
        put(ALIASES, alias("07", 7)),
        delete(ALIASES, "alias/07"),
    ],
)
def test_a_row_cannot_be_hidden_from_what_changes_it(path: Path, store: SealedStore, look: Look) -> None:
    """Or it could be shown again afterwards, beside the one that took its place."""
    look_at_everything(store)
    edit(path, "UPDATE aliases SET name = 'alias/hidden' WHERE name = 'alias/07'")
    refused(path, store, look)


def test_a_row_that_is_hidden_while_an_alias_moves_cannot_come_back(path: Path, store: SealedStore) -> None:
    old = rows_of(path, "SELECT * FROM aliases WHERE name = 'alias/07'")
    put(ALIASES, alias("07", 8))(store)
    assert store.get(ALIASES, "alias/07") == alias("07", 8)
    assert store.find(ALIASES, key_id=key_id(7)) == []
    insert(path, "aliases", old)
    refused(path, store, lambda s: s.get(ALIASES, "alias/07"), lambda s: s.find(ALIASES, key_id=key_id(7)))


def test_two_rows_with_one_primary_key(path: Path, store: SealedStore) -> None:
    look_at_everything(store)
    old = rows_of(path, "SELECT * FROM aliases WHERE name = 'alias/07'")
    put(ALIASES, alias("07", 8))(store)
    edit(
        path,
        "CREATE TABLE copy AS SELECT * FROM aliases",
        "DROP TABLE aliases",
        "ALTER TABLE copy RENAME TO aliases",
    )
    with opened(path) as later:
        assert later.verify_all() == []  # so far it is the same table
    insert(path, "aliases", old)
    refused(path, store, lambda s: s.find(ALIASES), lambda s: s.find(ALIASES, key_id=key_id(7)))
    with opened(path) as later:
        assert later.get(ALIASES, "alias/08") == alias("08", 8)  # what is whole stays usable


def test_an_index_that_leaves_rows_out(path: Path, store: SealedStore) -> None:
    """Its root is that of the index of an empty table."""
    look_at_everything(store)
    edit(
        path,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'tags_leaf')"
        " WHERE name IN ('grants_leaf', 'keys_manager')",
    )
    with opened(path) as later:
        with pytest.raises(IntegrityError):
            later.find(GRANTS, key_id=key_id(7))
        with pytest.raises(IntegrityError):
            put(GRANTS, grant("third 7", 7))(later)
        found = later.one(KEYS, manager="CUSTOMER")
        assert found is not None


def test_values_of_other_types(path: Path, store: SealedStore) -> None:
    edit(
        path,
        "CREATE TABLE copy AS SELECT * FROM aliases",
        "DROP TABLE aliases",
        "ALTER TABLE copy RENAME TO aliases",
        "UPDATE aliases SET mac = NULL WHERE name = 'alias/07'",
    )
    refused(path, store, lambda s: s.find(ALIASES), lambda s: s.find(ALIASES, key_id=key_id(7)))
    with opened(path) as later:
        assert later.get(KEYS, key_id(7)) == key(7)


def test_a_row_count_that_is_wrong_is_a_problem(path: Path) -> None:
    edit(path, "UPDATE sets SET rows = 1 WHERE name = 'grants'")
    with opened(path) as store:
        problems = store.verify_all()
    assert "the state of the KMS's store is not authentic" in problems
    assert "table grants of the KMS's store: there are 80 rows instead of 1" in problems


def test_verify_all_goes_on_after_the_first_problem(path: Path) -> None:
    edit(
        path,
        "UPDATE keys SET state = 'Disabled' WHERE key_id = zeroblob(16)",
        "DELETE FROM aliases WHERE name = 'alias/07'",
        "UPDATE grants SET grantee = 'mallory' WHERE grant_id IN ('first 1', 'first 2')",
        "DELETE FROM sets WHERE name = 'tags'",
    )
    with opened(path) as store:
        problems = store.verify_all()
    leaf = leaf_number("aliases", (key_id(7),))
    expected = {
        "the state of the KMS's store is not authentic",
        f"table keys of the KMS's store: the row {'00' * 16} is not authentic",
        f"table aliases of the KMS's store: rows were added, removed or put back (leaf {leaf})",
        "table aliases of the KMS's store: there are 39 rows instead of 40",
        "table grants of the KMS's store: the row first 1 is not authentic",
        "table grants of the KMS's store: the row first 2 is not authentic",
        "table tags of the KMS's store: its digest tree is not authentic",
    }
    assert set(problems) == expected


# What is so without an attacker


def test_what_is_looked_up_is_there(store: SealedStore) -> None:
    assert store.get(KEYS, key_id(7)) == key(7)
    assert store.get(BACKING_KEYS, b"backing 7") == backing_key(7, 7)
    assert store.get(ALIASES, "alias/07") == alias("07", 7)
    assert store.find(GRANTS, key_id=key_id(7)) == [grant("first 7", 7), grant("second 7", 7, "bob")]
    assert store.find(GRANTS, key_id=key_id(7), retiring="bob") == [grant("second 7", 7, "bob")]
    assert len(store.find(GRANTS, retiring="bob")) == COUNT
    assert store.one(PINS, name="alice") == PinRow(1001, "alice", 1)
    assert store.verify_all() == []


def test_what_is_not_there_is_not_found(store: SealedStore) -> None:
    for _ in range(2):
        assert store.get(KEYS, b"k" * 16) is None
        assert store.get(BACKING_KEYS, b"backing 1000") is None
        assert store.get(ALIASES, "alias/none") is None
        assert store.find(GRANTS, key_id=b"k" * 16) == []
        assert store.find(GRANTS, retiring="nobody") == []
        assert store.one(PINS, name="bob") is None


def test_what_another_process_adds_and_removes_counts_at_once(path: Path, store: SealedStore) -> None:
    look_at_everything(store)
    with opened(path) as other:
        for _ in range(3):
            assert store.get(ALIASES, "alias/new") is None
            put(ALIASES, alias("new", 7))(other)
            assert store.get(ALIASES, "alias/new") == alias("new", 7)
            put(ALIASES, alias("new", 8))(store)
            assert other.get(ALIASES, "alias/new") == alias("new", 8)
            assert other.find(ALIASES, key_id=key_id(7)) == [alias("07", 7)]
            delete(ALIASES, "alias/new")(other)
            assert store.find(ALIASES, key_id=key_id(8)) == [alias("08", 8)]
    assert store.verify_all() == []


def test_pages_are_what_find_finds(path: Path, store: SealedStore) -> None:
    for where in ({}, {"retiring": "bob"}, {"key_id": key_id(7)}):
        after, found = None, []
        while rows := store.page(GRANTS, after, 7, **where):
            assert len(rows) <= 7
            found += rows
            after = (rows[-1].grant_id,)
        assert found == store.find(GRANTS, **where)
    assert store.page(KEYS, None, 3) == [key(0), key(1), key(2)]
    with opened(path) as other:
        delete(KEYS, key_id(4))(other)
    assert store.page(KEYS, (key_id(2),), 2) == [key(3), key(5)]
    assert store.page(KEYS, (key_id(39),), 2) == []


def test_a_page_is_complete(path: Path, store: SealedStore) -> None:
    store.page(KEYS, None, 3)
    edit(path, "DELETE FROM keys WHERE key_id = (SELECT max(key_id) FROM keys)")
    refused(path, store, lambda s: s.page(KEYS, None, 3))


def test_keys_that_are_due(path: Path, store: SealedStore) -> None:
    with store.transaction() as transaction:
        for number, due in ((1, 10), (2, 20), (3, 30)):
            transaction.put(KEYS, key(number, due=due))
    assert {row.key_id for row in store.due_keys(20)} == {key_id(1), key_id(2)}
    assert store.due_keys(9) == []
    edit(path, f"UPDATE keys SET due = 5 WHERE key_id = x'{key_id(3).hex()}'")
    refused(path, store, lambda s: s.due_keys(9))


def test_changes_are_seen_within_their_transaction_and_undone_with_it(store: SealedStore) -> None:
    look_at_everything(store)

    def fail() -> None:
        with store.transaction() as transaction:
            transaction.put(ALIASES, alias("new", 7))
            transaction.delete(ALIASES, "alias/07")
            assert store.find(ALIASES, key_id=key_id(7)) == [alias("new", 7)]
            assert store.get(ALIASES, "alias/07") is None
            assert len(store.find(ALIASES)) == COUNT
            transaction.delete(GRANTS, "first 7")
            transaction.delete(GRANTS, "second 7")
            assert store.find(GRANTS, key_id=key_id(7)) == []
            assert store.page(ALIASES, ("alias/39",), 5) == [alias("new", 7)]
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert store.find(ALIASES, key_id=key_id(7)) == [alias("07", 7)]
    assert store.get(ALIASES, "alias/new") is None
    assert len(store.find(GRANTS, key_id=key_id(7))) == 2
    assert store.verify_all() == []


def test_a_table_can_become_empty_and_fill_again(store: SealedStore) -> None:
    for _ in range(2):
        with store.transaction() as transaction:
            for row in store.find(GRANTS):
                transaction.delete(GRANTS, row.grant_id)
            transaction.delete(GRANTS, "never was")
        assert store.find(GRANTS) == []
        assert store.verify_all() == []
        put(GRANTS, grant("a", 7))(store)
        assert store.find(GRANTS, key_id=key_id(7)) == [grant("a", 7)]


def test_rows_of_one_leaf_that_go_together_are_read_once(
    path: Path, store: SealedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a key with many grants could not be deleted: the time would grow with the square of their number."""
    leaves: list[object] = []
    select = SqliteStore.select

    def counting(self: SqliteStore, table: Table[Any], where: Mapping[str, Value]) -> list[tuple[Value, ...]]:
        if table is GRANTS and "leaf" in where:
            leaves.append(where["leaf"])
        return select(self, table, where)

    with store.transaction() as transaction:
        for number in range(200):
            transaction.put(GRANTS, grant(f"further {number}", 7))
    monkeypatch.setattr(SqliteStore, "select", counting)
    with store.transaction() as transaction:
        for number in range(200):
            transaction.delete(GRANTS, f"further {number}")
            transaction.delete(GRANTS, f"further {number}")
    assert len(leaves) < 10
    monkeypatch.undo()
    assert len(store.find(GRANTS, key_id=key_id(7))) == 2
    assert store.verify_all() == []


def test_a_second_row_with_a_unique_value_does_not_push_the_first_out(store: SealedStore) -> None:
    with pytest.raises(Internal, match="UNIQUE"):
        put(PINS, PinRow(1002, "alice", 1))(store)
    assert store.find(PINS) == [PinRow(1001, "alice", 1)]


def test_a_grant_stays_with_its_key(store: SealedStore) -> None:
    with pytest.raises(IntegrityError, match="first 7"):
        put(GRANTS, grant("first 7", 8))(store)
    assert store.get(GRANTS, "first 7") == grant("first 7", 7)


def test_what_is_erased_stands_in_no_file(path: Path, store: SealedStore) -> None:
    wal = path.with_name("kms.db-wal")
    put(KEYS, key(7, description="secret of yesterday"))(store)
    assert not store.erasure_is_due()
    store.note_erasure()
    put(KEYS, key(7))(store)
    assert b"secret of yesterday" in wal.read_bytes()
    with opened(path) as other, other._store.reading():
        other._store.select(KEYS, {})
        assert other.erasure_is_due()
        assert store.erase() is False
        assert store.erasure_is_due()
    store.note_erasure()
    assert store.erase() is True
    assert not store.erasure_is_due()
    assert wal.read_bytes() == b""
    assert b"secret of yesterday" not in path.read_bytes()
    assert store.verify_all() == []
    assert sorted(one.name for one in path.parent.glob("kms.db*")) == ["kms.db", "kms.db-shm", "kms.db-wal"]
