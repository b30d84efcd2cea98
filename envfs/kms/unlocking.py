"""Which slot opens a KMS, without asking anybody for more than is needed.

In this order: key files, systemd's credentials, foreign KMSs, and at last what somebody types. What asks nobody and
nothing comes first; what fails is remembered and told if nothing opens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from envfs.crypto.secret import Secret
from envfs.errors import ConfigError, EnvfsError, FormatError
from envfs.kms import slot_foreign, slot_systemd
from envfs.kms.engine import DATABASE, check_home, read_slots
from envfs.kms.rootkey import (
    AWS_KMS,
    KEY_FILE,
    PASSPHRASE,
    RECOVERY,
    SYSTEMD_CREDS,
    KekUnlock,
    KeyFileUnlock,
    SlotKey,
    Unlock,
    key_file_path,
    open_slot,
    typed_unlock,
)
from envfs.kms.schema import RootSlotRow
from envfs.kms.sqlite_store import SqliteStore

_TYPED: Final = (PASSPHRASE, RECOVERY)


def slots_of(home: Path) -> tuple[bytes, list[RootSlotRow]]:
    """The id of the KMS in `home`, and its slots, not yet authenticated. ConfigError if there is none."""
    check_home(home)
    database = SqliteStore.open(home / DATABASE)
    try:
        return read_slots(database)
    finally:
        database.close()


def opens_by_itself(home: Path) -> bool:
    """Whether a key file is where one of the slots looks for it: then nobody has to be asked for anything."""
    _, slots = slots_of(home)
    return any(path.exists() for path in _key_files(home, slots))


def find_unlock(home: Path, store_id: bytes, slots: Sequence[RootSlotRow], ask: Callable[[str], Secret]) -> Unlock:
    """What opens one of `slots`. `ask` gets the prompt and returns what somebody typed; it is called only if nothing
    else opens and there is a slot that a typed secret can open. ConfigError, with everything that was tried.
    """
    failures: list[EnvfsError] = []
    for way, slot in _silent_ways(home, store_id, slots, failures):
        try:
            root_key = open_slot(slot, store_id, way)
        except EnvfsError as error:
            failures.append(error)
            continue
        if root_key is not None:
            root_key.wipe()
            return way
        failures.append(way.wrong_key())
    kinds = {slot.kind for slot in slots}
    if not kinds.intersection(_TYPED):
        raise _all_failed(failures, kinds)
    try:
        return typed_unlock(ask(_prompt(kinds)))
    except ConfigError as error:
        if not failures:
            raise
        raise ConfigError(f"{_told(failures)}; {error.message}", hint=error.hint) from None


def _silent_ways(
    home: Path, store_id: bytes, slots: Sequence[RootSlotRow], failures: list[EnvfsError]
) -> Iterator[tuple[SlotKey, RootSlotRow]]:
    """Ways that ask nobody, with the slot that each is for. What cannot even be tried goes to `failures`."""
    for slot in (slot for slot in slots if slot.kind == KEY_FILE):
        try:
            yield KeyFileUnlock(key_file_path(home, slot.parameters)), slot
        except FormatError as error:
            failures.append(error)
    for slot in (slot for slot in slots if slot.kind == SYSTEMD_CREDS):
        yield from _credentials(slot, failures)
    for slot in (slot for slot in slots if slot.kind == AWS_KMS):
        try:
            parameters = slot_foreign.ForeignParameters.parse(slot.parameters)
            key = slot_foreign.unwrap_key(parameters, slot_foreign.encryption_context(store_id, slot.slot_id))
        except EnvfsError as error:
            failures.append(error)
            continue
        yield KekUnlock(AWS_KMS, key), slot


def _credentials(slot: RootSlotRow, failures: list[EnvfsError]) -> Iterator[tuple[SlotKey, RootSlotRow]]:
    """What the service manager has passed to this service, and then what this host decrypts."""
    for get in (slot_systemd.passed_credential, lambda: slot_systemd.decrypt_credential(slot.parameters)):
        try:
            key = get()
        except EnvfsError as error:
            failures.append(error)
            continue
        if key is not None:
            yield KekUnlock(SYSTEMD_CREDS, key), slot


def _key_files(home: Path, slots: Sequence[RootSlotRow]) -> list[Path]:
    return [key_file_path(home, slot.parameters) for slot in slots if slot.kind == KEY_FILE]


def _prompt(kinds: set[str]) -> str:
    if PASSPHRASE not in kinds:
        return "Recovery key of the KMS: "
    return "Passphrase of the KMS: " if RECOVERY not in kinds else "Passphrase or recovery key of the KMS: "


def _all_failed(failures: list[EnvfsError], kinds: set[str]) -> ConfigError:
    if not failures:
        known = ", ".join(sorted(kinds)) or "nothing"
        return ConfigError("this release knows no way to unlock this KMS", hint=f"it is unlocked by: {known}")
    return ConfigError(_told(failures), hint=failures[0].hint)


def _told(failures: list[EnvfsError]) -> str:
    return "; ".join(dict.fromkeys(error.message for error in failures))
