"""What somebody does to the lower directory stands in the audit trail afterwards."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.mounts import Mount


def test_damage_that_a_reader_meets_is_recorded(mounted: Callable[..., Mount], kms_home: Path) -> None:
    mount = mounted()
    for name in ("damaged", "cut", "moved"):
        (mount.path / name).write_bytes(b"x" * 100_000)
    lowers = {path.stat().st_ino: path for path in mount.lower.iterdir()}
    lower = {name: lowers[(mount.path / name).stat().st_ino] for name in ("damaged", "cut", "moved")}
    mount.umount()
    with open(lower["damaged"], "r+b") as file:
        file.seek(40_000)
        file.write(b"y" * 50)
    with open(lower["cut"], "r+b") as file:
        file.truncate(1024 + 16412)
    lower["moved"].write_bytes(lower["damaged"].read_bytes())
    mount.mount()
    for name in ("damaged", "cut", "moved"):
        for _ in range(3):
            with pytest.raises(OSError, match="Input/output error"):
                (mount.path / name).read_bytes()
    mount.umount()
    lines = [line for path in (kms_home / "audit").glob("*.jsonl") for line in path.read_text().splitlines()]
    records = [record for record in map(json.loads, lines) if record["eventName"] == "IntegrityFailure"]
    problems = [record["requestParameters"]["problem"] for record in records]
    assert any(problem.startswith("block ") and problem.endswith(" is damaged") for problem in problems)
    assert any(problem.startswith("/cut was cut") for problem in problems)
    assert any(problem.startswith("/moved does not belong") for problem in problems)
    assert len(problems) == len(set(problems))
