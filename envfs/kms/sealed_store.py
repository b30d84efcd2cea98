"""Authenticity of the store: who can write the database, but has no root key, can change nothing unnoticed (FORMAT.md
9.2).

Each row has a MAC; each table a digest over the MACs of its rows; one state row a MAC over all digests. So a row that
was edited, added, deleted, or put back from an older copy is found, and the KMS refuses to work with that table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NoReturn

from envfs.crypto.kdf import Label, derive
from envfs.crypto.mac import Mac
from envfs.crypto.secret import Secret
from envfs.errors import IntegrityError, UnsupportedVersion
from envfs.kms.schema import (
    SCHEMA_VERSION,
    SEALED_TABLES,
    SETS,
    STATE,
    Row,
    SetRow,
    StateRow,
    Table,
    Value,
    encode_fields,
)
from envfs.kms.store import Store

_NOTHING: Final[frozenset[str]] = frozenset()
_HINT: Final = "somebody changed the database by hand, or it is damaged: restore the KMS from a backup"


class SealedStore:
    """Authenticated access to a `Store`. Reads are served from one verified state at a time; `refresh` moves on to the
    next.
    """

    def __init__(
        self,
        store: Store,
        root_key: Secret,
        store_id: bytes,
        tables: Sequence[Table[Any]] = SEALED_TABLES,
        version: int = SCHEMA_VERSION,
    ) -> None:
        self._store = store
        self._tables = {table.name: table for table in tables}
        self._version = version
        self._mac = Mac(derive(root_key, Label.STORE, store_id))
        self._sets: dict[str, SetRow] = {}
        self._verified: dict[str, int] = {}  # table → generation whose digest was found right
        self._generation = 0
        self._stale: set[str] = set()  # tables that changed since `poll` last told
        self._is_current = True
        self._writing = False
        self._changed: set[str] = set()  # by our own transaction that is under way

    @classmethod
    def initialise(cls, store: Store, root_key: Secret, store_id: bytes) -> SealedStore:
        """For a database that has just been made: seals its empty tables. To be called within `writing`."""
        sealed = cls(store, root_key, store_id)
        empty = hashlib.sha256().digest()
        for table in SEALED_TABLES:
            sealed._sets[table.name] = SetRow(table.name, 0, 0, empty)
            store.put(SETS, sealed._sets[table.name])
        sealed._seal_state()
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
            # Whoever wrote, a stranger perhaps: every table's digest has to be looked at again before it is used.
            self._verified.clear()
            before = self._generation
            with self._store.reading():
                self._refresh()
            if self._generation == before:
                # Each of our own transactions raises the generation. This was none: whatever was read before is read
                # again.
                self._stale.update(self._sets)
            self._is_current = True
        elif not self._stale:
            return _NOTHING
        stale = frozenset(self._stale)
        self._stale.clear()
        return stale

    def _refresh(self) -> None:
        """Within a transaction: reads and verifies the state, and notes which tables are not as they were."""
        version = self._store.schema_version
        if version != self._version:
            raise UnsupportedVersion(
                f"the KMS's store has schema version {version} now, where this process works with {self._version}",
                hint="another release of envfs upgraded it: unmount, and mount with that release",
            )
        states = [StateRow._make(row) for row in self._store.select(STATE, {})]
        rows = [SetRow._make(row) for row in self._store.select(SETS, {})]
        rows.sort(key=lambda row: row.name.encode())
        if len(states) != 1 or not self._mac.verify(_state_fields(states[0].generation, rows), states[0].mac):
            raise IntegrityError("the state of the KMS's store is not authentic", hint=_HINT)
        if states[0].generation < self._generation:
            raise IntegrityError("the KMS's store was put back to an older state", hint=_HINT)
        sets = {row.name: row for row in rows}
        if sets.keys() != self._tables.keys():
            raise IntegrityError("the KMS's store has other tables than it should have", hint=_HINT)
        self._stale.update(name for name, row in sets.items() if row != self._sets.get(name))
        self._sets = sets
        self._generation = states[0].generation

    def get(self, table: Table[Row], *key: Value) -> Row | None:
        """The row with this primary key."""
        rows = self.find(table, **dict(zip(table.key_columns, key, strict=True)))
        return rows[0] if rows else None

    def find(self, table: Table[Row], **where: Value) -> list[Row]:
        """The rows whose columns have these values; all of them without any. IntegrityError if one is not authentic."""
        if self._writing:
            return self._find(table, where)
        with self._store.reading():
            self._refresh()
            return self._find(table, where)

    def _find(self, table: Table[Row], where: dict[str, Value]) -> list[Row]:
        self._verify_table(table)
        return [self._open_row(table, raw) for raw in self._store.select(table, where)]

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Changes that happen together or not at all. Reads within see them."""
        before = (dict(self._sets), dict(self._verified), self._generation)
        try:
            with self._store.writing():
                self._writing = True
                self._refresh()
                yield Transaction(self)
                self._seal_changes()
        except BaseException:
            self._sets, self._verified, self._generation = before
            raise
        finally:
            self._writing = False
            self._stale |= self._changed
            self._changed = set()

    def _put(self, table: Table[Row], row: Row) -> None:
        self._touch(table)
        self._store.put(table, (*row, self._mac.tag(_row_fields(table, row))))

    def _delete(self, table: Table[Any], key: tuple[Value, ...]) -> None:
        self._touch(table)
        self._store.delete(table, key)

    def _rebuild(self, before: Table[Any] | None, after: Table[Any] | None, convert: Callable[[Any], Any]) -> None:
        rows = [] if before is None else [convert(row) for row in self._find(before, {})]
        if before is not None:
            self._store.drop_table(before)
            self._store.delete(SETS, (before.name,))
            del self._tables[before.name], self._sets[before.name]
        if after is not None:
            self._store.create_table(after)
            self._tables[after.name] = after
            self._changed.add(after.name)
            for row in rows:
                self._put(after, row)

    def _touch(self, table: Table[Any]) -> None:
        # Before the first change: a table that somebody tampered with must not get a fresh seal.
        if table.name not in self._changed:
            self._verified.pop(table.name, None)
            self._verify_table(table)
            self._changed.add(table.name)

    def _seal_changes(self) -> None:
        for name in self._changed:
            macs = self._store.macs(self._tables[name])
            row = SetRow(name, self._generation + 1, len(macs), _digest(macs))
            self._store.put(SETS, row)
            self._sets[name] = row
            self._verified[name] = row.generation
        self._seal_state()

    def _seal_state(self) -> None:
        self._generation += 1
        rows = sorted(self._sets.values(), key=lambda row: row.name.encode())
        tag = self._mac.tag(_state_fields(self._generation, rows))
        self._store.put(STATE, StateRow(1, self._generation, tag))

    def _verify_table(self, table: Table[Any]) -> None:
        row = self._sets[table.name]
        if table.name in self._changed or self._verified.get(table.name) == row.generation:
            return
        macs = self._store.macs(table)
        if len(macs) != row.rows or _digest(macs) != row.digest:
            raise IntegrityError(
                f"table {table.name} of the KMS's store: rows were added, removed or put back", hint=_HINT
            )
        self._verified[table.name] = row.generation

    def _open_row(self, table: Table[Row], raw: tuple[Value, ...]) -> Row:
        *values, tag = raw
        if not isinstance(tag, bytes) or not self._mac.verify(_row_fields(table, values), tag):
            _refuse_row(table, raw)
        return table.make(values)


