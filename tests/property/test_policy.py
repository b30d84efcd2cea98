"""The policy evaluator agrees with a brute-force oracle, and the parser refuses whatever else it gets in one way."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from envfs.errors import LimitExceeded, MalformedPolicy
from envfs.kms.arn import Account
from envfs.kms.model import Principal, RequestFacts
from envfs.kms.policy.evaluator import evaluate
from envfs.kms.policy.parser import parse_identity_policy, parse_key_policy
from envfs.kms.policy.request import KeyFacts, Request
from tests.property import policy_oracle as oracle

HERE = Account("envfs", "local", oracle.ACCOUNT)
THERE = Account("envfs", "local", "111111111111")
KEYS = [HERE.key_arn(bytes([number]) * 16) for number in (1, 2)]
CONTEXT_KEY = "kms:EncryptionContext:team"
# Few values, so that policies and requests meet.
TEXTS = st.sampled_from(["", "a", "b", "ab", "alice", "*", "a*", "?", "10", "9.5", "2023-01-01", "true", "10.0.0.0/8"])
PEOPLE = [
    (1001, "alice", ("finance",)),
    (1002, "bob", ("finance", "staff")),
    (1003, "*", ()),
    (1000, "olga", ("staff",)),
]

principals = st.builds(
    lambda who, account: Principal(
        who[0],
        who[0],
        1,
        who[1],
        account.user_arn(who[1]),
        frozenset(account.group_arn(group) for group in who[2]),
        who[1] == "olga" and account is HERE,
    ),
    st.sampled_from(PEOPLE),
    st.sampled_from([HERE, HERE, HERE, THERE]),
)
principal_values = st.one_of(
    st.just("*"),
    st.lists(
        st.sampled_from(
            [
                "*",
                *(HERE.user_arn(name) for _, name, _ in PEOPLE if name != "*"),
                HERE.group_arn("finance"),
                HERE.root_arn,
                HERE.account_id,
                THERE.user_arn("alice"),
                THERE.root_arn,
            ]
        ),
        min_size=1,
        max_size=3,
    ).map(lambda values: {"AWS": values[0] if len(values) == 1 else values}),
)
action_values = st.sampled_from([
    "kms:*", "kms:*", "kms:*", "*", "kms:Decrypt", "kms:decrypt", "kms:De*", "kms:?ecrypt", "kms:GenerateDataKey*",
    "kms:Describe*", ["kms:Encrypt", "kms:Decrypt"], ["kms:ListKeys", "kms:CreateKey"], [],
])  # fmt: skip
resource_values = st.sampled_from([
    "*", "*", "*", "arn:*", KEYS[0], KEYS[1],
    [KEYS[0], "arn:envfs:kms:*:*:alias/*"], "arn:envfs:kms:local:??????000000:key/*",
    "*${aws:username}*", "*${kms:RequestAlias}*", [],
])  # fmt: skip
single_keys = st.sampled_from([
    CONTEXT_KEY, CONTEXT_KEY.upper(), "kms:ViaService", "kms:CallerAccount", "kms:RequestAlias", "aws:username",
    "aws:userid", "envfs:Access",
])  # fmt: skip
string_operators = st.sampled_from([
    "StringEquals", "StringNotEquals", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase", "StringLike",
    "StringNotLike",
])  # fmt: skip
string_values = st.one_of(
    TEXTS,
    st.sampled_from(["${aws:username}", "${aws:username}*", f"${{{CONTEXT_KEY}}}", "${*}", "${kms:RequestAlias}b"]),
)
typed_operators = st.one_of(
    st.tuples(
        st.sampled_from(["Numeric", "Date"]),
        st.sampled_from(["Equals", "NotEquals", "LessThan", "LessThanEquals", "GreaterThan", "GreaterThanEquals"]),
    ).map("".join),
    st.sampled_from(["Bool", "IpAddress", "NotIpAddress"]),
)
TYPED_VALUES: dict[str, list[str | bool]] = {
    "Numeric": ["10", "9.50", "-1", "${kms:EncryptionContext:team}"],
    "Date": ["2023-01-01", "2022-12-31"],
    "Bool": ["true", "False", True],
    "IpAddress": ["10.0.0.0/8", "::1"],
    "NotIpAddress": ["10.0.0.0/8", "10.0.0.1"],
}


def several(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(values, st.lists(values, min_size=1, max_size=3))


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["string", "typed", "arn", "null", "set"]))
    suffix = draw(st.sampled_from(["", "", "IfExists"]))
    if kind == "null":
        return {"Null": {draw(single_keys): draw(several(st.sampled_from(["true", "false"])))}}
    if kind == "arn":
        operator = draw(st.sampled_from(["ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike"]))
        value = st.sampled_from(
            [HERE.user_arn("a*"), HERE.user_arn("alice"), "arn:*:iam::*:*", "arn:envfs:iam:*:user/a:x"]
        )
        return {operator + suffix: {draw(st.sampled_from(["aws:PrincipalArn", CONTEXT_KEY])): draw(several(value))}}
    prefix = draw(st.sampled_from(["ForAnyValue:", "ForAllValues:"])) if kind == "set" else ""
    if kind == "typed":
        operator = draw(typed_operators)
        values = next(values for name, values in TYPED_VALUES.items() if operator.startswith(name))
        return {operator + suffix: {draw(single_keys): draw(several(st.sampled_from(values)))}}
    operator = draw(string_operators)
    key = draw(st.sampled_from(["kms:EncryptionContextKeys", CONTEXT_KEY, "aws:username"]) if prefix else single_keys)
    return {prefix + operator + suffix: {key: draw(several(string_values))}}


def merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Several conditions as one element: keys of the same operator stand together."""
    result: dict[str, dict[str, Any]] = {}
    for part in parts:
        for operator, keys in part.items():
            result.setdefault(operator, {}).update(keys)
    return result


