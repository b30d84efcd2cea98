"""The store in one SQLite file, shared by all mounts and commands of a host (WAL mode,
https://www.sqlite.org/wal.html).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, Self

from envfs.errors import ConfigError, FormatError, IntegrityError, Internal, UnsupportedVersion
from envfs.kms.schema import ALL_TABLES, APPLICATION_ID, SCHEMA_VERSION, Table, Value

BUSY_TIMEOUT: Final = 10.0  # seconds that a writer waits for others
_CHECKPOINT_TIMEOUT: Final = 500  # milliseconds: a mount answers nobody meanwhile

_TYPES: Final[Mapping[str, type]] = {"INTEGER": int, "TEXT": str, "BLOB": bytes}
_ERASE_MARK: Final = "-erase."
_IN_THE_WAY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL}
_CORRUPT: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_MISMATCH}


@contextmanager
def _database_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        # The low byte is the primary code: https://www.sqlite.org/rescode.html
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in _CORRUPT:
            raise IntegrityError(f"{path} is damaged: {error}", hint="restore the KMS from a backup") from error
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise Internal(f"{path} is in use: another process is changing it", hint="try again") from error
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_full(path)):
            raise Internal(f"{path}: the disk is full", hint="free some space; nothing was changed") from error
        raise Internal(f"{path}: {error}") from error


def _is_full(path: Path) -> bool:
    """Whether the disk is: SQLite says it of the database and its log, and calls it an I/O error of the log's index."""
    try:
        return os.statvfs(path.parent).f_bavail == 0
    except OSError:
        return False


def create_statements(table: Table[Any]) -> list[str]:
    """The DDL of `table` and its indexes; FORMAT.md 9.2 says the same in words."""
    columns = [f"{name} {kind} NOT NULL" for name, kind in table.stored_columns]
    columns.append(f"PRIMARY KEY ({', '.join(table.key_columns)})")
    columns += [f"UNIQUE ({name})" for name in table.unique]
    indexed = (*table.indexes, *(("leaf",) if table.sealed else ()))
    return [
        f"CREATE TABLE {table.name} ({', '.join(columns)}) STRICT, WITHOUT ROWID",
        *(f"CREATE INDEX {table.name}_{column} ON {table.name} ({column})" for column in indexed),
    ]


def _select(table: Table[Any]) -> str:
    return f"SELECT {', '.join(name for name, _ in table.stored_columns)} FROM {table.name}"  # noqa: S608


def _put_statement(table: Table[Any]) -> str:
    names = [name for name, _ in table.stored_columns]
    changes = ", ".join(f"{name} = excluded.{name}" for name in names[table.key_length :])
    marks = ", ".join("?" * len(names))
    return (
        f"INSERT INTO {table.name} VALUES ({marks})"  # noqa: S608 - names come from the schema
        f" ON CONFLICT ({', '.join(table.key_columns)}) DO UPDATE SET {changes}"
    )


def _typed(table: Table[Any], rows: list[tuple[Value, ...]]) -> list[tuple[Value, ...]]:
    """`rows`, if they have the types of the table's columns. STRICT sees to that unless the file was tampered with."""
    types = tuple(_TYPES[kind] for _, kind in table.stored_columns)
    if any(tuple(map(type, row)) != types for row in rows):
        raise IntegrityError(
            f"table {table.name} of the KMS's store: a value has the wrong type", hint="restore the KMS from a backup"
        )
    return rows


