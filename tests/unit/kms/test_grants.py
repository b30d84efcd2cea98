"""Grants, through the engine: made, used, listed, retired, revoked."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from envfs.errors import (
    AccessDenied,
    Disabled,
    DryRunOperation,
    InvalidArn,
    InvalidGrantId,
    InvalidGrantToken,
    InvalidMarker,
    InvalidState,
    LimitExceeded,
    NotFound,
    Validation,
)
from envfs.kms.model import NO_FACTS, GrantConstraints, RequestFacts
from envfs.kms.operations import grants as grants_module
from envfs.kms.operations.grant_terms import GRANT_OPERATIONS, grant_operations_of
from envfs.kms.policy.decision import Reason
from envfs.kms.schema import KEYS
from tests.unit.kms.kit import (
    ACCOUNT,
    ALICE,
    BOB,
    CONTEXT,
    OWNER,
    ROOT,
    Clock,
    People,
    audit_records,
    make_kms,
    open_kms,
    owner_statement,
    person,
    policy,
    statement,
)

if TYPE_CHECKING:
    from pathlib import Path

    from envfs.kms.engine import Engine
    from envfs.kms.model import Grant

IT = {"Department": "IT"}
DRY = RequestFacts(dry_run=True)


@pytest.fixture
def key(engine: Engine) -> str:
    """The id of a key with the default policy: nobody but the owner may use it."""
    return engine.create_key(OWNER).key_id


def may_decrypt(engine: Engine, key: str, who: Any, context: dict[str, str] | None = None) -> bool:
    blob = engine.generate_data_key(OWNER, key, context or {}).blob
    try:
        engine.decrypt(who, blob, context or {})
    except AccessDenied:
        return False
    return True


def grants_of(engine: Engine, key: str) -> list[str]:
    return [grant.grant_id for grant in engine.list_grants(OWNER, key, limit=100)[0]]


def test_a_grant_lets_its_grantee_use_the_key_at_once_and_nobody_else(engine: Engine, key: str) -> None:
    assert not may_decrypt(engine, key, ALICE)
    engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"])
    assert may_decrypt(engine, key, ALICE)
    assert not may_decrypt(engine, key, BOB)
    with pytest.raises(AccessDenied):
        engine.generate_data_key(ALICE, key, {})
    other = engine.create_key(OWNER).key_id
    assert not may_decrypt(engine, other, ALICE)


def test_the_other_engine_of_the_store_sees_it_and_its_end(home: Path, engine: Engine, key: str) -> None:
    with open_kms(home) as second:
        assert not may_decrypt(second, key, ALICE)
        made = engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"])
        assert may_decrypt(second, key, ALICE)
        second.revoke_grant(OWNER, key, made.grant_id)
        assert not may_decrypt(engine, key, ALICE)


def test_a_grant_for_a_group_is_for_its_members(engine: Engine, key: str) -> None:
    engine.create_grant(OWNER, key, ACCOUNT.group_arn("finance"), ["Decrypt"])
    assert may_decrypt(engine, key, ALICE)
    assert not may_decrypt(engine, key, BOB)


def test_a_grant_for_the_account_delegates_to_identity_policies(engine: Engine) -> None:
    only_managing = policy(
        statement("Allow", OWNER.arn, ["kms:PutKeyPolicy", "kms:CreateGrant", "kms:GenerateDataKey"])
    )
    key = engine.create_key(OWNER, policy=only_managing).key_id
    engine.create_grant(OWNER, key, ACCOUNT.root_arn, ["Decrypt"])
    assert may_decrypt(engine, key, OWNER)
    assert not may_decrypt(engine, key, ALICE)
    engine.put_identity_policy(OWNER, ALICE.arn, "use", policy(statement("Allow", None, "kms:Decrypt")))
    assert may_decrypt(engine, key, ALICE)


def test_the_terms_are_listed_as_they_were_asked_for(engine: Engine, key: str, clock: Clock) -> None:
    constraints = GrantConstraints(subset=IT)
    made = engine.create_grant(
        OWNER,
        key,
        ALICE.arn,
        ["Encrypt", "Decrypt", "Decrypt"],
        retiring=BOB.arn,
        constraints=constraints,
        name="IT-alice",
    )
    (grant,), more = engine.list_grants(OWNER, key)
    assert more is None
    assert grant.grant_id == made.grant_id
    assert grant.key_arn == engine.describe_key(OWNER, key).arn
    assert (grant.name, grant.grantee, grant.retiring) == ("IT-alice", ALICE.arn, BOB.arn)
    assert grant.issuing_account == ACCOUNT.root_arn
    assert grant.operations == ("Decrypt", "Encrypt")
    assert grant.constraints == constraints
    assert grant.created == int(clock.now)


def test_constraints_bind_cryptographic_operations_alone(engine: Engine, key: str) -> None:
    operations = ["Decrypt", "DescribeKey", "RetireGrant"]
    made = engine.create_grant(OWNER, key, ALICE.arn, operations, constraints=GrantConstraints(equals=IT))
    assert may_decrypt(engine, key, ALICE, IT)
    for context in ({}, IT | {"Purpose": "Test"}, {"Department": "it"}, {"department": "IT"}):
        assert not may_decrypt(engine, key, ALICE, context)
    engine.describe_key(ALICE, key)
    engine.retire_grant(ALICE, token=made.token)


def test_a_subset_is_among_other_pairs(engine: Engine, key: str) -> None:
    engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"], constraints=GrantConstraints(subset=IT))
    assert may_decrypt(engine, key, ALICE, IT)
    assert may_decrypt(engine, key, ALICE, IT | {"Purpose": "Test"})
    assert not may_decrypt(engine, key, ALICE, {"Purpose": "Test"})
    assert not may_decrypt(engine, key, ALICE, {"Department": "it"})


@pytest.mark.parametrize(
    "terms",
    [
        {"operations": []},
        {"operations": ["Decrypt", "PutKeyPolicy"]},
        {"operations": ["decrypt"]},
        {"operations": ["Sign"]},
        {"operations": ["GenerateMac"]},
        {"operations": ["GetPublicKey"]},
        {"operations": ["Encapsulate"]},
        {"name": "with space"},
        {"name": "a" * 257},
        {"constraints": GrantConstraints(equals=IT, subset=IT)},
        {"constraints": GrantConstraints(equals={})},
        {"constraints": GrantConstraints(subset={str(number): "" for number in range(9)})},
        {"constraints": GrantConstraints(subset={"a": "b" * 385})},
        {"constraints": GrantConstraints(subset={"": "b"})},
    ],
)
def test_terms_that_no_grant_has(engine: Engine, key: str, terms: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"operations": ["Decrypt"]} | terms
    with pytest.raises(Validation):
        engine.create_grant(OWNER, key, ALICE.arn, arguments.pop("operations"), **arguments)
    assert grants_of(engine, key) == []


def test_the_largest_constraint(engine: Engine, key: str) -> None:
    pairs = {str(number): "b" * 384 for number in range(8)}
    engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"], constraints=GrantConstraints(equals=pairs), name="a" * 256)
    assert may_decrypt(engine, key, ALICE, pairs)


def test_an_empty_constraint_structure_is_none(engine: Engine, key: str) -> None:
    engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"], constraints=GrantConstraints())
    assert engine.list_grants(OWNER, key)[0][0].constraints is None


@pytest.mark.parametrize(
    ("spec", "usage", "operations"),
    [
        ("RSA_2048", "ENCRYPT_DECRYPT", {"Decrypt", "Encrypt", "GetPublicKey", "ReEncryptFrom", "ReEncryptTo"}),
        ("RSA_2048", "SIGN_VERIFY", {"GetPublicKey", "Sign", "Verify"}),
        ("ECC_NIST_P256", "KEY_AGREEMENT", {"DeriveSharedSecret", "GetPublicKey"}),
        ("HMAC_256", "GENERATE_VERIFY_MAC", {"GenerateMac", "VerifyMac"}),
        ("ML_KEM_768", "ENCAPSULATE_DECAPSULATE", {"Decapsulate", "Encapsulate", "GetPublicKey"}),
    ],
)
def test_the_operations_that_a_key_can_do(spec: str, usage: str, operations: set[str]) -> None:
    assert grant_operations_of(spec, usage) == operations | {"CreateGrant", "DescribeKey", "RetireGrant"}


def test_all_operations_of_the_service_model_are_known() -> None:
    model = import_module("botocore.session").get_session().get_service_model("kms")
    assert set(model.shape_for("GrantOperation").enum) == GRANT_OPERATIONS


@pytest.mark.parametrize(
    "arn",
    [
        "",
        "alice",
        ACCOUNT.account_id,
        ACCOUNT.user_arn("nobody"),
        ACCOUNT.user_arn("*"),
        ACCOUNT.user_arn(""),
        "arn:aws:iam::000000000000:user/alice",
        "arn:envfs:iam::111111111111:user/alice",
        "arn:envfs:iam::111111111111:root",
        "arn:envfs:iam::000000000000:role/alice",
    ],
)
def test_a_principal_that_is_none(engine: Engine, key: str, arn: str) -> None:
    with pytest.raises(InvalidArn):
        engine.create_grant(OWNER, key, arn, ["Decrypt"])
    if arn:
        with pytest.raises(InvalidArn):
            engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"], retiring=arn)
    assert grants_of(engine, key) == []


def test_a_user_who_is_named_is_pinned(engine: Engine, key: str, people: People) -> None:
    engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"], retiring=BOB.arn)
    assert not engine.confirm_pin(4711, "alice")
    assert not engine.confirm_pin(4711, "bob")
    people.uids["alice"] = 4711
    with pytest.raises(InvalidArn, match="had the uid 1001"):
        engine.create_grant(OWNER, key, ALICE.arn, ["Encrypt"])


def test_a_name_makes_the_request_repeatable(engine: Engine, key: str) -> None:
    def create(operations: list[str], name: str = "retry") -> tuple[str, str]:
        made = engine.create_grant(OWNER, key, ALICE.arn, operations, name=name)
        return made.grant_id, made.token

    first, token = create(["Decrypt", "Encrypt"])
    again, other_token = create(["Encrypt", "Decrypt"])
    assert again == first
    assert other_token != token
    assert create(["Decrypt"])[0] != first  # other terms: another grant, as names need not be unique
    assert create(["Decrypt", "Encrypt"], "other")[0] != first
    assert create(["Decrypt"], "")[0] != create(["Decrypt"], "")[0]
    assert len(grants_of(engine, key)) == 5


def test_there_is_a_limit(engine: Engine, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grants_module, "MAX_GRANTS", 2)
    engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"], name="one")
    engine.create_grant(OWNER, key, ALICE.arn, ["Encrypt"])
    with pytest.raises(LimitExceeded):
        engine.create_grant(OWNER, key, BOB.arn, ["Encrypt"])
    engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"], name="one")  # a retry is no new one


def test_who_may_create_grants(engine: Engine, key: str) -> None:
    with pytest.raises(AccessDenied):
        engine.create_grant(ALICE, key, ALICE.arn, ["Decrypt"])
    engine.put_key_policy(OWNER, key, policy(owner_statement(), statement("Allow", ALICE.arn, "kms:CreateGrant")))
    engine.create_grant(ALICE, key, BOB.arn, ["Decrypt"])  # which alice herself may not
    assert may_decrypt(engine, key, BOB)
    assert not may_decrypt(engine, key, ALICE)


def test_the_holder_of_a_grant_can_pass_on_what_he_has(engine: Engine, key: str) -> None:
    engine.create_grant(
        OWNER, key, ALICE.arn, ["CreateGrant", "Decrypt", "Encrypt"], constraints=GrantConstraints(subset=IT)
    )
    for operations, constraints in (
        (["Decrypt", "GenerateDataKey"], GrantConstraints(subset=IT)),
        (["Decrypt"], None),
        (["Decrypt"], GrantConstraints(subset={"Purpose": "Test"})),
        (["Decrypt"], GrantConstraints(equals={"Department": "it"})),
    ):
        with pytest.raises(AccessDenied):
            engine.create_grant(ALICE, key, BOB.arn, operations, constraints=constraints)
    engine.create_grant(ALICE, key, BOB.arn, ["Decrypt"], constraints=GrantConstraints(equals=IT))
    engine.create_grant(ALICE, key, ROOT.arn, ["Encrypt"], constraints=GrantConstraints(subset=IT | {"Purpose": "T"}))
    assert may_decrypt(engine, key, BOB, IT)
    assert not may_decrypt(engine, key, BOB, IT | {"Purpose": "T"})


def test_an_exact_constraint_cannot_be_loosened(engine: Engine, key: str) -> None:
    engine.create_grant(OWNER, key, ALICE.arn, ["CreateGrant", "Decrypt"], constraints=GrantConstraints(equals=IT))
    for constraints in (GrantConstraints(subset=IT), GrantConstraints(equals=IT | {"Purpose": "T"}), None):
        with pytest.raises(AccessDenied):
            engine.create_grant(ALICE, key, BOB.arn, ["Decrypt"], constraints=constraints)
    engine.create_grant(ALICE, key, BOB.arn, ["Decrypt"], constraints=GrantConstraints(equals=IT))


@pytest.mark.parametrize(
    ("condition", "allowed"),
    [
        ({"StringEquals": {"kms:GranteePrincipal": ALICE.arn}}, True),
        ({"StringEquals": {"kms:GranteePrincipal": BOB.arn}}, False),
        ({"StringEquals": {"kms:RetiringPrincipal": BOB.arn}}, True),
        ({"Null": {"kms:RetiringPrincipal": "true"}}, False),
        ({"ForAllValues:StringEquals": {"kms:GrantOperations": ["Encrypt", "Decrypt", "Sign"]}}, True),
        ({"ForAllValues:StringEquals": {"kms:GrantOperations": ["Encrypt"]}}, False),
        ({"ForAnyValue:StringEquals": {"kms:GrantOperations": ["Encrypt"]}}, True),
        ({"StringEquals": {"kms:GrantConstraintType": "EncryptionContextSubset"}}, True),
        ({"StringEquals": {"kms:GrantConstraintType": "EncryptionContextEquals"}}, False),
        ({"Bool": {"kms:GrantIsForAWSResource": True}}, False),
        ({"Bool": {"kms:GrantIsForAWSResource": False}}, True),
        ({"StringEquals": {"kms:EncryptionContext:Department": "IT"}}, True),
        ({"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": "Department"}}, True),
        ({"StringEquals": {"kms:EncryptionContext:Department": "HR"}}, False),
    ],
)
def test_conditions_see_the_grant_that_is_asked_for(
    engine: Engine, key: str, condition: dict[str, Any], allowed: bool
) -> None:
    allow = statement("Allow", BOB.arn, "kms:CreateGrant", Condition=condition)
    engine.put_key_policy(OWNER, key, policy(owner_statement(), allow))

    def create() -> None:
        constraints = GrantConstraints(subset=IT)
        engine.create_grant(BOB, key, ALICE.arn, ["Encrypt", "Decrypt"], retiring=BOB.arn, constraints=constraints)

    if allowed:
        create()
    else:
        with pytest.raises(AccessDenied):
            create()


def test_grants_through_the_filesystem_alone(engine: Engine, key: str) -> None:
    condition = {"Bool": {"kms:GrantIsForAWSResource": True}}
    actions = ["kms:CreateGrant", "kms:ListGrants", "kms:RevokeGrant"]
    allow = statement("Allow", ALICE.arn, actions, Condition=condition)
    engine.put_key_policy(OWNER, key, policy(owner_statement(), allow))
    through = RequestFacts(via_service="envfs")
    with pytest.raises(AccessDenied):
        engine.create_grant(ALICE, key, BOB.arn, ["Decrypt"])
    made = engine.create_grant(ALICE, key, BOB.arn, ["Decrypt"], facts=through)
    with pytest.raises(AccessDenied):
        engine.list_grants(ALICE, key)
    assert len(engine.list_grants(ALICE, key, facts=through)[0]) == 1
    with pytest.raises(AccessDenied):
        engine.revoke_grant(ALICE, key, made.grant_id)
    engine.revoke_grant(ALICE, key, made.grant_id, through)


def test_the_retiring_principal_the_grantee_and_the_account_can_retire(engine: Engine, key: str) -> None:
    for who, operation, retiring in (
        (BOB, "Encrypt", BOB.arn),
        (BOB, "Encrypt", ACCOUNT.group_arn("staff")),
        (ALICE, "RetireGrant", ""),
        (OWNER, "Encrypt", ""),
        (OWNER, "Encrypt", ACCOUNT.root_arn),
    ):
        made = engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt", operation], retiring=retiring)
        engine.retire_grant(who, key_id=key, grant_id=made.grant_id)
        assert grants_of(engine, key) == []


def test_nobody_else_can_retire(engine: Engine, key: str) -> None:
    made = engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"], retiring=BOB.arn)
    # A key policy's Allow has no effect on kms:RetireGrant.
    engine.put_key_policy(OWNER, key, policy(owner_statement(), statement("Allow", [ALICE.arn, ROOT.arn], "kms:*")))
    for who in (ALICE, ROOT):
        with pytest.raises(AccessDenied):
            engine.retire_grant(who, token=made.token)
    assert grants_of(engine, key) == [made.grant_id]


def test_a_deny_of_retiring_works(engine: Engine, key: str) -> None:
    made = engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"], retiring=BOB.arn)
    engine.put_key_policy(OWNER, key, policy(owner_statement(), statement("Deny", BOB.arn, "kms:RetireGrant")))
    with pytest.raises(AccessDenied):
        engine.retire_grant(BOB, token=made.token)


def test_the_account_can_delegate_retiring(engine: Engine, key: str) -> None:
    made = engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"])
    engine.put_identity_policy(OWNER, BOB.arn, "retire", policy(statement("Allow", None, "kms:RetireGrant")))
    engine.retire_grant(BOB, token=made.token)


def test_a_grant_to_retire_is_named_in_one_way(engine: Engine, key: str) -> None:
    made = engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"])
    unnamed: list[dict[str, Any]] = [
        {},
        {"key_id": key},
        {"grant_id": made.grant_id},
        {"token": made.token, "key_id": key, "grant_id": made.grant_id},
    ]
    for names in unnamed:
        with pytest.raises(Validation):
            engine.retire_grant(OWNER, **names)
    other = engine.create_key(OWNER).key_id
    with pytest.raises(NotFound):
        engine.retire_grant(OWNER, key_id=other, grant_id=made.grant_id)
    engine.retire_grant(OWNER, token=made.token)
    with pytest.raises(NotFound):
        engine.retire_grant(OWNER, token=made.token)
    with pytest.raises(NotFound):
        engine.retire_grant(OWNER, key_id=key, grant_id=made.grant_id)


def test_revoking_is_a_matter_of_the_key_s_policy(engine: Engine, key: str) -> None:
    made = engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt", "RetireGrant"], retiring=ALICE.arn)
    with pytest.raises(AccessDenied):
        engine.revoke_grant(ALICE, key, made.grant_id)
    engine.put_key_policy(OWNER, key, policy(owner_statement(), statement("Allow", BOB.arn, "kms:RevokeGrant")))
    with pytest.raises(InvalidGrantId):
        engine.revoke_grant(BOB, key, "0123")
    with pytest.raises(NotFound):
        engine.revoke_grant(BOB, key, "00" * 32)
    engine.revoke_grant(BOB, key, made.grant_id)
    assert not may_decrypt(engine, key, ALICE)
    with pytest.raises(NotFound):
        engine.revoke_grant(BOB, key, made.grant_id)


def test_no_alias_where_aws_takes_none(engine: Engine, key: str) -> None:
    engine.create_alias(OWNER, "alias/pay", key)
    for name, error in (("alias/pay", NotFound), (ACCOUNT.alias_arn("alias/pay"), InvalidArn)):
        with pytest.raises(error):
            engine.create_grant(OWNER, name, ALICE.arn, ["Decrypt"])
        with pytest.raises(error):
            engine.list_grants(OWNER, name)
        with pytest.raises(error):
            engine.revoke_grant(OWNER, name, "00" * 32)


def test_pages_of_grants(engine: Engine, key: str) -> None:
    made = sorted(engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"]).grant_id for _ in range(5))
    found: list[str] = []
    marker = None
    for size in (2, 2, 1):
        page, marker = engine.list_grants(OWNER, key, limit=2, marker=marker)
        assert len(page) == size
        found += [grant.grant_id for grant in page]
    assert marker is None
    assert found == made
    for limit in (0, 101):
        with pytest.raises(Validation):
            engine.list_grants(OWNER, key, limit=limit)
    with pytest.raises(InvalidMarker):
        engine.list_grants(OWNER, key, marker="nonsense")


def test_filters(engine: Engine, key: str) -> None:
    mine = engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"]).grant_id
    his = engine.create_grant(OWNER, key, BOB.arn, ["Decrypt"]).grant_id

    def listed(**filters: str) -> list[str]:
        return [grant.grant_id for grant in engine.list_grants(OWNER, key, **filters)[0]]  # type: ignore[arg-type]

    assert listed(grantee=ALICE.arn) == [mine]
    assert listed(grant_id=his) == [his]
    assert listed(grant_id=his, grantee=ALICE.arn) == []
    assert listed(grant_id="00" * 32) == []
    with pytest.raises(InvalidGrantId):
        listed(grant_id="x")
    with pytest.raises(AccessDenied):
        engine.list_grants(ALICE, key)


def test_retirable_grants_of_all_keys(engine: Engine, key: str) -> None:
    other = engine.create_key(OWNER).key_id
    for one in (key, other):
        engine.create_grant(OWNER, one, ALICE.arn, ["Decrypt"], retiring=BOB.arn)
        engine.create_grant(OWNER, one, ALICE.arn, ["Decrypt"], retiring=ROOT.arn)
    first, marker = engine.list_retirable_grants(OWNER, BOB.arn, limit=1)
    second, end = engine.list_retirable_grants(OWNER, BOB.arn, limit=1, marker=marker)
    assert end is None
    assert {grant.key_arn for grant in first + second} == {ACCOUNT.key_arn(_raw(one)) for one in (key, other)}
    assert engine.list_retirable_grants(OWNER, ALICE.arn) == ((), None)
    with pytest.raises(InvalidArn):
        engine.list_retirable_grants(OWNER, "bob")
    # The resource of the permission is the retiring principal.
    with pytest.raises(AccessDenied):
        engine.list_retirable_grants(BOB, BOB.arn)
    allow = statement("Allow", None, "kms:ListRetirableGrants") | {"Resource": BOB.arn}
    engine.put_identity_policy(OWNER, BOB.arn, "list", policy(allow))
    assert len(engine.list_retirable_grants(BOB, BOB.arn)[0]) == 2
    with pytest.raises(AccessDenied):
        engine.list_retirable_grants(BOB, ROOT.arn)


def _raw(key_id: str) -> bytes:
    return bytes.fromhex(key_id.replace("-", ""))


def test_tokens(engine: Engine, key: str, tmp_path: Path) -> None:
    made = engine.create_grant(OWNER, key, ALICE.arn, ["GenerateDataKey"])
    engine.generate_data_key(ALICE, key, {}, RequestFacts(grant_tokens=(made.token,) * 10))
    with pytest.raises(Validation):
        engine.generate_data_key(ALICE, key, {}, RequestFacts(grant_tokens=(made.token,) * 11))
    with open_kms(make_kms(tmp_path / "other")) as stranger:
        theirs = stranger.create_grant(OWNER, stranger.create_key(OWNER).key_id, ALICE.arn, ["Decrypt"]).token
    swapped = made.token[:-1] + ("A" if made.token[-1] != "A" else "B")
    for token in ("", "x", made.token[:-2], made.token + "AA", made.token + "=", swapped, theirs, "ä" * 20):
        with pytest.raises(InvalidGrantToken):
            engine.generate_data_key(ALICE, key, {}, RequestFacts(grant_tokens=(made.token, token)))
        with pytest.raises(InvalidGrantToken):
            engine.retire_grant(OWNER, token=token)
    # A token is no permission of its own.
    engine.revoke_grant(OWNER, key, made.grant_id)
    with pytest.raises(AccessDenied):
        engine.generate_data_key(ALICE, key, {}, RequestFacts(grant_tokens=(made.token,)))
    with pytest.raises(AccessDenied):
        engine.generate_data_key(BOB, key, {}, RequestFacts(grant_tokens=(made.token,)))


def test_records_name_the_grant_and_never_a_token(engine: Engine, key: str, home: Path) -> None:
    made = engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"], constraints=GrantConstraints(equals=IT), name="n")
    assert may_decrypt(engine, key, ALICE, IT)
    engine.describe_key(OWNER, key, RequestFacts(grant_tokens=(made.token,)))
    engine.retire_grant(OWNER, token=made.token)
    records = {record["eventName"]: record for record in audit_records(home)}
    created = records["CreateGrant"]
    assert created["responseElements"] == {"keyId": ACCOUNT.key_arn(_raw(key)), "grantId": made.grant_id}
    assert created["requestParameters"] == {
        "keyId": ACCOUNT.key_arn(_raw(key)),
        "requestedKeyId": key,
        "granteePrincipal": ALICE.arn,
        "operations": ["Decrypt"],
        "constraints": {"encryptionContextEquals": IT},
        "name": "n",
    }
    (decision,) = records["Decrypt"]["envfs"]["decisions"]
    assert decision == {"allowed": True, "reason": "grant", "statements": [], "grant": made.grant_id}
    assert records["RetireGrant"]["requestParameters"]["grantId"] == made.grant_id
    assert records["DescribeKey"]["responseElements"] is None
    raw = b"".join(path.read_bytes() for path in (home / "audit").iterdir())
    assert made.token.encode() not in raw


def test_explain_names_the_grant(engine: Engine, key: str) -> None:
    made = engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"])
    decision = engine.explain(ALICE, "kms:Decrypt", key, {})
    assert (decision.allowed, decision.reason, decision.grant) == (True, Reason.GRANT, made.grant_id)
    assert decision.text == f"allowed by grant {made.grant_id}"
    assert engine.explain(BOB, "kms:Decrypt", key, {}).text == "denied: no statement and no grant allows it"


def test_a_deny_is_stronger_than_a_grant(engine: Engine, key: str) -> None:
    engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"])
    engine.put_identity_policy(OWNER, ALICE.arn, "no", policy(statement("Deny", None, "kms:Decrypt")))
    assert not may_decrypt(engine, key, ALICE)


def test_a_dry_run_tells_and_does_nothing(engine: Engine, key: str, home: Path) -> None:
    with pytest.raises(DryRunOperation):
        engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"], facts=DRY)
    with pytest.raises(AccessDenied):
        engine.create_grant(ALICE, key, ALICE.arn, ["Decrypt"], facts=DRY)
    with pytest.raises(InvalidArn):
        engine.create_grant(OWNER, key, ACCOUNT.user_arn("nobody"), ["Decrypt"], facts=DRY)
    assert grants_of(engine, key) == []
    made = engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"])
    with pytest.raises(DryRunOperation):
        engine.revoke_grant(OWNER, key, made.grant_id, DRY)
    with pytest.raises(DryRunOperation):
        engine.retire_grant(OWNER, token=made.token, facts=DRY)
    assert grants_of(engine, key) == [made.grant_id]
    assert [record.get("errorCode") for record in audit_records(home) if record["eventName"] == "RetireGrant"] == [
        "DryRunOperationException"
    ]


def test_states_of_the_key(engine: Engine, key: str) -> None:
    made = [engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"]) for _ in range(4)]
    for state, error in (("Disabled", Disabled), ("PendingDeletion", InvalidState)):
        with engine._store.transaction() as transaction:
            row = engine._store.get(KEYS, _raw(key))
            assert row is not None
            transaction.put(KEYS, row._replace(state=state))
        with pytest.raises(error):
            engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"])
        engine.list_grants(OWNER, key)
        engine.retire_grant(OWNER, token=made.pop().token)
        engine.revoke_grant(OWNER, key, made.pop().grant_id)


def test_service_managed_keys_have_grants_through_the_filesystem_only(engine: Engine) -> None:
    key = engine.service_managed_key("alias/envfs/files")
    with pytest.raises(AccessDenied):
        engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"])
    made = engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"], facts=RequestFacts(via_service="envfs"))
    assert len(engine.list_grants(OWNER, key)[0]) == 1
    with pytest.raises(AccessDenied):
        engine.revoke_grant(BOB, key, made.grant_id)
    engine.revoke_grant(OWNER, key, made.grant_id)


def test_somebody_else_was_quicker(home: Path, engine: Engine, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was allowed before the transaction is decided again in it, with the conditions' facts."""
    deny = statement(
        "Deny", ALICE.arn, "kms:CreateGrant", Condition={"StringEquals": {"kms:GranteePrincipal": BOB.arn}}
    )
    allow = statement("Allow", ALICE.arn, "kms:CreateGrant")
    engine.put_key_policy(OWNER, key, policy(owner_statement(), allow))
    with open_kms(home) as second:
        prepare = second._recorder.prepare

        def interfere() -> None:
            engine.put_key_policy(OWNER, key, policy(owner_statement(), allow, deny))
            prepare()

        monkeypatch.setattr(second._recorder, "prepare", interfere)
        with pytest.raises(AccessDenied):
            second.create_grant(ALICE, key, BOB.arn, ["Decrypt"])
    assert grants_of(engine, key) == []


