"""What would have to change for a request that is denied: each proposal is tried on the evaluator before it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from envfs.kms.model import Grant, GrantConstraints, Principal
from envfs.kms.policy.evaluator import evaluate
from envfs.kms.policy.grants import CREATE_GRANT, NO_GRANTS, RETIRE_GRANT, GrantSet
from envfs.kms.policy.request import Request
from envfs.kms.policy.statement import Match, Policy, Statement
from envfs.kms.policy.trace import Entry, Outcome, trace, verdict

MAX_GROUPS: Final = 100  # that are tried
_NOT_BY_GRANT: Final = frozenset({CREATE_GRANT, RETIRE_GRANT})


class Changes(NamedTuple):
    """`denials` must all go, or cease to apply. If that is not enough (`needs_allow`), one of the others has to come:
    a grant (`by_grant`), membership in one of `groups` (ARNs), or that one of the entries in `conditions` is met.
    """

    denials: tuple[Entry, ...] = ()
    needs_allow: bool = False
    by_grant: bool = False
    groups: tuple[str, ...] = ()
    conditions: tuple[Entry, ...] = ()


def changes_that_allow(
    request: Request, key_policy: Policy, identity_policies: Sequence[Policy], grants: GrantSet = NO_GRANTS
) -> Changes:
    """What it takes that `evaluate` would allow the request, which it denies as things are."""
    entries = trace(request, key_policy, identity_policies, grants).entries
    denials = tuple(entry for entry in entries if entry.outcome is Outcome.DENIES)
    left = tuple(entry for entry in entries if entry.outcome is not Outcome.DENIES)
    if verdict(request, left, has_key=True):
        return Changes(denials)
    gone = {id(entry.statement) for entry in denials}
    key_policy = _without(key_policy, gone)
    identity_policies = [_without(policy, gone) for policy in identity_policies]
    return Changes(
        denials,
        needs_allow=True,
        by_grant=request.action not in _NOT_BY_GRANT
        and evaluate(request, key_policy, identity_policies, GrantSet([_grant_for(request)])).allowed,
        groups=tuple(_groups(request, key_policy, identity_policies, grants)),
        conditions=tuple(entry for entry in left if _would_do(request, left, entry)),
    )


def _without(policy: Policy, gone: set[int]) -> Policy:
    return Policy([statement for statement in policy.statements if id(statement) not in gone]) if gone else policy


def _grant_for(request: Request) -> Grant:
    constraints = GrantConstraints(subset=dict(request.context)) if request.context else None
    operation = request.action.removeprefix("kms:")
    return Grant("", request.resource, "", request.principal.arn, "", "", (operation,), constraints, 0)


def _groups(request: Request, key_policy: Policy, identity_policies: Sequence[Policy], grants: GrantSet) -> list[str]:
    """Groups that a statement or a grant names, whose members would be allowed."""
    prefix = f"{request.principal_prefix}group/"
    named = {arn for statement in key_policy.statements for arn in _arns(statement)}
    named |= {rule.grant.grantee for rule in grants.rules}
    candidates = sorted(arn for arn in named - request.principal.group_arns if arn.startswith(prefix))
    found = []
    for arn in candidates[:MAX_GROUPS]:
        member = replace(request.principal, group_arns=request.principal.group_arns | {arn})
        if evaluate(request.by(member), key_policy, identity_policies, grants).allowed:
            found.append(arn)
    return found


def _arns(statement: Statement) -> frozenset[str]:
    return frozenset() if statement.principals is None else statement.principals.arns


def _would_do(request: Request, entries: Sequence[Entry], entry: Entry) -> bool:
    """Whether the request would be allowed if the conditions of `entry` were met."""
    if entry.outcome is not Outcome.UNMET or (entry.statement is not None and entry.statement.is_deny):
        return False
    met = entry._replace(outcome=_if_met(request.principal, entry))
    return verdict(request, [met if one is entry else one for one in entries], has_key=True)


def _if_met(principal: Principal, entry: Entry) -> Outcome:
    if entry.statement is not None:
        is_direct = entry.statement.match_principal(principal) is Match.DIRECT
    else:
        assert entry.rule is not None
        mine = {principal.arn, *principal.group_arns}
        is_direct = entry.rule.grant.grantee in mine or principal.is_account_root
    return Outcome.ALLOWS if is_direct else Outcome.DELEGATES
