"""ReEncrypt, and the aliases and other ways in which keys are named in requests."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from envfs.errors import (
    AccessDenied,
    IncorrectKey,
    InvalidCiphertext,
    InvalidKeyUsage,
    InvalidState,
    LimitExceeded,
    NotFound,
    Validation,
)
from envfs.format.blob import Blob
from tests.unit.kms.kit import (
    ACCOUNT,
    ALICE,
    BOB,
    CONTEXT,
    OWNER,
    audit_records,
    owner_statement,
    policy,
    statement,
    users_policy,
)

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from envfs.kms.engine import Engine
    from tests.unit.kms.kit import Clock

OTHER = {"purpose": "archive"}


def make(engine: Engine, *actions: str, **condition: Any) -> str:
    """A key on which alice may do these; the condition is StringEquals, with `kms:` before each name."""
    more = {"Condition": {"StringEquals": {f"kms:{name}": value for name, value in condition.items()}}}
    allow = statement("Allow", ALICE.arn, [f"kms:{action}" for action in actions], **(more if condition else {}))
    return engine.create_key(OWNER, policy=policy(owner_statement(), allow)).key_id


def seal(engine: Engine, key: str) -> bytes:
    return engine.encrypt(OWNER, key, b"secret", CONTEXT).blob


def test_from_one_key_and_context_to_others(home: Path, engine: Engine) -> None:
    source, destination = make(engine, "ReEncryptFrom"), make(engine, "ReEncryptTo")
    blob = seal(engine, source)
    made = engine.re_encrypt(ALICE, blob, destination, source_context=CONTEXT, destination_context=OTHER)
    assert bytes(engine.decrypt(OWNER, made.blob, OTHER).expose()) == b"secret"
    keys = [engine.describe_key(OWNER, key) for key in (source, destination)]
    assert (made.source_arn, made.arn) == (keys[0].arn, keys[1].arn)
    assert (made.source_material_id, made.material_id) == (keys[0].current_material_id, keys[1].current_material_id)
    record = next(one for one in reversed(audit_records(home)) if one["eventName"] == "ReEncrypt")
    assert {one["ARN"] for one in record["resources"]} == {key.arn for key in keys}
    assert record["requestParameters"]["sourceEncryptionContext"] == dict(CONTEXT)
    assert record["requestParameters"]["destinationEncryptionContext"] == OTHER
    assert [one["allowed"] for one in record["envfs"]["decisions"]] == [True, True]
    assert b"secret" not in (home / "audit" / f"{next((home / 'audit').iterdir()).name}").read_bytes()


@pytest.mark.parametrize(
    ("first", "second"),
    [(["ReEncryptFrom"], []), ([], ["ReEncryptTo"]), (["ReEncryptTo"], ["ReEncryptFrom"]), (["Decrypt"], ["Encrypt"])],
)
def test_it_takes_a_permission_on_either_key(engine: Engine, first: list[str], second: list[str]) -> None:
    source, destination = (make(engine, "DescribeKey", *actions) for actions in (first, second))
    with pytest.raises(AccessDenied):
        engine.re_encrypt(ALICE, seal(engine, source), destination, source_context=CONTEXT, destination_context={})


def test_each_side_is_decided_with_its_own_context(engine: Engine) -> None:
    condition = {"StringEquals": {"kms:EncryptionContext:purpose": "archive"}}
    text = policy(owner_statement(), statement("Allow", ALICE.arn, "kms:ReEncryptTo", Condition=condition))
    destination = engine.create_key(OWNER, policy=text).key_id
    blob = seal(engine, make(engine, "ReEncryptFrom"))
    engine.re_encrypt(ALICE, blob, destination, source_context=CONTEXT, destination_context=OTHER)
    with pytest.raises(AccessDenied):
        engine.re_encrypt(ALICE, blob, destination, source_context=CONTEXT, destination_context=CONTEXT)


def test_a_policy_can_ask_for_the_same_key(engine: Engine) -> None:
    key = make(engine, "ReEncryptFrom", "ReEncryptTo", ReEncryptOnSameKey="true")
    blob = seal(engine, key)
    made = engine.re_encrypt(ALICE, blob, key, source_context=CONTEXT, destination_context=OTHER)
    assert made.source_arn == made.arn
    other = make(engine, "ReEncryptTo")
    with pytest.raises(AccessDenied):
        engine.re_encrypt(ALICE, blob, other, source_context=CONTEXT, destination_context=OTHER)


def test_an_unknown_and_a_forbidden_source_look_alike(engine: Engine) -> None:
    destination = make(engine, "ReEncryptTo")
    forbidden = seal(engine, make(engine, "Decrypt"))
    unknown = replace(Blob.parse(forbidden), key_id=bytes(16)).serialise()
    messages = set()
    for blob in (forbidden, unknown):
        with pytest.raises(AccessDenied) as caught:
            engine.re_encrypt(ALICE, blob, destination, source_context=CONTEXT, destination_context={})
        messages.add((str(caught.value), caught.value.hint, caught.value.__cause__))
    assert len(messages) == 1
    for blob in (forbidden, unknown):
        with pytest.raises(NotFound):
            engine.re_encrypt(ALICE, blob, "alias/none", source_context=CONTEXT, destination_context={})


def test_another_context_or_key_than_it_was_made_with(engine: Engine) -> None:
    key = make(engine, "ReEncryptFrom", "ReEncryptTo")
    blob = seal(engine, key)
    with pytest.raises(InvalidCiphertext):
        engine.re_encrypt(ALICE, blob, key, source_context=OTHER, destination_context=OTHER)
    other = make(engine, "ReEncryptFrom")
    with pytest.raises(IncorrectKey):
        engine.re_encrypt(ALICE, blob, key, source_context=CONTEXT, destination_context={}, source_key_id=other)
    engine.create_alias(OWNER, "alias/source", key)
    engine.re_encrypt(ALICE, blob, key, source_context=CONTEXT, destination_context={}, source_key_id="alias/source")


def test_to_an_rsa_key_and_back(engine: Engine) -> None:
    symmetric = engine.create_key(OWNER).key_id
    rsa = engine.create_key(OWNER, spec="RSA_2048", usage="ENCRYPT_DECRYPT").key_id
    oaep = "RSAES_OAEP_SHA_256"
    there = engine.re_encrypt(
        OWNER, seal(engine, symmetric), rsa, source_context=CONTEXT, destination_context={}, destination_algorithm=oaep
    )
    assert (len(there.blob), there.material_id) == (256, "")
    back = engine.re_encrypt(
        OWNER,
        there.blob,
        symmetric,
        source_context={},
        destination_context=OTHER,
        source_key_id=rsa,
        source_algorithm=oaep,
    )
    assert bytes(engine.decrypt(OWNER, back.blob, OTHER).expose()) == b"secret"
    told = engine.decrypt_request(OWNER, there.blob, {}, key_id=rsa, algorithm=oaep)
    assert (bytes(told.plaintext.expose()), told.algorithm, told.material_id) == (b"secret", oaep, "")
    with pytest.raises(Validation, match="does not name its key"):
        engine.decrypt_request(OWNER, there.blob, {}, algorithm=oaep)
    with pytest.raises(Validation, match="symmetric keys only"):
        engine.encrypt(OWNER, rsa, b"x", CONTEXT, algorithm=oaep)
    with pytest.raises(InvalidKeyUsage):
        engine.encrypt(OWNER, symmetric, b"x", {}, algorithm=oaep)
    with pytest.raises(InvalidKeyUsage):
        engine.encrypt(OWNER, rsa, b"x", {})
    with pytest.raises(InvalidKeyUsage):
        engine.generate_data_key(OWNER, rsa, {})


def test_a_data_key_that_nobody_sees(home: Path, engine: Engine) -> None:
    key = make(engine, "GenerateDataKeyWithoutPlaintext")
    made = engine.generate_data_key_without_plaintext(ALICE, key, CONTEXT, number_of_bytes=16)
    assert len(engine.decrypt(OWNER, made.blob, CONTEXT)) == 16
    assert made.material_id == engine.describe_key(OWNER, key).current_material_id
    assert audit_records(home)[1]["requestParameters"]["encryptionContext"] == dict(CONTEXT)
    with pytest.raises(AccessDenied):
        engine.generate_data_key(ALICE, key, CONTEXT)


def test_an_alias_is_repointed(engine: Engine, clock: Clock) -> None:
    old, new = engine.create_key(OWNER), engine.create_key(OWNER)
    engine.create_alias(OWNER, "alias/pay", old.key_id)
    clock.now += 60
    engine.update_alias(OWNER, "alias/pay", new.key_id)
    (alias,) = engine.list_aliases(OWNER)[0]
    assert (alias.target_key_id, alias.updated - alias.created) == (new.key_id, 60)
    assert engine.describe_key(OWNER, "alias/pay").key_id == new.key_id
    engine.schedule_key_deletion(OWNER, new.key_id)
    engine.update_alias(OWNER, "alias/pay", old.key_id)  # the state of the key that it leaves is of no matter
    with pytest.raises(InvalidState):
        engine.update_alias(OWNER, "alias/pay", new.key_id)
    with pytest.raises(NotFound):
        engine.update_alias(OWNER, "alias/none", old.key_id)


def test_an_alias_stays_with_keys_of_its_kind(engine: Engine) -> None:
    symmetric = engine.create_key(OWNER).key_id
    p256 = engine.create_key(OWNER, spec="ECC_NIST_P256", usage="SIGN_VERIFY").key_id
    ed25519 = engine.create_key(OWNER, spec="ECC_NIST_EDWARDS25519", usage="SIGN_VERIFY").key_id
    agreement = engine.create_key(OWNER, spec="ECC_NIST_P256", usage="KEY_AGREEMENT").key_id
    engine.create_alias(OWNER, "alias/sign", p256)
    engine.update_alias(OWNER, "alias/sign", ed25519)
    for other in (symmetric, agreement):
        with pytest.raises(Validation, match="type and usage"):
            engine.update_alias(OWNER, "alias/sign", other)


@pytest.mark.parametrize("missing", ["old", "new", "alias"])
def test_moving_an_alias_takes_three_permissions(engine: Engine, missing: str) -> None:
    old, new = (make(engine, "UpdateAlias" if side != missing else "Decrypt") for side in ("old", "new"))
    engine.create_alias(OWNER, "alias/a", old)
    if missing != "alias":
        resource = ACCOUNT.alias_arn("alias/a")
        engine.put_identity_policy(
            OWNER, ALICE.arn, "p", policy(statement("Allow", None, "kms:UpdateAlias", Resource=resource))
        )
    with pytest.raises(AccessDenied):
        engine.update_alias(ALICE, "alias/a", new)
    assert engine.describe_key(OWNER, "alias/a").key_id == old


def test_an_alias_is_deleted_and_its_key_stays(engine: Engine) -> None:
    key = make(engine, "DeleteAlias")
    engine.create_alias(OWNER, "alias/a", key)
    with pytest.raises(AccessDenied):
        engine.delete_alias(ALICE, "alias/a")
    with pytest.raises(AccessDenied):
        engine.delete_alias(BOB, "alias/none")  # nobody learns which aliases there are
    allow = statement("Allow", None, "kms:DeleteAlias", Resource=ACCOUNT.alias_arn("alias/*"))
    engine.put_identity_policy(OWNER, ALICE.arn, "p", policy(allow))
    engine.delete_alias(ALICE, "alias/a")
    with pytest.raises(NotFound):
        engine.describe_key(OWNER, "alias/a")
    with pytest.raises(NotFound):
        engine.delete_alias(ALICE, "alias/a")
    assert engine.describe_key(OWNER, key).enabled


def test_aliases_of_envfs_itself_stay(engine: Engine) -> None:
    engine.service_managed_key("alias/envfs/volume")
    key = engine.create_key(OWNER).key_id
    with pytest.raises(AccessDenied, match="managed by envfs"):
        engine.delete_alias(OWNER, "alias/envfs/volume")
    with pytest.raises(AccessDenied, match="managed by envfs"):
        engine.update_alias(OWNER, "alias/envfs/volume", key)


def test_a_key_has_at_most_fifty_aliases(engine: Engine) -> None:
    key = engine.create_key(OWNER, policy=users_policy(ALICE)).key_id
    for number in range(50):
        engine.create_alias(OWNER, f"alias/{number}", key)
    with pytest.raises(LimitExceeded):
        engine.create_alias(OWNER, "alias/one-more", key)
