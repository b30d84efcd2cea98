"""The policies that a key gets when nobody writes one."""

from __future__ import annotations

import json

from envfs.kms.arn import Account

VIA_SERVICE = "envfs"


def default_key_policy(account: Account) -> str:
    """As in AWS: the account root may do everything, and by that identity policies count.

    https://docs.aws.amazon.com/kms/latest/developerguide/key-policy-default.html
    """
    return _policy(
        {
            "Sid": "Enable identity policies",
            "Effect": "Allow",
            "Principal": {"AWS": account.root_arn},
            "Action": "kms:*",
            "Resource": "*",
        }
    )


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


def _policy(*statements: dict[str, object]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)}, indent=2)
