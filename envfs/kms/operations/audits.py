"""Looking at the KMS itself: whether its store and its audit trail are authentic, and what the trail says."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from envfs.crypto.secret import Secret
from envfs.errors import Internal, Validation
from envfs.kms.audit.chain import chain_mac
from envfs.kms.audit.checkpoint import Checkpoint, checkpoint_mac, from_text, take, to_text
from envfs.kms.audit.query import Question, query
from envfs.kms.audit.trail import AUDIT_DIRECTORY, is_durable
from envfs.kms.audit.verify import Verification, verify_trail
from envfs.kms.core import Core
from envfs.kms.model import NO_FACTS, Principal, RequestFacts

MAX_RECORDS: Final = 1000


class AuditOperations(Core):
    """Each needs a permission `envfs:…` in an identity policy; the account root has it. They read whole files: slow."""

    _home: Path
    _root_key: Secret
    _store_id: bytes

    def verify_audit(self, since: Checkpoint | None = None) -> Verification:
        """Checks the audit trail, also while other processes write to it: all of it, or what came after `since`."""
        self._refresh()
        return verify_trail(self._home / AUDIT_DIRECTORY, self._store, self._root_key, self._store_id, since)

    def verify_everything(self) -> tuple[int, int, list[str]]:
        """Chains, records, and what is wrong with the store or the trail: nothing is recorded, and nobody's permission
        asked. For who has just restored a KMS.
        """
        problems = self._store.verify_all()
        trail = self.verify_audit()
        return trail.chains, trail.records, [*problems, *trail.problems]

    def check_audit(
        self, principal: Principal, facts: RequestFacts = NO_FACTS, *, checkpoint: str | None = None
    ) -> Verification:
        """VerifyAudit: what `verify_audit` finds. Validation for a checkpoint that is none of this KMS."""
        with self._recorded("envfs:VerifyAudit", principal, facts) as call:
            self._authorise(call, call.event)
            since = None
            if checkpoint is not None:
                since = from_text(checkpoint, checkpoint_mac(self._root_key, self._store_id), self._store_id)
            return self.verify_audit(since)

    def checkpoint_audit(self, principal: Principal, facts: RequestFacts = NO_FACTS) -> str:
        """CheckpointAudit: where the trail stands now, to be kept elsewhere; a line of JSON."""
        with self._recorded("envfs:CheckpointAudit", principal, facts) as call:
            self._authorise(call, call.event)
            self._recorder.anchor()
            checkpoint = take(
                self._home / AUDIT_DIRECTORY, self._store, self._root_key, self._store_id, int(self._clock())
            )
            return to_text(checkpoint, checkpoint_mac(self._root_key, self._store_id))

    def set_audit_durability(self, principal: Principal, facts: RequestFacts = NO_FACTS, *, on: bool) -> None:
        """SetAuditDurability: whether records are on the disk before a key is released. Recorded before it counts."""
        with self._recorded("envfs:SetAuditDurability", principal, facts, {"durable": on}) as call:
            self._authorise(call, call.event)
            self._record(call, None)
            call.is_recorded = True
            try:
                self._recorder.set_durable(on=on)
            except OSError as error:
                raise Internal(f"the setting cannot be written: {error.strerror}") from error

    def audit_is_durable(self) -> bool:
        """Whether the durable mode is on."""
        return is_durable(self._home / AUDIT_DIRECTORY)

    def check_store(self, principal: Principal, facts: RequestFacts = NO_FACTS) -> list[str]:
        """VerifyStore: every problem that there is in the store, as a sentence; none if it is authentic."""
        with self._recorded("envfs:VerifyStore", principal, facts) as call:
            self._authorise(call, call.event)
            return self._store.verify_all()

    def query_audit(
        self,
        principal: Principal,
        question: Question,
        *,
        limit: int = 100,
        marker: str | None = None,
        newest: bool = False,
        facts: RequestFacts = NO_FACTS,
    ) -> tuple[list[dict[str, Any]], str, bool]:
        """At most `limit` (1 to 1,000) records that fit, oldest first; the marker behind them; whether there may be
        more. `newest`: the last ones.
        """
        with self._recorded("envfs:QueryAudit", principal, facts) as call:
            self._authorise(call, call.event)
            if not 1 <= limit <= MAX_RECORDS:
                raise Validation(f"the limit is from 1 to {MAX_RECORDS}, not {limit}")
            if question.key is not None:
                question = replace(question, key=self._arn_of(question.key))
            key = partial(chain_mac, self._root_key, self._store_id)
            return query(self._home / AUDIT_DIRECTORY, key, question, limit=limit, marker=marker, newest=newest)

    def _arn_of(self, reference: str) -> str:
        """The ARN of the key that is named, also of one that is there no more."""
        parsed = self._account.parse_reference(reference)
        return self._catalogue.resolve(reference).arn if parsed.key_id is None else self._account.key_arn(parsed.key_id)
