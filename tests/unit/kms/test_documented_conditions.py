"""Conditions whose outcome AWS documents, decided by our evaluator: each test names the page that states the outcome.

Pages are those of https://docs.aws.amazon.com/kms/latest/developerguide/, and where their names begin with
`reference_`, of https://docs.aws.amazon.com/IAM/latest/UserGuide/.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from envfs.errors import MalformedPolicy
from envfs.kms.model import NO_FACTS
from tests.unit.kms.documented import (
    ACCOUNT,
    BOB,
    EC2,
    EXAMPLE,
    KEY,
    LAMBDA,
    NOON,
    RDS,
    ROOT,
    STRANGER,
    Statement,
    allowed,
    ask,
    decide,
    identity_statement,
    key_statement,
)

if TYPE_CHECKING:
    pass


# Encryption context

APP = {"AppName": "ExampleApp"}
CONTEXT_EXAMPLES: dict[str, tuple[list[Statement], dict[bool, list[dict[str, str]]]]] = {
    "one pair is required, others are permitted, and the name's case does not count": (
        [
            key_statement(
                "Allow", EXAMPLE.arn, "kms:Decrypt", StringEquals={"kms:EncryptionContext:AppName": "ExampleApp"}
            )
        ],
        {
            True: [APP, APP | {"Stage": "Test"}, {"appname": "ExampleApp"}],
            False: [{}, {"AppName": "exampleapp"}, {"Stage": "Test"}],
        },
    ),
    "one pair and no other": (
        [
            key_statement(
                "Allow",
                EXAMPLE.arn,
                "kms:Decrypt",
                **{
                    "StringEquals": {"kms:EncryptionContext:AppName": "ExampleApp"},
                    "ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["AppName"]},
                },
            )
        ],
        {True: [APP], False: [{}, APP | {"Stage": "Test"}, {"appname": "ExampleApp"}]},
    ),
    "a pair is forbidden, the key with other values is not": (
        [
            key_statement("Allow", EXAMPLE.arn, "kms:Decrypt"),
            key_statement(
                "Deny", EXAMPLE.arn, "kms:Decrypt", StringEquals={"kms:EncryptionContext:Stage": "Restricted"}
            ),
        ],
        {True: [{}, {"Stage": "Test"}], False: [{"Stage": "Restricted"}, APP | {"Stage": "Restricted"}]},
    ),
    "several keys are joined by AND": (
        [
            key_statement(
                "Allow",
                EXAMPLE.arn,
                "kms:Decrypt",
                StringEquals={"kms:EncryptionContext:Department": "IT", "kms:EncryptionContext:Project": "Alpha"},
            )
        ],
        {
            True: [{"Department": "IT", "Project": "Alpha"}, {"Department": "IT", "Project": "Alpha", "Stage": "Test"}],
            False: [{"Department": "IT"}, {"Project": "Alpha"}, {"Department": "IT", "Project": "Beta"}],
        },
    ),
    "several statements are joined by OR": (
        [
            key_statement("Allow", EXAMPLE.arn, "kms:Decrypt", StringEquals={"kms:EncryptionContext:Department": "IT"}),
            key_statement("Allow", EXAMPLE.arn, "kms:Decrypt", StringEquals={"kms:EncryptionContext:Project": "Alpha"}),
        ],
        {
            True: [{"Department": "IT"}, {"Project": "Alpha"}, {"Department": "HR", "Project": "Alpha"}],
            False: [{}, APP],
        },
    ),
    "several values are joined by OR": (
        [
            key_statement("Allow", EXAMPLE.arn, "kms:Decrypt"),
            key_statement(
                "Deny",
                EXAMPLE.arn,
                "kms:Decrypt",
                StringEquals={"kms:EncryptionContext:Stage": ["Restricted", "Production"]},
            ),
        ],
        {True: [{"Stage": "Test"}, {}], False: [{"Stage": "Restricted"}, {"Stage": "Production"}]},
    ),
    "a key in its exact case, with any value": (
        [
            key_statement(
                "Allow",
                EXAMPLE.arn,
                "kms:Decrypt",
                **{"ForAnyValue:StringEquals": {"kms:EncryptionContextKeys": "AppName"}},
            )
        ],
        {
            True: [{"AppName": "Helper", "Project": "Alpha"}, {"AppName": "x"}],
            False: [{"Project": "Alpha"}, {}, {"appname": "Helper"}],
        },
    ),
    "key and value in their exact case": (
        [
            key_statement(
                "Allow",
                EXAMPLE.arn,
                "kms:Decrypt",
                **{
                    "ForAnyValue:StringEquals": {"kms:EncryptionContextKeys": "AppName"},
                    "StringEquals": {"kms:EncryptionContext:AppName": "ExampleApp"},
                },
            )
        ],
        {True: [APP], False: [{"appname": "ExampleApp"}, {"AppName": "exampleapp"}]},
    ),
    "ForAllValues limits the keys and requires none": (
        [
            key_statement(
                "Allow",
                EXAMPLE.arn,
                "kms:Decrypt",
                **{"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["AppName", "Stage"]}},
            )
        ],
        {
            True: [{}, {"AppName": "x"}, {"AppName": "x", "Stage": "y"}],
            False: [{"Project": "x"}, APP | {"Project": "x"}],
        },
    ),
    "any encryption context, but one": (
        [key_statement("Allow", EXAMPLE.arn, "kms:Decrypt", Null={"kms:EncryptionContextKeys": False})],
        {True: [APP, {"a": ""}], False: [{}]},
    ),
    "the caller's own name as the value": (
        [
            key_statement(
                "Allow", [EXAMPLE.arn], "kms:Decrypt", StringEquals={"kms:EncryptionContext:user": "${aws:username}"}
            )
        ],
        {True: [{"user": "ExampleUser"}], False: [{"user": "bob"}, {"user": "${aws:username}"}, {}]},
    ),
}


@pytest.mark.parametrize("name", CONTEXT_EXAMPLES)
def test_conditions_on_the_encryption_context(name: str) -> None:
    """conditions-kms.html#conditions-kms-encryption-context and …-encryption-context-keys."""
    statements, cases = CONTEXT_EXAMPLES[name]
    for expected, contexts in cases.items():
        for context in contexts:
            assert allowed(ask(context=context), statements) is expected, context


