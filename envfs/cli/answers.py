"""Answers of the KMS: put together from their pages, and with the names that the command line uses."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any

from envfs.cli.output import print_fields, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from envfs.cli.backend import Backend

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_TIME = re.compile(r"(Date|ValidTo|Time)$")


def every(backend: Backend, operation: str, request: Mapping[str, Any], member: str) -> Iterator[Any]:
    """The items of all pages of a listing."""
    marker: dict[str, Any] = {}
    while True:
        answer = backend.call(operation, {**request, **marker})
        yield from answer[member]
        if not answer.get("Truncated"):
            return
        marker = {"Marker": answer["NextMarker"]}


def time_text(seconds: float) -> str:
    """ISO 8601, in UTC and whole seconds."""
    return dt.datetime.fromtimestamp(int(seconds), dt.UTC).isoformat()


def as_fields(answer: Mapping[str, Any]) -> dict[str, Any]:
    """`KeyArn` → `key_arn`, times as text. A `KeyId` that is an ARN is called so."""
    fields = {}
    for name, value in answer.items():
        if name.endswith("KeyId") and isinstance(value, str) and value.startswith("arn:"):
            name = name.removesuffix("KeyId") + "Arn"  # noqa: PLW2901
        fields[_WORD.sub("_", name).lower()] = _value(name, value)
    return fields


def show(fields: Mapping[str, Any], *, as_json: bool) -> None:
    """One thing, for people or for scripts."""
    if as_json:
        print_json(fields)
    else:
        print_fields(fields)


def show_answer(answer: Mapping[str, Any], *, as_json: bool) -> None:
    """An answer as it came."""
    show(as_fields(answer), as_json=as_json)


def _value(name: str, value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool) and _TIME.search(name):
        return time_text(value)
    return value
