"""Grants whose outcome AWS documents, decided by our evaluator: each test names the page that states the outcome.

Pages are those of https://docs.aws.amazon.com/kms/latest/developerguide/, and where their names begin with
`reference_`, of https://docs.aws.amazon.com/IAM/latest/UserGuide/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from envfs.kms.model import GrantConstraints, Principal
from envfs.kms.policy.decision import Reason
from envfs.kms.policy.request import GrantTerms
from tests.unit.kms.documented import (
    ACCOUNT,
    ADMIN,
    ANOTHER,
    BOB,
    EXAMPLE,
    ROOT,
    STRANGER,
    allowed,
    ask,
    decide,
    grant,
    identity_statement,
    key_statement,
)

if TYPE_CHECKING:
    from envfs.kms.policy.request import ConditionValue


# Grants

IT = {"Department": "IT"}
NOBODYS = [key_statement("Allow", ADMIN.arn, "kms:*")]


def test_a_grant_needs_no_word_in_any_policy() -> None:
    """grants.html: the grantee can call the operations of the grant without specifying the grant."""
    decision = decide(ask(), NOBODYS, (), [grant(["Decrypt"])])
    assert (decision.allowed, decision.reason, decision.grant) == (True, Reason.GRANT, f"{1:064x}")
    assert not allowed(ask(action="kms:Encrypt"), NOBODYS, (), [grant(["Decrypt"])])
    assert not allowed(ask(BOB), NOBODYS, (), [grant(["Decrypt"])])


def test_a_grant_cannot_deny() -> None:
    """grants.html: a grant can allow access to a KMS key, but not deny access."""
    policy = [key_statement("Allow", EXAMPLE.arn, "kms:Decrypt")]
    narrow = [grant(["Encrypt"], GrantConstraints(equals=IT))]
    assert allowed(ask(context={"Department": "HR"}), policy, (), narrow)


@pytest.mark.parametrize(
    ("context", "equals", "subset"),
    [
        (IT, True, True),
        (IT | {"Purpose": "Test"}, False, True),
        ({"Purpose": "Test"}, False, False),
        ({}, False, False),
        ({"Department": "it"}, False, False),
        ({"department": "IT"}, False, False),
    ],
)
def test_grant_constraints(context: dict[str, str], equals: bool, subset: bool) -> None:
    """create-grant-overview.html#grant-constraints: an exact, case-sensitive match of keys and values; with Subset
    other pairs may be there.
    """
    assert allowed(ask(context=context), NOBODYS, (), [grant(["Decrypt"], GrantConstraints(equals=IT))]) is equals
    assert allowed(ask(context=context), NOBODYS, (), [grant(["Decrypt"], GrantConstraints(subset=IT))]) is subset


def test_constraints_are_ignored_where_there_is_no_encryption_context() -> None:
    """create-grant-overview.html#grant-constraints: ignored for DescribeKey and RetireGrant."""
    constrained = [grant(["DescribeKey", "RetireGrant", "Decrypt"], GrantConstraints(equals=IT))]
    assert allowed(ask(action="kms:DescribeKey"), NOBODYS, (), constrained)
    assert allowed(ask(action="kms:RetireGrant"), NOBODYS, (), constrained)
    assert not allowed(ask(action="kms:Decrypt"), NOBODYS, (), constrained)


PARENT = grant(["GenerateDataKey", "Decrypt", "CreateGrant"], GrantConstraints(subset=IT))


@pytest.mark.parametrize(
    ("operations", "constraints", "expected"),
    [
        (["CreateGrant", "Decrypt"], GrantConstraints(equals=IT), True),
        (["Decrypt"], GrantConstraints(subset=IT | {"Purpose": "Test"}), True),
        (["GenerateDataKey", "Decrypt", "CreateGrant"], GrantConstraints(subset=IT), True),
        (["Decrypt", "ReEncryptFrom"], GrantConstraints(subset=IT), False),
        (["Encrypt"], GrantConstraints(subset=IT), False),
        (["Decrypt"], None, False),
        (["Decrypt"], GrantConstraints(subset={"Purpose": "Test"}), False),
    ],
)
def test_child_grants(operations: list[str], constraints: GrantConstraints | None, expected: bool) -> None:
    """create-grant-overview.html#grant-creategrant: some or all of the parent's operations, constraints at least as
    strict; pairs can be added, and Subset can become Equals.
    """
    terms = GrantTerms(frozenset(operations), constraints)
    assert allowed(ask(action="kms:CreateGrant", proposal=terms), NOBODYS, (), [PARENT]) is expected


def test_equals_cannot_become_subset() -> None:
    """create-grant-overview.html#grant-creategrant: … but not the reverse."""
    parent = [grant(["Decrypt", "CreateGrant"], GrantConstraints(equals=IT))]
    for constraints, expected in (
        (GrantConstraints(equals=IT), True),
        (GrantConstraints(subset=IT), False),
        (GrantConstraints(equals=IT | {"Purpose": "Test"}), False),
    ):
        terms = GrantTerms(frozenset({"Decrypt"}), constraints)
        assert allowed(ask(action="kms:CreateGrant", proposal=terms), NOBODYS, (), parent) is expected


