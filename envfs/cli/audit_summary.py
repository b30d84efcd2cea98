"""What audit records come to: who opened what, what was denied, what was changed, and what gave alarm.

Memory grows with the number of different (user, key, file), not with that of the records; changes and alarms are kept
one by one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from envfs.kms.actions import CRYPTOGRAPHIC

if TYPE_CHECKING:
    from collections.abc import Mapping

DENIED: Final = "AccessDeniedException"
NOBODY: Final = "(no user)"
# Events of envfs itself that somebody should know of.
ALARMS: Final = frozenset({"IntegrityFailure", "RecoverAuditChain"})
ACCESSES: Final = ("read", "write", "create")


@dataclass(slots=True)
class Use:
    """What one user did with one key. `accesses`: opens of files by access; `direct`: calls that no file was the cause
    of; `refused`: what was denied or failed.
    """

    accesses: Counter[str] = field(default_factory=Counter)
    direct: int = 0
    refused: int = 0
    files: set[str] = field(default_factory=set)
    first: str = ""
    last: str = ""


@dataclass(slots=True)
class Refusal:
    """The same thing refused so many times."""

    count: int = 0
    last: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """Something that was done to the KMS, or an alarm. `what` in a few words."""

    time: str
    user: str
    event: str
    key: str
    what: str


@dataclass(slots=True)
class Summary:
    """Filled by `add`, record by record, in the order of their times."""

    records: int = 0
    first: str = ""
    last: str = ""
    uses: dict[tuple[str, str], Use] = field(default_factory=dict)
    refusals: dict[tuple[str, str, str, str], Refusal] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    alarms: list[Change] = field(default_factory=list)
    opens_by_day: dict[str, Counter[str]] = field(default_factory=dict)
    refusals_by_day: Counter[str] = field(default_factory=Counter)

    def add(self, record: Mapping[str, Any]) -> None:
        """Counts one record, as QueryAudit answers it."""
        time, event = str(record.get("eventTime", "")), str(record.get("eventName", ""))
        self.records += 1
        self.first, self.last = self.first or time, time
        user, key, error = user_of(record), key_of(record), record.get("errorCode")
        if event in ALARMS:
            self.alarms.append(Change(time, user, event, key, _detail(record)))
        elif error is not None:
            self._refuse(record, time, user, key)
        elif event in CRYPTOGRAPHIC:
            self._use(record, time, user, key)
        elif not record.get("readOnly", False):
            self.changes.append(Change(time, user, event, key, _detail(record)))

    def _use(self, record: Mapping[str, Any], time: str, user: str, key: str) -> None:
        use = self.uses.setdefault((user, key), Use())
        use.first, use.last = use.first or time, time
        unix = record.get("envfs", {})
        access = unix.get("access")
        if access not in ACCESSES:
            use.direct += 1
            return
        use.accesses[access] += 1
        use.files.add(str(unix.get("path", "")))
        self.opens_by_day.setdefault(time[:10], Counter())[user] += 1

    def _refuse(self, record: Mapping[str, Any], time: str, user: str, key: str) -> None:
        if record.get("eventName") in CRYPTOGRAPHIC:
            use = self.uses.setdefault((user, key), Use())
            use.refused += 1
            use.first, use.last = use.first or time, time
        where = (user, key, str(record.get("eventName", "")), str(record.get("envfs", {}).get("path", "")))
        refusal = self.refusals.setdefault(where, Refusal())
        refusal.count += 1
        refusal.last, refusal.why = time, str(record.get("errorCode", ""))
        self.refusals_by_day[time[:10]] += 1


def user_of(record: Mapping[str, Any]) -> str:
    """The user's name; envfs, or the uid of somebody who has none."""
    identity = record.get("userIdentity") or {}
    return str(identity.get("userName") or identity.get("invokedBy") or NOBODY)


def key_of(record: Mapping[str, Any]) -> str:
    """The ARN of the key that it was about; empty if there is none."""
    resources = record.get("resources") or []
    return str(resources[0].get("ARN", "")) if resources else ""


def _detail(record: Mapping[str, Any]) -> str:
    """The parameters of a change, but for the key and what is long."""
    parameters = record.get("requestParameters") or {}
    shown = {name: value for name, value in parameters.items() if name not in {"keyId", "requestedKeyId", "policy"}}
    return ", ".join(f"{name}={value}" for name, value in shown.items())[:200]
