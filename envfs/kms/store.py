"""What the KMS asks of a database. It keeps rows and knows nothing of keys, policies or authenticity.

Row values are those of `envfs.kms.schema`, in column order; a sealed table's rows have two values more, their MAC and
their leaf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from envfs.kms.schema import Table, Value


class Store(Protocol):
    """One connection, used by one thread at a time. Failures of the database are `Internal` or `IntegrityError`."""

    @property
    def schema_version(self) -> int:
        """The version of the schema that the database has."""

    def changed(self) -> bool:
        """Whether another connection has committed since the last time this was asked. A few microseconds."""

    def data_version(self) -> int:
        """Within `reading`: a number that is another one whenever another connection has committed in between."""

    def reading(self) -> AbstractContextManager[None]:
        """A transaction that sees one state of the database. Not nested."""

    def writing(self) -> AbstractContextManager[None]:
        """A transaction that no other writer runs beside; committed and durable at the end, undone by an exception."""

    def select(self, table: Table[Any], where: Mapping[str, Value]) -> list[tuple[Value, ...]]:
        """The rows whose columns have these values, in the order of the primary key."""

    def select_range(self, table: Table[Any], column: str, least: int, most: int) -> list[tuple[Value, ...]]:
        """The rows with a value from `least` to `most` in an INTEGER column, in any order."""

    def put(self, table: Table[Any], values: Sequence[Value]) -> None:
        """Adds the row, or replaces the one with the same primary key."""

    def delete(self, table: Table[Any], key: Sequence[Value]) -> None:
        """Removes the row with this primary key, if there is one."""

    def create_table(self, table: Table[Any]) -> None:
        """Within `writing`: makes an empty table."""

    def drop_table(self, table: Table[Any]) -> None:
        """Within `writing`: removes a table with its rows."""

    def set_schema_version(self, version: int) -> None:
        """Within `writing`: what a migration ends with."""

    def note_erasure(self) -> None:
        """Before what is secret is deleted: `erasure_is_due` until `erase`, also for other processes and after a
        crash.
        """

    def erasure_is_due(self) -> bool:
        """Whether somebody deleted what may still stand in the files."""

    def erase(self) -> bool:
        """Outside of a transaction: leaves no copy of deleted rows in any file. False if a reader or writer, or a full
        disk, is in the way.
        """

    def close(self) -> None: ...
