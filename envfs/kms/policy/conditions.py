"""The `Condition` element: operators, `IfExists`, `Null`, and the prefixes `ForAnyValue:` and `ForAllValues:`.

All operators and keys of one element must hold; of the values of one key, one must fit (for a negated operator: none
may).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from envfs.errors import MalformedPolicy
from envfs.kms.policy.condition_keys import ConditionKey, Getter, find_condition_key
from envfs.kms.policy.operators import OPERATORS, Operator, Test, parse_bool
from envfs.kms.policy.request import CannotEvaluate, Request

Clause: TypeAlias = Callable[[Request], bool]

_ANY: Final = "foranyvalue:"
FOR_ALL_VALUES: Final = "forallvalues:"
_IF_EXISTS: Final = "ifexists"
_BY_LOWER_NAME: Final = {name.lower(): operator for name, operator in OPERATORS.items()}


def compile_conditions(element: Any, *, variables: bool, identity: bool) -> tuple[Clause, ...]:
    """The clauses of a `Condition` element; all must hold. MalformedPolicy if it is not one."""
    if not isinstance(element, dict):
        raise MalformedPolicy("Condition is not an object", hint='write {"StringEquals": {"kms:ViaService": "envfs"}}')
    clauses: list[Clause] = []
    for operator, keys in element.items():
        if not isinstance(keys, dict):
            raise MalformedPolicy(f"the operator {operator!r} is not followed by an object of condition keys")
        for name, values in keys.items():
            key = find_condition_key(name)
            if key.identity_only and not identity:
                raise MalformedPolicy(f"{key.name} counts in identity policies only")
            clauses.append(
                _compile_clause(operator, key, to_values(values, f"condition key {name!r}"), variables=variables)
            )
    return tuple(clauses)


def to_values(values: Any, what: str) -> list[str]:
    """A string, number or boolean of JSON, or a list of them, as strings."""
    listed = values if isinstance(values, list) else [values]
    if not listed:
        raise MalformedPolicy(f"{what}: an empty list of values")
    return [_to_text(value, what) for value in listed]


def _to_text(value: Any, what: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    raise MalformedPolicy(f"{what}: a value is neither a string nor a number nor a boolean")


def _compile_clause(operator: str, key: ConditionKey, values: Sequence[str], *, variables: bool) -> Clause:
    name = operator.lower()
    quantifier = next((prefix for prefix in (_ANY, FOR_ALL_VALUES) if name.startswith(prefix)), "")
    name = name[len(quantifier) :]
    if name == "null" and not quantifier:
        return _null(key.getter, values)
    if_exists = name.endswith(_IF_EXISTS)
    found = _BY_LOWER_NAME.get(name.removesuffix(_IF_EXISTS))
    if found is None:
        raise MalformedPolicy(f"{operator!r} is no condition operator", hint="see the list of operators in docs/KMS.md")
    if key.multi_valued and not quantifier:
        raise MalformedPolicy(
            f"{key.name} has several values", hint=f"write ForAnyValue:{operator} or ForAllValues:{operator}"
        )
    test = found.compile(values, variables)
    if quantifier == FOR_ALL_VALUES:
        return _for_all(key.getter, test, found)
    if quantifier == _ANY:
        return _for_any(key.getter, test, found, if_exists=if_exists)
    return _single(key.getter, test, found, if_exists=if_exists)


def _null(getter: Getter, values: Sequence[str]) -> Clause:
    try:
        wanted = frozenset(parse_bool(value) for value in values)
    except ValueError:
        raise MalformedPolicy("the operator Null takes true or false") from None
    return lambda request: (getter(request) in {None, ()}) in wanted


def _single(getter: Getter, test: Test, operator: Operator, *, if_exists: bool) -> Clause:
    negated = operator.negated
    if_missing = negated or if_exists

    def clause(request: Request) -> bool:
        value = getter(request)
        if value is None:
            return if_missing
        if not isinstance(value, str):
            raise CannotEvaluate("several values where the policy expects one")
        return test(value, request) is not negated

    return clause


def _as_values(getter: Getter, request: Request) -> tuple[str, ...]:
    value = getter(request)
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


def _results(test: Test, values: tuple[str, ...], request: Request, *, negated: bool) -> list[bool]:
    """All of them, at once: an error about any value is an error, whatever the others say."""
    return [test(value, request) is not negated for value in values]


def _for_all(getter: Getter, test: Test, operator: Operator) -> Clause:
    """True of a missing key and of an empty set, as in AWS; that is also why `IfExists` changes nothing here."""
    negated = operator.negated
    return lambda request: all(_results(test, _as_values(getter, request), request, negated=negated))


def _for_any(getter: Getter, test: Test, operator: Operator, *, if_exists: bool) -> Clause:
    negated = operator.negated

    def clause(request: Request) -> bool:
        values = _as_values(getter, request)
        if not values:
            return if_exists
        return any(_results(test, values, request, negated=negated))

    return clause
