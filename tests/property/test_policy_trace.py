"""The trace that `envfs explain` shows never says anything else than what the evaluator decides."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import event, given
from hypothesis import strategies as st

from envfs.kms.model import Grant
from envfs.kms.policy.changes import changes_that_allow
from envfs.kms.policy.evaluator import evaluate
from envfs.kms.policy.grants import GrantSet
from envfs.kms.policy.parser import parse_identity_policy, parse_key_policy
from envfs.kms.policy.request import Request
from envfs.kms.policy.statement import Policy
from envfs.kms.policy.trace import Outcome, trace, verdict
from tests.property.test_policy import HERE, NOBODY, documents, grants, requests


@given(
    st.one_of(documents(identity=False), st.just(NOBODY)),
    st.lists(documents(identity=True), max_size=2),
    requests(),
    st.lists(grants, max_size=4),
)
def test_the_trace_agrees_with_the_evaluator(
    key_policy: dict[str, Any], identity: list[dict[str, Any]], asked: Request, listed: list[Grant]
) -> None:
    parsed = None if asked.key is None else parse_key_policy(json.dumps(key_policy), HERE)
    attached = [parse_identity_policy(json.dumps(document), "p", HERE) for document in identity]
    decision = evaluate(asked, parsed, attached, GrantSet(listed))
    told = trace(asked, parsed, attached, GrantSet(listed))
    event(f"{asked.action} {decision.reason.value}")
    assert verdict(asked, told.entries, has_key=parsed is not None) is decision.allowed
    deciding = {
        entry.ref for entry in told.entries if entry.outcome in {Outcome.DENIES, Outcome.ALLOWS, Outcome.DELEGATES}
    }
    assert set(decision.statements) <= deciding
    if decision.grant:
        assert decision.grant in {entry.rule.grant.grant_id for entry in told.entries if entry.rule}


@given(
    st.one_of(documents(identity=False), st.just(NOBODY)),
    st.lists(documents(identity=True), max_size=2),
    requests(),
    st.lists(grants, max_size=3),
)
def test_what_is_proposed_would_allow_it(
    key_policy: dict[str, Any], identity: list[dict[str, Any]], asked: Request, listed: list[Grant]
) -> None:
    if asked.key is None or not asked.action.startswith("kms:De"):
        return
    parsed = parse_key_policy(json.dumps(key_policy), HERE)
    attached = [parse_identity_policy(json.dumps(one), f"p{number}", HERE) for number, one in enumerate(identity)]
    if evaluate(asked, parsed, attached, GrantSet(listed)).allowed:
        return
    changes = changes_that_allow(asked, parsed, attached, GrantSet(listed))
    event(f"denials {bool(changes.denials)}, allow needed {changes.needs_allow}, conditions {bool(changes.conditions)}")
    gone = {(entry.ref.policy, entry.ref.number) for entry in changes.denials if entry.ref}
    parsed, attached = without(parsed, gone), [without(policy, gone) for policy in attached]
    assert evaluate(asked, parsed, attached, GrantSet(listed)).allowed is not changes.needs_allow
    if not changes.needs_allow:
        return
    if asked.principal.arn.startswith(HERE.principal_prefix):
        assert changes.by_grant, "a grant to a local user always does"
    if changes.by_grant:
        operation = asked.action.removeprefix("kms:")
        grant = Grant("f" * 64, asked.resource, "", asked.principal.arn, "", "", (operation,), None, 0)
        assert evaluate(asked, parsed, attached, GrantSet([*listed, grant])).allowed
    for arn in changes.groups:
        member = replace(asked.principal, group_arns=asked.principal.group_arns | {arn})
        assert evaluate(asked.by(member), parsed, attached, GrantSet(listed)).allowed


def without(policy: Policy, gone: set[tuple[str, int]]) -> Policy:
    return Policy([one for one in policy.statements if (one.ref.policy, one.ref.number) not in gone])
