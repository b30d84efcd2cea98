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
from envfs.kms.model import Grant, GrantConstraints, Principal, RequestFacts
from envfs.kms.policy.decision import Reason
from envfs.kms.policy.evaluator import evaluate
from envfs.kms.policy.grants import GrantSet, is_as_strict, meets
from envfs.kms.policy.parser import parse_identity_policy, parse_key_policy
from envfs.kms.policy.request import GrantTerms, KeyFacts, Request
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
    "aws:userid", "envfs:Access", "aws:SourceIp", "aws:ResourceTag/team", "aws:PrincipalTag/team", "kms:KeySpec",
    "kms:GranteePrincipal",
])  # fmt: skip
set_keys = ["kms:EncryptionContextKeys", "kms:GrantOperations", CONTEXT_KEY, "aws:username"]
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
def conditions(draw: st.DrawFn, *, identity: bool) -> dict[str, Any]:
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
    several_keys = [*set_keys, "kms:ResourceAliases"] if identity else set_keys
    key = draw(st.sampled_from(several_keys) if prefix else single_keys)
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
    found = merged(draw(st.lists(conditions(identity=identity), max_size=2))) if draw(st.booleans()) else {}
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
        "ip": asked.facts.source_ip,
        "extra": {key: list(value) if isinstance(value, tuple) else value for key, value in asked.extra.items()},
        "spec": asked.key.spec if asked.key else None,
        "tags": dict(asked.key.tags) if asked.key else {},
        "aliases": list(asked.key.aliases) if asked.key else None,
        "proposal": asked.proposal
        and {
            "Operations": sorted(asked.proposal.operations),
            "Constraints": plain_constraints(asked.proposal.constraints),
        },
    }


def plain_constraints(constraints: GrantConstraints | None) -> dict[str, dict[str, str]]:
    """As AWS writes them."""
    if constraints is None:
        return {}
    named = {"EncryptionContextEquals": constraints.equals, "EncryptionContextSubset": constraints.subset}
    return {name: dict(pairs) for name, pairs in named.items() if pairs is not None}


def plain_grant(grant: Grant) -> dict[str, Any]:
    return {
        "GranteePrincipal": grant.grantee,
        "RetiringPrincipal": grant.retiring,
        "Operations": list(grant.operations),
        "Constraints": plain_constraints(grant.constraints),
    }


context_pairs = st.dictionaries(st.sampled_from(["team", "Team", "a", "b"]), TEXTS, max_size=3)
# Few pairs and few values, so that contexts meet constraints.
constraint_pairs = st.sampled_from(
    [{"team": "a"}, {"team": "b"}, {"a": "a"}, {"team": "a", "a": "a"}, {"team": "a", "a": "b"}, {"team": "", "b": "a"}]
)
narrow_pairs: st.SearchStrategy[dict[str, str]] = st.one_of(constraint_pairs, st.just({}), st.just({"Team": "a"}))
constraint_values = st.one_of(
    st.none(),
    constraint_pairs.map(lambda pairs: GrantConstraints(equals=pairs)),
    constraint_pairs.map(lambda pairs: GrantConstraints(subset=pairs)),
)
operation_sets = st.sets(
    st.sampled_from(["Decrypt", "GenerateDataKey", "DescribeKey", "CreateGrant", "RetireGrant"]), min_size=1
)
grant_principals = st.sampled_from(
    [
        HERE.user_arn("alice"),
        HERE.user_arn("bob"),
        HERE.user_arn("*"),
        HERE.group_arn("finance"),
        HERE.group_arn("staff"),
        HERE.root_arn,
        THERE.user_arn("alice"),
        THERE.root_arn,
    ]
)
grants = st.builds(
    lambda number, grantee, retiring, operations, constraints: Grant(
        f"{number:064x}", KEYS[0], "", grantee, retiring, HERE.root_arn, tuple(sorted(operations)), constraints, 0
    ),
    st.integers(0, 9),
    grant_principals,
    st.one_of(st.just(""), grant_principals),
    operation_sets,
    constraint_values,
)
KEYED_ACTIONS = ["kms:Decrypt", "kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey", "kms:CreateGrant",
                 "kms:RetireGrant"]  # fmt: skip


