"""Requests to evaluate policies with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envfs.kms.model import NO_FACTS, Principal, RequestFacts
from envfs.kms.policy.request import NO_EXTRA, NO_PAIRS, ConditionValue, KeyFacts, Request
from tests.unit.kms.kit import ACCOUNT, ALICE

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = KeyFacts(ACCOUNT.key_arn(b"k" * 16), "SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "ENVFS", ("alias/one", "alias/two"))
NOON = 1_700_000_000.0  # 2023-11-14T22:13:20Z


def request(
    principal: Principal = ALICE,
    action: str = "kms:Decrypt",
    key: KeyFacts | None = KEY,
    context: Mapping[str, str] = NO_PAIRS,
    facts: RequestFacts = NO_FACTS,
    extra: Mapping[str, ConditionValue] = NO_EXTRA,
    resource: str = "*",
    now: float = NOON,
) -> Request:
    return Request(
        principal,
        action,
        resource if key is None else key.arn,
        key,
        context,
        facts,
        extra,
        now,
        ACCOUNT.account_id,
        ACCOUNT.principal_prefix,
    )
