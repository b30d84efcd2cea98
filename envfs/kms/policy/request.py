"""What an evaluation looks at: one request, as a plain value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from envfs.kms.model import Principal, RequestFacts

ConditionValue: TypeAlias = str | tuple[str, ...]

NO_PAIRS: Final[Mapping[str, str]] = MappingProxyType({})
NO_EXTRA: Final[Mapping[str, ConditionValue]] = MappingProxyType({})


class CannotEvaluate(Exception):
    """A statement meets a request for which it makes no sense: a Deny then denies, an Allow allows nothing."""


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What policies may ask about a key. `aliases` counts in identity policies only."""

    arn: str
    spec: str
    usage: str
    origin: str
    aliases: tuple[str, ...] = ()


class Request:
    """One action of one principal on one resource.

    `action` has its prefix (`kms:Decrypt`). `resource` is a key's or alias's ARN, or "*" where no resource is involved;
    `key` the facts of the key, if there is one. `context` is the encryption context, `extra` holds condition keys
    (lower case) that the operation adds. `now` is in seconds since 1970, `account_id` the account of the KMS,
    `principal_prefix` what its principals' ARNs begin with.
    """

    __slots__ = (
        "account_id",
        "action",
        "context",
        "extra",
        "facts",
        "key",
        "now",
        "principal",
        "principal_prefix",
        "resource",
    )

    def __init__(
        self,
        principal: Principal,
        action: str,
        resource: str,
        key: KeyFacts | None,
        context: Mapping[str, str],
        facts: RequestFacts,
        extra: Mapping[str, ConditionValue],
        now: float,
        account_id: str,
        principal_prefix: str,
    ) -> None:
        self.principal = principal
        self.action = action
        self.resource = resource
        self.key = key
        self.context = context
        self.facts = facts
        self.extra = extra
        self.now = now
        self.account_id = account_id
        self.principal_prefix = principal_prefix