class Transaction:
    """The writing side of a `SealedStore`, within `SealedStore.transaction`."""

    def __init__(self, store: SealedStore) -> None:
        self._store = store

    def put(self, table: Table[Row], row: Row) -> None:
        """Adds `row`, or replaces the one with the same primary key."""
        self._store._put(table, row)  # noqa: SLF001 - the two are one

    def rebuild(self, before: Table[Any] | None, after: Table[Any] | None, convert: Callable[[Any], Any]) -> None:
        """For migrations: puts `after` in the place of `before`, with its rows converted; either may be None."""
        self._store._rebuild(before, after, convert)  # noqa: SLF001

    def delete(self, table: Table[Any], *key: Value) -> None:
        self._store._delete(table, key)  # noqa: SLF001


def _row_fields(table: Table[Any], values: tuple[Value, ...] | list[Value]) -> bytes:
    return encode_fields(("row", table.name, *values))


def _state_fields(generation: int, rows: list[SetRow]) -> bytes:
    return encode_fields(("state", generation, *(value for row in rows for value in row)))


def _digest(macs: list[bytes]) -> bytes:
    return hashlib.sha256(b"".join(macs)).digest()


def _refuse_row(table: Table[Any], raw: tuple[Value, ...]) -> NoReturn:
    key = ", ".join(value.hex() if isinstance(value, bytes) else str(value) for value in raw[: table.key_length])
    raise IntegrityError(f"table {table.name} of the KMS's store: the row {key} is not authentic", hint=_HINT)
