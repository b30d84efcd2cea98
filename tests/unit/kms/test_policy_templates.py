"""Key administrators and key users: every action of the KMS, for both."""

from __future__ import annotations

import pytest

from envfs.kms.actions import KEYLESS_ACTIONS, PERMISSIONS
from envfs.kms.model import Principal, RequestFacts
from envfs.kms.policy.defaults import administrators_and_users_policy
from envfs.kms.policy.evaluator import evaluate
from envfs.kms.policy.parser import parse_key_policy
from envfs.kms.policy.request import GrantTerms
from tests.unit.kms.kit import ACCOUNT, ALICE, BOB, OWNER, ROOT, person
from tests.unit.kms.requests import request

CAROL = person("carol", 1003, "finance")
KEYED = sorted(PERMISSIONS - KEYLESS_ACTIONS)
THROUGH = RequestFacts(via_service="envfs")

MANAGES = {
    "CancelKeyDeletion", "CreateAlias", "DeleteAlias", "DeleteImportedKeyMaterial", "DescribeKey", "DisableKey",
    "DisableKeyRotation", "EnableKey", "EnableKeyRotation", "GetKeyLastUsage", "GetKeyPolicy", "GetKeyRotationStatus",
    "GetParametersForImport", "GetPublicKey", "ImportKeyMaterial", "ListGrants", "ListKeyPolicies", "ListKeyRotations",
    "ListResourceTags", "PutKeyPolicy", "RevokeGrant", "RotateKeyOnDemand", "ScheduleKeyDeletion", "TagResource",
    "UntagResource", "UpdateAlias", "UpdateKeyDescription", "UpdatePrimaryRegion",
}  # fmt: skip
# Actions of custom key stores, which the wildcards cover and which no key has.
STORES = {action for action in PERMISSIONS if "CustomKeyStore" in action}
USES = {
    ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"): {
        "Decrypt", "Encrypt", "GenerateDataKey", "GenerateDataKeyPair", "GenerateDataKeyPairWithoutPlaintext",
        "GenerateDataKeyWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo",
    },
    ("RSA_2048", "ENCRYPT_DECRYPT"): {"Decrypt", "Encrypt", "GetPublicKey", "ReEncryptFrom", "ReEncryptTo"},
    ("RSA_2048", "SIGN_VERIFY"): {"GetPublicKey", "Sign", "Verify"},
    ("HMAC_256", "GENERATE_VERIFY_MAC"): {"GenerateMac", "VerifyMac"},
    ("ECC_NIST_P256", "KEY_AGREEMENT"): {"DeriveSharedSecret", "GetPublicKey"},
    ("ML_KEM_768", "ENCAPSULATE_DECAPSULATE"): {"Decapsulate", "Encapsulate", "GetPublicKey"},
}  # fmt: skip


def allowed(template: str, who: Principal, facts: RequestFacts | None = None) -> set[str]:
    parsed = parse_key_policy(template, ACCOUNT)
    return {
        action
        for action in KEYED
        if evaluate(request(who, f"kms:{action}", facts=facts or RequestFacts()), parsed, ()).allowed
    }


def template(spec: str = "SYMMETRIC_DEFAULT", usage: str = "ENCRYPT_DECRYPT") -> str:
    return administrators_and_users_policy(ACCOUNT, [ALICE.arn], [BOB.arn, ACCOUNT.group_arn("finance")], usage, spec)


@pytest.mark.parametrize(("spec", "usage"), USES)
def test_an_administrator_manages_and_does_not_use(spec: str, usage: str) -> None:
    made = administrators_and_users_policy(ACCOUNT, [ALICE.arn], [BOB.arn], usage, spec)
    # CreateGrant depends on whom he names; see below.
    assert allowed(made, ALICE) - STORES - {"CreateGrant"} == MANAGES
    assert allowed(made, ALICE, THROUGH) - STORES - {"CreateGrant"} == MANAGES


@pytest.mark.parametrize(("spec", "usage"), USES)
def test_a_user_uses_and_does_not_manage(spec: str, usage: str) -> None:
    made = template(spec, usage)
    for who in (BOB, CAROL):
        assert allowed(made, who) == USES[spec, usage] | {"DescribeKey"}
        attaching = {"CreateGrant", "ListGrants", "RevokeGrant"}
        facts = RequestFacts(via_service="envfs")
        parsed = parse_key_policy(made, ACCOUNT)
        for action in attaching:
            extra = {"kms:grantisforawsresource": "true"}
            assert evaluate(request(who, f"kms:{action}", facts=facts, extra=extra), parsed, ()).allowed


def test_the_rest_has_nothing_and_the_owner_everything() -> None:
    made = template()
    assert allowed(made, ROOT) == set()
    assert allowed(made, OWNER) == set(KEYED)


def test_who_is_both_has_both() -> None:
    made = administrators_and_users_policy(ACCOUNT, [ALICE.arn], [ALICE.arn])
    both = MANAGES | USES["SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"]
    assert allowed(made, ALICE) - STORES - {"CreateGrant"} == both


def test_a_list_may_be_empty() -> None:
    assert allowed(administrators_and_users_policy(ACCOUNT, [], [BOB.arn]), ALICE) == set()
    assert allowed(administrators_and_users_policy(ACCOUNT, [ALICE.arn], []), BOB) == set()


@pytest.mark.parametrize(
    ("grantee", "expected"),
    [
        (ALICE.arn, False),
        (ACCOUNT.group_arn("finance"), False),
        (ACCOUNT.root_arn, False),
        (BOB.arn, True),
        (ACCOUNT.user_arn("alice2"), True),
    ],
)
def test_an_administrator_grants_use_to_others_only(grantee: str, expected: bool) -> None:
    terms = GrantTerms(frozenset({"Decrypt"}), None)
    extra = {"kms:granteeprincipal": grantee}
    asked = request(ALICE, "kms:CreateGrant", extra=extra)
    asked.proposal = terms
    assert evaluate(asked, parse_key_policy(template(), ACCOUNT), ()).allowed is expected
