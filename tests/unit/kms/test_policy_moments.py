"""When a decision may change by itself: against the decisions themselves."""

from __future__ import annotations

import json
import math

import pytest

from envfs.kms.arn import Account
from envfs.kms.policy.moments import AT_ANY_TIME, moments_of, next_moment
from envfs.kms.policy.parser import parse_key_policy

NOON = 1_800_000_000
TEXT = "2027-01-15T08:00:00Z"


@pytest.mark.parametrize(
    ("operator", "key", "value"),
    [
        ("DateLessThan", "aws:CurrentTime", TEXT),
        ("DateGreaterThanEquals", "AWS:currenttime", TEXT),
        ("DateNotEqualsIfExists", "aws:CurrentTime", str(NOON)),
        ("NumericLessThan", "aws:EpochTime", NOON),
        ("DateLessThan", "aws:EpochTime", str(NOON)),
    ],
)
def test_a_date_gives_its_moment(operator: str, key: str, value: object) -> None:
    assert NOON in moments_of({operator: {key: value}})
    assert NOON + 1 in moments_of({operator: {key: [value]}})


def test_what_is_no_date_may_change_at_any_time() -> None:
    assert moments_of({"StringLike": {"aws:CurrentTime": "2027-01-*"}}) == (AT_ANY_TIME,)
    assert moments_of({"StringEquals": {"envfs:Path": TEXT}, "Null": {"aws:CurrentTime": "false"}}) == ()


def test_fractions_count_from_the_second_below() -> None:
    assert {NOON, NOON + 1} <= set(moments_of({"NumericLessThan": {"aws:EpochTime": f"{NOON}.5"}}))


def test_the_next_one_of_several_policies() -> None:
    assert next_moment([(1.0, 5.0), (3.0, 9.0)], 1) == 3
    assert next_moment([(1.0, 5.0)], 5) == math.inf
    assert next_moment([(1.0, 5.0), (AT_ANY_TIME,)], 2) == AT_ANY_TIME


def test_a_policy_knows_those_of_all_its_statements() -> None:
    account = Account("envfs", "local", "000000000000")
    statement = {"Effect": "Allow", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*"}
    conditions = [{"DateLessThan": {"aws:CurrentTime": TEXT}}, {"DateLessThan": {"aws:CurrentTime": str(NOON - 60)}}]
    text = json.dumps({"Version": "2012-10-17", "Statement": [statement | {"Condition": one} for one in conditions]})
    assert parse_key_policy(text, account).moments == (NOON - 60, NOON - 59, NOON, NOON + 1)
