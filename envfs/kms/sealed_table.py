"""One sealed table: its rows as they are authentic and complete, and changes of them (FORMAT.md 9.2).

The database's own answers prove nothing: whoever can write the file can also make an index leave a row out. So each row
that is handed out, and each one that is said not to be there, comes from reading all rows of a leaf, or of the table,
and comparing their MACs with the digest that they must have.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Generic, NoReturn, TypeAlias, cast

from envfs.crypto.mac import Mac
from envfs.errors import IntegrityError
from envfs.kms.digest_tree import EMPTY, HINT, DigestTree, leaf_digest, leaf_number
from envfs.kms.schema import SETS, Row, SetRow, Table, Value, encode_fields
from envfs.kms.store import Store

PrimaryKey: TypeAlias = tuple[Value, ...]
RawRow: TypeAlias = tuple[Value, ...]


class SealedTable(Generic[Row]):
    """To be used within a transaction of the store, after `follow` was told which set of rows is the right one."""

    def __init__(self, store: Store, mac: Mac, table: Table[Row]) -> None:
        self.table: Final = table
        self._store = store
        self._mac = mac
        self._tree = DigestTree(store, table.name)
        self._set = SetRow(table.name, 0, 0, EMPTY)
        names = [name for name, _ in table.columns]
        self._group = [names.index(name) for name in table.group_columns]
        self._group_is_in_key = set(table.group_columns) <= set(table.key_columns)
        # All primary keys, each with its leaf: what the set of rows that is the right one is known to hold.
        self._keys: dict[PrimaryKey, int] | None = {}
        self._sorted: list[PrimaryKey] | None = None  # the same, sorted
        # Within a transaction of our own, leaves that it changes: primary key → MAC.
        self._pending: dict[int, dict[PrimaryKey, bytes]] = {}
        self._added = 0
        self.is_changed = False

    def follow(self, row: SetRow) -> None:
        """From now on the rows of this set are the right ones."""
        if row.digest != self._set.digest:
            self._keys = self._sorted = None
        self._set = row
        self._tree.follow(row.digest)

    def forget(self) -> None:
        """Everything is to be read and verified anew."""
        self._keys = self._sorted = None
        self._tree.forget()

    # Reading

    def get(self, key: PrimaryKey) -> Row | None:
        """The row with this primary key."""
        return self._locate(key)[1]

    def find(self, where: Mapping[str, Value]) -> list[Row]:
        """All rows whose columns have these values, in the order of the primary key."""
        if where.keys() >= set(self.table.group_columns):
            rows = self._read(leaf_number(self.table.name, (where[name] for name in self.table.group_columns)))
        else:
            rows = self._read_all()
        return [row for row in rows if self._matches(row, where)]

    def one(self, where: Mapping[str, Value]) -> Row | None:
        """A row whose columns have these values; None if it is certain that there is none."""
        for raw in self._store.select(self.table, where):
            found = self.get(raw[: self.table.key_length])
            if found is not None and self._matches(found, where):
                return found
            self._refuse_row(raw)
        return next(iter(self.find(where)), None)

    def page(self, after: PrimaryKey | None, limit: int, where: Mapping[str, Value]) -> list[Row]:
        """The first `limit` rows of `find` whose primary keys come after `after`."""
        if where:
            rows = self.find(where)
            return [row for row in rows if after is None or self._key(row) > after][:limit]
        leaves = self._known_keys()
        if self._sorted is None:
            self._sorted = sorted(leaves)
        start = 0 if after is None else bisect_right(self._sorted, after)
        keys = self._sorted[start : start + limit]
        found = {self._key(row): row for leaf in {leaves[key] for key in keys} for row in self._read(leaf)}
        return [found[key] for key in keys]

    def open_row(self, raw: RawRow) -> Row:
        """The row, if its MAC is right and it stands in its leaf; IntegrityError otherwise."""
        values, (tag, leaf) = raw[:-2], seal_of(raw)
        if not self._mac.verify(row_fields(self.table, values), tag) or leaf != self._leaf(values):
            self._refuse_row(raw)
        return self.table.make(values)

    def _read(self, leaf: int) -> list[Row]:
        """All rows of a leaf."""
        return [row for row, _ in self._read_with_macs(leaf)]

    def _read_with_macs(self, leaf: int) -> list[tuple[Row, bytes]]:
        raws = self._store.select(self.table, {"leaf": leaf})
        rows = [self.open_row(raw) for raw in raws]
        macs = [seal_of(raw)[0] for raw in raws]
        self._check(leaf, macs, self._expected(leaf))
        return list(zip(rows, macs, strict=True))

    def _read_all(self) -> list[Row]:
        raws = self._store.select(self.table, {})
        rows = [self.open_row(raw) for raw in raws]
        macs = macs_by_leaf(raws)
        expected = self._tree.leaves()
        for leaf, pending in self._pending.items():
            expected.pop(leaf, None)
            if pending:
                expected[leaf] = leaf_digest(pending.values())
        for leaf in macs.keys() | expected.keys():
            self._check(leaf, macs.get(leaf, []), expected.get(leaf))
        self._keys = {self._key(row): self._leaf(row) for row in rows}
        self._sorted = None
        return rows

    def _expected(self, leaf: int) -> bytes | None:
        pending = self._pending.get(leaf)
        if pending is None:
            return self._tree.leaf(leaf)
        return leaf_digest(pending.values()) if pending else None

    def _check(self, leaf: int, macs: Sequence[bytes], expected: bytes | None) -> None:
        if (leaf_digest(macs) if macs else None) != expected:
            raise IntegrityError(
                f"table {self.table.name} of the KMS's store: rows were added, removed or put back (leaf {leaf})",
                hint=HINT,
            )

    # Where a row is

    def _locate(self, key: PrimaryKey) -> tuple[int, Row | None]:
        """The row with this primary key and its leaf; None if it is certain that there is none."""
        if self._group_is_in_key:
            leaf = self._leaf(key)
            return leaf, self._pick(self._read(leaf), key)
        for raw in self._select(key):
            leaf = self._leaf(raw)
            row = self._pick(self._read(leaf), key)
            if row is None:
                self._refuse_row(raw)
            return leaf, row
        if key in self._known_keys():
            self._refuse_row(key)
        return -1, None

    def _pick(self, rows: Sequence[Row], key: PrimaryKey) -> Row | None:
        return next((row for row in rows if self._key(row) == key), None)

    def _select(self, key: PrimaryKey) -> list[RawRow]:
        return self._store.select(self.table, dict(zip(self.table.key_columns, key, strict=True)))

    def _known_keys(self) -> dict[PrimaryKey, int]:
        if self._keys is None:
            self._read_all()
            assert self._keys is not None
        return self._keys

    def _leaf(self, values: Sequence[Value]) -> int:
        """The leaf of a row, or of a primary key that holds the group."""
        return leaf_number(self.table.name, (values[position] for position in self._group))

    def _key(self, row: Sequence[Value]) -> PrimaryKey:
        return tuple(row[: self.table.key_length])

    def _matches(self, row: Row, where: Mapping[str, Value]) -> bool:
        return all(getattr(row, name) == value for name, value in where.items())

    def _refuse_row(self, raw: RawRow) -> NoReturn:
        key = ", ".join(value.hex() if isinstance(value, bytes) else str(value) for value in self._key(raw))
        raise IntegrityError(f"table {self.table.name} of the KMS's store: the row {key} is not authentic", hint=HINT)

    # Changing

    def put(self, row: Row) -> None:
        """Adds `row`, or replaces the one with the same primary key."""
        key, leaf = self._key(row), self._leaf(row)
        if self.table.regroups:
            self._leave(key)
        elif not self._group_is_in_key and any(raw[-1] != leaf for raw in self._select(key)):
            self._refuse_row(row)
        macs = self._change(leaf)
        self._added += key not in macs
        macs[key] = self._mac.tag(row_fields(self.table, row))
        self._store.put(self.table, (*row, macs[key], leaf))
        if self._keys is not None:
            self._keys[key] = leaf

    def delete(self, key: PrimaryKey) -> None:
        """Removes the row with this primary key, if there is one."""
        self._leave(key)
        self._store.delete(self.table, key)
        if self._keys is not None:
            self._keys.pop(key, None)

    def seal(self, generation: int) -> SetRow:
        """Writes the digests that follow from the changes."""
        changes = {leaf: leaf_digest(macs.values()) if macs else None for leaf, macs in self._pending.items()}
        digest = self._tree.update(changes)
        self._set = SetRow(self.table.name, generation, self._set.rows + self._added, digest)
        self._store.put(SETS, self._set)
        self._end()
        return self._set

    def roll_back(self, row: SetRow) -> None:
        """What was changed, sealed or not, is undone; the rows of `row` are the right ones again."""
        self._end()
        self._set = row
        self._tree.follow(row.digest)
        self.forget()

    def _end(self) -> None:
        self._pending = {}
        self._added = 0
        self.is_changed = False

    def _leave(self, key: PrimaryKey) -> None:
        leaf = self._changed_leaf(key)
        if leaf is None:
            leaf, row = self._locate(key)
            if row is None:
                return
        del self._change(leaf)[key]
        self._added -= 1

    def _changed_leaf(self, key: PrimaryKey) -> int | None:
        """The leaf of a row, if this transaction changes others of it: all of it was verified then, and is not read
        again for each of its rows. What the database says is only where to look.
        """
        for raw in self._select(key):
            leaf = seal_of(raw)[1]
            if key in self._pending.get(leaf, {}):
                return leaf
        return None

    def _change(self, leaf: int) -> dict[PrimaryKey, bytes]:
        """The MACs of a leaf that is to be changed. What was tampered with must not get a fresh seal, so it is verified
        first.
        """
        if leaf not in self._pending:
            self._pending[leaf] = {self._key(row): tag for row, tag in self._read_with_macs(leaf)}
        self.is_changed = True
        self._sorted = None
        return self._pending[leaf]


def seal_of(raw: RawRow) -> tuple[bytes, int]:
    """The MAC and the leaf that a row has in the database."""
    return cast("tuple[bytes, int]", raw[-2:])


def macs_by_leaf(raws: Iterable[RawRow]) -> dict[int, list[bytes]]:
    """The MACs of these rows, by the leaf that the database says."""
    macs: dict[int, list[bytes]] = {}
    for tag, leaf in map(seal_of, raws):
        macs.setdefault(leaf, []).append(tag)
    return macs


def row_fields(table: Table[Any], values: Sequence[Value]) -> bytes:
    """What the MAC of a row is over."""
    return encode_fields(("row", table.name, *values))
