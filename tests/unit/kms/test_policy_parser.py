from __future__ import annotations

import json
from typing import Any

import pytest

from envfs.errors import LimitExceeded, MalformedPolicy
from envfs.kms.policy.defaults import default_key_policy, service_managed_policy
from envfs.kms.policy.parser import (
    MAX_POLICY_SIZE,
    named_users,
    parse_identity_policy,
    parse_key_policy,
    parse_new_key_policy,
)
from tests.unit.kms.kit import ACCOUNT, ALICE, BOB, policy, statement

STATEMENT = statement("Allow", ALICE.arn, "kms:Decrypt")


def refused(text: str, *, identity: bool = False) -> MalformedPolicy:
    with pytest.raises(MalformedPolicy) as caught:
        _ = parse_identity_policy(text, "p", ACCOUNT) if identity else parse_key_policy(text, ACCOUNT)
    return caught.value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '"x"',
        "{",
        "{}",
        '{"Statement": []}',
        '{"Statement": "x"}',
        '{"Statement": [1]}',
        '{"Statement": null}',
        '{"Version": "2012-10-17"}',
        '{"Statement": NaN}',
        "[" * 30_000,
        '{"Statement": {"Effect": "Allow", "Effect": "Deny", "Principal": "*", "Action": "kms:*", "Resource": "*"}}',
        "\ud800",
    ],
)
def test_what_is_no_policy(text: str) -> None:
    refused(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Effect": "allow"}, "neither Allow nor Deny"),
        ({"Effect": None}, "neither Allow nor Deny"),
        ({"Effect": ["Allow"]}, "neither Allow nor Deny"),
        ({"Principal": None}, "Principal or NotPrincipal"),
        ({"NotPrincipal": "*"}, "Principal or NotPrincipal"),
        ({"Principal": "alice"}, "neither"),
        ({"Principal": []}, "neither"),
        ({"Principal": {}}, "AWS"),
        ({"Principal": {"AWS": []}}, "empty"),
        ({"Principal": {"AWS": "alice"}}, "is no principal"),
        ({"Principal": {"AWS": {"a": "b"}}}, "neither a string"),
        ({"Principal": {"Service": "s3.amazonaws.com"}}, "AWS"),
        ({"Principal": {"AWS": ALICE.arn, "Service": "x"}}, "AWS"),
        ({"Principal": {"AWS": "arn:envfs:iam::000000000000:user/*"}}, "is no name"),
        ({"Principal": {"AWS": "arn:envfs:iam::000000000000:user/"}}, "is no principal"),
        ({"Principal": {"AWS": "arn:aws:iam::000000000000:user/alice"}}, "is no principal"),
        ({"Principal": {"AWS": "arn:envfs:iam::000000000000:role/alice"}}, "is no principal"),
        ({"Principal": {"AWS": "arn:envfs:iam::00000000000:user/alice"}}, "is no principal"),
        ({"Principal": {"AWS": "00000000000"}}, "is no principal"),
        ({"Action": "Decrypt"}, "is no action"),
        ({"Action": "kms:Decrpyt"}, "is no action of the KMS"),
        ({"Action": "km:*"}, "is no action of the KMS"),
        ({"Action": "s3:GetObject"}, "is no action of the KMS"),
        ({"Action": 1}, "not a string"),
        ({"Action": ["kms:Decrypt", 1]}, "not a string"),
        ({"NotAction": "kms:Decrypt"}, "exclude each other"),
        ({"Resource": "key"}, "is no resource"),
        ({"Resource": {"a": "b"}}, "not a string"),
        ({"NotResource": "*"}, "exclude each other"),
        ({"Condition": []}, "not an object"),
        ({"Condition": {"StringEquals": "x"}}, "not followed by an object"),
        ({"Condition": {"StringEqual": {"kms:ViaService": "x"}}}, "no condition operator"),
        ({"Condition": {"ForSomeValues:StringEquals": {"kms:ViaService": "x"}}}, "no condition operator"),
        ({"Condition": {"StringEqualsIfExistsIfExists": {"kms:ViaService": "x"}}}, "no condition operator"),
        ({"Condition": {"NullIfExists": {"kms:ViaService": "true"}}}, "no condition operator"),
        ({"Condition": {"ForAnyValue:Null": {"kms:ViaService": "true"}}}, "no condition operator"),
        ({"Condition": {"StringEquals": {"kms:ViaServices": "x"}}}, "no condition key"),
        ({"Condition": {"StringEquals": {"kms:EncryptionContext:": "x"}}}, "no condition key"),
        ({"Condition": {"StringEquals": {"kms:EncryptionContextKeys": "x"}}}, "has several values"),
        ({"Condition": {"ForAnyValue:StringEquals": {"kms:ResourceAliases": "x"}}}, "identity policies only"),
        ({"Condition": {"StringEquals": {"kms:ViaService": []}}}, "empty list"),
        ({"Condition": {"StringEquals": {"kms:ViaService": {"a": "b"}}}}, "neither a string"),
        ({"Condition": {"StringEquals": {"kms:ViaService": None}}}, "neither a string"),
        ({"Condition": {"StringEquals": {"kms:ViaService": "${aws:nonsense}"}}}, "no condition key"),
        ({"Condition": {"StringEquals": {"kms:ViaService": "${kms:EncryptionContextKeys}"}}}, "several values"),
        ({"Condition": {"StringEquals": {"kms:ViaService": "${aws:username, x}"}}}, "no policy variable"),
        ({"Condition": {"NumericLessThan": {"aws:EpochTime": "many"}}}, "is no number"),
        ({"Condition": {"NumericLessThan": {"aws:EpochTime": "٣"}}}, "is no number"),
        ({"Condition": {"DateLessThan": {"aws:CurrentTime": "tomorrow"}}}, "is no date"),
        ({"Condition": {"DateLessThan": {"aws:CurrentTime": "2023-02-30"}}}, "is no date"),
        ({"Condition": {"DateLessThan": {"aws:CurrentTime": "2023-02-03T10:00"}}}, "is no date"),
        ({"Condition": {"Bool": {"kms:GrantIsForAWSResource": "yes"}}}, "is no boolean"),
        ({"Condition": {"Null": {"kms:ViaService": "maybe"}}}, "true or false"),
        ({"Condition": {"BinaryEquals": {"kms:ViaService": "*"}}}, "is no base64"),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/33"}}}, "is no IP address"),
        ({"Condition": {"ArnLike": {"aws:PrincipalArn": "*"}}}, "is no ARN"),
        ({"Sid": 1}, "Sid is not a string"),
        ({"Actions": "kms:*"}, "no element 'Actions'"),
    ],
)
def test_a_statement_that_is_refused_says_why(change: dict[str, Any], message: str) -> None:
    changed = {name: value for name, value in (STATEMENT | change).items() if value is not None or name == "Effect"}
    error = refused(policy(STATEMENT, changed))
    assert error.message.startswith("statement 2: ")
    assert message in error.message