@st.composite
def statements(draw: st.DrawFn, *, identity: bool) -> dict[str, Any]:
    effect = draw(st.sampled_from(["Allow", "Allow", "Deny"]))
    made: dict[str, Any] = {"Effect": effect}
    if not identity:
        negated = effect == "Deny" and draw(st.booleans())
        made["NotPrincipal" if negated else "Principal"] = draw(principal_values)
    made[draw(st.sampled_from(["Action", "Action", "Action", "NotAction"]))] = draw(action_values)
    made[draw(st.sampled_from(["Resource", "Resource", "Resource", "NotResource"]))] = draw(resource_values)
    found = merged(draw(st.lists(conditions(), max_size=2))) if draw(st.booleans()) else {}
    if found:
        made["Condition"] = found
    return made


def documents(*, identity: bool) -> st.SearchStrategy[dict[str, Any]]:
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"} | ({} if identity else {"Principal": "*"})
    return st.builds(
        # Often with a statement that allows everything, so that it is the Denies on which the outcome rests.
        lambda listed, more, version: {"Statement": listed + more} | ({"Version": version} if version else {}),
        st.lists(statements(identity=identity), min_size=1, max_size=3),
        st.sampled_from([[], [everything]]),
        st.sampled_from(["2012-10-17", "2012-10-17", "2008-10-17", ""]),
    ).filter(lambda document: document.get("Version") == "2012-10-17" or not has_typed_variable(document))


def has_typed_variable(document: dict[str, Any]) -> bool:
    """Whether a variable stands for a number: the old version has no variables, so there it is malformed."""
    return any(
        operator.startswith("Numeric") and "${" in json.dumps(keys)
        for statement in document["Statement"]
        for operator, keys in statement.get("Condition", {}).items()
    )


def to_plain(asked: Request) -> dict[str, Any]:
    return {
        "action": asked.action,
        "resource": asked.resource,
        "arn": asked.principal.arn,
        "name": asked.principal.name,
        "uid": str(asked.principal.uid),
        "groups": list(asked.principal.group_arns),
        "owner": asked.principal.is_account_root,
        "context": dict(asked.context),
        "via": asked.facts.via_service,
        "access": asked.facts.access,
        "alias": asked.extra.get("kms:requestalias"),
    }


