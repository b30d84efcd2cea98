"""What `envfs access grant` makes in the KMS, and how it is known again: names, policies, and what they say.

A grant is called `access/<access>` or `access/<access>/<reason>`, a policy `access-<access>-<16 hexadecimal digits>`:
the beginning of the SHA-256 of its scope, so that there is one for each user, access and scope.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from envfs.errors import ConfigError, MalformedPolicy
from envfs.kms.policy.defaults import administration_statements
from envfs.kms.policy.operators import parse_date

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envfs.kms.arn import Account

ACCESSES: Final = ("read", "write", "create", "admin")
OPERATIONS: Final[dict[str, tuple[str, ...]]] = {
    "read": ("Decrypt",),
    "write": ("Decrypt", "GenerateDataKey"),
    "create": ("GenerateDataKey",),
}
MAX_REASON: Final = 160  # characters; in a grant's name each may take more than one

_GRANT_NAME: Final = re.compile(r"access/(read|write|create)(?:/(.*))?", re.DOTALL)
_POLICY_NAME: Final = re.compile(r"access-(read|write|create|admin)-[0-9a-f]{16}")
_CONTEXT: Final = "kms:EncryptionContext:"
_MAX_GRANT_NAME: Final = 256
_MAX_PAIRS: Final = 8


class Scope(NamedTuple):
    """What a grant or policy is about: a key; pairs that the encryption context must have; and, only by path, the
    directory's path in the volume.
    """

    key_arn: str
    context: tuple[tuple[str, str], ...] = ()
    path: str | None = None

    @property
    def digest(self) -> str:
        text = json.dumps([self.key_arn, sorted(self.context), self.path])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Made(NamedTuple):
    """One grant or policy that `access grant` made. `until` and `since` are in seconds since 1970; `identity` is the
    grant's id or the policy's name.
    """

    kind: str
    identity: str
    who: str
    access: str
    scope: Scope
    since: float
    until: float | None = None
    reason: str = ""


def grant_request(who: str, access: str, scope: Scope, reason: str) -> dict[str, Any]:
    """The request of CreateGrant. ConfigError for a scope that a grant cannot have."""
    name = f"access/{access}" + (f"/{_encode(reason)}" if reason else "")
    if len(name) > _MAX_GRANT_NAME:
        raise ConfigError("the reason is too long for the name of a grant", hint="shorten it: a ticket's number, say")
    if len(scope.context) > _MAX_PAIRS:
        raise ConfigError(
            f"a grant can require {_MAX_PAIRS} pairs, the volume's id among them; the directory has more labels",
            hint="--until makes a policy instead, which can require any number",
        )
    request: dict[str, Any] = {
        "KeyId": scope.key_arn,
        "GranteePrincipal": who,
        "Operations": list(OPERATIONS[access]),
        "Name": name,
    }
    if scope.context:
        request["Constraints"] = {"EncryptionContextSubset": dict(scope.context)}
    return request


def policy_request(
    who: str, access: str, scope: Scope, *, until: float | None, reason: str, account: Account
) -> dict[str, Any]:
    """The request of PutPolicy."""
    condition: dict[str, dict[str, Any]] = {}
    if scope.context:
        condition["StringEquals"] = {_CONTEXT + name: _literal(value) for name, value in scope.context}
    if scope.path is not None:
        below = "/*" if scope.path == "/" else f"{_pattern(scope.path)}/*"
        condition.setdefault("StringEquals", {})["kms:ViaService"] = "envfs"
        condition["StringLike"] = {"envfs:Path": [_pattern(scope.path), below]}
    if until is not None:
        condition["DateLessThan"] = {"aws:CurrentTime": moment_text(until)}
    sid = f"access {access}" + (f" until {moment_text(until)}" if until is not None else "")
    sid += f": {reason}" if reason else ""
    if access == "admin":
        statements = [
            {
                **one,
                "Sid": f"{sid}{more}",
                "Resource": scope.key_arn,
                "Condition": {**one.get("Condition", {}), **condition},
            }
            for one, more in zip(administration_statements(account), ("", " (grants to others)"), strict=True)
        ]
    else:
        actions = [f"kms:{operation}" for operation in OPERATIONS[access]]
        statements = [{"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": scope.key_arn}]
        if condition:
            statements[0]["Condition"] = condition
    for one in statements:
        if not one.get("Condition", True):
            del one["Condition"]
    document = {"Version": "2012-10-17", "Id": reason, "Statement": statements}
    return {
        "Target": who,
        "PolicyName": f"access-{access}-{scope.digest}",
        "PolicyDocument": json.dumps(
            document if reason else {k: v for k, v in document.items() if k != "Id"}, indent=2
        ),
    }


def of_grant(grant: Mapping[str, Any]) -> Made | None:
    """What a grant of ListGrants is, if `access grant` made it."""
    named = _GRANT_NAME.fullmatch(grant.get("Name", ""))
    constraints = grant.get("Constraints", {})
    if named is None or set(grant["Operations"]) != set(OPERATIONS[named[1]]) or constraints.keys() - {_SUBSET}:
        return None
    context = tuple(sorted(constraints.get(_SUBSET, {}).items()))
    scope = Scope(grant["KeyId"], context)
    since, reason = float(grant["CreationDate"]), _decode(named[2] or "")
    return Made("grant", grant["GrantId"], grant["GranteePrincipal"], named[1], scope, since, None, reason)


def of_policy(target: str, name: str, text: str, since: float) -> Made | None:
    """What a policy of a user or group is, if `access grant` made it."""
    named = _POLICY_NAME.fullmatch(name)
    if named is None:
        return None
    try:
        document = json.loads(text)
        statement = document["Statement"][0]
        condition = statement.get("Condition", {})
        equals = condition.get("StringEquals", {})
        context = tuple(
            sorted((key[len(_CONTEXT) :], _plain(value)) for key, value in equals.items() if key.startswith(_CONTEXT))
        )
        patterns = condition.get("StringLike", {}).get("envfs:Path")
        until = condition.get("DateLessThan", {}).get("aws:CurrentTime")
        scope = Scope(str(statement["Resource"]), context, None if patterns is None else _plain(patterns[0]))
        moment = None if until is None else parse_date(until) / 1e6
        reason = str(document.get("Id", ""))
    except (ValueError, LookupError, TypeError, AttributeError, MalformedPolicy):
        return None  # somebody has edited it: it is his now
    # The name tells whether it is still what was made.
    return Made("policy", name, target, named[1], scope, since, moment, reason) if name.endswith(scope.digest) else None


def moment_text(seconds: float) -> str:
    """As policies have it: ISO 8601 in UTC, whole seconds."""
    return dt.datetime.fromtimestamp(int(seconds), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_SUBSET: Final = "EncryptionContextSubset"
_ESCAPED: Final = re.compile(r":([0-9A-F]{2})")


def _encode(reason: str) -> str:
    """In the characters that a grant's name may have, still to be read: a space is `_`, others are `:` and their bytes
    in hexadecimal.
    """
    pieces = []
    for byte in reason.encode("utf-8", "surrogateescape"):
        char = chr(byte)
        if char == " ":
            pieces.append("_")
        elif byte < 128 and (char.isalnum() or char in "-/"):
            pieces.append(char)
        else:
            pieces.append(f":{byte:02X}")
    return "".join(pieces)


def _decode(text: str) -> str:
    raw = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text.replace("_", " ")).encode("latin-1", "replace")
    return raw.decode("utf-8", "replace")


def _literal(value: str) -> str:
    """As a value in a policy: what looks like a policy variable is none."""
    return value.replace("$", "${$}")


def _pattern(value: str) -> str:
    """As a value with wildcards."""
    return re.sub(r"[$*?]", lambda match: f"${{{match[0]}}}", value)


def _plain(value: str) -> str:
    return re.sub(r"\$\{([$*?])\}", lambda match: match[1], value)
