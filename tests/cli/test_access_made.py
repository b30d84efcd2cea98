"""Names and policies of `envfs access grant`: what is written is found again, and means what it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envfs.cli.access_made import (
    ACCESSES,
    MAX_REASON,
    Scope,
    grant_request,
    of_grant,
    of_policy,
    policy_request,
)
from envfs.errors import ConfigError, MalformedPolicy
from envfs.kms.arn import Account
from envfs.kms.model import Principal, RequestFacts
from envfs.kms.policy.evaluator import evaluate
from envfs.kms.policy.parser import parse_identity_policy, parse_key_policy
from envfs.kms.policy.request import KeyFacts, Request

HERE = Account("envfs", "local", "000000000000")
KEY = HERE.key_arn(bytes(16))
BOB = HERE.user_arn("bob")
DELEGATING = (
    f'{{"Version": "2012-10-17", "Statement": {{"Effect": "Allow", "Principal": {{"AWS": "{HERE.root_arn}"}}, '
    '"Action": "kms:*", "Resource": "*"}}'
)
# What policies have a meaning for, and what terminals have.
odd = st.text(st.sampled_from("ab$*?{}:_ /\n\"'é\u202e\\"), max_size=24)
contexts = st.dictionaries(odd.filter(bool), odd, max_size=3)
scopes = st.builds(
    lambda pairs, path: Scope(KEY, tuple(sorted(pairs.items())), path),
    contexts,
    st.one_of(st.none(), odd.map(lambda text: f"/{text}".rstrip("/") or "/")),
)


@given(st.sampled_from(["read", "write", "create"]), contexts, odd)
def test_a_grant_is_found_again_with_its_reason(access: str, pairs: dict[str, str], reason: str) -> None:
    scope = Scope(KEY, tuple(sorted(pairs.items())))
    request = grant_request(BOB, access, scope, reason)
    listed = {**request, "GrantId": "f" * 64, "CreationDate": 7.0, "KeyId": KEY}
    made = of_grant(listed)
    assert made is not None
    assert (made.who, made.access, made.scope, made.reason) == (BOB, access, scope, reason)


@given(st.sampled_from(ACCESSES), scopes, st.one_of(st.none(), st.integers(1_800_000_000, 1_900_000_000)), odd)
def test_a_policy_is_found_again(access: str, scope: Scope, until: int | None, reason: str) -> None:
    request = policy_request(BOB, access, scope, until=until, reason=reason, account=HERE)
    made = of_policy(request["Target"], request["PolicyName"], request["PolicyDocument"], 7.0)
    assert made is not None
    assert (made.who, made.access, made.scope, made.until, made.reason) == (BOB, access, scope, until, reason)


def decide(document: str, context: dict[str, str], path: str, now: float) -> bool:
    bob = Principal(1001, 1001, 1, "bob", BOB, frozenset(), is_account_root=False)
    key = KeyFacts(KEY, "SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "AWS_KMS")
    facts = RequestFacts(via_service="envfs", path=path, access="read")
    prefix = HERE.principal_prefix
    asked = Request(bob, "kms:Decrypt", KEY, key, context, facts, {}, now, HERE.account_id, prefix)
    return evaluate(asked, parse_key_policy(DELEGATING, HERE), [parse_identity_policy(document, "p", HERE)]).allowed


@given(scopes, st.dictionaries(odd.filter(bool), odd, max_size=2), odd)
def test_a_policy_allows_its_scope_and_no_other(scope: Scope, others: dict[str, str], other_path: str) -> None:
    """Labels and paths mean themselves, whatever they look like; and nothing is allowed after the end."""
    folded = [name.lower() for name in {**others, **dict(scope.context)}]
    if len(folded) != len(set(folded)):
        return  # names that differ in case only are an error for each request
    request = policy_request(BOB, "read", scope, until=2_000.0 * 1e6, reason="", account=HERE)
    try:
        parse_identity_policy(request["PolicyDocument"], "p", HERE)
    except MalformedPolicy:
        return  # a name of a label that is no condition key
    document = request["PolicyDocument"]
    inside = dict(scope.context)
    path = f"{'' if scope.path in {None, '/'} else scope.path}/x"
    assert decide(document, {**others, **inside}, path, 1e9)
    assert not decide(document, {**others, **inside}, path, 2_000.0 * 1e6)
    meets = all(others.get(name) == value for name, value in inside.items())
    assert decide(document, others, path, 1e9) is meets
    elsewhere = f"/{other_path}"
    root = (scope.path or "/").rstrip("/")
    is_below = scope.path is None or elsewhere == scope.path or elsewhere.startswith(f"{root}/")
    assert decide(document, inside, elsewhere, 1e9) is is_below


def test_what_a_grant_cannot_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="too long"):
        grant_request(BOB, "read", Scope(KEY), "é" * MAX_REASON)
    with pytest.raises(ConfigError, match="more labels"):
        grant_request(BOB, "read", Scope(KEY, tuple((f"l{number}", "") for number in range(9))), "")


def test_what_somebody_else_made_is_his() -> None:
    request = policy_request(BOB, "read", Scope(KEY), until=None, reason="", account=HERE)
    name, text = request["PolicyName"], request["PolicyDocument"]
    assert of_policy(BOB, name, text, 0.0) is not None
    for changed in ("", "[]", "{}", '{"Statement": []}', '{"Statement": [7]}', text.replace(KEY, "*")):
        assert of_policy(BOB, name, changed, 0.0) is None
    assert of_policy(BOB, "access-read", text, 0.0) is None
    grant = {"GrantId": "f" * 64, "CreationDate": 7.0, "KeyId": KEY, "GranteePrincipal": BOB}
    assert of_grant({**grant, "Operations": ["Decrypt"]}) is None
    assert of_grant({**grant, "Operations": ["Decrypt", "Encrypt"], "Name": "access/read"}) is None
    equals = {"EncryptionContextEquals": {"a": "b"}}
    assert of_grant({**grant, "Operations": ["Decrypt"], "Name": "access/read", "Constraints": equals}) is None
