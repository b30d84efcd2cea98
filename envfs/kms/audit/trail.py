"""The audit trail on disk: one chain (one file) for each process that writes at the same time.

A process takes a chain that nobody holds, or makes one, and holds it by a lock on the file. The chain's head is
anchored in the store when the process opens and closes it and every so many records; what stands after the last anchor
is protected by the chain's key alone, so that its end could be cut off unnoticed (docs/KMS.md).

In the durable mode a record is on the disk when `write` returns. It holds for all processes of a KMS; those that run
look at it when they anchor.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from envfs.crypto.mac import Mac
from envfs.crypto.secret import Secret
from envfs.errors import Internal
from envfs.kms.audit.chain import MAX_LINE, RECOVER, START, Head, Leavings, chain_mac, make_line, scan
from envfs.kms.audit.record import EVENT_VERSION, compact, format_time
from envfs.kms.schema import AUDIT_CHAINS, AuditChainRow
from envfs.kms.sealed_store import SealedStore

AUDIT_DIRECTORY: Final = "audit"
SUFFIX: Final = ".jsonl"
DURABLE_MARK: Final = "audit-durable"  # beside the directory; the mode is on while this file is there
ANCHOR_EVERY: Final = 10_000  # records
SEAL_AT: Final = 64 * 1024 * 1024  # bytes, after which a process begins a new chain


class AuditTrail:
    """`AuditSink` on files. Nothing is opened before the first record."""

    def __init__(
        self,
        directory: Path,
        store: SealedStore,
        root_key: Secret,
        store_id: bytes,
        clock: Callable[[], float],
        *,
        anchor_every: int = ANCHOR_EVERY,
        seal_at: int = SEAL_AT,
    ) -> None:
        self._directory = directory
        self._store = store
        self._root_key = root_key
        self._store_id = store_id
        self._clock = clock
        self._anchor_every = anchor_every
        self._seal_at = seal_at
        self._descriptor = -1
        self._chain_id = b""
        self._created = 0
        self._mac: Mac | None = None
        self._head = START
        self._anchored = 0
        self._is_durable = is_durable(directory)

    def prepare(self) -> None:
        """Opens a chain if there is none, anchors and seals what is due. `Internal` if no record could be written."""
        if self._store.in_transaction:
            return
        if self._descriptor >= 0 and self._head.size >= self._seal_at:
            self._leave(sealed=True)
        if self._descriptor < 0:
            self._open()
        elif self._head.sequence - self._anchored >= self._anchor_every:
            self._anchor()

    def write(self, record: str) -> None:
        head = self._head
        if self._descriptor < 0 or head.sequence - self._anchored >= self._anchor_every or head.size >= self._seal_at:
            self.prepare()
        self._append(record)

    def anchor(self) -> None:
        """Anchors the head, if there are records after the last anchor."""
        self._is_durable = is_durable(self._directory)
        if self._descriptor >= 0 and self._head.sequence != self._anchored:
            self._anchor()

    def close(self) -> None:
        """Anchors the head and lets go of the chain."""
        if self._descriptor >= 0:
            self._leave(sealed=False)

    def _append(self, record: str, before: bytes = b"") -> None:
        if self._mac is None or self._descriptor < 0:
            raise Internal("the audit trail is not open; without a record no key is handed out")
        head = self._head
        line, tag = make_line(self._mac, head.tag, f'{record},"sequence":{head.sequence + 1}'.encode("ascii"))
        if len(line) > MAX_LINE:
            # Nobody could read it, or find out whether it is authentic; nor what comes after it.
            raise Internal(f"the audit record is too long: {len(line)} bytes; without a record no key is handed out")
        try:
            if os.write(self._descriptor, before + line) != len(before) + len(line):
                self._take_back("the disk is full")
            if self._is_durable:
                os.fdatasync(self._descriptor)
        except OSError as error:
            self._take_back(error.strerror or str(error))
        self._head = Head(head.sequence + 1, tag, head.size + len(before) + len(line))

    def _take_back(self, reason: str) -> NoReturn:
        """Removes what a failed write left of a line. If not even that works, the next writer accounts for it."""
        try:
            os.ftruncate(self._descriptor, self._head.size)
        except OSError:
            self._release()
        raise Internal(
            f"the audit record cannot be written: {reason}",
            hint="without a record no key is handed out; free some space",
        )

    def _open(self) -> None:
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            if not any(self._continue(row) for row in self._store.find(AUDIT_CHAINS) if not row.sealed):
                self._begin()
        except BaseException as error:
            # A chain that is not in the store is none: nothing may be written to it.
            self._release()
            if not isinstance(error, OSError):
                raise
            raise Internal(
                f"the audit trail in {self._directory} cannot be opened: {error.strerror}",
                hint="without a record no key is handed out",
            ) from error

    def _begin(self) -> None:
        chain_id = os.urandom(16)
        # The file before the row: a row without its file is tampering, a file that is empty is nothing.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._path(chain_id), flags, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self._use(chain_id, int(self._clock()), START)
        try:
            self._anchor()
        except BaseException:
            self._path(chain_id).unlink()
            raise

    def _continue(self, found: AuditChainRow) -> bool:
        """Takes over a chain that nobody holds. False if somebody does, or if it was cut."""
        try:
            descriptor = os.open(self._path(found.chain_id), os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Read again: whoever held it until now has anchored it since.
            row = self._store.get(AUDIT_CHAINS, found.chain_id)
            if row is None or row.sealed or row.size >= self._seal_at or os.fstat(descriptor).st_size < row.size:
                os.close(descriptor)
                return False
            mac = chain_mac(self._root_key, self._store_id, row.chain_id)
            with os.fdopen(os.dup(descriptor), "rb") as file:
                file.seek(row.size)
                state = scan(file, mac, Head(row.sequence, row.tag, row.size))
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._use(row.chain_id, row.created, state.head)
        self._anchored = row.sequence
        if state.rest is not None:
            self._recover(state.rest)
        if self._head.sequence != self._anchored:
            self._anchor()
        return True

    def _recover(self, rest: Leavings) -> None:
        """Ends a line that a crash cut off, and accounts for it."""
        self._head = Head(self._head.sequence, self._head.tag, self._head.size + rest.length)
        record = {
            "eventVersion": EVENT_VERSION,
            "userIdentity": {"type": "AWSService", "invokedBy": "envfs"},
            "eventTime": format_time(int(self._clock())),
            "eventSource": "kms.envfs",
            "eventName": RECOVER,
            "readOnly": False,
            "requestParameters": rest.parameters,
        }
        self._append(compact(record)[:-1], before=b"\n")

    def _use(self, chain_id: bytes, created: int, head: Head) -> None:
        self._chain_id = chain_id
        self._created = created
        self._mac = chain_mac(self._root_key, self._store_id, chain_id)
        self._head = head
        self._anchored = head.sequence

    def _anchor(self, *, sealed: bool = False) -> None:
        # The content before the anchor: an anchor that promises more than a power cut left would look like tampering.
        os.fdatasync(self._descriptor)
        head = self._head
        row = AuditChainRow(self._chain_id, head.sequence, head.tag, head.size, int(sealed), self._created)
        with self._store.transaction() as transaction:
            transaction.put(AUDIT_CHAINS, row)
        self._anchored = head.sequence

    def _leave(self, *, sealed: bool) -> None:
        try:
            if sealed or self._head.sequence != self._anchored:
                self._anchor(sealed=sealed)
        finally:
            self._release()

    def _release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)  # which gives the lock back
        self._descriptor = -1
        self._mac = None

    def set_durable(self, *, on: bool) -> None:
        """Turns the durable mode on or off, here at once and elsewhere with the next anchor. OSError."""
        mark = self._directory.parent / DURABLE_MARK
        if on:
            mark.touch(mode=0o600)
        else:
            mark.unlink(missing_ok=True)
        self._is_durable = on

    def _path(self, chain_id: bytes) -> Path:
        return self._directory / f"{chain_id.hex()}{SUFFIX}"


def is_durable(directory: Path) -> bool:
    """Whether the trail in `directory` is in the durable mode."""
    return (directory.parent / DURABLE_MARK).exists()
