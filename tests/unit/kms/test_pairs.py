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
from envfs.kms.material.generate import Material, generate, public_bytes
from envfs.kms.material.keys import load_private_key
from envfs.kms.material.specs import SPECS
from envfs.kms.model import RequestFacts
from envfs.kms.operations import keys, pairs
from tests.unit.kms.kit import ALICE, BOB, CONTEXT, OWNER, audit_records, open_kms, owner_statement, policy, statement

if TYPE_CHECKING:
    from collections.abc import Callable
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


class Slow:
    """`generate`, beside which something else happens."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self._meanwhile = meanwhile
        self.made: list[Material] = []

    def __call__(self, spec: str) -> Material:
        material = generate(spec)
        self.made.append(material)
        self._meanwhile()
        return material


def test_everything_is_checked_before_anything_is_made(
    engine: Engine, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(lambda: None)
    monkeypatch.setattr(pairs, "generate", slow)
    with pytest.raises(AccessDenied):
        engine.generate_data_key_pair(BOB, key, "RSA_4096", CONTEXT)
    with pytest.raises(DryRunOperation):
        engine.generate_data_key_pair(ALICE, key, "RSA_4096", CONTEXT, RequestFacts(dry_run=True))
    assert slow.made == []


def test_what_changed_while_a_pair_was_made_counts(
    engine: Engine, key: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_kms(home) as other:
        slow = Slow(lambda: other.disable_key(OWNER, key))
        monkeypatch.setattr(pairs, "generate", slow)
        with pytest.raises(Disabled):
            engine.generate_data_key_pair(ALICE, key, "ECC_NIST_P256", CONTEXT)
    assert slow.made[0].private.is_wiped
    errors = [record.get("errorCode") for record in audit_records(home)]
    assert "DisabledException" in errors


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


def test_a_right_that_was_withdrawn_while_a_key_was_made(
    engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow = '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"kms:CreateKey","Resource":"*"}}'
    engine.put_identity_policy(OWNER, BOB.arn, "create", allow)
    with open_kms(home) as other:
        slow = Slow(lambda: other.delete_identity_policy(OWNER, BOB.arn, "create"))
        monkeypatch.setattr(keys, "generate", slow)
        with pytest.raises(AccessDenied):
            engine.create_key(BOB, spec="ECC_NIST_P256", usage="SIGN_VERIFY")
    assert slow.made[0].private.is_wiped
    assert "AccessDeniedException" in [record.get("errorCode") for record in audit_records(home)]
