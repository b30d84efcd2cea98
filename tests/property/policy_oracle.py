"""A second evaluator of policies, as naive as possible: it reads the JSON anew for each request, straight from the
rules in docs/KMS.md, and shares no code with the package.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
from decimal import Decimal
from typing import Any

ACCOUNT = "000000000000"
ACCOUNT_ROOT = f"arn:envfs:iam::{ACCOUNT}:root"


class CannotTellError(Exception):
    """A statement makes no sense for this request."""


def glob(pattern: list[str], text: str) -> bool:
    """`pattern` is a list of single characters; "*" and "?" as whole items of two characters (`**`, `??`) are
    wildcards.
    """
    if not pattern:
        return not text
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        return any(glob(rest, text[skipped:]) for skipped in range(len(text) + 1))
    return bool(text) and (first == "??" or first == text[0]) and glob(rest, text[1:])


def substitute(value: str, asked: dict[str, Any], *, variables: bool, wildcards: bool) -> list[str]:
    """The pattern behind a policy value."""
    result: list[str] = []
    position = 0
    while position < len(value):
        end = value.find("}", position)
        if variables and value.startswith("${", position) and end > 0:
            name = value[position + 2 : end]
            if name in ("*", "?", "$"):
                result.append(name)
            else:
                found = lookup(name, asked)
                if found is None:
                    raise CannotTellError(name)
                result += list(found)
            position = end + 1
            continue
        character = value[position]
        result.append(character * 2 if wildcards and character in "*?" else character)
        position += 1
    return result


def lookup(key: str, asked: dict[str, Any]) -> Any:
    """None, a string, or a list of strings."""
    lower = key.lower()
    for prefix, pairs in (("kms:encryptioncontext:", asked["context"]), ("aws:resourcetag/", asked["tags"])):
        if lower.startswith(prefix):
            found = [value for name, value in pairs.items() if name.lower() == lower[len(prefix) :]]
            if len(found) > 1:
                raise CannotTellError(key)
            return found[0] if found else None
    if lower.startswith("aws:principaltag/"):
        return None
    values = {
        "kms:encryptioncontextkeys": list(asked["context"]),
        "kms:viaservice": asked["via"],
        "kms:calleraccount": asked["arn"].split(":")[4],
        "kms:requestalias": asked["extra"].get("kms:requestalias"),
        "kms:granteeprincipal": asked["extra"].get("kms:granteeprincipal"),
        "kms:grantoperations": asked["extra"].get("kms:grantoperations"),
        "kms:resourcealiases": asked["aliases"],
        "kms:keyspec": asked["spec"],
        "aws:sourceip": asked["ip"],
        "aws:username": asked["name"],
        "aws:userid": asked["uid"],
        "aws:principalarn": asked["arn"],
        "envfs:access": asked["access"],
    }
    return values[lower]


def number(text: str) -> Decimal:
    whole, point, fraction = text.removeprefix("-").removeprefix("+").partition(".")
    digits = [whole, fraction] if point else [whole]
    if not all(part.isascii() and part.isdigit() for part in digits):
        raise CannotTellError(text)
    return Decimal(text)


def date(text: str) -> float:
    """A day, a year, or (five digits and more) seconds since 1970."""
    if text.isascii() and text.isdigit() and len(text) >= 5:
        return float(text)
    try:
        return (
            dt.datetime.strptime(text, "%Y" if text.isdigit() and len(text) == 4 else "%Y-%m-%d")
            .replace(tzinfo=dt.UTC)
            .timestamp()
        )
    except ValueError:
        raise CannotTellError(text) from None


def boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise CannotTellError(text)
    return text.lower() == "true"


def network(text: str) -> Any:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise CannotTellError(text) from None


def arn_fields(pattern: list[str]) -> list[list[str]]:
    """The literal colons of the policy separate; this is only called for values without variables."""
    fields: list[list[str]] = [[]]
    for item in pattern:
        if item == ":" and len(fields) < 6:
            fields.append([])
        else:
            fields[-1].append(item)
    return fields


COMPARISONS = {
    "Equals": lambda left, right: left == right,
    "LessThan": lambda left, right: left < right,
    "LessThanEquals": lambda left, right: left <= right,
    "GreaterThan": lambda left, right: left > right,
    "GreaterThanEquals": lambda left, right: left >= right,
}


def fits(operator: str, actual: str, wanted: str, asked: dict[str, Any], *, variables: bool) -> bool:
    """One value of the request against one of the policy, for an operator without its negation."""
    if operator in ("StringLike", "ArnLike", "ArnEquals"):
        pattern = substitute(wanted, asked, variables=variables, wildcards=True)
        if operator == "StringLike":
            return glob(pattern, actual)
        if actual.count(":") < 5:
            raise CannotTellError(actual)
        return all(glob(field, part) for field, part in zip(arn_fields(pattern), actual.split(":", 5), strict=True))
    plain = "".join(substitute(wanted, asked, variables=variables, wildcards=False))
    if operator == "StringEquals":
        return actual == plain
    if operator == "StringEqualsIgnoreCase":
        return actual.casefold() == plain.casefold()
    if operator == "Bool":
        return boolean(actual) == boolean(plain)
    if operator == "IpAddress":
        left, right = network(actual), network(plain)
        return bool(left.version == right.version and left.subnet_of(right))
    for prefix, read in (("Numeric", number), ("Date", date)):
        if operator.startswith(prefix):
            return bool(COMPARISONS[operator.removeprefix(prefix)](read(actual), read(plain)))
    raise AssertionError(operator)


def condition_holds(operator: str, key: str, wanted: list[str], asked: dict[str, Any], *, variables: bool) -> bool:
    if operator == "Null":
        return any((lookup(key, asked) in (None, [])) == (one == "true") for one in wanted)
    prefix, _, name = operator.rpartition(":")
    if_exists = name.endswith("IfExists")
    name = name.removesuffix("IfExists")
    negated = name.startswith("Not") or "Not" in name
    positive = name.replace("Not", "")
    found = lookup(key, asked)
    if found is None or found == []:
        if prefix == "ForAllValues":
            return True
        if prefix == "ForAnyValue":
            return if_exists
        return if_exists or negated
    actual = found if isinstance(found, list) else [found]
    answers = []
    for one in actual:
        matching = [fits(positive, one, value, asked, variables=variables) for value in wanted]
        answers.append(any(matching) != negated)
    return any(answers) if prefix == "ForAnyValue" else all(answers)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def text_of(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def names_directly(value: Any, asked: dict[str, Any]) -> bool:
    listed = as_list(value if value == "*" else value["AWS"])
    himself = {"*", asked["arn"], *asked["groups"]}
    return bool(himself & set(listed)) or (asked["owner"] and names_account(value, asked))


def names_account(value: Any, asked: dict[str, Any]) -> bool:
    listed = as_list(value if value == "*" else value["AWS"])
    account = asked["arn"].split(":")[4]
    return account in listed or f"arn:envfs:iam::{account}:root" in listed


def concerns(statement: dict[str, Any], asked: dict[str, Any], *, variables: bool) -> bool:
    """Whether action, resource and conditions fit; CannotTellError if that cannot be said."""
    actions = statement.get("Action", statement.get("NotAction", []))
    resources = statement.get("Resource", statement.get("NotResource", []))
    if actions == [] or resources == []:
        return False
    action = asked["action"].lower()
    found = any(
        glob(substitute(one.lower(), asked, variables=False, wildcards=True), action) for one in as_list(actions)
    )
    if found == ("NotAction" in statement):
        return False
    patterns = [substitute(one, asked, variables=variables, wildcards=True) for one in as_list(resources)]
    if any(glob(pattern, asked["resource"]) for pattern in patterns) == ("NotResource" in statement):
        return False
    answers = []
    for operator, keys in statement.get("Condition", {}).items():
        for key, wanted in keys.items():
            values = [text_of(one) for one in as_list(wanted)]
            answers.append(condition_holds(operator, key, values, asked, variables=variables))
    return all(answers)


def denies(statement: dict[str, Any], asked: dict[str, Any], *, variables: bool) -> bool:
    try:
        return concerns(statement, asked, variables=variables)
    except CannotTellError:
        return True


def allows(statement: dict[str, Any], asked: dict[str, Any], *, variables: bool) -> bool:
    try:
        return concerns(statement, asked, variables=variables)
    except CannotTellError:
        return False


def is_caller(arn: str, asked: dict[str, Any]) -> bool:
    """Whether `arn` is the caller himself, a group of his, or his account, whose root he is."""
    return arn in {asked["arn"], *asked["groups"]} or (asked["owner"] and is_account(arn, asked))


def is_account(arn: str, asked: dict[str, Any]) -> bool:
    return arn == f"arn:envfs:iam::{asked['arn'].split(':')[4]}:root"


def constrained_to(constraints: dict[str, dict[str, str]], context: dict[str, str]) -> bool:
    for kind, pairs in constraints.items():
        if kind == "EncryptionContextEquals" and sorted(pairs.items()) != sorted(context.items()):
            return False
        if any(context.get(name) != value for name, value in pairs.items()):
            return False
    return True


def at_least_as_strict(child: dict[str, dict[str, str]], parent: dict[str, dict[str, str]]) -> bool:
    """A child without a constraint is only as strict as a parent without one. Subset may become Equals, not the other
    way round, and pairs may come, but not go.
    """
    if "EncryptionContextEquals" in parent:
        return child == parent
    wanted = parent.get("EncryptionContextSubset", {})
    (given,) = child.values() or [{}]
    return (not parent or bool(child)) and all(given.get(name) == value for name, value in wanted.items())


def grant_covers(grant: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Whether the grant is about such a request, whoever makes it."""
    operation = asked["action"].removeprefix("kms:")
    if operation not in grant["Operations"]:
        return False
    if operation == "CreateGrant":
        child = asked["proposal"]
        if child is None or not all(one in grant["Operations"] for one in child["Operations"]):
            return False
        return at_least_as_strict(child["Constraints"], grant["Constraints"])
    return operation == "DescribeKey" or constrained_to(grant["Constraints"], asked["context"])