def test_a_variable_is_a_variable_in_the_current_version_only() -> None:
    """reference_policies_variables.html: in version 2008-10-17, ${aws:username} is a literal string."""
    statements = [
        key_statement(
            "Allow", [EXAMPLE.arn], "kms:Decrypt", StringEquals={"kms:EncryptionContext:user": "${aws:username}"}
        )
    ]
    literal = ask(context={"user": "${aws:username}"})
    assert allowed(literal, statements, version="2008-10-17")
    assert not allowed(ask(context={"user": "ExampleUser"}), statements, version="2008-10-17")


def test_a_variable_can_have_a_default() -> None:
    """reference_policies_variables.html#policy-vars-default-values: principals without a team tag get the default."""
    value = {"kms:EncryptionContext:team": "${aws:PrincipalTag/team, 'company-wide'}"}
    statements = [key_statement("Allow", EXAMPLE.arn, "kms:Decrypt", StringEquals=value)]
    assert allowed(ask(context={"team": "company-wide"}), statements)
    assert not allowed(ask(context={"team": "yellow"}), statements)


# The way a request came


def test_via_service_limits_use_to_services() -> None:
    """conditions-kms.html#conditions-kms-via-service: only when the request comes from EC2 or RDS."""
    services = ["ec2.us-west-2.amazonaws.com", "rds.us-west-2.amazonaws.com"]
    statements = [key_statement("Allow", EXAMPLE.arn, "kms:Decrypt", StringEquals={"kms:ViaService": services})]
    assert allowed(ask(facts=EC2), statements)
    assert allowed(ask(facts=RDS), statements)
    assert not allowed(ask(facts=LAMBDA), statements)
    assert not allowed(ask(), statements)