def test_a_misspelt_action_is_met_with_a_suggestion() -> None:
    assert refused(policy(STATEMENT | {"Action": "kms:Decrpyt"})).hint == "did you mean kms:Decrypt?"


def test_not_principal_is_for_deny_only() -> None:
    excepted = statement("Deny", None, "kms:*", NotPrincipal={"AWS": ALICE.arn})
    parse_key_policy(policy(STATEMENT, excepted), ACCOUNT)
    assert "NotPrincipal with Allow" in refused(policy(excepted | {"Effect": "Allow"})).message


@pytest.mark.parametrize("name", ["Principal", "NotPrincipal"])
def test_an_identity_policy_has_no_principal(name: str) -> None:
    text = policy({"Effect": "Deny", name: "*", "Action": "kms:*", "Resource": "*"})
    assert name in refused(text, identity=True).message


def test_an_identity_policy_may_speak_of_other_services() -> None:
    text = policy(statement("Allow", None, ["s3:GetObject", "kms:Decrypt", "*"]))
    assert parse_identity_policy(text, "p", ACCOUNT).about("kms:Decrypt")[1]


@pytest.mark.parametrize("version", ["2012-10-17", "2008-10-17"])
def test_both_versions_are_known(version: str) -> None:
    parse_key_policy(policy(STATEMENT, version=version), ACCOUNT)