def may_retire(grant: dict[str, Any], asked: dict[str, Any]) -> bool:
    if is_caller(grant["RetiringPrincipal"], asked):
        return True
    return "RetireGrant" in grant["Operations"] and is_caller(grant["GranteePrincipal"], asked)


def decide(
    key_policy: dict[str, Any] | None,
    identity: list[dict[str, Any]],
    asked: dict[str, Any],
    grants: list[dict[str, Any]] | None = None,
) -> bool:
    """Allowed or not. In RetireGrant, `grants` are those of which one is to be retired."""
    grants = grants or []
    on_key: list[tuple[dict[str, Any], bool]] = []
    on_identity: list[tuple[dict[str, Any], bool]] = []
    for document, into in [(key_policy, on_key), *((one, on_identity) for one in identity)]:
        if document is not None:
            into += [(one, document.get("Version") == "2012-10-17") for one in as_list(document["Statement"])]
    for statement, variables in on_key:
        if statement["Effect"] == "Deny":
            if "NotPrincipal" in statement:
                meant = not names_directly(statement["NotPrincipal"], asked)
            else:
                meant = names_directly(statement["Principal"], asked) or names_account(statement["Principal"], asked)
            if meant and denies(statement, asked, variables=variables):
                return False
    if any(one["Effect"] == "Deny" and denies(one, asked, variables=variables) for one, variables in on_identity):
        return False
    by_identity = any(
        one["Effect"] == "Allow" and allows(one, asked, variables=variables) for one, variables in on_identity
    )
    if key_policy is None:
        return asked["owner"] or by_identity
    if asked["action"] == "kms:RetireGrant":
        return any(may_retire(grant, asked) for grant in grants) or asked["owner"] or by_identity
    allowing = [
        one for one, variables in on_key if one["Effect"] == "Allow" and allows(one, asked, variables=variables)
    ]
    directly = any(names_directly(one["Principal"], asked) for one in allowing)
    by_account = any(names_account(one["Principal"], asked) for one in allowing)
    covering = [grant["GranteePrincipal"] for grant in grants if grant_covers(grant, asked)]
    directly = directly or any(is_caller(grantee, asked) for grantee in covering)
    by_account = by_account or any(is_account(grantee, asked) for grantee in covering)
    if asked["arn"].split(":")[4] == ACCOUNT:
        return directly or (by_account and by_identity)
    return (directly or by_account) and by_identity
