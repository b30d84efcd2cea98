from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from envfs.crypto.secret import Secret
from envfs.errors import (
    AccessDenied,
    Disabled,
    DryRunOperation,
    InvalidCiphertext,
    NotFound,
    UnsupportedOperation,
    Validation,
)
from envfs.kms.material.generate import generate, public_bytes
from envfs.kms.material.keys import load_private_key
from envfs.kms.material.specs import SPECS
from envfs.kms.model import DataKeyPair, RequestFacts
from tests.unit.kms.kit import ALICE, BOB, CONTEXT, OWNER, audit_records, owner_statement, policy, statement

if TYPE_CHECKING:
    from pathlib import Path

    from envfs.kms.engine import Engine

# Without RSA_3072: it takes long to make, and is between the two others.
PAIR_SPECS = sorted(spec.name for spec in SPECS.values() if spec.data_key_pair and spec.name != "RSA_3072")


@pytest.fixture
def key(engine: Engine) -> str:
    made = engine.create_key(OWNER, policy=policy(owner_statement(), statement("Allow", ALICE.arn, "kms:*")))
    return made.key_id


@pytest.mark.parametrize("spec", PAIR_SPECS)
def test_the_private_key_comes_back_through_decrypt(engine: Engine, key: str, spec: str) -> None:
    pair = engine.generate_data_key_pair(ALICE, key, spec, CONTEXT)
    assert (pair.pair_spec, pair.key_arn) == (spec, engine.describe_key(OWNER, key).arn)
    assert len(pair.private_blob) <= 6144
    assert len(pair.material_id) == 64
    assert engine.decrypt(ALICE, pair.private_blob, CONTEXT) == pair.private_plaintext
    private = load_private_key(spec, pair.private_plaintext, trusted=True)
    assert public_bytes(private.public_key()) == pair.public_key
    with pytest.raises(InvalidCiphertext):
        engine.decrypt(ALICE, pair.private_blob, {})


def test_without_plaintext(engine: Engine, key: str) -> None:
    pair = engine.generate_data_key_pair_without_plaintext(ALICE, key, "ECC_NIST_P384", CONTEXT)
    assert not hasattr(pair, "private_plaintext")
    private = load_private_key("ECC_NIST_P384", engine.decrypt(ALICE, pair.private_blob, CONTEXT))
    assert public_bytes(private.public_key()) == pair.public_key


def test_no_two_pairs_are_alike(engine: Engine, key: str) -> None:
    first, second = (engine.generate_data_key_pair(ALICE, key, "ECC_NIST_P256", CONTEXT) for _ in range(2))
    assert first.private_plaintext != second.private_plaintext


def test_specs_that_are_refused(engine: Engine, key: str) -> None:
    for spec, error in [
        ("SM2", UnsupportedOperation), ("ML_KEM_512", UnsupportedOperation), ("ML_DSA_44", Validation),
        ("HMAC_256", Validation), ("nothing", Validation),
    ]:  # fmt: skip
        with pytest.raises(error):
            engine.generate_data_key_pair(ALICE, key, spec, CONTEXT)


def test_who_may(engine: Engine, key: str) -> None:
    with pytest.raises(AccessDenied):
        engine.generate_data_key_pair(BOB, key, "ECC_NIST_P256", CONTEXT)
    only = statement("Allow", BOB.arn, "kms:GenerateDataKeyPairWithoutPlaintext")
    engine.put_key_policy(OWNER, key, policy(owner_statement(), only))
    engine.generate_data_key_pair_without_plaintext(BOB, key, "ECC_NIST_P256", CONTEXT)
    with pytest.raises(AccessDenied):
        engine.generate_data_key_pair(BOB, key, "ECC_NIST_P256", CONTEXT)
    with pytest.raises(NotFound):
        engine.generate_data_key_pair(BOB, "alias/none", "ECC_NIST_P256", CONTEXT)


def test_everything_is_checked_before_anything_is_made(engine: Engine, key: str) -> None:
    steps = engine.data_key_pair_steps(BOB, key, "RSA_4096", CONTEXT)
    with pytest.raises(AccessDenied):
        next(steps)
    with pytest.raises(DryRunOperation):
        next(engine.data_key_pair_steps(ALICE, key, "RSA_4096", CONTEXT, RequestFacts(dry_run=True)))


def test_what_changed_while_a_pair_was_made_counts(engine: Engine, key: str, home: Path) -> None:
    steps = engine.data_key_pair_steps(ALICE, key, "ECC_NIST_P256", CONTEXT)
    assert next(steps) == "ECC_NIST_P256"
    engine.disable_key(OWNER, key)
    engine.describe_key(OWNER, key)  # other calls are served in between
    material = generate("ECC_NIST_P256")
    with pytest.raises(Disabled):
        steps.send(material)
    assert material.private.is_wiped
    record = audit_records(home)[-1]
    assert (record["eventName"], record["errorCode"]) == ("GenerateDataKeyPair", "DisabledException")


def test_steps_end_with_the_pair(engine: Engine, key: str) -> None:
    steps = engine.data_key_pair_steps(ALICE, key, "ECC_NIST_P256", CONTEXT)
    material = generate(next(steps))
    with pytest.raises(StopIteration) as end:
        steps.send(material)
    assert isinstance(end.value.value, DataKeyPair)
    assert end.value.value.public_key == material.public_key


def test_steps_that_are_given_up_leave_nothing(engine: Engine, key: str, home: Path) -> None:
    before = len(audit_records(home))
    steps = engine.data_key_pair_steps(ALICE, key, "ECC_NIST_P256", CONTEXT)
    next(steps)
    steps.close()
    assert len(audit_records(home)) == before


def test_the_record(engine: Engine, key: str, home: Path) -> None:
    pair = engine.generate_data_key_pair(ALICE, key, "ECC_NIST_P256", {"a": "b"})
    record = audit_records(home)[-1]
    assert (record["eventName"], record["readOnly"]) == ("GenerateDataKeyPair", True)
    assert record["requestParameters"] == {
        "keyId": pair.key_arn, "encryptionContext": {"a": "b"}, "requestedKeyId": key, "keyPairSpec": "ECC_NIST_P256",
    }  # fmt: skip


def test_a_context_that_cannot_be(engine: Engine, key: str) -> None:
    with pytest.raises(Validation):
        engine.generate_data_key_pair(ALICE, key, "ECC_NIST_P256", {"": "x"})


def test_the_caller_wipes_what_he_got(engine: Engine, key: str) -> None:
    pair = engine.generate_data_key_pair(ALICE, key, "ECC_NIST_P256", CONTEXT)
    assert isinstance(pair.private_plaintext, Secret)
    assert not pair.private_plaintext.is_wiped


def test_a_right_that_was_withdrawn_while_a_key_was_made(engine: Engine, home: Path) -> None:
    allow = '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"kms:CreateKey","Resource":"*"}}'
    engine.put_identity_policy(OWNER, BOB.arn, "create", allow)
    steps = engine.create_key_steps(BOB, spec="ECC_NIST_P256", usage="SIGN_VERIFY")
    material = generate(next(steps))
    engine.delete_identity_policy(OWNER, BOB.arn, "create")
    engine.list_keys(OWNER)  # other calls are served in between
    with pytest.raises(AccessDenied):
        steps.send(material)
    assert material.private.is_wiped
    assert audit_records(home)[-1]["errorCode"] == "AccessDeniedException"
