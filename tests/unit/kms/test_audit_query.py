from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from envfs.errors import AccessDenied, InvalidMarker, NotFound, Validation
from envfs.kms.audit.query import Question
from tests.unit.kms.kit import ALICE, OWNER, Clock, People, open_kms

if TYPE_CHECKING:
    from pathlib import Path

    from envfs.kms.engine import Engine

ALL = Question()


def names(records: list[dict[str, Any]]) -> list[str]:
    return [record["eventName"] for record in records]


def ask(engine: Engine, question: Question = ALL, **options: Any) -> list[str]:
    return names(engine.query_audit(OWNER, question, **options)[0])


@pytest.fixture
def used(engine: Engine, clock: Clock) -> str:
    """A key that was made at 0 s, described at 10 s, and missed by alice at 20 s."""
    key = engine.create_key(OWNER).key_id
    clock.now += 10
    engine.describe_key(OWNER, key)
    clock.now += 10
    with pytest.raises(AccessDenied):
        engine.disable_key(ALICE, key)
    return key


def test_records_come_in_order(engine: Engine, used: str) -> None:
    assert ask(engine) == ["CreateKey", "DescribeKey", "DisableKey"]


def test_each_criterion_chooses(engine: Engine, used: str, clock: Clock) -> None:
    start = clock.now - 20
    other = engine.create_key(OWNER).key_id
    assert ask(engine, Question(event_name="DescribeKey")) == ["DescribeKey"]
    assert ask(engine, Question(user_name="alice")) == ["DisableKey"]
    assert ask(engine, Question(error_code="AccessDeniedException")) == ["DisableKey"]
    assert "DisableKey" not in ask(engine, Question(error_code=""))
    assert ask(engine, Question(key=other)) == ["CreateKey"]
    assert ask(engine, Question(start=start + 5, end=start + 15)) == ["DescribeKey"]


def test_a_key_may_be_named_by_its_alias(engine: Engine, used: str) -> None:
    engine.create_alias(OWNER, "alias/used", used)
    assert ask(engine, Question(key="alias/used", event_name="DescribeKey")) == ["DescribeKey"]
    with pytest.raises(NotFound):
        ask(engine, Question(key="alias/none"))


def test_pages_follow_each_other_and_what_is_written_later_follows_the_last(engine: Engine, used: str) -> None:
    first, marker, more = engine.query_audit(OWNER, ALL, limit=2)
    assert (names(first), more) == (["CreateKey", "DescribeKey"], True)
    rest, marker, more = engine.query_audit(OWNER, ALL, limit=5, marker=marker)
    assert (names(rest), more) == (["DisableKey", "QueryAudit"], False)
    engine.describe_key(OWNER, used)
    later, _, _ = engine.query_audit(OWNER, ALL, marker=marker)
    assert names(later) == ["QueryAudit", "DescribeKey"]


def test_the_newest_ones_can_be_asked_for(engine: Engine, used: str) -> None:
    assert ask(engine, limit=2, newest=True) == ["DescribeKey", "DisableKey"]


def test_the_chains_of_several_processes_are_one_trail(home: Path, clock: Clock) -> None:
    with open_kms(home, clock=clock, people=People()) as one, open_kms(home, clock=clock, people=People()) as other:
        key = one.create_key(OWNER).key_id
        for _ in range(3):
            clock.now += 1
            other.describe_key(OWNER, key)
            clock.now += 1
            one.get_key_policy(OWNER, key)
        assert ask(one) == ["CreateKey", *["DescribeKey", "GetKeyPolicy"] * 3]


@pytest.mark.parametrize("marker", ["", "!", "bm9uZQ", "W10", "eyJhIjoxfQ"])
def test_a_marker_of_others_is_refused(engine: Engine, marker: str) -> None:
    with pytest.raises(InvalidMarker):
        engine.query_audit(OWNER, ALL, marker=marker)


@pytest.mark.parametrize("limit", [0, 1001])
def test_the_limit_is_bounded(engine: Engine, limit: int) -> None:
    with pytest.raises(Validation):
        engine.query_audit(OWNER, ALL, limit=limit)


def test_looking_needs_a_permission(engine: Engine) -> None:
    for call in (
        lambda: engine.query_audit(ALICE, ALL),
        lambda: engine.check_audit(ALICE),
        lambda: engine.check_store(ALICE),
    ):
        with pytest.raises(AccessDenied):
            call()
    assert engine.check_store(OWNER) == []
    assert engine.check_audit(OWNER).is_intact