@st.composite
def requests(draw: st.DrawFn) -> Request:
    arn = draw(st.sampled_from([*KEYS, None]))
    alias = draw(st.sampled_from([None, "a", "b"]))
    return Request(
        draw(principals),
        draw(st.sampled_from(["kms:Decrypt", "kms:GenerateDataKey"] if arn else ["kms:CreateKey", "kms:ListKeys"])),
        arn or "*",
        KeyFacts(arn, "SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "ENVFS") if arn else None,
        draw(st.dictionaries(st.sampled_from(["team", "Team", "a", "b"]), TEXTS, max_size=3)),
        RequestFacts(draw(st.sampled_from([None, "envfs", "a"])), None, draw(st.sampled_from([None, "read", "write"]))),
        {} if alias is None else {"kms:requestalias": alias},
        0.0,
        HERE.account_id,
        HERE.principal_prefix,
    )


@settings(max_examples=max(500, settings.default.max_examples if settings.default else 0))
@given(documents(identity=False), st.lists(documents(identity=True), max_size=2), requests())
def test_the_evaluator_agrees_with_the_oracle(
    key_policy: dict[str, Any], identity: list[dict[str, Any]], asked: Request
) -> None:
    parsed = None if asked.key is None else parse_key_policy(json.dumps(key_policy), HERE)
    attached = [parse_identity_policy(json.dumps(document), "p", HERE) for document in identity]
    decision = evaluate(asked, parsed, attached)
    event(decision.reason.value)
    expected = oracle.decide(None if asked.key is None else key_policy, identity, to_plain(asked))
    assert decision.allowed is expected


@given(documents(identity=False), st.lists(documents(identity=True), max_size=2), requests())
def test_the_statements_that_are_named_decide(
    key_policy: dict[str, Any], identity: list[dict[str, Any]], asked: Request
) -> None:
    """Without the statements that a decision names, it would have another reason."""
    if asked.key is None:
        return
    attached = [parse_identity_policy(json.dumps(document), f"p{one}", HERE) for one, document in enumerate(identity)]
    decision = evaluate(asked, parse_key_policy(json.dumps(key_policy), HERE), attached)
    named = [one for one in decision.statements if one.policy == "key policy"]
    for one in named:
        alone = {**key_policy, "Statement": [key_policy["Statement"][one.number - 1]]}
        again = evaluate(asked, parse_key_policy(json.dumps(alone), HERE), attached if decision.allowed else ())
        assert again.allowed is decision.allowed
        assert again.reason is decision.reason


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
elements = st.sampled_from([
    "Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition",
    "Other",
])  # fmt: skip


@given(
    st.one_of(
        st.text(max_size=60),
        json_values.map(json.dumps),
        st.builds(
            lambda good, element, value: json.dumps({"Statement": [good | {element: value}]}),
            statements(identity=False),
            elements,
            json_values,
        ),
        st.builds(
            lambda operator, key, value: json.dumps(
                {
                    "Version": "2012-10-17",
                    "Statement": {
                        "Effect": "Deny",
                        "Principal": "*",
                        "Action": "*",
                        "Condition": {operator: {key: value}},
                    },
                }
            ),
            st.one_of(string_operators, typed_operators, st.text(max_size=12)),
            st.one_of(single_keys, st.text(max_size=12)),
            st.one_of(json_values, st.text(alphabet="${}*?:,' a", max_size=12)),
        ),
    )
)
def test_whatever_is_put_is_a_policy_or_is_refused_as_malformed(text: str) -> None:
    with contextlib.suppress(MalformedPolicy, LimitExceeded):
        parse_key_policy(text, HERE)
    with contextlib.suppress(MalformedPolicy, LimitExceeded):
        parse_identity_policy(text, "p", HERE)


@pytest.mark.parametrize("pattern", ["", "*", "**", "a*", "*a", "a*a", "?*", "*?a*"])
@given(text=st.text(alphabet="ab\n", max_size=6))
def test_patterns_agree_with_the_naive_ones(pattern: str, text: str) -> None:
    condition = {"StringLike": {CONTEXT_KEY: pattern}}
    statement = {"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*", "Condition": condition}
    parsed = parse_key_policy(json.dumps({"Statement": statement}), HERE)
    naive = oracle.glob(oracle.substitute(pattern, {}, variables=False, wildcards=True), text)
    assert evaluate(alice_asks({"team": text}), parsed, ()).allowed is naive


def alice_asks(context: dict[str, str]) -> Request:
    alice = Principal(1001, 1001, 1, "alice", HERE.user_arn("alice"), frozenset(), is_account_root=False)
    key = KeyFacts(KEYS[0], "SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "ENVFS")
    prefix = HERE.principal_prefix
    return Request(alice, "kms:Decrypt", KEYS[0], key, context, RequestFacts(), {}, 0.0, HERE.account_id, prefix)
