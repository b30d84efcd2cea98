"""Grants in a form that is quick to evaluate: those of one key, by operation and grantee.

https://docs.aws.amazon.com/kms/latest/developerguide/grants.html
A grant allows and never denies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Final

from envfs.kms.model import Grant, GrantConstraints, Principal
from envfs.kms.policy.decision import Decision, Reason
from envfs.kms.policy.request import GrantTerms, Request

CREATE_GRANT: Final = "kms:CreateGrant"
RETIRE_GRANT: Final = "kms:RetireGrant"

# Operations without an encryption context; a constraint says nothing about them.
_UNCONSTRAINED: Final = frozenset({"kms:DescribeKey", RETIRE_GRANT})


class GrantRule:
    """One grant. `decision` is the verdict where it matches; `retirement` that on retiring the grant itself."""

    __slots__ = ("constraints", "decision", "grant", "grantee_account", "operations")

    def __init__(self, grant: Grant) -> None:
        self.grant = grant
        self.operations = frozenset(grant.operations)
        self.constraints = grant.constraints
        self.decision = Decision(allowed=True, reason=Reason.GRANT, grant=grant.grant_id)
        # A whole account: it delegates to the account's identity policies, as it does in a key policy.
        self.grantee_account = _account_of(grant.grantee)

    def permits(self, request: Request) -> bool:
        """Whether the grant covers a request of its grantee for one of its operations."""
        if request.action == CREATE_GRANT:
            return request.proposal is not None and self._permits_grant(request.proposal)
        if self.constraints is None or request.action in _UNCONSTRAINED:
            return True
        return meets(self.constraints, request.context)

    def _permits_grant(self, proposal: GrantTerms) -> bool:
        return proposal.operations <= self.operations and is_as_strict(proposal.constraints, self.constraints)

    def names_retiring(self, principal: Principal) -> bool:
        """Whether the grant lets `principal` retire it, as its retiring principal or as its grantee."""
        grant = self.grant
        if grant.retiring and _is(grant.retiring, principal):
            return True
        return "RetireGrant" in self.operations and _is(grant.grantee, principal)


class GrantSet:
    """The grants of one key, compiled once and then never changed.

    `load` gives them when they are first needed: a key can have 50,000, and most requests are decided by policies.
    """

    def __init__(self, grants: Iterable[Grant] = (), load: Callable[[], Iterable[Grant]] | None = None) -> None:
        self._load: Callable[[], Iterable[Grant]] = load or (lambda: grants)

    @cached_property
    def rules(self) -> tuple[GrantRule, ...]:
        """All of them, in the order in which they were given."""
        return tuple(GrantRule(grant) for grant in self._load())

    @cached_property
    def _by_action(self) -> dict[str, dict[str, list[GrantRule]]]:
        by_action: dict[str, dict[str, list[GrantRule]]] = {}
        for rule in self.rules:
            grantee = rule.grantee_account or rule.grant.grantee
            for operation in rule.operations:
                by_action.setdefault(f"kms:{operation}", {}).setdefault(grantee, []).append(rule)
        return by_action

    def find(self, request: Request) -> tuple[GrantRule | None, GrantRule | None]:
        """The first grant that allows the request to the caller himself (or a group of his), and the first that allows
        it to his account.
        """
        by_grantee = self._by_action.get(request.action)
        if by_grantee is None:
            return None, None
        principal = request.principal
        for grantee in (principal.arn, *sorted(principal.group_arns & by_grantee.keys())):
            for rule in by_grantee.get(grantee, ()):
                if rule.permits(request):
                    return rule, None
        for rule in by_grantee.get(principal.arn.split(":", 5)[4], ()):
            if rule.permits(request):
                return (rule, None) if principal.is_account_root else (None, rule)
        return None, None


NO_GRANTS: Final = GrantSet()


def meets(constraints: GrantConstraints, context: Mapping[str, str]) -> bool:
    """Whether an encryption context is what a grant's constraints ask for. Case counts, in keys too."""
    if constraints.equals is not None and dict(constraints.equals) != dict(context):
        return False
    return constraints.subset is None or constraints.subset.items() <= context.items()


def is_as_strict(child: GrantConstraints | None, parent: GrantConstraints | None) -> bool:
    """Whether every encryption context that meets `child` also meets `parent`."""
    if parent is None:
        return True
    if child is None:
        return False
    if parent.equals is not None and (child.equals is None or dict(child.equals) != dict(parent.equals)):
        return False
    return parent.subset is None or parent.subset.items() <= child.pairs.items()


def _account_of(arn: str) -> str:
    """The account whose root `arn` is, or ""."""
    return arn.split(":", 5)[4] if arn.endswith(":root") else ""


def _is(arn: str, principal: Principal) -> bool:
    if arn == principal.arn or arn in principal.group_arns:
        return True
    return principal.is_account_root and _account_of(arn) == principal.arn.split(":", 5)[4]
