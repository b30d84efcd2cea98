"""Each operator, prefix and condition key, as AWS's documentation describes them."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from envfs.kms.model import RequestFacts
from envfs.kms.policy.condition_keys import CONDITION_KEYS
from envfs.kms.policy.evaluator import evaluate
from envfs.kms.policy.operators import OPERATORS
from envfs.kms.policy.parser import parse_identity_policy, parse_key_policy
from tests.unit.kms.kit import ACCOUNT, ALICE, person, policy, statement
from tests.unit.kms.requests import KEY, request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envfs.kms.policy.request import Request

STAR = person("*", 1003)


def holds(condition: Mapping[str, Any], asked: Request, *, version: str = "2012-10-17") -> bool:
    """Whether the condition makes an Allow count. A Deny must agree, unless the condition cannot be evaluated."""
    text = policy(statement("Allow", "*", "kms:*", Condition=condition), version=version)
    return evaluate(asked, parse_key_policy(text, ACCOUNT), ()).allowed


def denies(condition: Mapping[str, Any], asked: Request) -> bool:
    text = policy(statement("Allow", "*", "kms:*"), statement("Deny", "*", "kms:*", Condition=condition))
    return not evaluate(asked, parse_key_policy(text, ACCOUNT), ()).allowed


def with_context(**pairs: str) -> Request:
    return request(context=pairs)


COLOUR = "kms:EncryptionContext:colour"


@pytest.mark.parametrize(
    ("operator", "wanted", "actual", "expected"),
    [
        ("StringEquals", "red", "red", True),
        ("StringEquals", "red", "Red", False),
        ("StringEquals", ["blue", "red"], "red", True),
        ("StringEquals", "r*", "red", False),
        ("StringEquals", "r*", "r*", True),
        ("StringNotEquals", "red", "red", False),
        ("StringNotEquals", ["blue", "red"], "red", False),
        ("StringNotEquals", ["blue", "green"], "red", True),
        ("StringEqualsIgnoreCase", "RED", "red", True),
        ("StringNotEqualsIgnoreCase", "RED", "red", False),
        ("StringLike", "r*", "red", True),
        ("StringLike", "r?d", "red", True),
        ("StringLike", "r?", "red", False),
        ("StringLike", "*", "", True),
        ("StringLike", "*e*d", "red", True),
        ("StringLike", "*e*x*", "red", False),
        ("StringLike", "R*", "red", False),
        ("StringLike", "r*", "r\nd", True),
        ("StringLike", "[r]ed", "red", False),
        ("StringNotLike", "r*", "red", False),
        ("StringNotLike", ["b*", "g*"], "red", True),
        ("stringequals", "red", "red", True),
        ("NumericEquals", "10", "10.0", True),
        ("NumericEquals", 10, "10", True),
        ("NumericNotEquals", "10", "11", True),
        ("NumericLessThan", "10", "9", True),
        ("NumericLessThan", "10", "10", False),
        ("NumericLessThanEquals", "10", "10", True),
        ("NumericGreaterThan", "-1.5", "-1.25", True),
        ("NumericGreaterThanEquals", "10", "9.999", False),
        ("DateEquals", "2023-11-14T22:13:20Z", "1700000000", True),
        ("DateEquals", "2023-11-14", "2023-11-14T00:00:00Z", True),
        ("DateEquals", "2023-11-14T12:00+02:00", "2023-11-14T10:00:00.0Z", True),
        ("DateNotEquals", "2023", "2023-01-01", False),
        ("DateLessThan", "2023-11", "2023-10-31T23:59:59.999Z", True),
        ("DateGreaterThanEquals", "2023-11-01T00:00:00-05:00", "2023-11-01T04:59:59Z", False),
        ("Bool", "true", "TRUE", True),
        ("Bool", True, "false", False),
        ("BinaryEquals", "cmVk", "cmVk", True),
        ("BinaryEquals", "cmVk", "cmVl", False),
        ("IpAddress", "10.0.0.0/8", "10.1.2.3", True),
        ("IpAddress", "10.0.0.0/8", "::1", False),
        ("IpAddress", ["192.0.2.7", "::1"], "::1", True),
        ("NotIpAddress", "10.0.0.0/8", "11.1.2.3", True),
        ("ArnEquals", "arn:aws:iam::*:user/a?", "arn:aws:iam::1:user/ab", True),
        ("ArnLike", "arn:aws:iam::1:user/*", "arn:aws:iam::1:user/x:y", True),
        ("ArnLike", "arn:aws:*:user/a", "arn:aws:iam::1:user/a", None),
        ("ArnLike", "arn:aws:iam:*:1:x", "arn:aws:iam:a:b:1:x", False),
        ("ArnNotLike", "arn:aws:iam::1:*", "arn:aws:iam::2:user/a", True),
        ("ArnNotEquals", "arn:aws:iam::1:*", "arn:aws:iam::1:user/a", False),
    ],
)
def test_operators(operator: str, wanted: object, actual: str, expected: bool | None) -> None:
    condition = {operator: {COLOUR: wanted}}
    if expected is None:  # five fields are no ARN
        with pytest.raises(Exception, match="is no ARN"):
            holds(condition, with_context(colour=actual))
        return
    assert holds(condition, with_context(colour=actual)) is expected
    assert denies(condition, with_context(colour=actual)) is expected


@pytest.mark.parametrize(
    ("operator", "wanted", "actual"),
    [
        ("NumericLessThan", "10", "many"),
        ("NumericNotEquals", "10", "many"),
        ("NumericLessThan", "10", "٣"),
        ("NumericLessThan", "10", "1e1"),
        ("NumericLessThan", "10", ""),
        ("DateNotEquals", "2023", "now"),
        ("Bool", "true", "1"),
        ("BinaryEquals", "cmVk", "!"),
        ("NotIpAddress", "10.0.0.0/8", "here"),
        ("ArnNotLike", "arn:aws:iam::1:*", "alice"),
        ("StringLike", "${kms:RequestAlias}", "red"),
        ("StringNotEquals", "${kms:RequestAlias}", "red"),
        ("StringNotLike", ["red", "${kms:RequestAlias}"], "red"),
    ],
)
def test_what_cannot_be_evaluated_allows_nothing_and_denies(operator: str, wanted: object, actual: str) -> None:
    condition = {operator: {COLOUR: wanted}}
    assert not holds(condition, with_context(colour=actual))
    assert denies(condition, with_context(colour=actual))


@pytest.mark.parametrize(
    "condition",
    [
        {"StringEquals": {"envfs:Path": "/a/f"}},
        {"StringNotEquals": {"envfs:Path": "/b"}},
        {"StringLikeIfExists": {"envfs:path": "*"}},
        {"StringNotLikeIfExists": {"envfs:Path": "/b/*"}},
        {"ForAnyValue:StringLike": {"envfs:Path": "*"}},
        {"ForAllValues:StringLike": {"envfs:Path": "*"}},
        {"Null": {"envfs:Path": "false"}},
        {"Null": {"envfs:Path": "true"}},
        {"StringEquals": {COLOUR: "${envfs:Path}"}},
        {"StringNotEquals": {COLOUR: "${envfs:Path}"}},
    ],
)
def test_a_path_that_is_not_proven_allows_nothing_and_denies(condition: Mapping[str, Any]) -> None:
    """Whichever path is claimed."""
    for path in ("/a/f", "/b/f", "/b"):
        facts = RequestFacts(path=path, path_is_proven=False)
        asked = request(context={"colour": path}, facts=facts)
        assert not holds(condition, asked)
        assert denies(condition, asked)


def test_an_error_denies_wherever_it_stands_in_a_deny() -> None:
    broken, other = {"NumericLessThan": {COLOUR: "1"}}, {"StringEquals": {"kms:ViaService": "elsewhere"}}
    assert denies(broken | other, with_context(colour="red"))
    assert denies(other | broken, with_context(colour="red"))


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("StringEquals", False),
        ("StringLike", False),
        ("NumericEquals", False),
        ("StringNotEquals", True),
        ("ArnNotLike", True),
        ("StringEqualsIfExists", True),
        ("NumericLessThanIfExists", True),
        ("StringNotEqualsIfExists", True),
        ("ForAnyValue:StringEquals", False),
        ("ForAnyValue:StringNotEquals", False),
        ("ForAnyValue:StringEqualsIfExists", True),
        ("ForAllValues:StringEquals", True),
        ("ForAllValues:StringNotEquals", True),
    ],
)
def test_a_key_that_the_request_does_not_have(operator: str, expected: bool) -> None:
    value = "arn:aws:iam::1:user/a" if "Arn" in operator else "1"
    assert holds({operator: {COLOUR: value}}, with_context(size="1")) is expected


def test_if_exists_still_looks_at_what_exists() -> None:
    assert holds({"StringEqualsIfExists": {COLOUR: "red"}}, with_context(colour="red"))
    assert not holds({"StringEqualsIfExists": {COLOUR: "red"}}, with_context(colour="blue"))


@pytest.mark.parametrize(
    ("value", "pairs", "expected"),
    [
        ("true", {}, True),
        ("true", {"colour": "x"}, False),
        ("false", {"colour": "x"}, True),
        (False, {}, False),
        (["true", "false"], {}, True),
    ],
)
def test_null(value: object, pairs: dict[str, str], expected: bool) -> None:
    assert holds({"Null": {COLOUR: value}}, request(context=pairs)) is expected


def test_null_of_an_empty_set() -> None:
    assert holds({"Null": {"kms:EncryptionContextKeys": "true"}}, request())
    assert not holds({"Null": {"kms:EncryptionContextKeys": "true"}}, with_context(a="b"))


@pytest.mark.parametrize(
    ("operator", "keys", "expected"),
    [
        ("ForAllValues:StringEquals", ["a", "b"], True),
        ("ForAllValues:StringEquals", ["a", "c"], False),
        ("ForAllValues:StringEquals", [], True),
        ("ForAnyValue:StringEquals", ["a", "c"], True),
        ("ForAnyValue:StringEquals", ["c"], False),
        ("ForAnyValue:StringEquals", [], False),
        ("ForAnyValue:StringNotEquals", ["a", "c"], True),
        ("ForAnyValue:StringNotEquals", ["a", "b"], False),
        ("ForAllValues:StringNotEquals", ["c", "d"], True),
        ("ForAllValues:StringNotEquals", ["a", "c"], False),
    ],
)
def test_sets(operator: str, keys: list[str], expected: bool) -> None:
    condition = {operator: {"kms:EncryptionContextKeys": ["a", "b"]}}
    assert holds(condition, request(context=dict.fromkeys(keys, "x"))) is expected


def test_operators_and_keys_are_anded_values_are_ored() -> None:
    condition = {"StringEquals": {COLOUR: ["red", "blue"], "aws:username": "alice"}, "StringLike": {COLOUR: "*e*"}}
    assert holds(condition, with_context(colour="red"))
    assert not holds(condition, request(STAR, context={"colour": "red"}))
    assert not holds(condition, with_context(colour="green"))


def test_names_of_context_keys_have_no_case_but_values_have() -> None:
    condition = {"StringEquals": {"KMS:encryptioncontext:COLOUR": "red"}}
    assert holds(condition, with_context(Colour="red"))
    assert not holds(condition, with_context(Colour="RED"))


def test_context_keys_that_differ_in_case_only_fail_closed() -> None:
    condition = {"StringEquals": {COLOUR: "red"}}
    ambiguous = request(context={"colour": "red", "Colour": "blue"})
    assert not holds(condition, ambiguous)
    assert denies(condition, ambiguous)


FACTS = RequestFacts(via_service="envfs", path="/finance/a", access="create", source_ip="10.0.0.1", user_agent="Boto3")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kms:ViaService", "envfs"),
        ("kms:CallerAccount", "000000000000"),
        ("kms:KeySpec", "SYMMETRIC_DEFAULT"),
        ("kms:KeyUsage", "ENCRYPT_DECRYPT"),
        ("kms:KeyOrigin", "ENVFS"),
        ("kms:CustomerMasterKeySpec", "SYMMETRIC_DEFAULT"),
        ("kms:CustomerMasterKeyUsage", "ENCRYPT_DECRYPT"),
        ("kms:MultiRegion", "false"),
        ("aws:PrincipalType", "User"),
        ("aws:ResourceAccount", "000000000000"),
        ("aws:ViaAWSService", "true"),
        ("kms:EncryptionContext:colour", "red"),
        ("kms:EncryptionAlgorithm", "SYMMETRIC_DEFAULT"),
        ("kms:RequestAlias", "alias/one"),
        ("aws:PrincipalArn", ALICE.arn),
        ("aws:PrincipalAccount", "000000000000"),
        ("aws:username", "alice"),
        ("AWS:USERNAME", "alice"),
        ("aws:userid", "1001"),
        ("aws:CurrentTime", "2023-11-14T22:13:20+00:00"),
        ("aws:EpochTime", "1700000000"),
        ("aws:RequestTag/team", "blue"),
        ("aws:ResourceTag/Team", "red"),
        ("aws:resourcetag/TEAM", "red"),
        ("aws:SourceIp", "10.0.0.1"),
        ("aws:UserAgent", "Boto3"),
        ("envfs:Path", "/finance/a"),
        ("envfs:Access", "create"),
    ],
)
def test_condition_keys_of_a_request(key: str, value: str) -> None:
    extra = {
        "kms:encryptionalgorithm": "SYMMETRIC_DEFAULT",
        "kms:requestalias": "alias/one",
        "aws:requesttag/team": "blue",
    }
    asked = request(key=replace(KEY, tags={"Team": "red"}), context={"colour": "red"}, facts=FACTS, extra=extra)
    assert holds({"StringEquals": {key: value}}, asked)
    assert not holds({"StringEquals": {key: value + "x"}}, asked)


def test_tags_that_differ_in_case_only_fail_closed() -> None:
    condition = {"StringEquals": {"aws:ResourceTag/team": "red"}}
    ambiguous = request(key=replace(KEY, tags={"team": "red", "Team": "red"}))
    assert not holds(condition, ambiguous)
    assert denies(condition, ambiguous)


def test_a_unix_user_has_no_tags() -> None:
    assert holds({"Null": {"aws:PrincipalTag/team": "true"}}, request(extra={"aws:principaltag/team": "blue"}))


def test_the_key_s_aliases_count_in_identity_policies() -> None:
    condition = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/two"}}
    identity = parse_identity_policy(policy(statement("Deny", None, "kms:*", Condition=condition)), "p", ACCOUNT)
    allow = parse_key_policy(policy(statement("Allow", "*", "kms:*")), ACCOUNT)
    assert not evaluate(request(), allow, (identity,)).allowed


def test_facts_that_a_request_does_not_have_are_missing() -> None:
    for key in ("kms:ViaService", "envfs:Path", "envfs:Access", "kms:RequestAlias", "aws:SourceIp", "kms:ValidTo"):
        assert holds({"Null": {key: "true"}}, request())


@pytest.mark.parametrize(
    ("operator", "value", "colour", "expected"),
    [
        ("StringEquals", "${aws:username}", "alice", True),
        ("StringEquals", "${aws:username}", "bob", False),
        ("StringEquals", "team-${aws:username}-${aws:userid}", "team-alice-1001", True),
        ("StringLike", "${aws:username}/*", "alice/x", True),
        ("StringLike", "${aws:username}/*", "bob/x", False),
        ("StringEquals", "${kms:RequestAlias, 'none'}", "none", True),
        ("StringEquals", "${*}${?}${$}", "*?$", True),
        ("StringLike", "a${*}", "ab", False),
        ("StringLike", "a${*}", "a*", True),
        ("NumericEquals", "${aws:userid}", "1001.0", True),
        ("StringEquals", "${aws:username", "${aws:username", True),
    ],
)
def test_policy_variables(operator: str, value: str, colour: str, expected: bool) -> None:
    assert holds({operator: {COLOUR: value}}, with_context(colour=colour)) is expected


def test_what_a_variable_stands_for_is_no_pattern() -> None:
    """A user called `*` must not be everybody."""
    for operator in ("StringLike", "StringEquals"):
        assert not holds({operator: {COLOUR: "${aws:username}"}}, request(STAR, context={"colour": "alice"}))
        assert holds({operator: {COLOUR: "${aws:username}"}}, request(STAR, context={"colour": "*"}))
    arn = "arn:envfs:iam::000000000000:user/${kms:EncryptionContext:colour}"
    assert not holds({"ArnLike": {"aws:PrincipalArn": arn}}, with_context(colour="*"))
    assert holds({"ArnLike": {"aws:PrincipalArn": arn}}, with_context(colour="alice"))


def test_a_variable_adds_no_fields_to_an_arn() -> None:
    wanted = "arn:envfs:iam::${kms:EncryptionContext:colour}:user/alice"
    assert holds({"ArnLike": {"aws:PrincipalArn": wanted}}, with_context(colour="000000000000"))
    assert not holds({"ArnLike": {"aws:PrincipalArn": wanted}}, with_context(colour="000000000000:user/alice"))


def test_the_old_version_has_no_variables() -> None:
    condition = {"StringEquals": {COLOUR: "${aws:username}"}}
    assert holds(condition, with_context(colour="${aws:username}"), version="2008-10-17")
    assert not holds(condition, with_context(colour="alice"), version="2008-10-17")


def test_a_hostile_pattern_takes_no_time() -> None:
    condition = {"StringLike": {COLOUR: "*a" * 40 + "b"}}
    started = time.process_time()
    assert not holds(condition, with_context(colour="a" * 8000))
    # No figure of speed: with backtracking this would not end before the universe does.
    assert time.process_time() - started < 60


def test_the_document_lists_every_condition_key() -> None:
    text = (Path(__file__).parents[3] / "docs" / "KMS.md").read_text()
    missing = [name for name in CONDITION_KEYS if f"`{name}`" not in text]
    assert missing == []


def test_the_document_lists_every_operator() -> None:
    text = (Path(__file__).parents[3] / "docs" / "KMS.md").read_text()
    ordered = re.compile(r"(Numeric|Date)\w+")
    assert [name for name in OPERATORS if not ordered.fullmatch(name) and f"`{name}`" not in text] == []
