"""The condition operators, each as a function from policy values to a test of one value of the request.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
A test answers whether *any* of the policy's values fits; negation and the set prefixes come on top (`conditions`).
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import ipaddress
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final, NamedTuple, TypeAlias, TypeVar

from envfs.errors import MalformedPolicy
from envfs.kms.policy.request import CannotEvaluate, Request
from envfs.kms.policy.template import (
    Part,
    Variable,
    Wildcard,
    compile_pattern,
    is_static,
    parse_template,
    resolve,
    resolve_static,
    resolve_text,
)

Test: TypeAlias = Callable[[str, Request], bool]
Typed = TypeVar("Typed")

_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{1,40})?")
_DATE: Final = re.compile(
    r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2})"
    r"(?:T([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,6}))?)?(Z|[+-][0-9]{2}:[0-9]{2}))?)?)?"
)
_EPOCH: Final = re.compile(r"-?[0-9]{5,15}")
_EPOCH_START: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def parse_number(text: str) -> Decimal:
    """ValueError if `text` is no decimal number."""
    if not _NUMBER.fullmatch(text):
        raise ValueError("not a number")
    return Decimal(text)


def parse_date(text: str) -> int:
    """Microseconds since 1970, from a W3C date (https://www.w3.org/TR/NOTE-datetime; UTC without a time) or seconds
    since 1970.

    ValueError if `text` is neither.
    """
    if _EPOCH.fullmatch(text):
        return int(text) * 1_000_000
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError("not a date")
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    moment = dt.datetime(
        int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), int(second or 0),
        int((fraction or "0").ljust(6, "0")), tzinfo=dt.UTC,
    )  # fmt: skip
    microseconds = (moment - _EPOCH_START) // dt.timedelta(microseconds=1)
    if zone and zone != "Z":
        minutes = int(zone[1:3]) * 60 + int(zone[4:6])
        microseconds -= (minutes if zone[0] == "+" else -minutes) * 60_000_000
    return microseconds


def parse_bool(text: str) -> bool:
    """ValueError if `text` is neither `true` nor `false`, in any case."""
    lower = text.lower()
    if lower not in {"true", "false"}:
        raise ValueError("neither true nor false")
    return lower == "true"


def parse_binary(text: str) -> bytes:
    """ValueError if `text` is not base64."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error


def _string_equals(values: Sequence[str], *, variables: bool, ignore_case: bool = False) -> Test:
    def fold(text: str) -> str:
        return text.casefold() if ignore_case else text

    templates = [parse_template(value, wildcards=False, variables=variables) for value in values]
    fixed = frozenset(fold("".join(str(part) for part in parts)) for parts in templates if is_static(parts))
    open_ended = [parts for parts in templates if not is_static(parts)]
    if not open_ended:
        return (lambda actual, _: actual.casefold() in fixed) if ignore_case else lambda actual, _: actual in fixed

    def test(actual: str, request: Request) -> bool:
        # All variables are resolved before anything is compared, so that a missing one is an error in every order.
        resolved = {fold(resolve_text(parts, request)) for parts in open_ended}
        return fold(actual) in fixed or fold(actual) in resolved

    return test


def _string_like(values: Sequence[str], *, variables: bool) -> Test:
    return _any_pattern([parse_template(value, wildcards=True, variables=variables) for value in values])


def _any_pattern(templates: list[tuple[Part, ...]]) -> Test:
    fixed = [compile_pattern(resolve_static(parts)) for parts in templates if is_static(parts)]
    open_ended = [parts for parts in templates if not is_static(parts)]

    def test(actual: str, request: Request) -> bool:
        patterns = [compile_pattern(resolve(parts, request)) for parts in open_ended]
        return any(matches(actual) for matches in fixed) or any(matches(actual) for matches in patterns)

    return test


def _arn_like(values: Sequence[str], *, variables: bool) -> Test:
    templates = [_split_arn(value, parse_template(value, wildcards=True, variables=variables)) for value in values]

    def test(actual: str, request: Request) -> bool:
        parts = actual.split(":", 5)
        if len(parts) != 6:
            raise CannotEvaluate(f"{actual!r} is no ARN")
        resolved = [[compile_pattern(resolve(field, request)) for field in fields] for fields in templates]
        return any(all(matches(part) for matches, part in zip(fields, parts, strict=True)) for fields in resolved)

    return test


def _split_arn(value: str, template: tuple[Part, ...]) -> list[tuple[Part, ...]]:
    """The six fields of an ARN. A wildcard does not reach over a colon, nor does what a variable stands for make new
    fields.
    """
    fields: list[list[Part]] = [[]]
    for part in template:
        if isinstance(part, Wildcard | Variable):
            fields[-1].append(part)
            continue
        first, *others = part.split(":", 6 - len(fields)) if len(fields) < 6 else [part]
        fields[-1].append(first)
        fields += [[other] for other in others]
    if len(fields) != 6:
        raise MalformedPolicy(
            f"{value!r} is no ARN", hint="an ARN has six parts, arn:partition:service:region:account:resource"
        )
    return [tuple(field) for field in fields]


def _typed(
    parse: Callable[[str], Typed], what: str, compare: Callable[[Typed, Typed], bool]
) -> Callable[[Sequence[str], bool], Test]:
    """A test that gives both sides a type first. What cannot be parsed is malformed in a policy, an error in a
    request.
    """

    def compile_values(values: Sequence[str], variables: bool) -> Test:
        fixed: list[Typed] = []
        open_ended: list[tuple[Part, ...]] = []
        for value in values:
            parts = parse_template(value, wildcards=False, variables=variables)
            if not is_static(parts):
                open_ended.append(parts)
                continue
            try:
                fixed.append(parse("".join(str(part) for part in parts)))
            except ValueError:
                raise MalformedPolicy(f"{value!r} is no {what}") from None

        def test(actual: str, request: Request) -> bool:
            try:
                left = parse(actual)
                wanted = [parse(resolve_text(parts, request)) for parts in open_ended] + fixed
            except ValueError:
                raise CannotEvaluate(f"no {what} in the request where the policy asks for one") from None
            return any(compare(left, right) for right in wanted)

        return test

    return compile_values


def _in_network(
    address: ipaddress.IPv4Network | ipaddress.IPv6Network, network: ipaddress.IPv4Network | ipaddress.IPv6Network
) -> bool:
    return address.version == network.version and address.subnet_of(network)  # type: ignore[arg-type]


def _parse_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text, strict=False)