def test_a_grantee_delegates_what_the_grant_has_and_nothing_that_policies_gave_him() -> None:
    """grants.html: they can only delegate the permissions that they were granted, even if they have others from a
    policy. Who has kms:CreateGrant from a policy can grant what he has not himself.
    """
    encrypting = GrantTerms(frozenset({"Encrypt"}), None)
    asked = ask(action="kms:CreateGrant", proposal=encrypting)
    may_encrypt = [key_statement("Allow", EXAMPLE.arn, "kms:Encrypt")]
    assert not allowed(asked, may_encrypt, (), [grant(["Decrypt", "CreateGrant"])])
    assert allowed(asked, [key_statement("Allow", EXAMPLE.arn, "kms:CreateGrant")])


GRANT_CONDITIONS: list[tuple[str, dict[str, Any], dict[str, ConditionValue], bool]] = [
    ("grant-constraint-type", {"StringEquals": {"kms:GrantConstraintType": "EncryptionContextEquals"}},
     {"kms:grantconstrainttype": "EncryptionContextEquals"}, True),
    ("grant-constraint-type", {"StringEquals": {"kms:GrantConstraintType": "EncryptionContextEquals"}},
     {"kms:grantconstrainttype": "EncryptionContextSubset"}, False),
    ("grant-constraint-type", {"StringEquals": {"kms:GrantConstraintType": "EncryptionContextEquals"}}, {}, False),
    ("grant-is-for-aws-resource", {"Bool": {"kms:GrantIsForAWSResource": True}},
     {"kms:grantisforawsresource": "true"}, True),
    ("grant-is-for-aws-resource", {"Bool": {"kms:GrantIsForAWSResource": True}},
     {"kms:grantisforawsresource": "false"}, False),
    ("grant-operations", {"ForAllValues:StringEquals": {"kms:GrantOperations": ["Encrypt", "ReEncryptTo"]}},
     {"kms:grantoperations": ("Encrypt", "ReEncryptTo")}, True),
    ("grant-operations", {"ForAllValues:StringEquals": {"kms:GrantOperations": ["Encrypt", "ReEncryptTo"]}},
     {"kms:grantoperations": ("Decrypt", "Encrypt")}, False),
    ("grant-operations", {"ForAnyValue:StringEquals": {"kms:GrantOperations": ["Encrypt", "ReEncryptTo"]}},
     {"kms:grantoperations": ("Decrypt", "Encrypt")}, True),
    ("grantee-principal", {"StringEquals": {"kms:GranteePrincipal": ANOTHER.arn}},
     {"kms:granteeprincipal": ANOTHER.arn}, True),
    ("grantee-principal", {"StringEquals": {"kms:GranteePrincipal": ANOTHER.arn}},
     {"kms:granteeprincipal": BOB.arn}, False),
    ("retiring-principal", {"StringEquals": {"kms:RetiringPrincipal": [ADMIN.arn, BOB.arn]}},
     {"kms:retiringprincipal": BOB.arn}, True),
    ("retiring-principal", {"StringEquals": {"kms:RetiringPrincipal": [ADMIN.arn, BOB.arn]}}, {}, False),
]  # fmt: skip


@pytest.mark.parametrize(("page", "condition", "extra", "expected"), GRANT_CONDITIONS)
def test_conditions_on_creating_grants(
    page: str, condition: dict[str, Any], extra: dict[str, ConditionValue], expected: bool
) -> None:
    """conditions-kms.html#conditions-kms-…, with `page` as the rest of the anchor."""
    statements = [key_statement("Allow", EXAMPLE.arn, "kms:CreateGrant", **condition)]
    assert allowed(ask(action="kms:CreateGrant", extra=extra), statements) is expected, page


@pytest.mark.parametrize(
    ("who", "expected"), [(ADMIN, True), (EXAMPLE, False), (BOB, False), (ROOT, True), (STRANGER, False)]
)
def test_who_can_retire(who: Principal, expected: bool) -> None:
    """grant-delete.html: the retiring principal, and as a backup the account in which the grant was created."""
    retirable = [grant(["Decrypt"], retiring=ADMIN.arn)]
    assert allowed(ask(who, "kms:RetireGrant"), [ACCOUNT], (), retirable) is expected


def test_the_grantee_retires_if_the_grant_says_so() -> None:
    """grant-delete.html: only if he is also a retiring principal or the grant includes RetireGrant."""
    asked = ask(action="kms:RetireGrant")
    assert allowed(asked, [ACCOUNT], (), [grant(["Decrypt", "RetireGrant"])])
    assert allowed(asked, [ACCOUNT], (), [grant(["Decrypt"], retiring=EXAMPLE.arn)])
    assert not allowed(asked, [ACCOUNT], (), [grant(["Decrypt"])])


def test_retire_grant_in_policies() -> None:
    """grant-delete.html: not effective in a key policy; a Deny denies; the account can delegate it to an IAM user."""
    asked = ask(BOB, "kms:RetireGrant")
    foreign, own = [grant(["Decrypt"])], [grant(["Decrypt"], retiring=BOB.arn)]
    assert not allowed(asked, [ACCOUNT, key_statement("Allow", BOB.arn, "kms:RetireGrant")], (), foreign)
    assert not allowed(asked, [ACCOUNT], [identity_statement("Deny", "kms:RetireGrant")], own)
    assert allowed(asked, [ACCOUNT], [identity_statement("Allow", "kms:RetireGrant")], foreign)


def test_no_grant_allows_listing_or_revoking() -> None:
    """grant-authorization.html: ListGrants and RevokeGrant are a matter of policies alone."""
    everything = [grant(["CreateGrant", "Decrypt", "DescribeKey", "RetireGrant"])]
    for action in ("kms:ListGrants", "kms:RevokeGrant", "kms:PutKeyPolicy"):
        assert not allowed(ask(action=action), NOBODYS, (), everything)