def test_via_service_can_forbid_a_service() -> None:
    """conditions-kms.html#conditions-kms-via-service: Encrypt is refused when it comes from Lambda."""
    service = {"kms:ViaService": ["lambda.us-west-2.amazonaws.com"]}
    statements = [
        key_statement("Allow", EXAMPLE.arn, "kms:*"),
        key_statement("Deny", EXAMPLE.arn, ["kms:Encrypt"], StringEquals=service),
    ]
    assert not allowed(ask(action="kms:Encrypt", facts=LAMBDA), statements)
    assert allowed(ask(action="kms:Encrypt", facts=EC2), statements)
    assert allowed(ask(action="kms:Encrypt"), statements)
    assert allowed(ask(action="kms:Decrypt", facts=LAMBDA), statements)


def test_everybody_of_an_account_through_one_service() -> None:
    """conditions-kms.html#conditions-kms-caller-account: how the policies of AWS managed keys are made."""
    through = {"kms:CallerAccount": "111122223333", "kms:ViaService": "ec2.us-west-2.amazonaws.com"}
    statements = [key_statement("Allow", "*", ["kms:Decrypt", "kms:GenerateDataKey*"], StringEquals=through)]
    for who in (EXAMPLE, BOB, ROOT):
        assert allowed(ask(who, facts=EC2), statements)
        assert not allowed(ask(who), statements)
    everything = [identity_statement("Allow", "*")]
    assert not allowed(ask(STRANGER, facts=EC2), statements, everything)


@pytest.mark.parametrize(
    ("address", "expected"), [("203.0.113.5", True), ("203.0.114.5", False), ("2001:db8::1", False), (None, False)]
)
def test_source_addresses(address: str | None, expected: bool) -> None:
    """reference_policies_elements_condition_operators.html#Conditions_IPAddress."""
    statements = [key_statement("Allow", EXAMPLE.arn, "kms:*", IpAddress={"aws:SourceIp": "203.0.113.0/24"})]
    assert allowed(ask(facts=replace(NO_FACTS, source_ip=address)), statements) is expected


def test_dates() -> None:
    """conditions-aws.html and reference_policies_elements_condition_operators.html#Conditions_Date."""
    until = [key_statement("Allow", EXAMPLE.arn, "kms:*", DateLessThan={"aws:CurrentTime": "2020-01-01T12:00:01Z"})]
    assert allowed(ask(), until)
    assert not allowed(ask(now=NOON + 1), until)


# Conditions on parameters and on the key


