"""The store as the first release had it, and how it becomes version 2.

Version 1 had flat digests: one over the MACs of all rows of a table, sorted. The MACs of rows and of the state are
those of version 2, but there were fewer tables, and fewer columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from envfs.crypto.kdf import Label, derive
from envfs.crypto.mac import Mac
from envfs.crypto.secret import Secret
from envfs.errors import IntegrityError
from envfs.kms.digest_tree import HINT
from envfs.kms.keyring import Keyring
from envfs.kms.model import ORIGIN_KMS, KeyManager
from envfs.kms.schema import (
    ALIASES,
    ALL_TABLES,
    AUDIT_CHAINS,
    BACKING_KEYS,
    IDENTITY_POLICIES,
    KEYS,
    PINS,
    ROOT_SLOTS,
    SETS,
    STATE,
    STORE,
    AliasRow,
    BackingKeyRow,
    KeyRow,
    SetRow,
    StateRow,
    Table,
    Value,
)
from envfs.kms.sealed_store import SealedStore
from envfs.kms.sealed_table import row_fields
from envfs.kms.store import Store
from envfs.kms.store_verification import state_fields

_YEAR: Final = 365  # days: how often a service-managed key rotates
_DAY: Final = 86_400  # seconds


class _KeyRow(NamedTuple):
    key_id: bytes
    manager: str
    spec: str
    usage: str
    origin: str
    state: str
    description: str
    created: int
    backing_key_id: bytes
    policy: str


class _BackingKeyRow(NamedTuple):
    backing_key_id: bytes
    key_id: bytes
    version: int
    spec: str
    wrapped: bytes
    created: int


def _flat(table: Table[Any], columns: int) -> Table[Any]:
    """`table` as version 1 had it: its first columns, and its MAC as if it were one more."""
    return Table(table.name, tuple, (*table.columns[:columns], ("mac", "BLOB")), table.key_length, sealed=False)


# Of each sealed table, how many columns it had.
_TABLES: Final = {
    table.name: (table, _flat(table, columns))
    for table, columns in (
        (STORE, 7), (ROOT_SLOTS, 5), (KEYS, len(_KeyRow._fields)), (BACKING_KEYS, len(_BackingKeyRow._fields)),
        (ALIASES, 3), (IDENTITY_POLICIES, 4), (PINS, 3), (AUDIT_CHAINS, 6),
    )
}  # fmt: skip


def migrate_to_version_2(store: Store, root_key: Secret, store_id: bytes) -> None:
    """Verifies all of a database of version 1 and converts it. IntegrityError if anything in it is not authentic."""
    mac = Mac(derive(root_key, Label.STORE, store_id))
    generation, sets = _verify_state(store, mac)
    rows = {name: _verify_rows(store, mac, *_TABLES[name], sets[name]) for name in _TABLES}
    for old in (*(flat for _, flat in _TABLES.values()), SETS, STATE):
        store.drop_table(old)
    for table in ALL_TABLES:
        store.create_table(table)
    # The root key stays the caller's: this keyring is forgotten, not wiped.
    keyring = Keyring(root_key, store_id)
    try:
        SealedStore.initialise(store, root_key, store_id, _convert(rows, keyring), generation)
    finally:
        keyring.forget()


def _verify_state(store: Store, mac: Mac) -> tuple[int, dict[str, SetRow]]:
    states = [StateRow._make(row) for row in store.select(STATE, {})]
    sets = sorted((SetRow._make(row) for row in store.select(SETS, {})), key=lambda row: row.name.encode())
    if len(states) != 1 or not mac.verify(state_fields(states[0].generation, sets), states[0].mac):
        raise IntegrityError("the state of the KMS's store is not authentic", hint=HINT)
    if {row.name for row in sets} != _TABLES.keys():
        raise IntegrityError("the KMS's store has other tables than it should have", hint=HINT)
    return states[0].generation, {row.name: row for row in sets}


def _verify_rows(store: Store, mac: Mac, table: Table[Any], flat: Table[Any], row: SetRow) -> list[tuple[Value, ...]]:
    found = [(raw[:-1], raw[-1]) for raw in store.select(flat, {})]
    tags = [tag for values, tag in found if isinstance(tag, bytes) and mac.verify(row_fields(table, values), tag)]
    if len(tags) != len(found):
        raise IntegrityError(f"table {table.name} of the KMS's store: a row is not authentic", hint=HINT)
    if len(tags) != row.rows or hashlib.sha256(b"".join(sorted(tags))).digest() != row.digest:
        raise IntegrityError(f"table {table.name} of the KMS's store: rows were added, removed or put back", hint=HINT)
    return [values for values, _ in found]


def _convert(rows: dict[str, list[Any]], keyring: Keyring) -> Iterator[tuple[Table[Any], tuple[Value, ...]]]:
    for name, (table, _) in _TABLES.items():
        for values in rows[name]:
            if table is KEYS:
                yield table, _convert_key(_KeyRow._make(values))
            elif table is BACKING_KEYS:
                yield table, _convert_backing_key(_BackingKeyRow._make(values), keyring)
            elif table is ALIASES:
                alias = AliasRow(*values)
                yield table, alias._replace(updated=alias.created)
            else:
                yield table, table.make(values)


def _convert_key(old: _KeyRow) -> KeyRow:
    """All keys of version 1 have material that the KMS made itself. Those of the service rotate yearly from now on."""
    row = KeyRow(*old)._replace(origin=ORIGIN_KMS)
    if row.manager != KeyManager.SERVICE:
        return row
    next_rotation = row.created + _YEAR * _DAY
    return row._replace(rotation_period=_YEAR, next_rotation=next_rotation, due=next_rotation)


def _convert_backing_key(old: _BackingKeyRow, keyring: Keyring) -> BackingKeyRow:
    row = BackingKeyRow(*old)
    return row._replace(material_id=keyring.material_id(row.key_id, keyring.unwrap(row)))
