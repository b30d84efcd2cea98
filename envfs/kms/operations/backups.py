"""Writing a backup while the KMS is in use (FORMAT.md 9.9)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from envfs.errors import Internal
from envfs.kms.audit.chain import MAX_LINE
from envfs.kms.audit.trail import AUDIT_DIRECTORY, SUFFIX, is_durable
from envfs.kms.backup_format import BackupWriter, Header
from envfs.kms.model import NO_FACTS, Principal, RequestFacts
from envfs.kms.operations.root_slots import RootSlotOperations
from envfs.kms.rootkey import KEY_FILE_NAME, SlotKey, read_key_file, seal_slot
from envfs.kms.schema import AUDIT_CHAINS, ROOT_SLOTS, RootSlotRow
from envfs.kms.sqlite_store import SqliteStore, snapshot_rows

MANIFEST: Final = "manifest.json"
DATABASE_ENTRY: Final = "kms.db"
_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class BackupSummary:
    """What a backup holds. `created` in seconds since 1970; `slots`: what opens it."""

    created: int
    generation: int
    chains: int
    slots: tuple[RootSlotRow, ...]


class BackupOperations(RootSlotOperations):
    _home: Path
    _database: SqliteStore

    def backup(
        self,
        principal: Principal,
        out: BinaryIO,
        *,
        extra: tuple[SlotKey, bytes] | None = None,
        with_key_file: bool = False,
        facts: RequestFacts = NO_FACTS,
    ) -> BackupSummary:
        """Writes the KMS as it is at one moment to `out`, encrypted; the owner alone may. Other processes go on
        meanwhile. It opens by all slots that the KMS has, and by `extra`: a way and its parameters.
        """
        with self._recorded("envfs:BackupKms", principal, facts, {"keyFile": with_key_file}) as call:
            self._check_owner(call)
            slots = self._store.find(ROOT_SLOTS)
            if extra is not None:
                slots.append(seal_slot(self._root_key, self._store_id, *extra, self._now()))
            # Before anything leaves: there is no backup without its record, and the backup has it.
            self._record(call, None)
            call.is_recorded = True
            self._recorder.anchor()
            return self._write_backup(out, slots, with_key_file=with_key_file)

    def record_restore(self, created: int, generation: int, uid: int) -> None:
        """envfs:RestoreKms, by envfs itself: the trail says that what comes now follows on a backup of `created`
        (seconds since 1970), whose state had this generation, and which uid has restored it.
        """
        parameters = {"backupCreated": created, "backupGeneration": generation, "restoredByUid": uid}
        with self._recorded("envfs:RestoreKms", None, NO_FACTS, parameters):
            pass

    def _write_backup(self, out: BinaryIO, slots: list[RootSlotRow], *, with_key_file: bool) -> BackupSummary:
        database, generation = self._database.snapshot()
        # The chains after the database: they only grow, so each reaches at least as far as its anchor says.
        chains = snapshot_rows(database, AUDIT_CHAINS, "chain_id", "size", "sealed")
        summary = BackupSummary(self._now(), generation, len(chains), tuple(slots))
        manifest = {
            "audit_durable": is_durable(self._home / AUDIT_DIRECTORY),
            "created": summary.created,
            "generation": generation,
            "store_id": self._store_id.hex(),
        }
        writer = BackupWriter(out, self._root_key, Header.new(self._store_id, slots))
        content = json.dumps(manifest).encode("ascii")
        writer.add(MANIFEST, len(content), [content])
        writer.add(DATABASE_ENTRY, len(database), [database])
        for chain_id, size, sealed in chains:
            self._add_chain(writer, f"{chain_id.hex()}{SUFFIX}", size, None if sealed else generation)
        if with_key_file:
            with read_key_file(self._home / KEY_FILE_NAME) as key:
                writer.add(KEY_FILE_NAME, len(key), [bytes(key.expose())])
        writer.close()
        return summary

    def _add_chain(self, writer: BackupWriter, name: str, size: int, generation: int | None) -> None:
        """The chain's anchored `size` bytes; and with a `generation` what follows of it."""
        path = self._home / AUDIT_DIRECTORY / name
        try:
            with path.open("rb") as file:
                end = size if generation is None else _end_of_generation(file, size, generation)
                file.seek(0)
                writer.add(f"{AUDIT_DIRECTORY}/{name}", end, _pieces(file, end))
        except FileNotFoundError:
            raise Internal(
                f"{path} is missing: the audit trail was tampered with", hint="envfs kms verify has more"
            ) from None
        except ValueError as error:
            raise Internal(f"{path} became shorter while it was read", hint="try again") from error


def _end_of_generation(file: BinaryIO, start: int, generation: int) -> int:
    """Behind the last record after `start` that speaks of no later generation of the store than this. What another
    process changed since the database was copied, and is writing now, is no part of the backup: its records would look
    as if the store had been put back.
    """
    file.seek(start)
    end = start
    while line := file.readline(MAX_LINE):
        try:
            if not line.endswith(b"\n") or json.loads(line).get("envfs", {}).get("generation", 0) > generation:
                break
        except (ValueError, AttributeError):
            break  # left by a crash, and not yet accounted for
        end += len(line)
    return end


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
    while size and (piece := file.read(min(size, _PIECE))):
        size -= len(piece)
        yield piece
