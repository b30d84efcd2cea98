"""The order of authorisation, with outcomes that AWS's documentation states."""

from __future__ import annotations

import pytest

from envfs.kms.model import Principal, RequestFacts
from envfs.kms.policy.decision import Reason
from envfs.kms.policy.defaults import default_key_policy, service_managed_policy
from envfs.kms.policy.evaluator import evaluate
from envfs.kms.policy.parser import parse_identity_policy, parse_key_policy
from envfs.kms.policy.statement import Policy
from tests.unit.kms.kit import ACCOUNT, ALICE, BOB, OWNER, ROOT, person, policy, statement
from tests.unit.kms.requests import KEY, request

DEFAULT = parse_key_policy(default_key_policy(ACCOUNT), ACCOUNT)


def key_policy(*statements: dict[str, object]) -> Policy:
    return parse_key_policy(policy(*statements), ACCOUNT)


def identity(*statements: dict[str, object], name: str = "p") -> Policy:
    return parse_identity_policy(policy(*statements), name, ACCOUNT)


ALLOW_DECRYPT = identity(statement("Allow", None, "kms:Decrypt"))
DENY_DECRYPT = identity(statement("Deny", None, "kms:Decrypt", Sid="No"))


def test_nothing_is_allowed_by_default() -> None:
    decision = evaluate(request(), key_policy(statement("Allow", BOB.arn, "kms:*")), ())
    assert (decision.allowed, decision.reason, decision.statements) == (False, Reason.NO_MATCH, ())


def test_a_key_policy_allows_whom_it_names_without_any_identity_policy() -> None:
    decision = evaluate(request(), key_policy(statement("Allow", ALICE.arn, "kms:Decrypt", Sid="Users")), ())
    assert (decision.allowed, decision.reason) == (True, Reason.KEY_POLICY)
    assert decision.text == "allowed by Allow statement 'Users' of key policy"


@pytest.mark.parametrize(
    "name", ["*", {"AWS": "*"}, {"AWS": [ALICE.arn, BOB.arn]}, {"AWS": ACCOUNT.group_arn("finance")}]
)
def test_ways_to_name_alice(name: object) -> None:
    allow = key_policy(statement("Allow", None, "kms:*", Principal=name))
    assert evaluate(request(), allow, ()).reason is Reason.KEY_POLICY


@pytest.mark.parametrize("name", [ACCOUNT.user_arn("Alice"), ACCOUNT.group_arn("alice"), ACCOUNT.user_arn("finance")])
def test_names_that_are_not_alice_s(name: str) -> None:
    assert not evaluate(request(), key_policy(statement("Allow", name, "kms:*")), ()).allowed


@pytest.mark.parametrize("account", [ACCOUNT.root_arn, ACCOUNT.account_id])
def test_an_account_delegates_to_identity_policies(account: str) -> None:
    """AWS: "Allows access to the AWS account and enables IAM policies"; the statement alone allows nobody else."""
    delegating = key_policy(statement("Allow", account, "kms:*", Sid="Enable"))
    assert not evaluate(request(), delegating, ()).allowed
    decision = evaluate(request(), delegating, (ALLOW_DECRYPT,))
    assert (decision.allowed, decision.reason) == (True, Reason.IDENTITY_POLICY)
    assert decision.text == "allowed by Allow statement 'Enable' of key policy and Allow statement number 1 of p"


def test_without_that_statement_identity_allows_are_void_but_denies_work() -> None:
    """AWS: "without this permission, IAM policies that allow access to the key are ineffective, IAM policies that deny
    access to the key are still effective"."""
    direct = key_policy(statement("Allow", ALICE.arn, "kms:GenerateDataKey"))
    assert not evaluate(request(), direct, (ALLOW_DECRYPT,)).allowed
    both = key_policy(statement("Allow", ALICE.arn, "kms:Decrypt"))
    decision = evaluate(request(), both, (DENY_DECRYPT,))
    assert (decision.allowed, decision.reason) == (False, Reason.EXPLICIT_DENY)
    assert decision.text == "denied by Deny statement 'No' of p"


def test_the_delegation_reaches_as_far_as_its_statement() -> None:
    describing = key_policy(statement("Allow", ACCOUNT.root_arn, "kms:DescribeKey"))
    assert not evaluate(request(), describing, (ALLOW_DECRYPT,)).allowed


def test_the_account_root_is_allowed_by_the_delegation_itself() -> None:
    assert evaluate(request(OWNER), DEFAULT, ()).reason is Reason.KEY_POLICY
    assert not evaluate(request(ALICE), DEFAULT, ()).allowed


def test_the_account_root_is_nothing_without_a_statement() -> None:
    assert not evaluate(request(OWNER), key_policy(statement("Allow", ALICE.arn, "kms:*")), (ALLOW_DECRYPT,)).allowed


def test_uid_0_is_no_exception() -> None:
    assert not evaluate(request(ROOT), DEFAULT, ()).allowed
    assert not evaluate(request(ROOT), key_policy(statement("Allow", ALICE.arn, "kms:*")), ()).allowed


@pytest.mark.parametrize("whom", ["*", ALICE.arn, ACCOUNT.group_arn("staff"), ACCOUNT.root_arn, ACCOUNT.account_id])
def test_a_deny_wins_however_it_names_the_caller(whom: str) -> None:
    both = key_policy(statement("Allow", "*", "kms:*"), statement("Deny", whom, "kms:Decrypt", Sid="No"))
    decision = evaluate(request(), both, (ALLOW_DECRYPT,))
    assert (decision.allowed, decision.reason) == (False, Reason.EXPLICIT_DENY)
    assert [one.number for one in decision.statements] == [2]
    assert evaluate(request(action="kms:GenerateDataKey"), both, ()).allowed


