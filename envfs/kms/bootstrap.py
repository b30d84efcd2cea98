"""Making a KMS: the database, the root key in its first slot, and the CMK that belongs to envfs itself."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from envfs.crypto.kdf import KEY_SIZE
from envfs.crypto.secret import Secret
from envfs.errors import ConfigError
from envfs.kms.arn import Account
from envfs.kms.engine import DATABASE, check_home
from envfs.kms.keyring import Keyring
from envfs.kms.model import ENCRYPT_DECRYPT, ORIGIN_KMS, SYMMETRIC_DEFAULT, KeyManager, KeyState
from envfs.kms.policy.defaults import default_key_policy
from envfs.kms.rootkey import (
    KEY_FILE,
    KEY_FILE_NAME,
    Argon2Cost,
    KeyFileUnlock,
    PassphraseUnlock,
    RecoveryUnlock,
    SlotKey,
    passphrase_parameters,
    read_key_file,
    seal_slot,
)
from envfs.kms.schema import BACKING_KEYS, KEYS, ROOT_SLOTS, STORE, KeyRow, RootSlotRow, StoreRow
from envfs.kms.sealed_store import SealedStore
from envfs.kms.sqlite_store import SqliteStore

DEFAULT_PARTITION: Final = "envfs"
DEFAULT_REGION: Final = "local"
DEFAULT_ACCOUNT: Final = "000000000000"

_NEW: Final = ".kms.db.new"


def init_kms(
    home: Path,
    *,
    root_key: Literal["keyfile", "passphrase"] = "keyfile",
    passphrase: Secret | None = None,
    partition: str = DEFAULT_PARTITION,
    region: str = DEFAULT_REGION,
    account: str = DEFAULT_ACCOUNT,
    owner_uid: int | None = None,
    cost: Argon2Cost | None = None,
    recovery_key: Secret | None = None,
) -> bytes:
    """Makes a KMS in `home` and returns its store id. `owner_uid` is the account root, by default whoever runs this.
    `recovery_key`: 20 random bytes, which open it, too.

    The KMS is there whole or not at all, whenever this is interrupted. ConfigError if there is one already; a root key
    file that is there already is used and never overwritten.
    """
    place = Account(partition, region, account)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{home} cannot be made: {error.strerror}", hint="set ENVFS_HOME to a directory that you may make"
        ) from error
    check_home(home)
    with locked_home(home):
        if (home / DATABASE).exists():
            raise ConfigError(f"there is a KMS in {home} already", hint="set ENVFS_HOME to make another one")
        for suffix in ("", "-journal"):
            (home / f"{_NEW}{suffix}").unlink(missing_ok=True)
        unlock, parameters = _first_slot(home, root_key, passphrase, cost or Argon2Cost())
        store_id = os.urandom(16)
        now = int(time.time())
        with Secret.random(KEY_SIZE) as key:
            slots = [seal_slot(key, store_id, unlock, parameters, now)]
            if recovery_key is not None:
                slots.append(seal_slot(key, store_id, RecoveryUnlock(recovery_key), b"", now))
            owner = os.geteuid() if owner_uid is None else owner_uid
            row = StoreRow(1, store_id, partition, region, account, owner, now)
            _fill(home / _NEW, key, row, slots, default_key_policy(place))
        # From here on there is a KMS; before, there was nothing but a name that nobody looks at.
        (home / _NEW).rename(home / DATABASE)
        sync_directory(home)
    return store_id


def _first_slot(
    home: Path, kind: Literal["keyfile", "passphrase"], passphrase: Secret | None, cost: Argon2Cost
) -> tuple[SlotKey, bytes]:
    if kind == KEY_FILE:
        path = home / KEY_FILE_NAME
        if not path.exists():
            _write_key_file(path)
        # It may be from an attempt that was interrupted, or the key of a database that is elsewhere: it is never
        # replaced.
        read_key_file(path).wipe()
        return KeyFileUnlock(path), b""
    if passphrase is None or len(passphrase) == 0:
        raise ConfigError("the passphrase is empty", hint="give one, or use --root-key keyfile")
    return PassphraseUnlock(passphrase), passphrase_parameters(cost)


def _write_key_file(path: Path) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o400)
    with os.fdopen(descriptor, "wb") as file, Secret.random(KEY_SIZE) as key:
        file.write(key.expose())
        file.flush()
        os.fsync(descriptor)
    temporary.rename(path)
    sync_directory(path.parent)


def _fill(path: Path, root_key: Secret, row: StoreRow, slots: list[RootSlotRow], policy: str) -> None:
    store = SqliteStore.create(path)
    try:
        with store.writing():
            sealed = SealedStore.initialise(store, root_key, row.store_id)
        key_id = uuid.uuid4().bytes
        keyring = Keyring(root_key, row.store_id)
        backing_key = keyring.new_backing_key(key_id, 1, SYMMETRIC_DEFAULT, row.created)
        with sealed.transaction() as transaction:
            transaction.put(STORE, row)
            for slot in slots:
                transaction.put(ROOT_SLOTS, slot)
            transaction.put(BACKING_KEYS, backing_key)
            transaction.put(
                KEYS,
                KeyRow(
                    key_id,
                    KeyManager.OWNED.value,
                    SYMMETRIC_DEFAULT,
                    ENCRYPT_DECRYPT,
                    ORIGIN_KMS,
                    KeyState.ENABLED.value,
                    "envfs itself",
                    row.created,
                    backing_key.backing_key_id,
                    policy,
                ),
            )
    finally:
        store.close()


@contextlib.contextmanager
def locked_home(directory: Path) -> Iterator[None]:
    """One process at a time makes a KMS here, or restores one."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """What was made, renamed or removed in `directory` is so for good when this returns. OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
