"""The policies that a key gets when nobody writes one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from envfs.kms.arn import Account
from envfs.kms.material.specs import ENCAPSULATE_DECAPSULATE, GENERATE_VERIFY_MAC, KEY_AGREEMENT, SIGN_VERIFY
from envfs.kms.model import ENCRYPT_DECRYPT, SYMMETRIC_DEFAULT

VIA_SERVICE: Final = "envfs"

_ADMINISTRATION: Final = [
    "kms:CreateAlias", "kms:Describe*", "kms:Enable*", "kms:List*", "kms:Put*", "kms:Update*", "kms:Revoke*",
    "kms:Disable*", "kms:Get*", "kms:Delete*", "kms:TagResource", "kms:UntagResource", "kms:ImportKeyMaterial",
    "kms:ScheduleKeyDeletion", "kms:CancelKeyDeletion", "kms:RotateKeyOnDemand",
]  # fmt: skip
_USE: Final = {
    ENCRYPT_DECRYPT: ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*"],
    SIGN_VERIFY: ["kms:Sign", "kms:Verify", "kms:GetPublicKey"],
    GENERATE_VERIFY_MAC: ["kms:GenerateMac", "kms:VerifyMac"],
    KEY_AGREEMENT: ["kms:DeriveSharedSecret", "kms:GetPublicKey"],
    ENCAPSULATE_DECAPSULATE: ["kms:Encapsulate", "kms:Decapsulate", "kms:GetPublicKey"],
}


def default_key_policy(account: Account) -> str:
    """As in AWS: the account root may do everything, and by that identity policies count.

    https://docs.aws.amazon.com/kms/latest/developerguide/key-policy-default.html
    """
    return _policy(_account_statement(account))


def service_managed_policy(account: Account) -> str:
    """Everybody of the account, but through the filesystem only; the account may look at the key."""
    return _policy(
        {
            "Sid": "Allow use through envfs",
            "Effect": "Allow",
            "Principal": {"AWS": "*"},
            "Action": [
                "kms:Encrypt",
                "kms:Decrypt",
                "kms:ReEncrypt*",
                "kms:GenerateDataKey*",
                "kms:CreateGrant",
                "kms:DescribeKey",
            ],
            "Resource": "*",
            "Condition": {"StringEquals": {"kms:CallerAccount": account.account_id, "kms:ViaService": VIA_SERVICE}},
        },
        {
            "Sid": "Allow direct access to key metadata",
            "Effect": "Allow",
            "Principal": {"AWS": account.root_arn},
            "Action": ["kms:Describe*", "kms:Get*", "kms:List*", "kms:RevokeGrant"],
            "Resource": "*",
        },
    )


def administrators_and_users_policy(
    account: Account,
    administrators: Sequence[str],
    users: Sequence[str],
    usage: str = ENCRYPT_DECRYPT,
    spec: str = SYMMETRIC_DEFAULT,
) -> str:
    """As AWS's console makes it, for a key of this usage and spec: the account root as ever; `administrators` (ARNs)
    manage the key and cannot use it; `users` (ARNs) use it, through the filesystem or directly, and cannot manage it.

    https://docs.aws.amazon.com/kms/latest/developerguide/key-policy-default.html
    """
    statements: list[dict[str, object]] = [_account_statement(account)]
    if administrators:
        statements += _administrators(account, sorted(administrators))
    if users:
        statements += _users(sorted(users), usage, spec)
    return _policy(*statements)


def administration_statements(account: Account) -> list[dict[str, Any]]:
    """What an administrator may do with a key, as statements of an identity policy about all keys; the second is about
    grants.
    """
    return [
        {"Effect": "Allow", "Action": list(_ADMINISTRATION), "Resource": "*"},
        {"Effect": "Allow", "Action": ["kms:CreateGrant"], "Resource": "*", "Condition": _grant_to_others(account)},
    ]


def _grant_to_others(account: Account) -> dict[str, object]:
    # AWS's console says kms:Create*, by which an administrator could grant himself the use of the key.
    return {
        "StringNotEquals": {"kms:GranteePrincipal": "${aws:PrincipalArn}"},
        "ArnNotLike": {"kms:GranteePrincipal": [account.group_arn("*"), account.root_arn]},
    }


def _administrators(account: Account, arns: list[str]) -> list[dict[str, object]]:
    return [
        _allow("Allow access for Key Administrators", arns, _ADMINISTRATION),
        _allow("Allow Key Administrators to grant use to others", arns, ["kms:CreateGrant"], _grant_to_others(account)),
    ]


def _users(arns: list[str], usage: str, spec: str) -> list[dict[str, object]]:
    actions = [*_USE[usage], "kms:DescribeKey"]
    if usage == ENCRYPT_DECRYPT:
        actions.append("kms:GenerateDataKey*" if spec == SYMMETRIC_DEFAULT else "kms:GetPublicKey")
    attachment = ["kms:CreateGrant", "kms:ListGrants", "kms:RevokeGrant"]
    through_envfs: dict[str, object] = {"Bool": {"kms:GrantIsForAWSResource": "true"}}
    return [
        _allow("Allow use of the key", arns, sorted(actions)),
        _allow("Allow attachment of persistent resources", arns, attachment, through_envfs),
    ]


def _allow(
    sid: str, arns: list[str], actions: list[str], condition: dict[str, object] | None = None
) -> dict[str, object]:
    made: dict[str, object] = {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": {"AWS": arns},
        "Action": actions,
        "Resource": "*",
    }
    return made if condition is None else made | {"Condition": condition}


def _account_statement(account: Account) -> dict[str, object]:
    return {
        "Sid": "Enable identity policies",
        "Effect": "Allow",
        "Principal": {"AWS": account.root_arn},
        "Action": "kms:*",
        "Resource": "*",
    }


def _policy(*statements: dict[str, object]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)}, indent=2)
