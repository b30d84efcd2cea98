"""The engine: a KMS that has been opened."""

from __future__ import annotations

import logging
import os
import pwd
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self, cast

from envfs.crypto.secret import Secret
from envfs.errors import ConfigError, EnvfsError, IntegrityError, KeyUnavailable
from envfs.format.blob import read_any_blob
from envfs.kms.arn import Account
from envfs.kms.audit.record import Recorder
from envfs.kms.audit.trail import AUDIT_DIRECTORY, AuditTrail
from envfs.kms.core import UserDirectory
from envfs.kms.keyring import Keyring
from envfs.kms.migrations import open_sealed
from envfs.kms.operations.access_keys import AccessKeyOperations
from envfs.kms.operations.agreement import AgreementOperations
from envfs.kms.operations.audits import AuditOperations
from envfs.kms.operations.backups import BackupOperations
from envfs.kms.operations.elsewhere import ElsewhereOperations
from envfs.kms.operations.explanations import ExplanationOperations
from envfs.kms.operations.grants import GrantOperations
from envfs.kms.operations.imports import ImportOperations
from envfs.kms.operations.integrity import IntegrityOperations
from envfs.kms.operations.keys import KeyOperations
from envfs.kms.operations.macs import MacOperations
from envfs.kms.operations.maintenance import MaintenanceOperations
from envfs.kms.operations.pairs import PairOperations
from envfs.kms.operations.reencryption import ReEncryptOperations
from envfs.kms.operations.signing import SigningOperations
from envfs.kms.operations.standing import StandingOperations
from envfs.kms.operations.usage import UsageOperations
from envfs.kms.rootkey import Unlock, open_slots
from envfs.kms.schema import ROOT_SLOTS, STORE, RootSlotRow, StoreRow
from envfs.kms.sealed_store import SealedStore
from envfs.kms.sqlite_store import SqliteStore

DATABASE: Final = "kms.db"

logger: Final = logging.getLogger("envfs.kms")

_ASK_OWNER: Final = "run this as the user who owns the KMS, or set ENVFS_HOME to one of your own"


class _Locked:
    """Stands where everything was that knows a key."""

    def __getattr__(self, name: str) -> NoReturn:
        raise KeyUnavailable("the KMS was locked: its keys are not in memory", hint="unlock the mount: envfs unlock")


class HostUsers:
    """The user database of this host (getpwnam(3))."""

    def uid_of(self, name: str) -> int | None:
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            return None


