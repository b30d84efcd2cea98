"""Statements and policies in a form that is quick to evaluate; `parser` makes them from JSON."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from envfs.kms.model import Principal
from envfs.kms.policy.conditions import Clause
from envfs.kms.policy.decision import Decision, Reason, StatementRef
from envfs.kms.policy.request import Request
from envfs.kms.policy.template import Matcher, Part, Wildcard, compile_pattern, resolve


class Match(enum.Enum):
    """How a statement names a principal: not at all, by his account (which only delegates), or himself."""

    NONE = 0
    DELEGATED = 1
    DIRECT = 2


class Principals:
    """The `Principal` element of a key policy: `everyone` (`*`), single users and groups by ARN, whole accounts by
    id.
    """

    __slots__ = ("accounts", "arns", "everyone")

    def __init__(self, *, everyone: bool, arns: frozenset[str], accounts: frozenset[str]) -> None:
        self.everyone = everyone
        self.arns = arns
        self.accounts = accounts

    def match(self, principal: Principal) -> Match:
        if self.everyone or principal.arn in self.arns or not self.arns.isdisjoint(principal.group_arns):
            return Match.DIRECT
        if self.accounts and principal.arn.split(":", 5)[4] in self.accounts:
            return Match.DIRECT if principal.is_account_root else Match.DELEGATED
        return Match.NONE


class Source(NamedTuple):
    """A statement as it was written, for who has to be told about it. `variables`: whether its policy's version has
    them; `identity`: whether it stands in an identity policy.
    """

    element: Mapping[str, Any]
    variables: bool
    identity: bool


class Statement:
    """One statement. `actions` None: it names no action, or no resource, and so has no effect."""

    __slots__ = ("_actions", "_clauses", "_not_actions", "_not_resources", "_resources", "decision", "is_deny",
                 "moments", "negated_principals", "principals", "ref", "source")  # fmt: skip

    def __init__(
        self,
        ref: StatementRef,
        principals: Principals | None,
        *,
        negated_principals: bool,
        actions: tuple[Matcher, ...] | None,
        not_actions: bool,
        resources: tuple[tuple[Part, ...], ...],
        not_resources: bool,
        clauses: tuple[Clause, ...],
        moments: tuple[float, ...] = (),
        source: Source,
    ) -> None:
        self.ref = ref
        self.source = source
        self.is_deny = ref.effect == "Deny"
        self.principals = principals
        self.negated_principals = negated_principals
        self._actions = actions
        self._not_actions = not_actions
        self._resources = None if _is_everything(resources) and not not_resources else resources
        self._not_resources = not_resources
        self._clauses = clauses
        self.moments = moments  # at which it may begin or cease to apply; see `envfs.kms.policy.moments`
        reason = Reason.EXPLICIT_DENY if self.is_deny else Reason.KEY_POLICY
        self.decision = Decision(not self.is_deny, reason, (ref,))

    def covers(self, action: str) -> bool:
        """Whether the statement is about `action`."""
        if self._actions is None:
            return False
        return any(matches(action) for matches in self._actions) is not self._not_actions

    def match_principal(self, principal: Principal) -> Match:
        """How it names the principal; an identity policy's statement is about whoever has the policy."""
        if self.principals is None:
            return Match.DIRECT
        match = self.principals.match(principal)
        if self.negated_principals:
            # Only who is named himself is spared: an account in NotPrincipal spares its root user, not all its users.
            return Match.NONE if match is Match.DIRECT else Match.DIRECT
        if self.is_deny and match is Match.DELEGATED:
            return Match.DIRECT  # a Deny for an account is a Deny for each of its users
        return match

    def applies(self, request: Request) -> bool:
        """Whether resource and conditions fit. A statement that cannot be evaluated fails closed: it applies if it
        denies.
        """
        try:
            if self._resources is not None and self._match_resource(request) is self._not_resources:
                return False
            # All of them, so that a Deny with one clause in error denies, wherever that clause stands.
            return all([clause(request) for clause in self._clauses])  # noqa: C419
        except Exception:  # noqa: BLE001 - whatever goes wrong in here must not open a door
            return self.is_deny

    def _match_resource(self, request: Request) -> bool:
        patterns = [compile_pattern(resolve(parts, request)) for parts in self._resources or ()]
        return any(matches(request.resource) for matches in patterns)


def _is_everything(resources: Sequence[tuple[Part, ...]]) -> bool:
    """Whether `*` is among them, so that nobody has to look closer."""
    return any(parts and all(part is Wildcard.ANY for part in parts) for parts in resources)


class Policy:
    """The statements of one policy, Deny and Allow apart, and for each action those that are about it."""

    def __init__(self, statements: Sequence[Statement]) -> None:
        self.statements = tuple(statements)
        self.moments = tuple(sorted({moment for statement in self.statements for moment in statement.moments}))
        self._by_action: dict[str, tuple[tuple[Statement, ...], tuple[Statement, ...]]] = {}

    def about(self, action: str) -> tuple[tuple[Statement, ...], tuple[Statement, ...]]:
        """The Deny and the Allow statements that cover `action`."""
        found = self._by_action.get(action)
        if found is None:
            covering = [statement for statement in self.statements if statement.covers(action)]
            found = (
                tuple(statement for statement in covering if statement.is_deny),
                tuple(statement for statement in covering if not statement.is_deny),
            )
            self._by_action[action] = found
        return found
