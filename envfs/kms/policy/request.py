"""What an evaluation looks at: one request, as a plain value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeAlias

from envfs.kms.model import GrantConstraints, Principal, RequestFacts

ConditionValue: TypeAlias = str | tuple[str, ...]

NO_PAIRS: Final[Mapping[str, str]] = MappingProxyType({})
NO_EXTRA: Final[Mapping[str, ConditionValue]] = MappingProxyType({})


class CannotEvaluate(Exception):
    """A statement meets a request for which it makes no sense: a Deny then denies, an Allow allows nothing."""


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What policies may ask about a key. `aliases` counts in identity policies only; `tags` are those of the key."""

    arn: str
    spec: str
    usage: str
    origin: str
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GrantTerms:
    """What a grant that somebody wants to create would allow."""

    operations: frozenset[str]
    constraints: GrantConstraints | None


class Request:
    """One action of one principal on one resource.

    `action` has its prefix (`kms:Decrypt`). `resource` is a key's or alias's ARN, or "*" where no resource is involved;
    `key` the facts of the key, if there is one. `context` is the encryption context, `extra` holds condition keys
    (lower case) that the operation adds. `now` is in seconds since 1970, `account_id` the account of the KMS,
    `principal_prefix` what its principals' ARNs begin with. `proposal`: in CreateGrant, the grant that is asked for.
    """

    __slots__ = (
        "_folded",
        "account_id",
        "action",
        "context",
        "extra",
        "facts",
        "key",
        "now",
        "principal",
        "principal_prefix",
        "proposal",
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
        proposal: GrantTerms | None = None,
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
        self.proposal = proposal
        self._folded: dict[str, str] | None = None

    def by(self, principal: Principal) -> Request:
        """The same request of somebody else."""
        return Request(
            principal,
            self.action,
            self.resource,
            self.key,
            self.context,
            self.facts,
            self.extra,
            self.now,
            self.account_id,
            self.principal_prefix,
            self.proposal,
        )

    @property
    def folded_context(self) -> Mapping[str, str]:
        """The encryption context by lower-case keys, without those that differ in case only."""
        folded = self._folded
        if folded is None:
            lower = [name.lower() for name in self.context]
            pairs = zip(lower, self.context.values(), strict=True)
            folded = dict(pairs)
            if len(folded) < len(lower):
                folded = {name: value for name, value in folded.items() if lower.count(name) == 1}
            self._folded = folded
        return folded


def alias_fact(reference: str) -> Mapping[str, ConditionValue]:
    """kms:RequestAlias, which is there only where the request named the key (`reference`) by an alias."""
    position = reference.find("alias/")
    return {"kms:requestalias": reference[position:]} if position >= 0 else NO_EXTRA