def _ordered(name: str, parse: Callable[[str], Typed], what: str) -> dict[str, Operator]:
    def less(left: Typed, right: Typed) -> bool:
        return bool(left < right)  # type: ignore[operator]

    equals = _typed(parse, what, lambda left, right: left == right)
    return {
        f"{name}Equals": Operator(equals),
        f"{name}NotEquals": Operator(equals, negated=True),
        f"{name}LessThan": Operator(_typed(parse, what, less)),
        f"{name}LessThanEquals": Operator(_typed(parse, what, lambda left, right: not less(right, left))),
        f"{name}GreaterThan": Operator(_typed(parse, what, lambda left, right: less(right, left))),
        f"{name}GreaterThanEquals": Operator(_typed(parse, what, lambda left, right: not less(left, right))),
    }


class Operator(NamedTuple):
    """`compile(values, variables)` makes the test; `negated` turns its answer round."""

    compile: Callable[[Sequence[str], bool], Test]
    negated: bool = False


def _pair(name: str, opposite: str, compile_values: Callable[[Sequence[str], bool], Test]) -> dict[str, Operator]:
    return {name: Operator(compile_values), opposite: Operator(compile_values, negated=True)}


OPERATORS: Final[dict[str, Operator]] = {
    **_pair("StringEquals", "StringNotEquals", lambda values, variables: _string_equals(values, variables=variables)),
    **_pair(
        "StringEqualsIgnoreCase",
        "StringNotEqualsIgnoreCase",
        lambda values, variables: _string_equals(values, variables=variables, ignore_case=True),
    ),
    **_pair("StringLike", "StringNotLike", lambda values, variables: _string_like(values, variables=variables)),
    **_pair("ArnEquals", "ArnNotEquals", lambda values, variables: _arn_like(values, variables=variables)),
    **_pair("ArnLike", "ArnNotLike", lambda values, variables: _arn_like(values, variables=variables)),
    **_pair("IpAddress", "NotIpAddress", _typed(_parse_network, "IP address or network", _in_network)),
    **_ordered("Numeric", parse_number, "number"),
    **_ordered("Date", parse_date, "date"),
    "Bool": Operator(_typed(parse_bool, "boolean", lambda left, right: left == right)),
    "BinaryEquals": Operator(_typed(parse_binary, "base64", lambda left, right: left == right)),
}
