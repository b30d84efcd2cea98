"""The order of authorisation, as a pure function.

https://docs.aws.amazon.com/kms/latest/developerguide/control-access.html and
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html

1. A Deny that matches, in the key policy or an identity policy: denied.
2. A key-policy Allow that names the principal himself (or his group, or everybody): allowed.
3. A key-policy Allow for his account only delegates: allowed if an identity policy allows it as well.
4. A grant on the key that matches: allowed.
5. Otherwise denied. A caller of another account needs an Allow on both sides.

Actions without a key are decided by identity policies alone; the account root always has them, unless one denies.
RetireGrant is decided by the grant: a key policy can only deny it.
https://docs.aws.amazon.com/kms/latest/developerguide/grant-delete.html
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from envfs.kms.policy.decision import Decision, Reason, StatementRef
from envfs.kms.policy.grants import NO_GRANTS, RETIRE_GRANT, GrantSet
from envfs.kms.policy.request import Request
from envfs.kms.policy.statement import Match, Policy, Statement

NO_MATCH: Final = Decision(allowed=False, reason=Reason.NO_MATCH)
ACCOUNT_ROOT: Final = Decision(allowed=True, reason=Reason.ACCOUNT_ROOT)


def evaluate(
    request: Request, key_policy: Policy | None, identity_policies: Sequence[Policy], grants: GrantSet = NO_GRANTS
) -> Decision:
    """The verdict on `request`. `key_policy` is None for actions that involve no key; `grants` are those of the key,
    and in RetireGrant the one that is to be retired.
    """
    denial = _find_deny(request, key_policy, identity_policies)
    if denial is not None:
        return denial
    if key_policy is None:
        return _decide_without_key(request, identity_policies)
    if request.action == RETIRE_GRANT:
        return _decide_retirement(request, identity_policies, grants)
    decision = _decide_with_key(request, key_policy, identity_policies)
    return decision if decision.allowed else _decide_by_grant(request, identity_policies, grants)


def _find_deny(request: Request, key_policy: Policy | None, identity_policies: Sequence[Policy]) -> Decision | None:
    if key_policy is not None:
        for statement in key_policy.about(request.action)[0]:
            if statement.match_principal(request.principal) is Match.DIRECT and statement.applies(request):
                return statement.decision
    for policy in identity_policies:
        for statement in policy.about(request.action)[0]:
            if statement.applies(request):
                return statement.decision
    return None


def _decide_with_key(request: Request, key_policy: Policy, identity_policies: Sequence[Policy]) -> Decision:
    principal = request.principal
    is_local = principal.arn.startswith(request.principal_prefix)
    supporting: Statement | None = None
    for statement in key_policy.about(request.action)[1]:
        match = statement.match_principal(principal)
        if match is Match.NONE or not statement.applies(request):
            continue
        if match is Match.DIRECT and is_local:
            return statement.decision
        supporting = supporting or statement
    if supporting is None:
        return NO_MATCH
    identity = _find_identity_allow(request, identity_policies)
    return NO_MATCH if identity is None else _both(supporting.ref, identity.ref)


def _decide_by_grant(request: Request, identity_policies: Sequence[Policy], grants: GrantSet) -> Decision:
    own, of_account = grants.find(request)
    if own is not None and request.principal.arn.startswith(request.principal_prefix):
        return own.decision
    supporting = own or of_account
    if supporting is None:
        return NO_MATCH
    identity = _find_identity_allow(request, identity_policies)
    return NO_MATCH if identity is None else _grant_and(supporting.grant.grant_id, identity.ref)


def _decide_retirement(request: Request, identity_policies: Sequence[Policy], grants: GrantSet) -> Decision:
    for rule in grants.rules:
        if rule.names_retiring(request.principal):
            return rule.decision
    # Else it is for the account that issued the grant: its root, or whom its identity policies allow it.
    return _decide_without_key(request, identity_policies)


def _decide_without_key(request: Request, identity_policies: Sequence[Policy]) -> Decision:
    if request.principal.is_account_root:
        return ACCOUNT_ROOT
    identity = _find_identity_allow(request, identity_policies)
    return NO_MATCH if identity is None else _both(identity.ref)


def _find_identity_allow(request: Request, identity_policies: Sequence[Policy]) -> Statement | None:
    for policy in identity_policies:
        for statement in policy.about(request.action)[1]:
            if statement.applies(request):
                return statement
    return None


@lru_cache(maxsize=4096)
def _both(*statements: StatementRef) -> Decision:
    return Decision(allowed=True, reason=Reason.IDENTITY_POLICY, statements=statements)


@lru_cache(maxsize=4096)
def _grant_and(grant_id: str, statement: StatementRef) -> Decision:
    return Decision(allowed=True, reason=Reason.GRANT, statements=(statement,), grant=grant_id)