@pytest.mark.parametrize(
    ("page", "action", "condition", "extra", "expected"),
    [
        ("mac-algorithm", "kms:GenerateMac", {"StringEquals": {"kms:MacAlgorithm": ["HMAC_SHA_384", "HMAC_SHA_512"]}},
         {"kms:macalgorithm": "HMAC_SHA_384"}, True),
        ("mac-algorithm", "kms:GenerateMac", {"StringEquals": {"kms:MacAlgorithm": ["HMAC_SHA_384", "HMAC_SHA_512"]}},
         {"kms:macalgorithm": "HMAC_SHA_256"}, False),
        ("signing-algorithm", "kms:Sign", {"StringLike": {"kms:SigningAlgorithm": "RSASSA_PSS*"}},
         {"kms:signingalgorithm": "RSASSA_PSS_SHA_512"}, True),
        ("signing-algorithm", "kms:Sign", {"StringLike": {"kms:SigningAlgorithm": "RSASSA_PSS*"}},
         {"kms:signingalgorithm": "RSASSA_PKCS1_V1_5_SHA_512"}, False),
        ("message-type", "kms:Sign", {"StringEquals": {"kms:MessageType": "RAW"}}, {"kms:messagetype": "RAW"}, True),
        ("message-type", "kms:Sign", {"StringEquals": {"kms:MessageType": "RAW"}}, {"kms:messagetype": "DIGEST"},
         False),
        ("data-key-spec", "kms:GenerateDataKeyPair", {"StringLike": {"kms:DataKeyPairSpec": "RSA*"}},
         {"kms:datakeypairspec": "RSA_3072"}, True),
        ("data-key-spec", "kms:GenerateDataKeyPair", {"StringLike": {"kms:DataKeyPairSpec": "RSA*"}},
         {"kms:datakeypairspec": "ECC_NIST_P256"}, False),
        ("reencrypt-on-same-key", "kms:ReEncryptFrom", {"Bool": {"kms:ReEncryptOnSameKey": True}},
         {"kms:reencryptonsamekey": "true"}, True),
        ("reencrypt-on-same-key", "kms:ReEncryptFrom", {"Bool": {"kms:ReEncryptOnSameKey": True}},
         {"kms:reencryptonsamekey": "false"}, False),
        ("wrapping-algorithm", "kms:GetParametersForImport",
         {"StringNotEquals": {"kms:WrappingAlgorithm": "RSAES_OAEP_SHA_1"}},
         {"kms:wrappingalgorithm": "RSAES_OAEP_SHA_256"}, True),
        ("wrapping-algorithm", "kms:GetParametersForImport",
         {"StringNotEquals": {"kms:WrappingAlgorithm": "RSAES_OAEP_SHA_1"}},
         {"kms:wrappingalgorithm": "RSAES_OAEP_SHA_1"}, False),
        ("valid-to", "kms:ImportKeyMaterial", {"NumericLessThanEquals": {"kms:ValidTo": "1546257599.0"}},
         {"kms:validto": "1546257599"}, True),
        ("valid-to", "kms:ImportKeyMaterial", {"NumericLessThanEquals": {"kms:ValidTo": "1546257599.0"}},
         {"kms:validto": "1546257600"}, False),
        ("expiration-model", "kms:ImportKeyMaterial",
         {"StringEquals": {"kms:ExpirationModel": "KEY_MATERIAL_EXPIRES"}},
         {"kms:expirationmodel": "KEY_MATERIAL_DOES_NOT_EXPIRE"}, False),
        ("request-alias", "kms:GenerateDataKey", {"StringEquals": {"kms:RequestAlias": "alias/finance-key"}},
         {"kms:requestalias": "alias/finance-key"}, True),
        ("request-alias", "kms:GenerateDataKey", {"StringEquals": {"kms:RequestAlias": "alias/finance-key"}}, {},
         False),
        ("key-origin", "kms:Decrypt", {"StringEquals": {"kms:KeyOrigin": "AWS_KMS"}}, {}, True),
        ("key-origin", "kms:Decrypt", {"StringEquals": {"kms:KeyOrigin": "EXTERNAL"}}, {}, False),
        ("key-usage", "kms:Decrypt", {"StringEquals": {"kms:KeyUsage": "SIGN_VERIFY"}}, {}, False),
        ("schedule-key-deletion-pending-window-in-days", "kms:ScheduleKeyDeletion",
         {"NumericGreaterThan": {"kms:ScheduleKeyDeletionPendingWindowInDays": "21"}},
         {"kms:schedulekeydeletionpendingwindowindays": "30"}, True),
        ("schedule-key-deletion-pending-window-in-days", "kms:ScheduleKeyDeletion",
         {"NumericGreaterThan": {"kms:ScheduleKeyDeletionPendingWindowInDays": "21"}},
         {"kms:schedulekeydeletionpendingwindowindays": "7"}, False),
    ],
)  # fmt: skip
def test_conditions_on_parameters(
    page: str, action: str, condition: dict[str, Any], extra: dict[str, str], expected: bool
) -> None:
    """conditions-kms.html#conditions-kms-…, with `page` as the rest of the anchor."""
    statements = [key_statement("Allow", EXAMPLE.arn, action, **condition)]
    assert allowed(ask(action=action, extra=extra), statements) is expected, page


def test_a_deny_of_creating_keys_by_spec() -> None:
    """conditions-kms.html#conditions-kms-key-spec: an IAM policy lets the user create RSA_4096 keys only."""
    allow = [identity_statement("Allow", "kms:CreateKey", StringEquals={"kms:KeySpec": "RSA_4096"})]
    assert allowed(ask(action="kms:CreateKey", key=None, extra={"kms:keyspec": "RSA_4096"}), None, allow)
    assert not allowed(ask(action="kms:CreateKey", key=None, extra={"kms:keyspec": "SYMMETRIC_DEFAULT"}), None, allow)


