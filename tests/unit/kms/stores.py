"""Sealed stores with rows in them, and the database as an attacker sees it."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from envfs.crypto.secret import Secret
from envfs.kms.schema import AliasRow, BackingKeyRow, GrantRow, KeyRow
from envfs.kms.sealed_store import SealedStore
from envfs.kms.sqlite_store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STORE_ID = b"s" * 16
ROOT_KEY = bytes(range(32))


def key_id(number: int) -> bytes:
    return number.to_bytes(16)


def key(number: int, *, description: str = "", due: int = 0) -> KeyRow:
    return KeyRow(
        key_id(number),
        "CUSTOMER",
        "SYMMETRIC_DEFAULT",
        "ENCRYPT_DECRYPT",
        "AWS_KMS",
        "Enabled",
        description,
        1,
        b"b",
        "{}",
        due=due,
    )


def backing_key(number: int, of: int) -> BackingKeyRow:
    return BackingKeyRow(b"backing %d" % number, key_id(of), 1, "SYMMETRIC_DEFAULT", b"wrapped", 1)


def alias(name: str, of: int) -> AliasRow:
    return AliasRow(f"alias/{name}", key_id(of), 1, 2)


def grant(name: str, of: int, retiring: str = "") -> GrantRow:
    return GrantRow(name, key_id(of), "", "alice", retiring, "000000000000", "Decrypt", "", b"", 1)


def create(path: Path) -> None:
    """A database of the newest version, sealed and empty."""
    store = SqliteStore.create(path)
    with store.writing():
        SealedStore.initialise(store, Secret(ROOT_KEY), STORE_ID)
    store.close()


@contextmanager
def opened(path: Path) -> Iterator[SealedStore]:
    """A store on a connection of its own, as another process would have it."""
    store = SqliteStore.open(path)
    try:
        yield SealedStore(store, Secret(ROOT_KEY), STORE_ID)
    finally:
        store.close()


def edit(path: Path, *statements: str) -> None:
    """As an attacker would: with SQLite, and without the root key."""
    connection = sqlite3.connect(path)
    with connection:
        for sql in statements:
            connection.execute(sql)
    connection.close()


def rows_of(path: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    rows = connection.execute(query).fetchall()
    connection.close()
    return rows


def insert(path: Path, table: str, rows: list[tuple[object, ...]]) -> None:
    """Rows as they are, MACs and leaves included, in place of those with the same primary keys."""
    connection = sqlite3.connect(path)
    with connection:
        for row in rows:
            connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(row))})", row)
    connection.close()
