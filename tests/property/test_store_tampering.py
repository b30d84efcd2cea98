"""Whatever somebody without the root key does to the database: each read is refused, or as right as before."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from envfs.errors import IntegrityError, Internal
from envfs.kms.schema import ALIASES, GRANTS, KEYS, PINS, PinRow
from envfs.kms.sealed_store import SealedStore
from tests.unit.kms.stores import alias, create, grant, key, key_id, opened

NAMES = "abcdef"
TABLES = ("keys", "aliases", "grants", "pins", "tree", "sets", "state")

Edit: TypeAlias = tuple[str, str, int, int, int]
#: What is done, to which table, and up to three places in it; see `apply`.
EDITS = st.tuples(
    st.sampled_from(["delete", "copy a value", "put back a row", "put back all rows", "remove what is new", "add"]),
    st.sampled_from(TABLES),
    *[st.integers(0, 30)] * 3,
)


def fill(store: SealedStore) -> None:
    with store.transaction() as transaction:
        for number, name in enumerate(NAMES):
            transaction.put(KEYS, key(number))
            transaction.put(ALIASES, alias(name, number % 3))
            transaction.put(GRANTS, grant(name, number % 4, "bob"))
            transaction.put(PINS, PinRow(number, name, 1))


def change(store: SealedStore) -> None:
    with store.transaction() as transaction:
        transaction.put(KEYS, key(2, description="new"))
        transaction.put(ALIASES, alias("a", 5))
        transaction.delete(ALIASES, "alias/b")
        transaction.put(ALIASES, alias("z", 1))
        transaction.delete(GRANTS, "c")
        transaction.put(GRANTS, grant("z", 1))
        transaction.delete(PINS, 1)


def contents(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(path)) as database:
        return {table: database.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}


def apply(database: sqlite3.Connection, edit: Edit, old: dict[str, list[tuple[Any, ...]]]) -> None:
    what, table, first, second, third = edit
    rows = database.execute(f"SELECT * FROM {table}").fetchall()
    marks = ", ".join("?" * len(old[table][0]))
    put = f"INSERT OR REPLACE INTO {table} VALUES ({marks})"
    names = [column[1] for column in database.execute(f"PRAGMA table_info({table})")]
    where = " AND ".join(f"{name} = ?" for name in names)
    if what == "put back all rows":
        database.execute(f"DELETE FROM {table}")
        database.executemany(put, old[table])
    elif what == "put back a row":
        database.execute(put, old[table][first % len(old[table])])
    elif what == "remove what is new":
        for row in set(rows) - set(old[table]):
            database.execute(f"DELETE FROM {table} WHERE {where}", row)
    elif rows and what == "delete":
        database.execute(f"DELETE FROM {table} WHERE {where}", rows[first % len(rows)])
    elif rows:
        changed = list(rows[first % len(rows)])
        column = third % len(names)
        changed[column] = rows[second % len(rows)][column]
        if isinstance(changed[column], int) and second % 2:
            changed[column] += second
        if what == "copy a value":
            database.execute(f"DELETE FROM {table} WHERE {where}", rows[first % len(rows)])
        database.execute(put, changed)


READS: list[Callable[[SealedStore], Any]] = [
    lambda s: s.find(KEYS),
    lambda s: s.find(ALIASES),
    lambda s: s.find(GRANTS, retiring="bob"),
    lambda s: s.one(PINS, name="b"),
    lambda s: s.one(PINS, name="c"),
    lambda s: s.page(ALIASES, ("alias/a",), 3),
    lambda s: s.page(GRANTS, None, 3),
    *((lambda s, n=name: s.get(ALIASES, f"alias/{n}")) for name in [*NAMES, "z"]),
    *((lambda s, n=name: s.get(GRANTS, n)) for name in [*NAMES, "z"]),
    *((lambda s, n=number: s.get(KEYS, key_id(n))) for number in range(7)),
    *((lambda s, n=number: s.find(ALIASES, key_id=key_id(n))) for number in range(6)),
    *((lambda s, n=number: s.find(GRANTS, key_id=key_id(n))) for number in range(6)),
]


@settings(deadline=None, max_examples=60)
@given(edits=st.lists(EDITS, min_size=1, max_size=5), order=st.permutations(range(len(READS))))
def test_reads_are_right_or_refused(edits: list[Edit], order: list[int]) -> None:
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        path = Path(directory) / "kms.db"
        create(path)
        running = stack.enter_context(opened(path))
        fill(running)
        old = contents(path)
        change(running)
        new = contents(path)
        truth = [read(running) for read in READS]
        with closing(sqlite3.connect(path)) as database:
            for edit in edits:
                try:
                    with database:
                        apply(database, edit, old)
                except sqlite3.IntegrityError:
                    pass  # the database itself did not allow it
        fresh = stack.enter_context(opened(path))
        edited = contents(path)
        if edited["state"] == old["state"]:
            # A database that is old as a whole is authentic, as far as a process can say that saw no newer one.
            return
        for store in (running, fresh):
            for number in order:
                try:
                    found = READS[number](store)
                except IntegrityError:
                    continue
                assert found == truth[number]
        tables = [name for name in TABLES if sorted(map(repr, edited[name])) != sorted(map(repr, new[name]))]
        assert bool(fresh.verify_all()) == bool(tables)
        try:
            with fresh.transaction() as transaction:
                transaction.put(ALIASES, alias("a", 4))
                transaction.delete(GRANTS, "d")
        except (IntegrityError, Internal):
            return
        # A change that went through touched only what was right, and vouches for nothing else.
        assert bool(fresh.verify_all()) == bool(tables)
        for look, wanted in ((ALIASES, "alias/a"), alias("a", 4)), ((GRANTS, "d"), None):
            try:
                assert fresh.get(*look) == wanted
            except IntegrityError:
                assert tables
