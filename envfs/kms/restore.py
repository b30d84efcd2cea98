"""Restoring a backup: nothing is there before all of it has been read, found authentic and verified (FORMAT.md 9.9)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

from envfs.crypto.kdf import KEY_SIZE
from envfs.crypto.secret import Secret
from envfs.errors import ConfigError, FormatError, IntegrityError, Internal
from envfs.kms.audit.trail import AUDIT_DIRECTORY, DURABLE_MARK, SUFFIX
from envfs.kms.backup_format import BackupReader, Header, read_header
from envfs.kms.bootstrap import locked_home, sync_directory
from envfs.kms.engine import DATABASE, Engine, check_home
from envfs.kms.operations.backups import DATABASE_ENTRY, MANIFEST
from envfs.kms.rootkey import KEY_FILE, KEY_FILE_NAME, Unlock, open_slots
from envfs.kms.schema import RootSlotRow

_TEMPORARY: Final = ".restore-"
_CHAIN: Final = re.compile(rf"{AUDIT_DIRECTORY}/[0-9a-f]{{32}}{re.escape(SUFFIX)}")
_MAX_MANIFEST: Final = 65_536
_IN_THE_WAY: Final = ("", "-wal", "-shm", "-journal")

FindUnlock = Callable[[bytes, Sequence[RootSlotRow]], Unlock]


@dataclass(frozen=True, slots=True)
class Restored:
    """What the backup held. `created`: when it was made, in seconds since 1970. `aside`: where an audit trail went that
    was there before; None if there was none. `added_slot`: what opened it, if only the backup had that; the KMS has it
    now. `needs_key_file`: a slot wants one in its place, and there is none.
    """

    store_id: bytes
    created: int
    generation: int
    chains: int
    records: int
    opened_by: str
    audit_durable: bool = False
    aside: Path | None = None
    added_slot: bytes | None = None
    needs_key_file: bool = False


def check_backup(file: BinaryIO, find: FindUnlock) -> Restored:
    """Everything that `restore_backup` does but the last step; what it makes meanwhile is in a directory of $TMPDIR
    that only this user can enter, and gone at the end.
    """
    with tempfile.TemporaryDirectory(prefix="envfs-check-") as name:
        return _unpack(file, find, Path(name), is_final=False)[0]


def restore_backup(file: BinaryIO, home: Path, find: FindUnlock, *, key_file: Secret | None = None) -> Restored:
    """Makes the KMS of the backup in `home`. `find` gets the store id and the slots, and says what opens one.
    `key_file`: what is to be its root.key, if it has none.

    ConfigError if there is a KMS in `home`, or nothing opens the backup; FormatError, IntegrityError if it is none, or
    not authentic and whole. Then, and whenever this is interrupted, there is no KMS in `home`.
    """
    is_new = not home.exists()
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{home} cannot be made: {error.strerror}", hint="set ENVFS_HOME to a directory that you may make"
        ) from error
    try:
        check_home(home)
        with locked_home(home):
            _check_free(home)
            for leaving in home.glob(f"{_TEMPORARY}*"):  # of one that was killed
                shutil.rmtree(leaving)
            with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=home) as name:
                temporary = Path(name)
                restored, slots = _unpack(file, find, temporary, is_final=True)
                _add_key_file(temporary, home, key_file)
                return _put_in_place(temporary, home, restored, slots)
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):
                home.rmdir()
        raise


def _check_free(home: Path) -> None:
    for suffix in _IN_THE_WAY:
        path = home / f"{DATABASE}{suffix}"
        if path.exists():
            # The log of another database would be taken for one of the restored database, and written into it.
            raise ConfigError(
                f"there is a KMS in {home}: {path.name}",
                hint=f"restore into another directory (ENVFS_HOME), or move {DATABASE}, {DATABASE}-wal and"
                f" {DATABASE}-shm away when no process uses them",
            )


def _unpack(
    file: BinaryIO, find: FindUnlock, directory: Path, *, is_final: bool
) -> tuple[Restored, Sequence[RootSlotRow]]:
    header = read_header(file)
    root_key, slot = open_slots(header.slots, header.store_id, find(header.store_id, header.slots))
    is_kept = False
    try:
        manifest = _extract(BackupReader(file, root_key, header), header, directory, keep_key_file=is_final)
        # The engine wipes the key that it is given.
        with Engine.open_with_root_key(directory, header.store_id, Secret(root_key.expose())) as engine:
            chains, records, problems = engine.verify_everything()
            if problems:
                raise IntegrityError(
                    f"what the backup holds is not authentic: {problems[0]}", hint="take another backup"
                )
            if is_final:
                engine.record_restore(manifest["created"], manifest["generation"], os.getuid())
                is_kept = slot.slot_id not in {row.slot_id for row in engine.all_slots()}
                engine.keep_slot_of_backup(slot)
            slots = engine.all_slots()
    finally:
        root_key.wipe()
    if any((directory / f"{DATABASE}{suffix}").exists() for suffix in _IN_THE_WAY[1:]):
        raise Internal("the log of the restored database could not be written into it")
    restored = Restored(
        header.store_id,
        manifest["created"],
        manifest["generation"],
        chains,
        records,
        slot.kind,
        manifest["audit_durable"],
        added_slot=slot.slot_id if is_kept else None,
    )
    return restored, slots


def _extract(reader: BackupReader, header: Header, directory: Path, *, keep_key_file: bool) -> dict[str, Any]:
    """Writes all entries into `directory` and returns the manifest. A key file among them opens the KMS: where it is
    not to be kept, it does not get to a disk.
    """
    (directory / AUDIT_DIRECTORY).mkdir(mode=0o700)
    seen: list[str] = []
    manifest: dict[str, Any] = {}
    for name, size, content in reader.entries():
        _check_entry(name, size, seen)
        seen.append(name)
        if name == MANIFEST:
            manifest = _manifest(b"".join(content), header)
        elif name == KEY_FILE_NAME and not keep_key_file:
            for _ in content:  # authentic, as all of it
                pass
        else:
            _write(directory / name, content, 0o400 if name == KEY_FILE_NAME else 0o600)
    if len(seen) < 2:
        raise FormatError("the backup holds no database")
    sync_directory(directory / AUDIT_DIRECTORY)
    return manifest


def _check_entry(name: str, size: int, seen: Sequence[str]) -> None:
    expected = (MANIFEST, DATABASE_ENTRY)[len(seen)] if len(seen) < 2 else None
    if expected is not None:
        is_right = name == expected and (name != MANIFEST or size <= _MAX_MANIFEST)
    elif name == KEY_FILE_NAME:
        is_right = size == KEY_SIZE
    else:
        is_right = _CHAIN.fullmatch(name) is not None
    if not is_right or name in seen or (seen and seen[-1] == KEY_FILE_NAME):
        raise FormatError(f"the backup has an entry {name!r} of {size} bytes where none should be")


def _manifest(content: bytes, header: Header) -> dict[str, Any]:
    try:
        found = json.loads(content)
        values = {name: found[name] for name in ("created", "generation", "store_id")}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise FormatError("the manifest of the backup is damaged") from None
    values["audit_durable"] = found.get("audit_durable") is True
    if values["store_id"] != header.store_id.hex() or not all(
        isinstance(values[name], int) for name in ("created", "generation")
    ):
        raise FormatError("the manifest of the backup does not fit its header")
    return values


def _write(path: Path, content: Iterator[bytes], mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        for piece in content:
            file.write(piece)
        file.flush()
        os.fsync(descriptor)


def _add_key_file(temporary: Path, home: Path, key_file: Secret | None) -> None:
    """The key file that is to be in `home` is in `temporary` then, unless it is in its place. ConfigError if another
    one is.
    """
    source = temporary / KEY_FILE_NAME
    if key_file is not None and not source.exists():
        _write(source, iter([bytes(key_file.expose())]), 0o400)
    target = home / KEY_FILE_NAME
    if source.exists() and target.exists():
        if target.read_bytes() != source.read_bytes():
            raise ConfigError(f"{target} is another key file", hint="move it away, or restore into another directory")
        source.unlink()


def _put_in_place(temporary: Path, home: Path, restored: Restored, slots: Sequence[RootSlotRow]) -> Restored:
    """The database comes last: from then on there is a KMS; before, there is nothing that anybody looks at."""
    audit = home / AUDIT_DIRECTORY
    aside = None
    if audit.exists():
        aside = _free_name(home)
        audit.rename(aside)
    (temporary / AUDIT_DIRECTORY).rename(audit)
    if (temporary / KEY_FILE_NAME).exists():
        (temporary / KEY_FILE_NAME).rename(home / KEY_FILE_NAME)
    if restored.audit_durable:
        (home / DURABLE_MARK).touch(0o600)
    sync_directory(home)
    (temporary / DATABASE).rename(home / DATABASE)
    sync_directory(home)
    wants = any(slot.kind == KEY_FILE and not slot.parameters for slot in slots)
    needs_key_file = wants and not (home / KEY_FILE_NAME).exists()
    return replace(restored, aside=aside, needs_key_file=needs_key_file)


def _free_name(home: Path) -> Path:
    number = 1
    while (path := home / f"{AUDIT_DIRECTORY}.before-restore.{number}").exists():
        number += 1
    return path