def test_a_star_is_somebody_s_name(engine: Engine, key: str, people: People) -> None:
    """Grantees are names, never patterns."""
    people.uids["a.c"] = 1009
    engine.create_grant(OWNER, key, ACCOUNT.user_arn("a.c"), ["Decrypt"])
    assert may_decrypt(engine, key, person("a.c", 1009))
    assert not may_decrypt(engine, key, person("abc", 1010))


def test_a_grant_asks_no_questions_about_the_way(engine: Engine, key: str) -> None:
    engine.create_grant(OWNER, key, ALICE.arn, ["GenerateDataKey"])
    for facts in (NO_FACTS, replace(NO_FACTS, via_service="envfs"), replace(NO_FACTS, source_ip="10.0.0.1")):
        engine.generate_data_key(ALICE, key, CONTEXT, facts)


def test_grants_are_read_when_no_policy_decides(engine: Engine, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that a policy allows do not pay for the grants of a key, nor for changes of them."""
    engine.create_grant(OWNER, key, ALICE.arn, ["Decrypt"])
    blob = engine.generate_data_key(OWNER, key, {}).blob
    read: list[bytes] = []
    load = engine._catalogue._load_grants

    def watched(key_id: bytes) -> list[Grant]:
        read.append(key_id)
        return load(key_id)

    monkeypatch.setattr(engine._catalogue, "_load_grants", watched)
    engine.decrypt(OWNER, blob, {})
    assert read == []
    for _ in range(2):
        engine.decrypt(ALICE, blob, {})
    assert len(read) == 1
    engine.create_grant(OWNER, key, BOB.arn, ["Decrypt"])
    engine.decrypt(BOB, blob, {})
    assert len(read) == 2
    engine.update_key_description(OWNER, key, "another table")
    engine.decrypt(BOB, blob, {})
    assert len(read) == 2
