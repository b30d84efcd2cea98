from __future__ import annotations

import re
from pathlib import Path

import pytest

from envfs.kms.schema import ALL_TABLES, SEALED_TABLES, Value, encode_fields

FORMAT = Path(__file__).parents[3] / "docs" / "FORMAT.md"


def test_the_encoding_is_that_of_the_document() -> None:
    assert encode_fields(["ä", b"\x00", -1]) == b"T\0\0\0\x02\xc3\xa4" + b"B\0\0\0\x01\0" + b"I" + b"\xff" * 8


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["ab", "c"], ["a", "bc"]),
        (["a"], [b"a"]),
        ([1], ["1"]),
        ([], [""]),
        (["a", ""], ["a"]),
        ([b"\0" * 8], [0]),
    ],
)
def test_no_two_lists_encode_alike(one: list[Value], other: list[Value]) -> None:
    assert encode_fields(one) != encode_fields(other)


def test_the_tables_are_those_of_the_document() -> None:
    section = FORMAT.read_text().split("### 9.2")[1].split("### 9.3")[0]
    documented = {}
    for line in section.splitlines():
        row = re.match(r"\| `(\w+)` \| (.*) \|(?: `(\w+)`)? \|$", line)
        if row:
            columns = [
                (name, kind, bold == "**")
                for bold, name, kind in re.findall(r"(\*\*)?`(\w+)`(?:\*\*)? (INTEGER|TEXT|BLOB)", row[2])
            ]
            documented[row[1]] = (columns, (row[3],) if row[3] else None)
    assert documented == {
        table.name: (
            [(name, kind, position < table.key_length) for position, (name, kind) in enumerate(table.columns)],
            table.group_columns if table.sealed else None,
        )
        for table in ALL_TABLES
    }


def test_rows_have_the_columns_in_their_order() -> None:
    for table in SEALED_TABLES:
        row = table.make(range(len(table.columns)))
        assert tuple(row._fields) == tuple(name for name, _ in table.columns)