class Engine(
    PairOperations,
    ReEncryptOperations,
    SigningOperations,
    MacOperations,
    AgreementOperations,
    ImportOperations,
    KeyOperations,
    ExplanationOperations,
    MaintenanceOperations,
    UsageOperations,
    AccessKeyOperations,
    AuditOperations,
    ElsewhereOperations,
    GrantOperations,
    IntegrityOperations,
    BackupOperations,
    StandingOperations,
):
    """All operations of a KMS in one directory. Used from one thread at a time, and not carried over a fork.

    Every call first looks whether another process changed the store, so a change counts from the next call on.
    """

    def __init__(
        self,
        home: Path,
        database: SqliteStore,
        store: SealedStore,
        row: StoreRow,
        root_key: Secret,
        *,
        clock: Callable[[], float],
        users: UserDirectory,
        opened_by: bytes,
    ) -> None:
        account = Account(row.partition, row.region, row.account)
        trail = AuditTrail(home / AUDIT_DIRECTORY, store, root_key, row.store_id, clock)
        super().__init__(store, account, Keyring(root_key, row.store_id), Recorder(trail, account), clock, users)
        self._home = home
        self._database = database
        self._row = row
        self._root_key = root_key
        self._store_id = row.store_id
        self._opened_by = opened_by
        self._is_closed = False

    @classmethod
    def open(
        cls,
        home: Path,
        unlock: Unlock,
        *,
        clock: Callable[[], float] = time.time,
        users: UserDirectory | None = None,
    ) -> Self:
        """The KMS in `home`. ConfigError if there is none, or `unlock` does not open it; IntegrityError if it was
        tampered with; UnsupportedVersion if a newer release made it. Takes as long as `unlock` does (a passphrase: half
        a second).
        """
        check_home(home)
        database = SqliteStore.open(home / DATABASE)
        try:
            store_id, slots = read_slots(database)
            root_key, slot = open_slots(slots, store_id, unlock)
            return cls._open(home, database, store_id, root_key, clock, users or HostUsers(), slot.slot_id)
        except BaseException:
            database.close()
            raise

    @classmethod
    def open_with_root_key(cls, home: Path, store_id: bytes, root_key: Secret) -> Self:
        """The KMS in `home` by its root key, which is wiped at the end: for a backup, whose slots have been opened."""
        database = SqliteStore.open(home / DATABASE)
        try:
            return cls._open(home, database, store_id, root_key, time.time, HostUsers(), b"")
        except BaseException:
            database.close()
            raise

    @classmethod
    def _open(
        cls,
        home: Path,
        database: SqliteStore,
        store_id: bytes,
        root_key: Secret,
        clock: Callable[[], float],
        users: UserDirectory,
        opened_by: bytes,
    ) -> Self:
        try:
            store = open_sealed(database, root_key, store_id)
            row = store.get(STORE, 1)
            if row is None or row.store_id != store_id:
                raise IntegrityError("table store of the KMS's store: its row is not authentic")
            store.find(ROOT_SLOTS)  # all of them must be authentic, not only the one that opened
            return cls(home, database, store, row, root_key, clock=clock, users=users, opened_by=opened_by)
        except BaseException:
            root_key.wipe()
            raise

    def sibling(self) -> Self:
        """Another engine on the same KMS, for another thread: to be called, used and closed there, before this one is
        closed.
        """
        if self.is_locked:
            raise KeyUnavailable("the KMS was locked: its keys are not in memory", hint="envfs unlock MOUNTPOINT")
        database = SqliteStore.open(self._home / DATABASE)
        try:
            root_key = Secret(self._root_key.expose())
            return self._open(self._home, database, self.store_id, root_key, self._clock, self._users, self._opened_by)
        except BaseException:
            database.close()
            raise

    @property
    def store_id(self) -> bytes:
        """16 bytes that name this KMS; volumes carry them."""
        return self._row.store_id

    @property
    def owner_uid(self) -> int:
        """The uid of the account root."""
        return self._row.owner_uid

    @property
    def account(self) -> Account:
        """Partition, region and account id, and the ARNs that follow from them."""
        return self._account

    @property
    def opened_by(self) -> bytes:
        """The id of the root-key slot that this engine was opened by."""
        return self._opened_by

    def key_arn_of_blob(self, blob: bytes) -> str:
        """The ARN of the key that `blob` says it is under, whether there is such a key or not. FormatError if it is no
        blob.
        """
        return self._account.key_arn(read_any_blob(blob).key_id)

    def close(self) -> None:
        """Anchors the audit trail, wipes every key and closes the store. Harmless when repeated."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._recorder.close()
        except EnvfsError as error:
            # The records stand in the file all the same; they are only not anchored until the next process takes over.
            logger.warning("the end of the audit trail could not be anchored: %s", error.message)
        finally:
            self._keyring.wipe()
            self._database.close()

    def lock(self) -> None:
        """As `close`; but the engine may be opened again by `unlock`. Every call until then raises KeyUnavailable."""
        self.close()
        self._store = self._catalogue = self._keyring = self._recorder = self._grant_tokens = cast("Any", _Locked())

    def unlock(self, root_key: Secret) -> None:
        """With the root key, which is taken over. Raises as `open` does, and then stays locked."""
        fresh = self.open_with_root_key(self._home, self.store_id, root_key)
        # What has been set up for this engine stays; whoever looks for changes has to look at everything.
        kept = {name: self.__dict__[name] for name in ("_clock", "_users", "_opened_by", "_asker")}
        self.__dict__.update(fresh.__dict__ | kept | {"_changes": self._changes + 1})

    @property
    def is_locked(self) -> bool:
        return isinstance(self._store, _Locked)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_home(home: Path) -> None:
    """ConfigError unless `home` is a directory that nobody but its owner can change."""
    try:
        status = home.stat()
    except FileNotFoundError:
        raise ConfigError(f"there is no KMS in {home}", hint="make one with: envfs kms init") from None
    except OSError as error:
        raise ConfigError(f"{home} cannot be reached: {error.strerror}", hint=_ASK_OWNER) from error
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"{home} is not a directory", hint="ENVFS_HOME names the directory of the KMS")
    if status.st_mode & 0o022:
        raise ConfigError(f"{home} can be changed by others than its owner", hint=f"chmod 0700 {home}")
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise ConfigError(f"you have no access to the KMS in {home}", hint=_ASK_OWNER)


def read_slots(store: SqliteStore) -> tuple[bytes, list[RootSlotRow]]:
    """The store id and the slots, before anything can be authenticated."""
    # Columns that every schema version has: the root key is needed before an older one can be brought up to date.
    rows = store.select(replace(STORE, sealed=False), {})
    if len(rows) != 1:
        raise IntegrityError("table store of the KMS's store: there is not exactly one row")
    slots = [ROOT_SLOTS.make(row) for row in store.select(replace(ROOT_SLOTS, sealed=False), {})]
    return STORE.make(rows[0]).store_id, slots
