"""GetKeyPolicy, PutKeyPolicy, and what a decision would be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from envfs.errors import EnvfsError, MalformedPolicy, Validation
from envfs.format.blob import read_any_blob
from envfs.kms.actions import PREFIX
from envfs.kms.audit.record import Call
from envfs.kms.catalogue import Key
from envfs.kms.model import NO_FACTS, Principal, RequestFacts
from envfs.kms.operations.identity import IdentityOperations
from envfs.kms.operations.on_key import OnKey
from envfs.kms.policy.decision import Decision, Reason
from envfs.kms.policy.evaluator import evaluate
from envfs.kms.policy.parser import parse_new_key_policy
from envfs.kms.policy.request import ConditionValue
from envfs.kms.policy.statement import Policy
from envfs.kms.schema import KEYS
from envfs.kms.states import has_rule, refusal

POLICY_NAME: Final = "default"


class KeyPolicyOperations(OnKey, IdentityOperations):
    """Each key has exactly one policy, called `default`."""

    def get_key_policy(self, principal: Principal, key_id: str, facts: RequestFacts = NO_FACTS) -> str:
        """The policy's text, as it was put."""
        with self._on_key("GetKeyPolicy", principal, key_id, facts) as (_, key):
            return key.row.policy

    def put_key_policy(
        self,
        principal: Principal,
        key_id: str,
        policy: str,
        *,
        bypass_lockout_check: bool = False,
        facts: RequestFacts = NO_FACTS,
    ) -> None:
        """Replaces the key's policy. MalformedPolicy if it is none, or would not let the caller change it again."""
        extra = bypass_fact(bypass=bypass_lockout_check)
        parameters = {"bypassPolicyLockoutSafetyCheck": bypass_lockout_check}
        with self._on_key("PutKeyPolicy", principal, key_id, facts, parameters, extra, changes=True) as (call, key):
            parsed = parse_new_key_policy(policy, self._account)
            if not bypass_lockout_check:
                self._check_lockout(call, key, parsed)
            with self._change(call) as transaction:
                row = self._current(call, key)
                transaction.put(KEYS, row._replace(policy=policy))
                self._pin_named_users(transaction, parsed)

    def list_key_policies(self, principal: Principal, key_id: str, facts: RequestFacts = NO_FACTS) -> tuple[str, ...]:
        """The names of the key's policies: there is one, always."""
        with self._on_key("ListKeyPolicies", principal, key_id, facts):
            return (POLICY_NAME,)

    def explain(
        self,
        principal: Principal,
        action: str,
        key: str | bytes,
        context: Mapping[str, str],
        facts: RequestFacts = NO_FACTS,
    ) -> Decision:
        """What would be decided about `action` (`kms:Decrypt`) on `key` (a name of it, or a blob). No record, no use of
        the key.
        """
        self._refresh()
        operation = action.removeprefix(PREFIX)
        if not has_rule(operation):
            raise Validation(f"{action} is not an action on keys", hint="write kms:Decrypt, kms:GenerateDataKey, …")
        try:
            found = self._find_for_explanation(key)
        except EnvfsError:
            found = None
        if found is None:
            return Decision(allowed=False, reason=Reason.UNKNOWN_KEY)
        call = Call(operation, principal, facts, context)
        decision = self._decide(self._request(call, action, found), found)
        if decision.allowed and refusal(operation, found.state, found.row.origin) is not None:
            return Decision(allowed=False, reason=Reason.KEY_STATE)
        return decision

    def _find_for_explanation(self, key: str | bytes) -> Key | None:
        return (
            self._catalogue.find(read_any_blob(key).key_id) if isinstance(key, bytes) else self._catalogue.resolve(key)
        )

    def _check_lockout(self, call: Call, key: Key, policy: Policy) -> None:
        request = self._request(call, "kms:PutKeyPolicy", key)
        # Without grants: none of them can allow it.
        if not evaluate(request, policy, self._catalogue.identity_policies(request.principal)).allowed:
            raise MalformedPolicy(
                "the new key policy would not allow you to update the key policy in the future",
                hint="add a statement that allows you kms:PutKeyPolicy, or bypass this check",
            )


def bypass_fact(*, bypass: bool) -> Mapping[str, ConditionValue]:
    """The condition key of the operations that can do without the lock-out check."""
    return {"kms:bypasspolicylockoutsafetycheck": "true" if bypass else "false"}
