"""From one schema version to the next, in one transaction each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from envfs.crypto.secret import Secret
from envfs.errors import IntegrityError
from envfs.kms.schema import SCHEMA_VERSION
from envfs.kms.sealed_store import SealedStore
from envfs.kms.store import Store
from envfs.kms.version_1 import migrate_to_version_2

# Version → what brings a database of it to the next one, within `Store.writing`.
MIGRATIONS: Final[Mapping[int, Callable[[Store, Secret, bytes], None]]] = {1: migrate_to_version_2}


def open_sealed(store: Store, root_key: Secret, store_id: bytes) -> SealedStore:
    """The authenticated view of `store`, which is brought to this release's schema version first.

    IntegrityError, and nothing is changed, if any of what is to be converted is not authentic.
    """
    while store.schema_version < SCHEMA_VERSION:
        with store.writing():
            version = store.schema_version
            if version == SCHEMA_VERSION:
                break  # another process was faster
            migration = MIGRATIONS.get(version)
            if migration is None:
                raise IntegrityError(f"the KMS's store has schema version {version}, which never was")
            migration(store, root_key, store_id)
            store.set_schema_version(version + 1)
    return SealedStore(store, root_key, store_id)