def snapshot_rows(snapshot: bytes, table: Table[Any], *columns: str) -> list[tuple[Any, ...]]:
    """These columns of all rows of a table in what `SqliteStore.snapshot` gave."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(snapshot)
        return connection.execute(f"SELECT {', '.join(columns)} FROM {table.name}").fetchall()  # noqa: S608


class SqliteStore:
    """`Store` on a SQLite database. Not to be carried over a fork (https://www.sqlite.org/howtocorrupt.html, 2.6)."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._execute = connection.execute
        self._data_version = self._ask("PRAGMA data_version")

    @classmethod
    def create(cls, path: Path) -> Self:
        """A new database with empty tables, where nothing is yet. It keeps no WAL, so that it is one file."""
        with _database_errors(path):
            connection = sqlite3.connect(path, isolation_level=None)
            path.chmod(0o600)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            for table in ALL_TABLES:
                for statement in create_statements(table):
                    connection.execute(statement)
            connection.execute("COMMIT")
            return cls(path, connection)

    @classmethod
    def open(cls, path: Path) -> Self:
        """The database at `path`, in WAL mode. ConfigError if there is none, FormatError if it is none of ours,
        UnsupportedVersion if a newer release made it.
        """
        if not path.exists():
            raise ConfigError(f"there is no KMS in {path.parent}", hint="make one with: envfs kms init")
        with _database_errors(path):
            connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=BUSY_TIMEOUT,
                isolation_level=None,
                check_same_thread=False,  # one thread at a time, but not always the same
                cached_statements=256,
            )
        try:
            with _database_errors(path):
                return cls._configure(path, connection)
        except BaseException:
            connection.close()
            raise

    @classmethod
    def _configure(cls, path: Path, connection: sqlite3.Connection) -> Self:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if application != APPLICATION_ID:
            raise FormatError(f"{path} is not the database of an envfs KMS")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise UnsupportedVersion(
                f"{path} has schema version {version}; this release knows versions up to {SCHEMA_VERSION}",
                hint="use the release of envfs that wrote it, or a newer one",
            )
        connection.execute("PRAGMA journal_mode = WAL")
        # FULL: a CMK that was reported as made must survive a power cut, or data under it is lost.
        connection.execute("PRAGMA synchronous = FULL")
        # Deleted key material must not linger in free pages.
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        return cls(path, connection)

    def _ask(self, statement: str) -> int:
        value, *_ = self._execute(statement).fetchone()
        return int(value)

    @property
    def schema_version(self) -> int:
        with _database_errors(self._path):
            return self._ask("PRAGMA user_version")

    def changed(self) -> bool:
        try:
            (version,) = self._execute("PRAGMA data_version").fetchone()
        except sqlite3.Error:
            with _database_errors(self._path):
                raise
        if version == self._data_version:
            return False
        self._data_version = version
        return True

    def data_version(self) -> int:
        with _database_errors(self._path):
            return self._ask("PRAGMA data_version")

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self._transaction("BEGIN"):
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._transaction("BEGIN IMMEDIATE"):
            yield

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        with _database_errors(self._path):
            self._execute(begin)
            try:
                yield
                self._execute("COMMIT")
            except BaseException:
                # SQLite rolls some failures back by itself, a full disk for one.
                if self._connection.in_transaction:
                    self._execute("ROLLBACK")
                raise

    def select(self, table: Table[Any], where: Mapping[str, Value]) -> list[tuple[Value, ...]]:
        # Table and column names come from the schema, never from a caller.
        condition = " AND ".join(f"{name} = ?" for name in where) or "1"
        order = ", ".join(table.key_columns)
        statement = f"{_select(table)} WHERE {condition} ORDER BY {order}"
        with _database_errors(self._path):
            rows = self._execute(statement, tuple(where.values())).fetchall()
        return _typed(table, rows)

    def select_range(self, table: Table[Any], column: str, least: int, most: int) -> list[tuple[Value, ...]]:
        statement = f"{_select(table)} WHERE {column} BETWEEN ? AND ?"
        with _database_errors(self._path):
            rows = self._execute(statement, (least, most)).fetchall()
        return _typed(table, rows)

    def put(self, table: Table[Any], values: Sequence[Value]) -> None:
        # Not INSERT OR REPLACE, which also removes another row that has the same value in a unique column.
        statement = _put_statement(table)
        with _database_errors(self._path):
            self._execute(statement, tuple(values))

    def delete(self, table: Table[Any], key: Sequence[Value]) -> None:
        condition = " AND ".join(f"{name} = ?" for name in table.key_columns)
        with _database_errors(self._path):
            self._execute(f"DELETE FROM {table.name} WHERE {condition}", tuple(key))  # noqa: S608

    def create_table(self, table: Table[Any]) -> None:
        with _database_errors(self._path):
            for statement in create_statements(table):
                self._execute(statement)

    def drop_table(self, table: Table[Any]) -> None:
        with _database_errors(self._path):
            self._execute(f"DROP TABLE {table.name}")

    def set_schema_version(self, version: int) -> None:
        with _database_errors(self._path):
            self._execute(f"PRAGMA user_version = {version:d}")

    def snapshot(self) -> tuple[bytes, int]:
        """A database file with the state of this moment, in which there is nothing else: no free pages, no log. And
        the generation of that state. Neither readers nor writers wait for it.
        """
        with _database_errors(self._path), closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
            self._connection.backup(copy)  # https://www.sqlite.org/backup.html
            # What was deleted, and may still stand in free space of the pages that were copied, is no part of a backup.
            copy.execute("VACUUM")
            (generation,) = copy.execute("SELECT generation FROM state").fetchone()
            return copy.serialize(), int(generation)

    def note_erasure(self) -> None:
        # A file, since nothing within the database could be changed by the erasure without the root key.
        mark = self._path.with_name(f"{self._path.name}{_ERASE_MARK}{os.urandom(8).hex()}")
        mark.touch(0o600, exist_ok=False)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def erasure_is_due(self) -> bool:
        return bool(self._erase_marks())

    def erase(self) -> bool:
        marks = self._erase_marks()  # those of later deletions stay
        with _database_errors(self._path):
            self._execute(f"PRAGMA busy_timeout = {_CHECKPOINT_TIMEOUT}")
            try:
                # secure_delete overwrites the row that was deleted, not copies of it that SQLite left in other pages
                # when it moved rows between them. In a database that is written anew there are none.
                self._execute("VACUUM")
                is_done = self._ask("PRAGMA wal_checkpoint(TRUNCATE)") == 0
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _IN_THE_WAY:
                    raise
                return False
            finally:
                self._execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT * 1000)}")
        if is_done:
            for mark in marks:
                mark.unlink(missing_ok=True)
        return is_done

    def _erase_marks(self) -> list[Path]:
        return list(self._path.parent.glob(f"{self._path.name}{_ERASE_MARK}*"))

    def close(self) -> None:
        self._connection.close()
