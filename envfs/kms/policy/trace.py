"""What every statement and grant says to a request, one by one, and what the request lacks where they say nothing.

For explanations only: `evaluator` decides. A test with arbitrary policies (`tests/property/test_policy_trace.py`) shows
that the verdict which follows from the entries here is always the evaluator's.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from envfs.kms.model import Principal
from envfs.kms.policy.condition_keys import find_condition_key
from envfs.kms.policy.conditions import compile_conditions, to_values
from envfs.kms.policy.decision import StatementRef
from envfs.kms.policy.grants import NO_GRANTS, RETIRE_GRANT, GrantRule, GrantSet
from envfs.kms.policy.request import ConditionValue, Request
from envfs.kms.policy.statement import Match, Policy, Statement

MAX_GRANTS: Final = 200  # that are told one by one


class Outcome(enum.StrEnum):
    """What one statement or grant says to the request."""

    DENIES = "denies"
    ALLOWS = "allows"
    DELEGATES = "delegates"  # it allows what an identity policy allows as well
    OTHER_ACTION = "other-action"
    OTHER_PRINCIPAL = "other-principal"
    OTHER_RESOURCE = "other-resource"
    UNMET = "unmet"  # a condition, or a grant's constraint


class Unmet(NamedTuple):
    """A condition that does not hold: operator, condition key, the policy's values; `found`: the request's value, None
    for none. `is_error`: it cannot be evaluated for this request.
    """

    operator: str
    key: str
    wanted: tuple[str, ...]
    found: ConditionValue | None
    is_error: bool = False


class Entry(NamedTuple):
    """A statement (`statement`) or a grant (`rule`). `concerns_caller`: whether it is about him, his groups, his
    account, or everybody.
    """

    statement: Statement | None
    rule: GrantRule | None
    outcome: Outcome
    concerns_caller: bool
    is_identity: bool = False
    unmet: tuple[Unmet, ...] = ()

    @property
    def ref(self) -> StatementRef | None:
        return None if self.statement is None else self.statement.ref


class Trace(NamedTuple):
    """All statements, the grants that concern the caller (at most `MAX_GRANTS`), and how many others there are."""

    entries: tuple[Entry, ...]
    other_grants: int


def trace(
    request: Request, key_policy: Policy | None, identity_policies: Sequence[Policy], grants: GrantSet = NO_GRANTS
) -> Trace:
    """What `evaluate` looks at, whether it needs it for its decision or not. Takes the same."""
    entries = [] if key_policy is None else [_look_at(request, one, identity=False) for one in key_policy.statements]
    entries += [_look_at(request, one, identity=True) for policy in identity_policies for one in policy.statements]
    if key_policy is None:
        return Trace(tuple(entries), 0)
    operation = request.action.removeprefix("kms:")
    # Those that could decide come first, should there be more than are told.
    concerning = sorted(_concerning(request.principal, grants), key=lambda rule: operation not in rule.operations)
    entries += [_look_at_grant(request, rule) for rule in concerning[:MAX_GRANTS]]
    return Trace(tuple(entries), len(grants.rules) - len(concerning[:MAX_GRANTS]))


def verdict(request: Request, entries: Sequence[Entry], *, has_key: bool) -> bool:
    """Whether the request is allowed, from the entries alone; in the order that `evaluator` describes."""
    if any(entry.outcome is Outcome.DENIES for entry in entries):
        return False
    principal = request.principal
    is_local = principal.arn.startswith(request.principal_prefix)
    by_identity = any(entry.is_identity and entry.outcome is Outcome.ALLOWS for entry in entries)
    of_key = [entry for entry in entries if not entry.is_identity]
    if request.action == RETIRE_GRANT and has_key:
        of_key = [entry for entry in of_key if entry.rule is not None]
        return any(entry.outcome is Outcome.ALLOWS for entry in of_key) or principal.is_account_root or by_identity
    if not has_key:
        return principal.is_account_root or by_identity
    if is_local and any(entry.outcome is Outcome.ALLOWS for entry in of_key):
        return True
    return by_identity and any(entry.outcome in {Outcome.ALLOWS, Outcome.DELEGATES} for entry in of_key)


def _look_at(request: Request, statement: Statement, *, identity: bool) -> Entry:
    match = statement.match_principal(request.principal)
    concerns = match is not Match.NONE
    unmet: tuple[Unmet, ...] = ()
    if not statement.covers(request.action):
        outcome = Outcome.OTHER_ACTION
    elif (statement.is_deny and match is not Match.DIRECT) or not concerns:
        outcome = Outcome.OTHER_PRINCIPAL
    elif statement.applies(request):
        if statement.is_deny:
            outcome = Outcome.DENIES
        else:
            outcome = Outcome.DELEGATES if match is Match.DELEGATED else Outcome.ALLOWS
    else:
        unmet = tuple(_unmet(request, statement))
        outcome = Outcome.UNMET if unmet else Outcome.OTHER_RESOURCE
    return Entry(statement, None, outcome, concerns, identity, unmet)


def _unmet(request: Request, statement: Statement) -> Iterator[Unmet]:
    """Its conditions, each on its own."""
    source = statement.source
    for operator, keys in source.element.get("Condition", {}).items():
        for name, values in keys.items():
            (clause,) = compile_conditions(
                {operator: {name: values}}, variables=source.variables, identity=source.identity
            )
            wanted = tuple(to_values(values, name))
            try:
                if not clause(request):
                    yield Unmet(operator, name, wanted, find_condition_key(name).getter(request))
            except Exception:  # noqa: BLE001 - as in Statement.applies: whatever it is, it does not hold
                yield Unmet(operator, name, wanted, None, is_error=True)


def _concerning(principal: Principal, grants: GrantSet) -> Iterator[GrantRule]:
    account = principal.arn.split(":", 5)[4]
    mine = {principal.arn, *principal.group_arns}
    for rule in grants.rules:
        if rule.grant.grantee in mine or rule.grantee_account == account or rule.names_retiring(principal):
            yield rule


def _look_at_grant(request: Request, rule: GrantRule) -> Entry:
    principal = request.principal
    if request.action == RETIRE_GRANT:
        outcome = Outcome.ALLOWS if rule.names_retiring(principal) else Outcome.OTHER_PRINCIPAL
        return Entry(None, rule, outcome, concerns_caller=True)
    is_own = rule.grant.grantee in {principal.arn, *principal.group_arns}
    is_of_account = rule.grantee_account == principal.arn.split(":", 5)[4]
    if request.action.removeprefix("kms:") not in rule.operations:
        outcome = Outcome.OTHER_ACTION
    elif not is_own and not is_of_account:
        outcome = Outcome.OTHER_PRINCIPAL  # he may retire it, and that is all
    elif not rule.permits(request):
        outcome = Outcome.UNMET
    else:
        outcome = Outcome.ALLOWS if is_own or principal.is_account_root else Outcome.DELEGATES
    return Entry(None, rule, outcome, concerns_caller=True)