def test_a_deny_binds_the_account_root_too() -> None:
    both = key_policy(statement("Allow", ACCOUNT.root_arn, "kms:*"), statement("Deny", OWNER.arn, "kms:Decrypt"))
    assert not evaluate(request(OWNER), both, ()).allowed


@pytest.mark.parametrize(
    ("excepted", "denied"),
    [
        ([ALICE.arn], {"bob", "olga"}),
        ([ACCOUNT.group_arn("finance")], {"bob", "olga"}),
        ([ACCOUNT.group_arn("staff")], {"olga"}),
        ([ACCOUNT.root_arn], {"alice", "bob"}),
        ([ALICE.arn, ACCOUNT.root_arn], {"bob"}),
        (["*"], set()),
    ],
)
def test_not_principal_denies_everybody_else(excepted: list[str], denied: set[str]) -> None:
    both = key_policy(
        statement("Allow", "*", "kms:*"), statement("Deny", None, "kms:*", NotPrincipal={"AWS": excepted})
    )
    assert {one.name for one in (ALICE, BOB, OWNER) if not evaluate(request(one), both, ()).allowed} == denied


def test_not_action() -> None:
    both = key_policy(statement("Allow", "*", "kms:*"), statement("Deny", "*", None, NotAction="kms:Describe*"))
    assert evaluate(request(action="kms:DescribeKey"), both, ()).allowed
    assert not evaluate(request(action="kms:Decrypt"), both, ()).allowed


@pytest.mark.parametrize(
    ("element", "value", "expected"),
    [
        ("Resource", KEY.arn, True),
        ("Resource", "arn:envfs:kms:*:*:key/*", True),
        ("Resource", ["arn:envfs:kms:local:000000000000:key/other", "*"], True),
        ("Resource", "arn:envfs:kms:local:000000000000:key/other", False),
        ("Resource", "arn:envfs:kms:local:000000000000:alias/one", False),
        ("Resource", "arn:${aws:username}:*", False),
        ("NotResource", KEY.arn, False),
        ("NotResource", "*", False),
        ("NotResource", "arn:envfs:kms:local:000000000000:key/other", True),
    ],
)
def test_resources(element: str, value: object, expected: bool) -> None:
    made = statement("Allow", None, "kms:*", Resource=None, **({element: value} if element != "Resource" else {}))
    if element == "Resource":
        made["Resource"] = value
    assert evaluate(request(), DEFAULT, (identity(made),)).allowed is expected


def test_a_resource_that_cannot_be_resolved_denies() -> None:
    broken = statement("Deny", None, "kms:*", Resource="arn:${kms:RequestAlias}:*")
    assert not evaluate(request(OWNER), DEFAULT, (identity(broken),)).allowed


@pytest.mark.parametrize("action", ["kms:CreateKey", "kms:ListKeys", "kms:ListAliases", "kms:GenerateRandom"])
def test_actions_without_a_key_are_decided_by_identity_policies_alone(action: str) -> None:
    assert evaluate(request(OWNER, action, None), None, ()).reason is Reason.ACCOUNT_ROOT
    assert not evaluate(request(ALICE, action, None), None, ()).allowed
    assert evaluate(request(ALICE, action, None), None, (identity(statement("Allow", None, action)),)).allowed
    denied = evaluate(request(OWNER, action, None), None, (identity(statement("Deny", None, action)),))
    assert denied.reason is Reason.EXPLICIT_DENY


def test_a_caller_of_another_account_needs_both_sides() -> None:
    """AWS: the key policy must allow the external account, and the account must allow its own user."""
    arn = "arn:envfs:iam::111111111111:user/carol"
    carol = Principal(1009, 1009, 1, "carol", arn, frozenset(), False)
    named = key_policy(statement("Allow", arn, "kms:*"))
    whole = key_policy(statement("Allow", "111111111111", "kms:*"))
    for theirs in (named, whole):
        assert not evaluate(request(carol), theirs, ()).allowed
        assert evaluate(request(carol), theirs, (ALLOW_DECRYPT,)).allowed
    assert not evaluate(request(carol), DEFAULT, (ALLOW_DECRYPT,)).allowed


def test_service_managed_keys_work_through_the_filesystem_only() -> None:
    managed = parse_key_policy(service_managed_policy(ACCOUNT), ACCOUNT)
    through = RequestFacts(via_service="envfs")
    for who in (ALICE, ROOT, OWNER):
        assert evaluate(request(who, facts=through), managed, ()).allowed
        assert not evaluate(request(who), managed, ()).allowed
    assert evaluate(request(OWNER, "kms:DescribeKey"), managed, ()).allowed
    assert not evaluate(request(ALICE, "kms:DescribeKey"), managed, ()).allowed
    for action in ("kms:PutKeyPolicy", "kms:DisableKey", "kms:ScheduleKeyDeletion"):
        assert not evaluate(request(OWNER, action, facts=through), managed, ()).allowed


def test_names_that_look_like_patterns_stay_names() -> None:
    star = person("*", 1003)
    assert not evaluate(request(star), key_policy(statement("Allow", ALICE.arn, "kms:*")), ()).allowed


def test_the_first_of_several_allows_is_named() -> None:
    many = key_policy(
        statement("Allow", BOB.arn, "kms:*", Sid="One"),
        statement("Allow", ALICE.arn, "kms:*", Sid="Two"),
        statement("Allow", "*", "kms:*", Sid="Three"),
    )
    assert [one.sid for one in evaluate(request(), many, ()).statements] == ["Two"]