def test_another_version_or_element_is_refused() -> None:
    assert "2012-10-17" in refused(policy(STATEMENT, version="2020-01-01")).hint
    assert "'Statements'" in refused(json.dumps({"Statements": [STATEMENT]})).message
    assert "Id" in refused(json.dumps({"Id": 1, "Statement": STATEMENT})).message


def test_one_statement_needs_no_list() -> None:
    assert len(parse_key_policy(json.dumps({"Statement": STATEMENT}), ACCOUNT).statements) == 1


def test_the_limit_is_in_bytes() -> None:
    text = policy(STATEMENT | {"Sid": ""})
    filled = policy(STATEMENT | {"Sid": "s" * (MAX_POLICY_SIZE - len(text))})
    assert len(filled) == MAX_POLICY_SIZE
    parse_key_policy(filled, ACCOUNT)
    with pytest.raises(LimitExceeded, match="at most 32768"):
        parse_key_policy(filled + " ", ACCOUNT)
    with pytest.raises(LimitExceeded):
        parse_key_policy(filled.replace("ss", "ä", 1) + " ", ACCOUNT)


@pytest.mark.parametrize("missing", ["Action", "Resource"])
@pytest.mark.parametrize("effect", ["Allow", "Deny"])
def test_without_action_or_resource_a_statement_is_about_nothing(missing: str, effect: str) -> None:
    incomplete = statement(effect, "*", "kms:*", **{missing: None})
    parsed = parse_key_policy(policy(incomplete), ACCOUNT)
    assert parsed.about("kms:Decrypt") == ((), ())


def test_actions_match_without_case_and_with_wildcards() -> None:
    actions = ["KMS:generatedatakey*", "kms:De?cribeKey", "kms:ListG*s"]
    parsed = parse_key_policy(policy(STATEMENT | {"Action": actions}), ACCOUNT)
    names = ("Decrypt", "DescribeKey", "GenerateDataKey", "GenerateDataKeyPair", "ListGrants", "ListKeys")
    about = {name for name in names if parsed.about(f"kms:{name}")[1]}
    assert about == {"DescribeKey", "GenerateDataKey", "GenerateDataKeyPair", "ListGrants"}


def test_users_that_a_policy_names() -> None:
    other = "arn:envfs:iam::111111111111:user/carol"
    parsed = parse_key_policy(
        policy(
            statement("Allow", [ALICE.arn, ACCOUNT.root_arn, other, ACCOUNT.group_arn("staff")], "kms:*"),
            statement("Deny", None, "kms:*", NotPrincipal={"AWS": BOB.arn}),
        ),
        ACCOUNT,
    )
    assert named_users(parsed, ACCOUNT) == {"alice", "bob"}


def test_the_policies_that_nobody_wrote_are_valid() -> None:
    assert parse_key_policy(default_key_policy(ACCOUNT), ACCOUNT).about("kms:ScheduleKeyDeletion")[1]
    assert parse_key_policy(service_managed_policy(ACCOUNT), ACCOUNT).about("kms:ScheduleKeyDeletion") == ((), ())


@pytest.mark.parametrize("operator", ["ForAllValues:StringEquals", "forallvalues:stringnotlike"])
@pytest.mark.parametrize("listed", [True, False])
def test_a_condition_that_aws_calls_overly_permissive_cannot_be_put(operator: str, *, listed: bool) -> None:
    made = statement("Allow", "*", "kms:*", Condition={operator: {"KMS:EncryptionContext:team": "a"}})
    text = json.dumps({"Statement": [made] if listed else made})
    parse_key_policy(text, ACCOUNT)  # a key of a former release may have it
    with pytest.raises(MalformedPolicy, match="OverlyPermissiveCondition"):
        parse_new_key_policy(text, ACCOUNT)


def test_the_names_of_context_keys_can_be_limited() -> None:
    made = statement("Allow", "*", "kms:*", Condition={"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": "a"}})
    parse_new_key_policy(policy(made), ACCOUNT)
