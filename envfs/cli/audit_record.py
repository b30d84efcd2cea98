"""An audit record as one line for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from envfs.cli.output import printable

if TYPE_CHECKING:
    from collections.abc import Mapping


def line_of(record: Mapping[str, Any]) -> str:
    """When, who, what, on which key, and what came of it."""
    unix = record.get("envfs", {})
    pieces = [
        record.get("eventTime", "-"),
        _who(record.get("userIdentity", {})),
        record.get("eventName", "-"),
        *(one["ARN"].split(":", 5)[-1] for one in record.get("resources", [])),
        *([f"path={unix['path']}"] if "path" in unix else []),
        record.get("errorCode", "ok"),
        *_deciding(unix.get("decisions", [])),
    ]
    return printable("  ".join(map(str, pieces)))


def _who(identity: Mapping[str, Any]) -> str:
    return str(identity.get("userName") or identity.get("invokedBy") or "-")


def _deciding(decisions: list[dict[str, Any]]) -> list[str]:
    """The statements and grants that decided, or why there are none."""
    grounds = []
    for decision in decisions:
        statements = decision.get("statements", [])
        grounds += [f"{one['sid'] or 'statement {}'.format(one['number'])} of {one['policy']}" for one in statements]
        if decision.get("grant"):
            grounds.append(f"grant {decision['grant']}")
        elif not statements:
            grounds.append(str(decision.get("reason", "")))
    named = list(dict.fromkeys(ground for ground in grounds if ground))
    return [f"({', '.join(named)})"] if named else []
