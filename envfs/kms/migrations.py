"""From one schema version to the next, in one transaction each. Version 1 is the first, so there is nothing to migrate
yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from envfs.crypto.secret import Secret
from envfs.errors import IntegrityError
from envfs.kms.schema import SCHEMA_VERSION, SEALED_TABLES, Table
from envfs.kms.sealed_store import SealedStore
from envfs.kms.store import Store


@dataclass(frozen=True, slots=True)
class Change:
    """One table: new (`before` None), gone (`after` None), or with other columns; `convert` makes a new row from an old
    one.
    """

    before: Table[Any] | None
    after: Table[Any] | None
    convert: Callable[[Any], Any] = lambda row: row


@dataclass(frozen=True, slots=True)
class Migration:
    """All that a version changed. `tables` are the sealed tables as they were before."""

    tables: tuple[Table[Any], ...]
    changes: tuple[Change, ...]


# Version → how to get to the next one.
MIGRATIONS: Final[Mapping[int, Migration]] = {}


def open_sealed(
    store: Store,
    root_key: Secret,
    store_id: bytes,
    *,
    migrations: Mapping[int, Migration] = MIGRATIONS,
    target: int = SCHEMA_VERSION,
    tables: Sequence[Table[Any]] = SEALED_TABLES,
) -> SealedStore:
    """The authenticated view of `store`, which is migrated to version `target` first.

    IntegrityError, and nothing is changed, if any of what is to be converted is not authentic.
    """
    while (version := store.schema_version) < target:
        migration = migrations.get(version)
        if migration is None:
            raise IntegrityError(f"the KMS's store has schema version {version}, which never was")
        sealed = SealedStore(store, root_key, store_id, migration.tables, version)
        with sealed.transaction() as transaction:
            for change in migration.changes:
                transaction.rebuild(change.before, change.after, change.convert)
            store.set_schema_version(version + 1)
    return SealedStore(store, root_key, store_id, tables, target)
