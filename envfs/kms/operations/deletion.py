"""ScheduleKeyDeletion, CancelKeyDeletion, and the end of a key.

https://docs.aws.amazon.com/kms/latest/developerguide/deleting-keys.html
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from envfs.errors import Internal, Validation
from envfs.kms.audit.record import Call
from envfs.kms.model import NO_FACTS, ORIGIN_EXTERNAL, KeyState, Principal, RequestFacts, ScheduledDeletion
from envfs.kms.operations.on_key import OnKey
from envfs.kms.schedule import DAY, has_expired, is_pending_rotation, permanent_material
from envfs.kms.schema import ALIASES, BACKING_KEYS, GRANTS, KEYS, TAGS, BackingKeyRow, KeyRow
from envfs.kms.sealed_store import Transaction

SHORTEST_WINDOW: Final = 7  # days
LONGEST_WINDOW: Final = 30


class DeletionOperations(OnKey):
    """A key that is deleted takes all that was encrypted under it with it: hence the waiting period."""

    def schedule_key_deletion(
        self, principal: Principal, key_id: str, days: int = LONGEST_WINDOW, facts: RequestFacts = NO_FACTS
    ) -> ScheduledDeletion:
        """Nobody can use the key from now on, and in 7 to 30 days it is gone, unless that is cancelled before."""
        extra = {"kms:schedulekeydeletionpendingwindowindays": str(days)}
        parameters = {"pendingWindowInDays": days}
        with self._on_key("ScheduleKeyDeletion", principal, key_id, facts, parameters, extra, changes=True) as (
            call,
            key,
        ):
            if not SHORTEST_WINDOW <= days <= LONGEST_WINDOW:
                raise Validation(f"the waiting period has {SHORTEST_WINDOW} to {LONGEST_WINDOW} days, not {days}")
            date = self._now() + days * DAY
            if self._now() < key.row.created:
                # The waiting period would be over, or nearly, when somebody sets the clock right.
                raise Internal(
                    f"the host's clock is wrong: {key.arn} was made later", hint="set the clock, and try again"
                )
            with self._change(call) as transaction:
                row = self._current(call, key)
                self._put_key(transaction, row._replace(state=KeyState.PENDING_DELETION.value, deletion_date=date))
        return ScheduledDeletion(key.arn, date, KeyState.PENDING_DELETION, days)

    def cancel_key_deletion(self, principal: Principal, key_id: str, facts: RequestFacts = NO_FACTS) -> str:
        """The key's ARN. The key is disabled then; one whose imported material is gone is pending import."""
        with (
            self._on_key("CancelKeyDeletion", principal, key_id, facts, changes=True) as (call, key),
            self._change(call) as transaction,
        ):
            row = self._current(call, key)
            state = KeyState.DISABLED if self._has_material(row) else KeyState.PENDING_IMPORT
            self._put_key(transaction, row._replace(state=state.value, deletion_date=0))
        return key.arn

    def _has_material(self, row: KeyRow) -> bool:
        """Whether all the material is there that the key needs to be usable."""
        if row.origin != ORIGIN_EXTERNAL:
            return True
        material = permanent_material(row, self._catalogue.backing_keys(row.key_id))
        now = self._now()
        return bool(row.backing_key_id) and all(one.wrapped and not has_expired(one, now) for one in material)

    def _delete_key(self, transaction: Transaction, row: KeyRow) -> Call:
        """The end of the waiting period: the key goes with all that belongs to it."""
        key_id = row.key_id
        self._store.note_erasure()
        for backing_key in self._store.find(BACKING_KEYS, key_id=key_id):
            transaction.delete(BACKING_KEYS, backing_key.backing_key_id)
        for alias in self._store.find(ALIASES, key_id=key_id):
            transaction.delete(ALIASES, alias.name)
        for grant in self._store.find(GRANTS, key_id=key_id):
            transaction.delete(GRANTS, grant.grant_id)
        for tag in self._store.find(TAGS, key_id=key_id):
            transaction.delete(TAGS, key_id, tag.name)
        transaction.delete(KEYS, key_id)
        return Call("DeleteKey", None)

    def _remove_material(self, transaction: Transaction, row: KeyRow, gone: Iterable[BackingKeyRow]) -> None:
        """Nothing remains of imported material itself; the key can be used again when the same is imported."""
        self._store.note_erasure()
        current = self._catalogue.backing_key(row.backing_key_id)
        for backing_key in gone:
            if is_pending_rotation(backing_key, current):
                # Nothing was ever encrypted under it, so it need not be the same that is imported next.
                transaction.delete(BACKING_KEYS, backing_key.backing_key_id)
            else:
                transaction.put(BACKING_KEYS, backing_key._replace(wrapped=b""))
        if row.state != KeyState.PENDING_DELETION and not self._has_material(row):
            row = row._replace(state=KeyState.PENDING_IMPORT.value)
        self._put_key(transaction, row)
