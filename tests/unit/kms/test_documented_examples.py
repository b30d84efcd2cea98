"""Policies whose outcome AWS documents, decided by our evaluator: each test names the page that states the outcome.

Pages are those of https://docs.aws.amazon.com/kms/latest/developerguide/, and where their names begin with
`reference_`, of https://docs.aws.amazon.com/IAM/latest/UserGuide/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from envfs.errors import MalformedPolicy
from envfs.kms.policy.decision import Reason
from tests.unit.kms.documented import (
    ACCOUNT,
    ADMIN,
    ALICE,
    BOB,
    EC2,
    EXAMPLE,
    HERE,
    KEY,
    ROOT,
    STRANGER,
    THERE,
    allowed,
    ask,
    decide,
    grant,
    identity_statement,
    key_statement,
)

if TYPE_CHECKING:
    pass


# The default key policy and what it delegates


def test_a_user_without_any_permission() -> None:
    """policy-evaluation.html, example 1: the default key policy and no IAM policy deny Alice."""
    assert not allowed(ask(ALICE), [ACCOUNT])


def test_the_account_statement_enables_iam_policies() -> None:
    """key-policy-default.html: the account principal gives no user anything, it lets IAM policies do it."""
    assert decide(ask(ALICE), [ACCOUNT], [identity_statement("Allow", "kms:Decrypt")]).reason is Reason.IDENTITY_POLICY
    assert allowed(ask(ROOT), [ACCOUNT])


def test_without_the_account_statement_iam_policies_only_deny() -> None:
    """key-policy-default.html: without it, IAM policies that allow are ineffective, those that deny are effective."""
    only_bob = [key_statement("Allow", BOB.arn, "kms:*")]
    assert not allowed(ask(ALICE), only_bob, [identity_statement("Allow", "kms:*")])
    assert not allowed(ask(ROOT), only_bob)
    assert allowed(ask(BOB), only_bob)
    assert not allowed(ask(BOB), only_bob, [identity_statement("Deny", "kms:Decrypt")])


def test_the_key_policy_alone_is_enough() -> None:
    """control-access.html: the full scope of access can be defined in the key policy alone."""
    assert decide(ask(ALICE), [key_statement("Allow", ALICE.arn, "kms:Decrypt")]).reason is Reason.KEY_POLICY


def test_a_caller_of_another_account() -> None:
    """policy-evaluation.html, example 2: the key policy must allow the other account, its IAM policy must allow Bob."""
    use = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKey",
           "kms:GenerateDataKeyWithoutPlaintext", "kms:DescribeKey"]  # fmt: skip
    shared = [ACCOUNT, key_statement("Allow", THERE.root_arn, use)]
    delegated = [identity_statement("Allow", use, KEY.arn)]
    assert allowed(ask(STRANGER), shared, delegated)
    assert not allowed(ask(STRANGER), shared)
    assert not allowed(ask(STRANGER), [ACCOUNT], delegated)
    everything = [identity_statement("Allow", "kms:*")]
    assert not allowed(ask(STRANGER, "kms:PutKeyPolicy"), shared, everything)


# The evaluation logic of IAM


def test_everything_is_denied_by_default() -> None:
    """reference_policies_evaluation-logic.html: by default, requests are implicitly denied."""
    decision = decide(ask(), [key_statement("Allow", BOB.arn, "kms:*")])
    assert (decision.allowed, decision.reason) == (False, Reason.NO_MATCH)


@pytest.mark.parametrize("where", ["key policy", "identity policy"])
def test_an_explicit_deny_overrides_every_allow(where: str) -> None:
    """reference_policies_evaluation-logic.html: an explicit deny in any policy overrides any allows."""
    key_policy = [ACCOUNT, key_statement("Allow", EXAMPLE.arn, "kms:*")]
    identity = [identity_statement("Allow", "*")]
    if where == "key policy":
        key_policy.append(key_statement("Deny", EXAMPLE.arn, "kms:Decrypt"))
    else:
        identity.append(identity_statement("Deny", "kms:Decrypt"))
    grants = [grant(["Decrypt"])]
    assert decide(ask(), key_policy, identity, grants).reason is Reason.EXPLICIT_DENY
    assert allowed(ask(action="kms:Encrypt"), key_policy, identity, grants)


def test_actions_without_a_key_need_an_iam_policy() -> None:
    """kms-api-permissions-reference.html: kms:CreateKey, kms:ListKeys, … are valid in IAM policies only."""
    for action in ("kms:CreateKey", "kms:ListKeys", "kms:ListAliases", "kms:GenerateRandom"):
        asked = ask(action=action, key=None)
        assert allowed(asked, None, [identity_statement("Allow", action)])
        assert not allowed(asked, None)


def test_not_action_matches_everything_else() -> None:
    """reference_policies_elements_notaction.html."""
    deny = [key_statement("Allow", "*", "kms:*"), {**key_statement("Deny", "*", None), "NotAction": "kms:Describe*"}]
    del deny[1]["Action"]
    assert allowed(ask(action="kms:DescribeKey"), deny)
    assert not allowed(ask(action="kms:Decrypt"), deny)


def test_not_principal_with_deny_spares_those_it_names() -> None:
    """reference_policies_elements_notprincipal.html: all principals are denied except the ones that are listed."""
    deny = {"Effect": "Deny", "NotPrincipal": {"AWS": [BOB.arn, HERE.root_arn]}, "Action": "kms:*", "Resource": "*"}
    policy = [key_statement("Allow", "*", "kms:*"), deny]
    assert allowed(ask(BOB), policy)
    assert not allowed(ask(ALICE), policy)


def test_not_principal_with_allow_is_refused() -> None:
    """reference_policies_elements_notprincipal.html warns of it, since it would allow everybody else; we refuse it."""
    with pytest.raises(MalformedPolicy):
        decide(ask(), [{"Effect": "Allow", "NotPrincipal": {"AWS": BOB.arn}, "Action": "kms:*", "Resource": "*"}])


# Key administrators and key users

ADMINISTRATORS = key_statement(
    "Allow",
    [ADMIN.arn],
    ["kms:Create*", "kms:Describe*", "kms:Enable*", "kms:List*", "kms:Put*", "kms:Update*", "kms:Revoke*",
     "kms:Disable*", "kms:Get*", "kms:Delete*", "kms:TagResource", "kms:UntagResource", "kms:ScheduleKeyDeletion",
     "kms:CancelKeyDeletion"],
)  # fmt: skip
USERS = key_statement(
    "Allow", EXAMPLE.arn, ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"]
)
ATTACHMENT = key_statement(
    "Allow",
    EXAMPLE.arn,
    ["kms:CreateGrant", "kms:ListGrants", "kms:RevokeGrant"],
    Bool={"kms:GrantIsForAWSResource": True},
)
CONSOLE = [ACCOUNT, ADMINISTRATORS, USERS, ATTACHMENT]


@pytest.mark.parametrize(
    ("action", "admin", "key_user"),
    [
        ("kms:PutKeyPolicy", True, False),
        ("kms:ScheduleKeyDeletion", True, False),
        ("kms:EnableKeyRotation", True, False),
        ("kms:TagResource", True, False),
        ("kms:DescribeKey", True, True),
        ("kms:Encrypt", False, True),
        ("kms:Decrypt", False, True),
        ("kms:ReEncryptFrom", False, True),
        ("kms:ReEncryptTo", False, True),
        ("kms:GenerateDataKeyPairWithoutPlaintext", False, True),
        ("kms:Sign", False, False),
    ],
)
def test_the_console_s_key_policy(action: str, admin: bool, key_user: bool) -> None:
    """key-policy-default.html: administrators manage the key and cannot use it, users use it and cannot manage it."""
    assert allowed(ask(ADMIN, action), CONSOLE) is admin
    assert allowed(ask(EXAMPLE, action), CONSOLE) is key_user


def test_key_users_create_grants_through_services_only() -> None:
    """key-policy-default.html: the condition does not let the user call these operations directly."""
    for action in ("kms:CreateGrant", "kms:ListGrants", "kms:RevokeGrant"):
        assert allowed(ask(EXAMPLE, action, facts=EC2, extra={"kms:grantisforawsresource": "true"}), CONSOLE)
        assert not allowed(ask(EXAMPLE, action, extra={"kms:grantisforawsresource": "false"}), CONSOLE)


# Operators


def test_a_missing_key_makes_positive_operators_false_and_negated_ones_true() -> None:
    """reference_policies_elements_condition_operators.html: if the key is not present, the values do not match."""
    for operator, expected in (
        ("StringEquals", False), ("StringLike", False), ("ArnLike", False), ("Bool", False), ("NumericEquals", False),
        ("StringNotEquals", True), ("StringNotLike", True), ("ArnNotLike", True), ("NumericNotEquals", True),
    ):  # fmt: skip
        value = {"Bool": "true", "ArnLike": HERE.root_arn, "ArnNotLike": HERE.root_arn}.get(operator, "1")
        statements = [key_statement("Allow", EXAMPLE.arn, "kms:*", **{operator: {"kms:RetiringPrincipal": value}})]
        assert allowed(ask(), statements) is expected, operator


def test_if_exists() -> None:
    """reference_policies_elements_condition_operators.html#Conditions_IfExists: if the key is present, it is processed
    as specified; if it is not, the condition is true.
    """
    statements = [
        key_statement("Allow", EXAMPLE.arn, "kms:*", StringEqualsIfExists={"kms:MacAlgorithm": "HMAC_SHA_256"})
    ]
    assert allowed(ask(), statements)
    assert allowed(ask(extra={"kms:macalgorithm": "HMAC_SHA_256"}), statements)
    assert not allowed(ask(extra={"kms:macalgorithm": "HMAC_SHA_512"}), statements)


def test_null() -> None:
    """reference_policies_elements_condition_operators.html#Conditions_Null: true: the key does not exist; false: it
    exists and is not null.
    """
    for wanted, present, expected in (
        ("true", False, True),
        ("true", True, False),
        ("false", True, True),
        ("false", False, False),
    ):
        statements = [key_statement("Allow", EXAMPLE.arn, "kms:*", Null={"kms:RetiringPrincipal": wanted})]
        extra = {"kms:retiringprincipal": ADMIN.arn} if present else {}
        assert allowed(ask(extra=extra), statements) is expected


def test_set_operators_on_several_values() -> None:
    """reference_policies_multi-value-conditions.html: ForAllValues needs a match for every value of the request,
    ForAnyValue for one; of an empty set the first is true and the second is false.
    """
    wanted = {"kms:GrantOperations": ["Encrypt", "Decrypt", "DescribeKey"]}
    every = [key_statement("Allow", EXAMPLE.arn, "kms:*", **{"ForAllValues:StringEquals": wanted})]
    some = [key_statement("Allow", EXAMPLE.arn, "kms:*", **{"ForAnyValue:StringEquals": wanted})]
    for operations, by_all, by_any in (
        (("Encrypt", "Sign"), False, True),
        (("Encrypt", "Decrypt"), True, True),
        (("Sign",), False, False),
        ((), True, False),
    ):
        asked = ask(action="kms:CreateGrant", extra={"kms:grantoperations": operations})
        assert allowed(asked, every) is by_all
        assert allowed(asked, some) is by_any
    assert allowed(ask(), every)  # nor is the key there at all
    assert not allowed(ask(), some)


def test_a_denial_by_any_value() -> None:
    """reference_policies_multi-value-conditions.html: one value that matches is enough for the Deny."""
    statements = [
        key_statement("Allow", EXAMPLE.arn, "kms:*"),
        key_statement("Deny", EXAMPLE.arn, "kms:*", **{"ForAnyValue:StringEquals": {"kms:GrantOperations": "Decrypt"}}),
    ]
    assert not allowed(ask(extra={"kms:grantoperations": ("Encrypt", "Decrypt")}), statements)
    assert allowed(ask(extra={"kms:grantoperations": ("Encrypt",)}), statements)


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [
        ("alias/*test*", "alias/my-test-key", True),
        ("alias/*test*", "alias/my-Test-key", False),
        ("alias/?", "alias/a", True),
        ("alias/?", "alias/ab", False),
        ("alias/${*}", "alias/*", True),
        ("alias/${*}", "alias/a", False),
    ],
)
def test_wildcards(pattern: str, value: str, expected: bool) -> None:
    """reference_policies_elements_condition_operators.html#Conditions_String and reference_policies_variables.html."""
    statements = [key_statement("Allow", EXAMPLE.arn, "kms:*", StringLike={"kms:RequestAlias": pattern})]
    assert allowed(ask(extra={"kms:requestalias": value}), statements) is expected


def test_wildcards_in_arns_stay_within_a_segment() -> None:
    """reference_policies_elements_condition_operators.html#Conditions_ARN: each of the six components is checked
    separately.
    """
    for pattern, expected in (
        ("arn:aws:iam::111122223333:user/Example*", True),
        ("arn:aws:iam::*:user/ExampleUser", True),
        ("arn:aws:*:user/ExampleUser", None),
        ("arn:aws:iam::111122223333:role/*", False),
    ):
        statements = [key_statement("Allow", EXAMPLE.arn, "kms:*", ArnLike={"aws:PrincipalArn": pattern})]
        if expected is None:
            with pytest.raises(MalformedPolicy):
                decide(ask(), statements)
        else:
            assert allowed(ask(), statements) is expected
