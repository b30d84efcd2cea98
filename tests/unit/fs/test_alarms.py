"""Damage and tampering get into the audit trail, and a flood of them does not fill it."""

from __future__ import annotations

import json
from typing import Any

from envfs.errors import Internal
from envfs.format.header import SLOT_OFFSETS
from envfs.fs.alarms import Alarms
from tests.unit.fs.lab import Lab, flip


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def collected(clock: Clock) -> tuple[Alarms, list[tuple[str, str, int]]]:
    records: list[tuple[str, str, int]] = []
    return Alarms(lambda *record: records.append(record), clock), records


def test_the_same_thing_is_recorded_once_a_minute_and_counted() -> None:
    clock = Clock()
    alarms, records = collected(clock)
    for _ in range(1000):
        alarms.tell("read of /f", "block 3 is damaged")
    assert records == [("read of /f", "block 3 is damaged", 0)]
    clock.now = 60.0
    alarms.tell("read of /f", "block 3 is damaged")
    assert records[1:] == [("read of /f", "block 3 is damaged", 999)]


def test_a_million_damaged_files_are_not_a_million_records() -> None:
    clock = Clock()
    alarms, records = collected(clock)
    for number in range(100_000):
        alarms.tell("open", f"/{number} was cut")
    assert len(records) == 60
    clock.now = 61.0
    alarms.tell("open", "/another")
    assert records[-1] == ("open", "/another", 100_000 - 60)


def test_a_trail_that_cannot_be_written_changes_nothing_for_the_caller() -> None:
    def fail(_request: str, _problem: str, _unrecorded: int) -> None:
        raise Internal("the disk is full")

    Alarms(fail, Clock()).tell("read", "damaged")


def events(lab: Lab) -> list[dict[str, Any]]:
    lines = [line for path in (lab.home / "audit").glob("*.jsonl") for line in path.read_text().splitlines()]
    return [record for record in map(json.loads, lines) if record["eventName"] == "IntegrityFailure"]


def test_a_slot_that_was_damaged_is_recorded_though_the_file_opens(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"f", b"x" * 100)
    lower = fs.lower(b"f")
    for offset in SLOT_OFFSETS:
        raw = lower.read_bytes()
        flip(lower, offset + 40)
        assert lab.mount().read(b"f") == b"x" * 100
        lower.write_bytes(raw)
    (record,) = events(lab)  # the slot that is not in force is not looked at
    assert record["eventSource"] == "envfs.envfs"
    assert record["eventType"] == "AwsServiceEvent"
    assert record["userIdentity"] == {"type": "AWSService", "invokedBy": "envfs"}
    told = record["requestParameters"]
    assert told["request"] == "open"
    assert told["problem"].startswith("header slot ")
    assert told["problem"].endswith(" of /f is damaged")
    assert lab.engine.verify_audit().problems == ()