@st.composite
def requests(draw: st.DrawFn) -> Request:
    arn = draw(st.sampled_from([*KEYS, None]))
    action = draw(st.sampled_from(KEYED_ACTIONS if arn else ["kms:CreateKey", "kms:ListKeys"]))
    extra: dict[str, str | tuple[str, ...]] = {}
    proposal: GrantTerms | None = None
    if alias := draw(st.sampled_from([None, "a", "b"])):
        extra["kms:requestalias"] = alias
    if action == "kms:CreateGrant":
        proposal = GrantTerms(frozenset(draw(operation_sets)), draw(constraint_values))
        extra["kms:granteeprincipal"] = draw(st.sampled_from(["a", "alice"]))
        extra["kms:grantoperations"] = tuple(sorted(draw(st.sets(st.sampled_from(["a", "ab", "alice"])))))
    tags = draw(st.dictionaries(st.sampled_from(["team", "Team"]), TEXTS, max_size=2))
    aliases = tuple(draw(st.lists(TEXTS, max_size=2)))
    return Request(
        draw(principals),
        action,
        arn or "*",
        KeyFacts(arn, "SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "AWS_KMS", aliases, tags) if arn else None,
        draw(st.one_of(context_pairs, narrow_pairs)),
        RequestFacts(
            draw(st.sampled_from([None, "envfs", "a"])),
            None,
            draw(st.sampled_from([None, "read", "write"])),
            draw(st.sampled_from([None, "10.0.0.1", "::1"])),
        ),
        extra,
        0.0,
        HERE.account_id,
        HERE.principal_prefix,
        proposal,
    )


@settings(max_examples=max(500, settings.default.max_examples if settings.default else 0))
@given(
    documents(identity=False),
    st.lists(documents(identity=True), max_size=2),
    requests(),
    st.lists(grants, max_size=4),
)
def test_the_evaluator_agrees_with_the_oracle(
    key_policy: dict[str, Any], identity: list[dict[str, Any]], asked: Request, listed: list[Grant]
) -> None:
    parsed = None if asked.key is None else parse_key_policy(json.dumps(key_policy), HERE)
    attached = [parse_identity_policy(json.dumps(document), "p", HERE) for document in identity]
    decision = evaluate(asked, parsed, attached, GrantSet(listed))
    event(f"{asked.action} {decision.reason.value}")
    plain = [plain_grant(grant) for grant in listed]
    assert decision.allowed is oracle.decide(
        None if asked.key is None else key_policy, identity, to_plain(asked), plain
    )


NOBODY = {
    "Statement": {"Effect": "Allow", "Principal": {"AWS": HERE.user_arn("nobody")}, "Action": "*", "Resource": "*"}
}


@settings(max_examples=max(500, settings.default.max_examples if settings.default else 0))
@given(st.lists(documents(identity=True), max_size=1), requests(), st.lists(grants, min_size=1, max_size=6))
def test_grants_alone_agree_with_the_oracle(
    identity: list[dict[str, Any]], asked: Request, listed: list[Grant]
) -> None:
    """With a key policy that allows nothing to anybody here, so that it is the grants on which the outcome rests."""
    if asked.key is None:
        return
    attached = [parse_identity_policy(json.dumps(document), "p", HERE) for document in identity]
    decision = evaluate(asked, parse_key_policy(json.dumps(NOBODY), HERE), attached, GrantSet(listed))
    event(f"{asked.action} {decision.reason.value}")
    plain = [plain_grant(grant) for grant in listed]
    assert decision.allowed is oracle.decide(NOBODY, identity, to_plain(asked), plain)
    if decision.reason is Reason.GRANT:
        alone = GrantSet(grant for grant in listed if grant.grant_id == decision.grant)
        assert evaluate(asked, parse_key_policy(json.dumps(NOBODY), HERE), attached, alone) == decision


@given(st.lists(constraint_values, min_size=2, max_size=2), narrow_pairs)
def test_what_meets_a_stricter_constraint_meets_the_looser_one(
    pair: list[GrantConstraints | None], context: dict[str, str]
) -> None:
    child, parent = pair
    if is_as_strict(child, parent) and (child is None or meets(child, context)):
        assert parent is None or meets(parent, context)


@given(
    documents(identity=False),
    st.lists(documents(identity=True), max_size=2),
    requests(),
    st.lists(grants, max_size=3),
    grants,
)
def test_one_grant_more_never_takes_anything_away(
    key_policy: dict[str, Any], identity: list[dict[str, Any]], asked: Request, listed: list[Grant], more: Grant
) -> None:
    if asked.key is None:
        return
    parsed = parse_key_policy(json.dumps(key_policy), HERE)
    attached = [parse_identity_policy(json.dumps(document), "p", HERE) for document in identity]
    before = evaluate(asked, parsed, attached, GrantSet(listed))
    after = evaluate(asked, parsed, attached, GrantSet([*listed, more]))
    assert after.allowed or not before.allowed
    assert after.allowed or after == before


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
        if asked.action == "kms:RetireGrant" and decision.allowed:
            continue  # not by the key policy
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
