"""Reads the vectors and runs them against any set of decoders: the package's own, and the reference reader's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.vectors.material import to_bytes

HERE = Path(__file__).resolve().parent

Case: TypeAlias = dict[str, Any]
#: Takes what a vector gives and returns what the decoder makes of it: text and numbers, bytes only as `plain`.
Decoder: TypeAlias = Callable[[Case], Any]


def vector_names() -> list[str]:
    return sorted(path.stem for path in HERE.glob("*.json"))


def all_cases() -> list[Any]:
    """One pytest parameter (file name, case) for each vector."""
    return [
        pytest.param(name, case, id=f"{name}: {case['name']}")
        for name in vector_names()
        for case in json.loads((HERE / f"{name}.json").read_text())["cases"]
    ]


def stored_rows(given: Case) -> dict[str, list[list[int | str | bytes]]]:
    """The tables of a store, in which bytes are written with 0x before them; no text begins like that."""
    return {name: [[_stored_value(value) for value in row] for row in rows] for name, rows in given["tables"].items()}


def _stored_value(value: int | str) -> int | str | bytes:
    return to_bytes(value[2:]) if isinstance(value, str) and value.startswith("0x") else value


def run(decoders: Mapping[str, Decoder], name: str, case: Case) -> None:
    """Fails unless the decoder gives exactly what the vector says, or fails exactly as it says."""
    decoder = decoders[name]
    if "gives" in case:
        wanted = case["gives"]
        if "plain" in wanted:
            wanted = {"plain": to_bytes(wanted["plain"])}
        assert decoder(case["given"]) == wanted
        return
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the name is compared below
        decoder(case["given"])
    assert type(caught.value).__name__ == case["failure"], caught.value
    if "block" in case:
        assert getattr(caught.value, "block", None) == case["block"]
