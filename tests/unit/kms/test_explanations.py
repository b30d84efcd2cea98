"""What the engine tells about decisions on others: everything that counts, and nothing is changed by asking."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from envfs.errors import AccessDenied, InvalidMarker
from envfs.kms.model import GrantConstraints
from envfs.kms.policy.trace import Outcome
from tests.unit.kms.kit import (
    ALICE,
    BOB,
    CONTEXT,
    OWNER,
    THROUGH_MOUNT,
    audit_records,
    every,
    owner_statement,
    policy,
    statement,
)

if TYPE_CHECKING:
    from pathlib import Path

    from envfs.kms.engine import Engine

NIGHT = {"DateLessThan": {"aws:CurrentTime": "2001-01-01"}}


@pytest.fixture
def key(engine: Engine) -> str:
    text = policy(
        owner_statement(),
        statement("Deny", BOB.arn, "kms:Decrypt", Sid="NotBob", Condition={"StringEquals": {"envfs:Access": "read"}}),
        statement("Allow", ALICE.arn, "kms:Decrypt", Sid="Once", Condition=NIGHT),
        statement("Allow", "arn:envfs:iam::000000000000:group/auditors", "kms:Decrypt", Sid="Auditors"),
    )
    return engine.create_key(OWNER, policy=text).arn


def test_each_statement_and_grant_says_why(engine: Engine, key: str) -> None:
    subset = GrantConstraints(subset={"project": "zeus"})
    engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"], constraints=subset)
    engine.create_grant(OWNER, key, BOB.arn, ["Decrypt"])
    told = engine.explain_fully(ALICE, "kms:Decrypt", key, CONTEXT, THROUGH_MOUNT)
    assert told is not None
    assert not told.decision.allowed
    by_sid = {entry.ref.sid: entry for entry in told.trace.entries if entry.ref is not None}
    assert {sid: entry.outcome for sid, entry in by_sid.items()} == {
        "Owner": Outcome.DELEGATES,
        "NotBob": Outcome.OTHER_PRINCIPAL,
        "Once": Outcome.UNMET,
        "Auditors": Outcome.OTHER_PRINCIPAL,
    }
    (unmet,) = by_sid["Once"].unmet
    assert (unmet.key, unmet.wanted) == ("aws:CurrentTime", ("2001-01-01",))
    assert str(unmet.found).startswith("2023-")
    (grant,) = [entry for entry in told.trace.entries if entry.rule is not None]
    assert (grant.outcome, told.trace.other_grants) == (Outcome.UNMET, 1)
    assert told.changes is not None
    assert (told.changes.denials, told.changes.by_grant) == ((), True)
    assert told.changes.groups == ("arn:envfs:iam::000000000000:group/auditors",)
    assert len(told.changes.conditions) == 2


def test_a_denial_has_to_go_and_more_may_be_needed(engine: Engine, key: str) -> None:
    told = engine.explain_fully(BOB, "kms:Decrypt", key, CONTEXT, THROUGH_MOUNT)
    assert told is not None
    assert told.changes is not None
    assert [entry.ref.sid for entry in told.changes.denials if entry.ref] == ["NotBob"]
    assert told.changes.needs_allow
    engine.create_grant(OWNER, key, BOB.arn, ["Decrypt"])
    told = engine.explain_fully(BOB, "kms:Decrypt", key, CONTEXT, THROUGH_MOUNT)
    assert told is not None
    assert told.changes is not None
    assert not told.changes.needs_allow


def test_asking_leaves_no_trace(engine: Engine, key: str, home: Path) -> None:
    before = len(audit_records(home))
    engine.explain_fully(BOB, "kms:Decrypt", key, CONTEXT, THROUGH_MOUNT)
    engine.named_on_key(key)
    assert not engine.is_pinned_otherwise(4711, "nobody-yet")
    assert engine.confirm_pin(4711, "nobody-yet"), "it was not pinned by asking"
    assert engine.is_pinned_otherwise(4712, "nobody-yet")
    assert engine.is_pinned_otherwise(4711, "another")
    assert len(audit_records(home)) == before


def test_who_is_named(engine: Engine, key: str) -> None:
    engine.put_identity_policy(
        OWNER, "arn:envfs:iam::000000000000:group/staff", "p", policy(statement("Allow", None, "kms:*"))
    )
    named = engine.named_on_key(key)
    assert {"alice", "bob"} <= named.users
    assert named.groups == {"auditors", "staff"}
    assert not named.everybody


def test_all_policies_are_told_to_whom_a_policy_allows_it(engine: Engine, home: Path) -> None:
    text = policy(statement("Allow", None, "kms:ListKeys"))
    for number in range(3):
        engine.put_identity_policy(OWNER, BOB.arn, f"p{number}", text)
    assert audit_records(home)[-1]["requestParameters"]["policyDocument"] == text
    with pytest.raises(AccessDenied, match="iam:GetAccountAuthorizationDetails"):
        engine.list_all_identity_policies(ALICE)
    page, marker = engine.list_all_identity_policies(OWNER, limit=2)
    assert ([one.name for one in page], marker is None) == (["p0", "p1"], False)
    assert [one.name for one in every(engine.list_all_identity_policies, OWNER)] == ["p0", "p1", "p2"]
    with pytest.raises(InvalidMarker):
        engine.list_all_identity_policies(OWNER, marker="nonsense")
