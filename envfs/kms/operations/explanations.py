"""Why a request would be allowed or denied, of whomever; and whom the policies and grants of a key are about.

Nothing here uses a key, pins a user or leaves a record. Who may ask is for the caller to decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from envfs.errors import EnvfsError
from envfs.kms.actions import PREFIX
from envfs.kms.audit.record import Call
from envfs.kms.catalogue import Key
from envfs.kms.model import NO_FACTS, ORIGIN_FOREIGN, KeyState, Principal, RequestFacts
from envfs.kms.operations.policies import KeyPolicyOperations
from envfs.kms.policy.changes import Changes, changes_that_allow
from envfs.kms.policy.decision import Decision
from envfs.kms.policy.trace import Trace, trace
from envfs.kms.schema import IDENTITY_POLICIES, PINS


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision with all that it looked at. `changes` is None where policies and grants allow the request."""

    decision: Decision
    trace: Trace
    changes: Changes | None


@dataclass(frozen=True, slots=True)
class KeyOutline:
    """What an explanation tells of a key."""

    arn: str
    state: KeyState
    aliases: tuple[str, ...]
    is_service_managed: bool
    is_foreign: bool  # another KMS holds its material


@dataclass(frozen=True, slots=True)
class Named:
    """Names of users and groups. `everybody`: a statement is about all users, or about all of the account."""

    users: frozenset[str]
    groups: frozenset[str]
    everybody: bool


class ExplanationOperations(KeyPolicyOperations):
    """For `envfs explain`, `envfs access` and whatever else shows what would be decided."""

    def explain_fully(
        self,
        principal: Principal,
        action: str,
        key: str | bytes,
        context: Mapping[str, str],
        facts: RequestFacts = NO_FACTS,
    ) -> Explanation | None:
        """As `explain`, with every statement and grant. None if there is no such key."""
        decision = self.explain(principal, action, key, context, facts)
        found = self._outlined(key)
        if found is None:
            return None
        request = self._request(Call(action.removeprefix(PREFIX), principal, facts, context), action, found)
        policies = self._catalogue.identity_policies(principal)
        grants = self._catalogue.grants(found)
        told = trace(request, found.policy, policies, grants)
        is_denied = not self._decide(request, found).allowed
        changes = changes_that_allow(request, found.policy, policies, grants) if is_denied else None
        return Explanation(decision, told, changes)

    def outline_key(self, key: str | bytes) -> KeyOutline | None:
        """What key a blob is under, or a name means; None if there is none."""
        self._refresh()
        found = self._outlined(key)
        if found is None:
            return None
        return KeyOutline(
            found.arn, found.state, found.facts.aliases, found.is_service_managed, found.row.origin == ORIGIN_FOREIGN
        )

    def named_on_key(self, key: str | bytes) -> Named:
        """Whom the key's policy, its grants and identity policies name, and all pinned users."""
        self._refresh()
        found = self._outlined(key)
        arns = {row.principal for row in self._store.find(IDENTITY_POLICIES)}
        everybody = False
        if found is not None:
            arns |= {rule.grant.grantee for rule in self._catalogue.grants(found).rules}
            for statement in found.policy.statements:
                if statement.principals is not None:
                    arns |= statement.principals.arns
                    everybody |= statement.principals.everyone
        users, groups = self._account.user_arn(""), self._account.group_arn("")
        return Named(
            frozenset(arn.removeprefix(users) for arn in arns if arn.startswith(users))
            | {row.name for row in self._store.find(PINS)},
            frozenset(arn.removeprefix(groups) for arn in arns if arn.startswith(groups)),
            everybody,
        )

    def is_pinned_otherwise(self, uid: int, name: str) -> bool:
        """Whether the KMS knows this uid with another name, or this name with another uid. Pins nobody."""
        self._refresh()
        of_uid = self._store.get(PINS, uid)
        if of_uid is not None:
            return of_uid.name != name
        return bool(self._store.find(PINS, name=name))

    def _outlined(self, key: str | bytes) -> Key | None:
        try:
            return self._find_for_explanation(key)
        except EnvfsError:
            return None
