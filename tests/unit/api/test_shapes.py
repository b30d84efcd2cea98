"""The table of inputs is that of the service model which AWS's own SDK carries."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest

from envfs.api.dispatch import TARGETS
from envfs.api.shapes import OPERATIONS
from envfs.api.validation import Blob, Boolean, Integer, Kind, ListOf, StringMap, Structure, Text, Timestamp

MODEL = botocore.session.get_session().get_service_model("kms")


def as_kind(shape: Any) -> Kind:
    """A shape of the model in our words."""
    limits = shape.metadata
    match shape.type_name:
        case "string":
            return Text(limits.get("min", 0), limits.get("max"), limits.get("pattern", ""), tuple(shape.enum))
        case "blob":
            return Blob(limits["min"], limits["max"])
        case "integer":
            return Integer(limits["min"], limits["max"])
        case "boolean":
            return Boolean()
        case "timestamp":
            return Timestamp()
        case "list":
            return ListOf(as_kind(shape.member), limits.get("min", 0), limits.get("max"))
        case "map":
            assert (shape.key.type_name, shape.value.type_name) == ("string", "string")
            return StringMap()
        case _:
            members = {name: as_kind(member) for name, member in shape.members.items()}
            return Structure(members, frozenset(shape.required_members))


def without_secrecy(kind: Kind) -> Kind:
    """What is secret is our own knowledge: the model marks fewer."""
    match kind:
        case Text():
            return Text(kind.minimum, kind.maximum, kind.pattern, kind.enum)
        case ListOf():
            return ListOf(without_secrecy(kind.member), kind.minimum, kind.maximum)
        case Structure():
            return Structure({name: without_secrecy(one) for name, one in kind.members.items()}, kind.required)
    return kind


@pytest.mark.parametrize("name", MODEL.operation_names)
def test_an_operation_has_the_members_of_the_model(name: str) -> None:
    assert without_secrecy(OPERATIONS[name]) == as_kind(MODEL.operation_model(name).input_shape)


def test_there_are_no_other_operations() -> None:
    assert set(OPERATIONS) == set(MODEL.operation_names)
    prefix = MODEL.metadata["targetPrefix"]
    assert {f"{prefix}.{name}" for name in MODEL.operation_names} <= set(TARGETS)
