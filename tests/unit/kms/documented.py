"""Requests, policies and grants as AWS's documentation writes them, for the tests of documented examples.

The account and the ARNs are those of the documentation; users stand where AWS has roles, which envfs has not.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from envfs.kms.arn import Account
from envfs.kms.model import NO_FACTS, Grant, GrantConstraints, Principal, RequestFacts
from envfs.kms.policy.evaluator import evaluate
from envfs.kms.policy.grants import GrantSet
from envfs.kms.policy.parser import parse_identity_policy, parse_key_policy
from envfs.kms.policy.request import GrantTerms, KeyFacts, Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from envfs.kms.policy.decision import Decision
    from envfs.kms.policy.request import ConditionValue

HERE = Account("aws", "us-west-2", "111122223333")
THERE = Account("aws", "us-west-2", "444455556666")
KEY = KeyFacts(
    "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    "SYMMETRIC_DEFAULT",
    "ENCRYPT_DECRYPT",
    "AWS_KMS",
)
EC2 = RequestFacts(via_service="ec2.us-west-2.amazonaws.com")
RDS = RequestFacts(via_service="rds.us-west-2.amazonaws.com")
LAMBDA = RequestFacts(via_service="lambda.us-west-2.amazonaws.com")
NOON = 1_577_880_000.0  # 2020-01-01T12:00:00Z

Statement = dict[str, Any]


def user(name: str, account: Account = HERE, *, is_root: bool = False) -> Principal:
    return Principal(1000, 1000, 1, name, account.user_arn(name), frozenset(), is_root)


EXAMPLE = user("ExampleUser")
ANOTHER = user("anotherUser")
ALICE = user("alice")
BOB = user("bob")
ADMIN = user("KMSAdminUser")
ROOT = user("root-user", is_root=True)
STRANGER = user("bob", THERE)


def key_statement(effect: str, who: object, action: object, **condition: object) -> Statement:
    made: Statement = {"Effect": effect, "Principal": who if who == "*" else {"AWS": who}}
    made |= {"Action": action, "Resource": "*"}
    return made | ({"Condition": condition} if condition else {})


def identity_statement(effect: str, action: object, resource: object = "*", **condition: object) -> Statement:
    made: Statement = {"Effect": effect, "Action": action, "Resource": resource}
    return made | ({"Condition": condition} if condition else {})


# The statement with which every key policy of AWS begins: it names the account, and by that enables IAM policies.
ACCOUNT = key_statement("Allow", HERE.root_arn, "kms:*")


def document(statements: Sequence[Statement], version: str = "2012-10-17") -> str:
    return json.dumps({"Version": version, "Statement": list(statements)})


def ask(
    who: Principal = EXAMPLE,
    action: str = "kms:Decrypt",
    context: Mapping[str, str] | None = None,
    *,
    facts: RequestFacts = NO_FACTS,
    extra: Mapping[str, ConditionValue] | None = None,
    key: KeyFacts | None = KEY,
    proposal: GrantTerms | None = None,
    now: float = NOON,
) -> Request:
    return Request(
        who,
        action,
        "*" if key is None else key.arn,
        key,
        context or {},
        facts,
        extra or {},
        now,
        HERE.account_id,
        HERE.principal_prefix,
        proposal,
    )


def decide(
    asked: Request,
    key_policy: Sequence[Statement] | None,
    identity: Sequence[Statement] = (),
    grants: Sequence[Grant] = (),
    version: str = "2012-10-17",
) -> Decision:
    parsed = None if key_policy is None else parse_key_policy(document(key_policy, version), HERE)
    attached = [parse_identity_policy(document(identity, version), "attached", HERE)] if identity else []
    return evaluate(asked, parsed, attached, GrantSet(grants))


def allowed(*arguments: Any, **more: Any) -> bool:
    return decide(*arguments, **more).allowed


def grant(
    operations: Sequence[str],
    constraints: GrantConstraints | None = None,
    *,
    grantee: Principal = EXAMPLE,
    retiring: str = "",
    number: int = 1,
) -> Grant:
    grant_id = f"{number:064x}"
    return Grant(
        grant_id, KEY.arn, "", grantee.arn, retiring, HERE.root_arn, tuple(sorted(operations)), constraints, int(NOON)
    )
