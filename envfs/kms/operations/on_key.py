"""What the operations on one key share: finding it, authorising the call, and reading it again within a change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from envfs.errors import AccessDenied, NotFound
from envfs.kms.audit.record import Call
from envfs.kms.catalogue import Key
from envfs.kms.core import Core
from envfs.kms.model import Principal, RequestFacts
from envfs.kms.policy.decision import Decision, Reason
from envfs.kms.policy.request import NO_EXTRA, ConditionValue
from envfs.kms.schedule import with_due
from envfs.kms.schema import KEYS, KeyRow
from envfs.kms.sealed_store import Transaction


class OnKey(Core):
    """Base of the operations on one key."""

    @contextmanager
    def _on_key(
        self,
        event: str,
        principal: Principal,
        key_id: str,
        facts: RequestFacts,
        parameters: Mapping[str, object] | None = None,
        extra: Mapping[str, ConditionValue] | None = None,
        *,
        changes: bool = False,
        by_alias: bool = False,
    ) -> Iterator[tuple[Call, Key]]:
        """A call about one key, authorised by its policy. `changes`: it is refused on a key that envfs manages.
        `by_alias`: the key may be named by an alias, as few operations have it in AWS.
        """
        recorded = {"requestedKeyId": key_id, **(parameters or {})}
        with self._recorded(event, principal, facts, recorded) as call:
            key = self._catalogue.resolve(key_id) if by_alias else self._catalogue.resolve_key(key_id)
            call.key_arn = key.arn
            if changes:
                self._refuse_service_managed(call, key)
            self._authorise_key(call, key, extra=extra or NO_EXTRA)
            yield call, key

    @staticmethod
    def _refuse_service_managed(call: Call, key: Key) -> None:
        if key.is_service_managed:
            call.decisions.append(Decision(allowed=False, reason=Reason.SERVICE_MANAGED))
            raise AccessDenied(
                f"{key.arn} is managed by envfs: nobody can change its policy, its aliases or its state",
                hint="use a key of your own: envfs key create",
            )

    def _current(self, call: Call, key: Key, further: Callable[[], object] | None = None) -> KeyRow:
        """The key's row as it is in this transaction; authorised again if anything changed since it was authorised.
        `further` asks for whatever else the call was authorised by.
        """
        if not self._refresh():
            return key.row
        current = self._catalogue.find(key.row.key_id)
        if current is None:
            raise NotFound(f"there is no key {key.arn} any more")
        self._authorise_key_again(call, current)
        if further is not None:
            further()
        return current.row

    def _put_key(self, transaction: Transaction, row: KeyRow) -> None:
        """Writes a key's row, and when maintenance has to look at it; after its backing keys, if these change, too."""
        transaction.put(KEYS, with_due(row, self._catalogue.backing_keys(row.key_id)))
