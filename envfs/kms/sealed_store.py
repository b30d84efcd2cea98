"""Authenticity of the store: who can write the database, but has no root key, can change nothing unnoticed (FORMAT.md
9.2).

Each row has a MAC; each table a tree of digests over the MACs of its rows; one state row a MAC over the digests of all
tables. So a row that was edited, added, deleted, or put back from an older copy is found by whoever looks for it, and
the KMS refuses to work with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from envfs.crypto.kdf import Label, derive
from envfs.crypto.mac import Mac
from envfs.crypto.secret import Secret
from envfs.errors import IntegrityError, UnsupportedVersion
from envfs.kms.digest_tree import HINT
from envfs.kms.schema import (
    KEYS,
    SCHEMA_VERSION,
    SEALED_TABLES,
    SETS,
    STATE,
    KeyRow,
    Row,
    SetRow,
    StateRow,
    Table,
    Value,
)
from envfs.kms.sealed_table import SealedTable
from envfs.kms.store import Store
from envfs.kms.store_verification import problems_of_state, problems_of_table, state_fields

_NOTHING: Final[frozenset[str]] = frozenset()


class SealedStore:
    """Authenticated access to a `Store`. Each read sees the newest state; `poll` tells what became another one."""

    def __init__(self, store: Store, root_key: Secret, store_id: bytes) -> None:
        self._store = store
        self._mac = Mac(derive(root_key, Label.STORE, store_id))
        self._tables = {table.name: SealedTable[Any](store, self._mac, table) for table in SEALED_TABLES}
        self._sets: dict[str, SetRow] = {}
        self._generation = 0
        self._data_version: int | None = None  # of the store, when its state was verified
        self._stale: set[str] = set()  # tables that changed since `poll` last told
        self._is_current = True
        self._writing = False

    @classmethod
    def initialise(
        cls,
        store: Store,
        root_key: Secret,
        store_id: bytes,
        rows: Iterable[tuple[Table[Any], tuple[Value, ...]]] = (),
        generation: int = 0,
    ) -> SealedStore:
        """For a database whose tables have just been made: fills them with `rows` and seals them. To be called within
        `writing`. `generation` is how many transactions there were before.
        """
        sealed = cls(store, root_key, store_id)
        sealed._generation = generation
        for name, empty in sealed._tables.items():
            sealed._sets[name] = empty.seal(generation)
        for table, row in rows:
            sealed._tables[table.name].put(row)
        sealed._seal()
        return sealed

    @property
    def generation(self) -> int:
        """How many transactions the state that is being read has seen."""
        return self._generation

    @property
    def in_transaction(self) -> bool:
        """Whether a `transaction` of our own is under way."""
        return self._writing

    def poll(self) -> frozenset[str]:
        """The names of the tables that changed since the last time, whoever changed them, after verifying the new
        state.
        """
        if not self._writing and (self._store.changed() or not self._is_current):
            self._is_current = False  # stays so if the new state turns out not to be authentic
            with self._store.reading():
                self._refresh()
            self._is_current = True
        elif not self._stale:
            return _NOTHING
        stale = frozenset(self._stale)
        self._stale.clear()
        return stale

    def _refresh(self) -> None:
        """Within a transaction: reads and verifies the state, and notes which tables are not as they were."""
        data_version = self._store.data_version()
        if data_version == self._data_version:
            return  # nobody but ourselves has committed since
        version = self._store.schema_version
        if version != SCHEMA_VERSION:
            raise UnsupportedVersion(
                f"the KMS's store has schema version {version} now, where this process works with {SCHEMA_VERSION}",
                hint="another release of envfs upgraded it: unmount, and mount with that release",
            )
        states = [StateRow._make(row) for row in self._store.select(STATE, {})]
        rows = [SetRow._make(row) for row in self._store.select(SETS, {})]
        rows.sort(key=lambda row: row.name.encode())
        if len(states) != 1 or not self._mac.verify(state_fields(states[0].generation, rows), states[0].mac):
            raise IntegrityError("the state of the KMS's store is not authentic", hint=HINT)
        if states[0].generation < self._generation:
            raise IntegrityError("the KMS's store was put back to an older state", hint=HINT)
        sets = {row.name: row for row in rows}
        if sets.keys() != self._tables.keys():
            raise IntegrityError("the KMS's store has other tables than it should have", hint=HINT)
        if states[0].generation == self._generation:
            # Every transaction of ours, in whatever process, raises the generation. This was none: whatever was read
            # before is read again.
            self._stale.update(sets)
            for table in self._tables.values():
                table.forget()
        for name, row in sets.items():
            if row != self._sets.get(name):
                self._stale.add(name)
                self._tables[name].follow(row)
        self._sets = sets
        self._generation = states[0].generation
        self._data_version = data_version

    @contextmanager
    def _reading(self, table: Table[Row]) -> Iterator[SealedTable[Row]]:
        if self._writing:
            yield self._tables[table.name]
            return
        with self._store.reading():
            self._refresh()
            yield self._tables[table.name]

    def get(self, table: Table[Row], *key: Value) -> Row | None:
        """The row with this primary key. IntegrityError, here and below, if what is read is not authentic and
        complete.
        """
        with self._reading(table) as sealed:
            return sealed.get(key)

    def find(self, table: Table[Row], **where: Value) -> list[Row]:
        """All rows whose columns have these values, in the order of the primary key; all of the table without any.

        Reads few rows if `where` has the columns that group the table's rows, and the whole table otherwise.
        """
        with self._reading(table) as sealed:
            return sealed.find(where)

    def one(self, table: Table[Row], **where: Value) -> Row | None:
        """One of the rows whose columns have these values. Reads the whole table only if there is none."""
        with self._reading(table) as sealed:
            return sealed.one(where)

    def page(self, table: Table[Row], after: tuple[Value, ...] | None, limit: int, **where: Value) -> list[Row]:
        """The first `limit` of these rows whose primary keys come after `after` (None: from the beginning)."""
        with self._reading(table) as sealed:
            return sealed.page(after, limit, where)

    def due_keys(self, now: int) -> list[KeyRow]:
        """The keys that maintenance has to look at by `now` (seconds since 1970), in any order.

        They are authentic, but the index alone says that they are all: a tampered row that it does not name is found
        when the key is used, and by `verify_all`.
        """
        with self._reading(KEYS) as sealed:
            raws = self._store.select_range(KEYS, "due", 1, now)
            rows = [sealed.get(raw[: KEYS.key_length]) for raw in raws]
            return [row for row in rows if row is not None and 0 < row.due <= now]

    def verify_all(self) -> list[str]:
        """Reads the whole database and says what is wrong with it; nothing is, if it is authentic and complete."""
        with self._store.reading():
            states = [StateRow._make(row) for row in self._store.select(STATE, {})]
            sets = sorted(
                (SetRow._make(row) for row in self._store.select(SETS, {})), key=lambda row: row.name.encode()
            )
            found = problems_of_state(self._mac, states, sets, self._generation)
            by_name = {row.name: row for row in sets}
            for name, table in self._tables.items():
                found += problems_of_table(self._store, table, by_name.get(name))
            return found

    def note_erasure(self) -> None:
        """Before key material is deleted: it still stands in the files until `erase`."""
        self._store.note_erasure()

    def erasure_is_due(self) -> bool:
        """Whether any process deleted what may still stand in the files."""
        return self._store.erasure_is_due()

    def erase(self) -> bool:
        """Leaves nothing of what was deleted in the database or its log. False if another process was in the way: then
        it stays due. Takes as long as writing the database anew.
        """
        return self._store.erase()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Changes that happen together or not at all. Reads within see them."""
        before: tuple[dict[str, SetRow], int] | None = None
        try:
            with self._store.writing():
                self._writing = True
                self._refresh()
                before = (dict(self._sets), self._generation)
                yield Transaction(self._tables)
                self._seal()
        except BaseException:
            if before is not None:
                self._roll_back(*before)
            raise
        finally:
            self._writing = False

    def _seal(self) -> None:
        self._generation += 1
        for name, table in self._tables.items():
            if table.is_changed:
                self._sets[name] = table.seal(self._generation)
                self._stale.add(name)
        rows = sorted(self._sets.values(), key=lambda row: row.name.encode())
        tag = self._mac.tag(state_fields(self._generation, rows))
        self._store.put(STATE, StateRow(1, self._generation, tag))

    def _roll_back(self, sets: dict[str, SetRow], generation: int) -> None:
        for name, table in self._tables.items():
            if table.is_changed or self._sets[name] != sets[name]:
                table.roll_back(sets[name])
                self._stale.add(name)  # what was read within the transaction never was
        self._sets, self._generation = sets, generation


class Transaction:
    """The writing side of a `SealedStore`, within `SealedStore.transaction`."""

    def __init__(self, tables: Mapping[str, SealedTable[Any]]) -> None:
        self._tables = tables

    def put(self, table: Table[Row], row: Row) -> None:
        """Adds `row`, or replaces the one with the same primary key."""
        self._tables[table.name].put(row)

    def delete(self, table: Table[Any], *key: Value) -> None:
        """Removes the row with this primary key, if there is one."""
        self._tables[table.name].delete(key)
