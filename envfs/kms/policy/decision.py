"""What an evaluation gives: the verdict and the statements or the grant that it rests on; the audit
trail and the command line show the same.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class Reason(enum.StrEnum):
    """Why a request was allowed or denied."""

    EXPLICIT_DENY = "explicit-deny"
    KEY_POLICY = "key-policy"
    IDENTITY_POLICY = "identity-policy"  # with the key policy's delegation, where a key is involved
    ACCOUNT_ROOT = "account-root"
    NO_MATCH = "no-match"
    GRANT = "grant"
    SERVICE_MANAGED = "service-managed"
    KEY_STATE = "key-state"
    UNKNOWN_KEY = "unknown-key"


class StatementRef(NamedTuple):
    """A statement by its policy (`key policy`, or an identity policy's name and owner), Sid (may be empty) and number
    from 1.
    """

    policy: str
    sid: str
    number: int
    effect: str

    @property
    def text(self) -> str:
        name = f"{self.sid!r}" if self.sid else f"number {self.number}"
        return f"{self.effect} statement {name} of {self.policy}"


_TEXTS = {
    Reason.EXPLICIT_DENY: "denied by",
    Reason.KEY_POLICY: "allowed by",
    Reason.IDENTITY_POLICY: "allowed by",
    Reason.ACCOUNT_ROOT: "allowed to the owner of the KMS",
    Reason.GRANT: "allowed by",
    Reason.NO_MATCH: "denied: no statement and no grant allows it",
    Reason.SERVICE_MANAGED: "denied: envfs itself manages this key",
    Reason.KEY_STATE: "denied by the state of the key",
    Reason.UNKNOWN_KEY: "denied: there is no such key",
}


@dataclass(frozen=True)
class Decision:
    """The verdict on one action. `grant` is the id of the grant that it rests on, if it rests on one."""

    allowed: bool
    reason: Reason
    statements: tuple[StatementRef, ...] = ()
    grant: str = ""

    @cached_property
    def text(self) -> str:
        """For people: `denied by Deny statement 'NoRoot' of key policy`."""
        grounds = [f"grant {self.grant}"] if self.grant else []
        grounds += [statement.text for statement in self.statements]
        return " ".join((_TEXTS[self.reason], " and ".join(grounds))).rstrip()
