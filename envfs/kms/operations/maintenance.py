"""What a KMS does by itself when its time has come: deleting, rotating, expiring. Mounts and servers ask for it each
minute.
"""

from __future__ import annotations

import logging
from typing import Final

from envfs.errors import EnvfsError
from envfs.kms.audit.record import Call
from envfs.kms.model import KeyState
from envfs.kms.operations.deletion import DeletionOperations
from envfs.kms.operations.rotation import RotationOperations
from envfs.kms.schedule import expired, rotates
from envfs.kms.schema import KEYS, KeyRow
from envfs.kms.sealed_store import Transaction

logger: Final = logging.getLogger("envfs.kms")


class MaintenanceOperations(DeletionOperations, RotationOperations):
    """Several processes may do this at once: each key's turn is taken within a transaction that looks again."""

    def maintain(self) -> None:
        """Deletes keys whose waiting period is over, rotates those whose date has come, removes imported material that
        has expired, and anchors the audit trail. Recorded as done by envfs itself. Cheap when nothing is due.

        A key with which something is wrong does not keep the others waiting; its error is raised at the end.
        """
        self._refresh()
        failure: EnvfsError | None = None
        for row in self._store.due_keys(self._now()):
            try:
                while self._attend_to(row.key_id):
                    pass
            except EnvfsError as error:
                logger.warning("maintenance of key %s: %s", self._account.key_arn(row.key_id), error.message)
                failure = failure or error
        self._recorder.anchor()
        if self._store.erasure_is_due():
            self._store.erase()
        if failure is not None:
            raise failure

    def _attend_to(self, key_id: bytes) -> bool:
        """Does one thing that is due for the key. False if nothing is, any more."""
        self._recorder.prepare()
        try:
            with self._store.transaction() as transaction:
                row = self._store.get(KEYS, key_id)
                call = None if row is None or not 0 < row.due <= self._now() else self._do_next(transaction, row)
                if call is None:
                    raise _NothingIsDue
                call.key_arn = self._account.key_arn(key_id)
                self._record(call, None)
        except _NothingIsDue:
            return False
        finally:
            self._refresh()
        return True

    def _do_next(self, transaction: Transaction, row: KeyRow) -> Call | None:
        now = self._now()
        if row.state == KeyState.PENDING_DELETION and row.deletion_date <= now:
            return self._delete_key(transaction, row)
        backing_keys = self._catalogue.backing_keys(row.key_id)
        gone = expired(backing_keys, now)
        if gone:
            self._remove_material(transaction, row, gone)
            return Call("DeleteExpiredKeyMaterial", None)
        if rotates(row) and row.next_rotation <= now:
            return self._rotate_automatically(transaction, row)
        return None


class _NothingIsDue(Exception):
    """Undoes a transaction that has nothing to change."""