def test_a_deny_of_bypassing_the_lock_out_check() -> None:
    """conditions-kms.html#conditions-kms-bypass-policy-lockout-safety-check."""
    statements = [
        key_statement("Allow", EXAMPLE.arn, "kms:*"),
        key_statement("Deny", EXAMPLE.arn, "kms:PutKeyPolicy", Bool={"kms:BypassPolicyLockoutSafetyCheck": True}),
    ]
    bypass = {"kms:bypasspolicylockoutsafetycheck": "true"}
    assert not allowed(ask(action="kms:PutKeyPolicy", extra=bypass), statements)
    check = {"kms:bypasspolicylockoutsafetycheck": "false"}
    assert allowed(ask(action="kms:PutKeyPolicy", extra=check), statements)


def test_aliases_of_the_key() -> None:
    """conditions-kms.html#conditions-kms-resource-aliases: in IAM policies, however the request names the key."""
    one = identity_statement(
        "Allow",
        "kms:GenerateDataKey",
        "arn:aws:kms:*:111122223333:key/*",
        **{"ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/finance-key"}},
    )
    asked = "kms:GenerateDataKey"
    named = replace(KEY, aliases=("alias/finance-key", "alias/other"))
    assert allowed(ask(action=asked, key=named), [ACCOUNT], [one])
    assert not allowed(ask(action=asked, key=replace(KEY, aliases=("alias/other",))), [ACCOUNT], [one])
    assert not allowed(ask(action=asked), [ACCOUNT], [one])
    every = identity_statement(
        "Allow",
        ["kms:EnableKey", "kms:DisableKey"],
        **{
            "ForAllValues:StringLike": {"kms:ResourceAliases": ["alias/*Test*"]},
            "ForAnyValue:StringLike": {"kms:ResourceAliases": ["alias/*Test*"]},
        },
    )
    for aliases, expected in (
        (("alias/aTest", "alias/Test2"), True),
        (("alias/aTest", "alias/Production"), False),
        ((), False),
    ):
        assert allowed(ask(action="kms:DisableKey", key=replace(KEY, aliases=aliases)), [ACCOUNT], [every]) is expected
    with pytest.raises(MalformedPolicy):  # IAM policies only
        decide(
            ask(),
            [
                key_statement(
                    "Allow",
                    EXAMPLE.arn,
                    "kms:*",
                    **{"ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/finance-key"}},
                )
            ],
        )


def test_tags_of_the_key() -> None:
    """abac.html and tag-authorization.html: access by the tag Project=Alpha on the key."""
    allow = [identity_statement("Allow", "kms:Decrypt", StringEquals={"aws:ResourceTag/Project": "Alpha"})]
    assert allowed(ask(key=replace(KEY, tags={"Project": "Alpha"})), [ACCOUNT], allow)
    assert not allowed(ask(key=replace(KEY, tags={"Project": "Beta"})), [ACCOUNT], allow)
    assert not allowed(ask(), [ACCOUNT], allow)


def test_tags_of_the_request() -> None:
    """tag-permissions.html: TagResource with these tag keys only, and with the tag Purpose=Test."""
    statements = [
        key_statement(
            "Allow",
            EXAMPLE.arn,
            "kms:TagResource",
            **{
                "StringEquals": {"aws:RequestTag/Purpose": "Test"},
                "ForAllValues:StringEquals": {"aws:TagKeys": ["Purpose", "Department"]},
            },
        )
    ]
    for keys, value, expected in (
        (("Purpose",), "Test", True),
        (("Department", "Purpose"), "Test", True),
        (("Purpose", "Stage"), "Test", False),
        (("Purpose",), "Production", False),
    ):
        extra = {"aws:tagkeys": keys, "aws:requesttag/purpose": value}
        assert allowed(ask(action="kms:TagResource", extra=extra), statements) is expected
