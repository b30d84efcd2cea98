"""Signing, MACs, agreement and asymmetric encryption through the engine: who may, what is refused, what is recorded."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from envfs.crypto.secret import Secret
from envfs.errors import (
    AccessDenied,
    Disabled,
    DryRunOperation,
    IntegrityError,
    Internal,
    InvalidCiphertext,
    InvalidKeyUsage,
    InvalidMac,
    InvalidSignature,
    KmsError,
    UnsupportedOperation,
    Validation,
)
from envfs.kms.material.generate import generate
from envfs.kms.material.keys import load_public_key
from envfs.kms.material.signatures import verify
from envfs.kms.model import NO_FACTS, RequestFacts
from envfs.kms.schema import BACKING_KEYS, KEYS
from tests.unit.kms.kit import ALICE, BOB, OWNER, audit_records, open_kms, owner_statement, policy, statement

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from envfs.kms.engine import Engine
    from envfs.kms.model import Principal

MESSAGE = b"the quick brown fox"
DRY_RUN = RequestFacts(dry_run=True)
USAGES = {"RSA_2048": "SIGN_VERIFY", "HMAC_256": "GENERATE_VERIFY_MAC", "ML_KEM_768": "ENCAPSULATE_DECAPSULATE"}


def make(engine: Engine, spec: str, usage: str | None = None, **more: Any) -> str:
    text = policy(owner_statement(), statement("Allow", ALICE.arn, "kms:*"))
    made = engine.create_key(OWNER, spec=spec, usage=usage or USAGES.get(spec, "SIGN_VERIFY"), policy=text, **more)
    return made.key_id


SIGNING = [
    ("RSA_2048", "RSASSA_PSS_SHA_384"),
    ("RSA_2048", "RSASSA_PKCS1_V1_5_SHA_256"),
    ("ECC_NIST_P256", "ECDSA_SHA_256"),
    ("ECC_NIST_P384", "ECDSA_SHA_384"),
    ("ECC_NIST_P521", "ECDSA_SHA_512"),
    ("ECC_SECG_P256K1", "ECDSA_SHA_256"),
    ("ECC_NIST_EDWARDS25519", "ED25519_SHA_512"),
    ("ML_DSA_44", "ML_DSA_SHAKE_256"),
    ("ML_DSA_65", "ML_DSA_SHAKE_256"),
    ("ML_DSA_87", "ML_DSA_SHAKE_256"),
]


@pytest.mark.parametrize(("spec", "algorithm"), SIGNING)
def test_sign_and_verify(engine: Engine, home: Path, spec: str, algorithm: str) -> None:
    key = make(engine, spec)
    signed = engine.sign(ALICE, key, MESSAGE, algorithm)
    arn = engine.describe_key(OWNER, key).arn
    assert (signed.key_arn, signed.algorithm) == (arn, algorithm)
    assert engine.verify(ALICE, key, MESSAGE, signed.signature, algorithm).key_arn == arn
    with pytest.raises(InvalidSignature):
        engine.verify(ALICE, key, MESSAGE + b".", signed.signature, algorithm)
    public = engine.get_public_key(ALICE, key)
    assert (public.key_arn, public.spec, public.usage) == (arn, spec, "SIGN_VERIFY")
    assert algorithm in public.signing_algorithms
    assert (public.encryption_algorithms, public.key_agreement_algorithms, public.encapsulation_algorithms) == (
        (), (), (),
    )  # fmt: skip
    verify(load_public_key(spec, public.der), algorithm, MESSAGE, signed.signature, "RAW")
    with open_kms(home) as other:
        other.verify(ALICE, key, MESSAGE, other.sign(ALICE, key, MESSAGE, algorithm).signature, algorithm)


def test_signing_a_digest(engine: Engine) -> None:
    key = make(engine, "ECC_NIST_P256")
    digest = hashlib.sha256(MESSAGE).digest()
    signed = engine.sign(ALICE, key, digest, "ECDSA_SHA_256", "DIGEST")
    engine.verify(ALICE, key, MESSAGE, signed.signature, "ECDSA_SHA_256")
    with pytest.raises(Validation):
        engine.sign(ALICE, key, MESSAGE, "ECDSA_SHA_256", "DIGEST")
    with pytest.raises(Validation):
        engine.verify(ALICE, key, MESSAGE, signed.signature, "ECDSA_SHA_256", "EXTERNAL_MU")


@pytest.mark.parametrize("bits", [224, 256, 384, 512])
def test_generate_and_verify_a_mac(engine: Engine, bits: int) -> None:
    key, algorithm = make(engine, f"HMAC_{bits}", "GENERATE_VERIFY_MAC"), f"HMAC_SHA_{bits}"
    made = engine.generate_mac(ALICE, key, MESSAGE, algorithm)
    assert len(made.mac) == bits // 8
    assert engine.verify_mac(ALICE, key, MESSAGE, made.mac, algorithm).key_arn == made.key_arn
    with pytest.raises(InvalidMac):
        engine.verify_mac(ALICE, key, MESSAGE, bytes(bits // 8), algorithm)
    with pytest.raises(InvalidKeyUsage):
        engine.generate_mac(ALICE, key, MESSAGE, "HMAC_SHA_224" if bits != 224 else "HMAC_SHA_256")
    for message in (b"", bytes(4097)):
        with pytest.raises(Validation):
            engine.generate_mac(ALICE, key, message, algorithm)
    with pytest.raises(UnsupportedOperation):
        engine.get_public_key(ALICE, key)


@pytest.mark.parametrize("spec", ["ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521"])
def test_two_keys_derive_the_same_secret(engine: Engine, spec: str) -> None:
    first, second = (make(engine, spec, "KEY_AGREEMENT") for _ in range(2))
    one = engine.derive_shared_secret(ALICE, first, engine.get_public_key(ALICE, second).der)
    two = engine.derive_shared_secret(ALICE, second, engine.get_public_key(ALICE, first).der)
    assert one.secret == two.secret
    assert (one.algorithm, one.origin) == ("ECDH", "AWS_KMS")
    assert engine.get_public_key(ALICE, first).key_agreement_algorithms == ("ECDH",)
    with pytest.raises(Validation):
        engine.derive_shared_secret(ALICE, first, generate("ECC_SECG_P256K1").public_key)


@pytest.mark.parametrize("spec", ["ML_KEM_768", "ML_KEM_1024"])
def test_encapsulate_and_decapsulate(engine: Engine, spec: str) -> None:
    key = make(engine, spec, "ENCAPSULATE_DECAPSULATE")
    made = engine.encapsulate(ALICE, key)
    found = engine.decapsulate(ALICE, key, made.ciphertext)
    assert (found.secret, found.key_arn, found.algorithm) == (made.secret, made.key_arn, "ML_KEM")
    assert engine.get_public_key(ALICE, key).encapsulation_algorithms == ("ML_KEM",)
    with pytest.raises(InvalidCiphertext):
        engine.decapsulate(ALICE, key, made.ciphertext[:-1])


@pytest.mark.parametrize("algorithm", ["RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256"])
def test_rsa_encryption(engine: Engine, algorithm: str) -> None:
    key = make(engine, "RSA_2048", "ENCRYPT_DECRYPT")
    sealed = engine.encrypt(ALICE, key, b"secret", {}, algorithm=algorithm)
    assert (len(sealed.blob), sealed.algorithm) == (256, algorithm)
    found = engine.decrypt_request(ALICE, sealed.blob, {}, key_id=key, algorithm=algorithm)
    assert (found.plaintext, found.algorithm) == (Secret(b"secret"), algorithm)
    refusals: list[tuple[Callable[[], object], type[KmsError]]] = [
        (lambda: engine.encrypt(ALICE, key, bytes(215), {}, algorithm=algorithm), Validation),
        (lambda: engine.encrypt(ALICE, key, b"x", {"a": "b"}, algorithm=algorithm), Validation),
        (lambda: engine.encrypt(ALICE, key, b"x", {}), InvalidKeyUsage),
        (lambda: engine.decrypt_request(ALICE, sealed.blob, {}, algorithm=algorithm), Validation),
        (
            lambda: engine.decrypt_request(ALICE, sealed.blob, {"a": "b"}, key_id=key, algorithm=algorithm),
            Validation,
        ),
        (
            lambda: engine.decrypt_request(ALICE, sealed.blob[:-1], {}, key_id=key, algorithm=algorithm),
            InvalidCiphertext,
        ),
        (lambda: engine.generate_data_key(ALICE, key, {}), InvalidKeyUsage),
        (lambda: engine.generate_data_key_pair(ALICE, key, "ECC_NIST_P256", {}), InvalidKeyUsage),
    ]
    for call, error in refusals:
        with pytest.raises(error):
            call()


def test_re_encryption_between_kinds_of_keys(engine: Engine) -> None:
    rsa, symmetric = make(engine, "RSA_2048", "ENCRYPT_DECRYPT"), make(engine, "SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT")
    sealed = engine.encrypt(ALICE, rsa, b"secret", {}, algorithm="RSAES_OAEP_SHA_256")
    moved = engine.re_encrypt(
        ALICE, sealed.blob, symmetric, source_context={}, destination_context={"a": "b"}, source_key_id=rsa,
        source_algorithm="RSAES_OAEP_SHA_256",
    )  # fmt: skip
    assert engine.decrypt(ALICE, moved.blob, {"a": "b"}) == Secret(b"secret")
    back = engine.re_encrypt(
        ALICE, moved.blob, rsa, source_context={"a": "b"}, destination_context={},
        destination_algorithm="RSAES_OAEP_SHA_1",
    )  # fmt: skip
    found = engine.decrypt_request(ALICE, back.blob, {}, key_id=rsa, algorithm="RSAES_OAEP_SHA_1")
    assert found.plaintext == Secret(b"secret")
    assert back.material_id == ""


def every_use(engine: Engine, key: str, who: Principal, facts: RequestFacts = NO_FACTS) -> list[Callable[[], object]]:
    """All operations of this page on one key; only those of its usage can succeed."""
    return [
        lambda: engine.sign(who, key, MESSAGE, "ECDSA_SHA_256", facts=facts),
        lambda: engine.verify(who, key, MESSAGE, b"x", "ECDSA_SHA_256", facts=facts),
        lambda: engine.generate_mac(who, key, MESSAGE, "HMAC_SHA_256", facts=facts),
        lambda: engine.verify_mac(who, key, MESSAGE, b"x", "HMAC_SHA_256", facts=facts),
        lambda: engine.derive_shared_secret(who, key, generate("ECC_NIST_P256").public_key, facts=facts),
        lambda: engine.encapsulate(who, key, facts=facts),
        lambda: engine.decapsulate(who, key, bytes(1088), facts=facts),
    ]


@pytest.mark.parametrize(
    ("spec", "usage", "possible"),
    [
        ("ECC_NIST_P256", "SIGN_VERIFY", {0, 1}),
        ("HMAC_256", "GENERATE_VERIFY_MAC", {2, 3}),
        ("ECC_NIST_P256", "KEY_AGREEMENT", {4}),
        ("ML_KEM_768", "ENCAPSULATE_DECAPSULATE", {5, 6}),
        ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", set()),
    ],
)
def test_a_key_is_used_for_what_it_is_for_alone(engine: Engine, spec: str, usage: str, possible: set[int]) -> None:
    key = make(engine, spec, usage)
    for number, call in enumerate(every_use(engine, key, ALICE, DRY_RUN)):
        with pytest.raises(DryRunOperation if number in possible else InvalidKeyUsage):
            call()


def test_strangers_learn_nothing_of_a_key(engine: Engine) -> None:
    """Not what it is for, and not in which state it is."""
    key = make(engine, "ECC_NIST_P256")
    engine.disable_key(OWNER, key)
    calls: list[Callable[[], object]] = [*every_use(engine, key, BOB), lambda: engine.get_public_key(BOB, key)]
    for call in calls:
        with pytest.raises(AccessDenied):
            call()
    with pytest.raises(Disabled):
        engine.sign(ALICE, key, MESSAGE, "ECDSA_SHA_256")
    with pytest.raises(Disabled):
        engine.get_public_key(ALICE, key)


def test_a_dry_run_has_no_effect(engine: Engine, home: Path) -> None:
    key = make(engine, "ECC_NIST_P256")
    with pytest.raises(DryRunOperation):
        engine.sign(ALICE, key, MESSAGE, "ECDSA_SHA_256", facts=DRY_RUN)
    assert audit_records(home)[-1]["errorCode"] == "DryRunOperationException"
    with pytest.raises(Validation):
        engine.sign(ALICE, key, MESSAGE, "ECDSA_SHA_256", "DIGEST", facts=DRY_RUN)
    with pytest.raises(AccessDenied):
        engine.sign(BOB, key, MESSAGE, "ECDSA_SHA_256", facts=DRY_RUN)


CONDITIONS: list[tuple[str, str, str, str, Callable[[Engine, str, str], object]]] = [
    ("ECC_NIST_P256", "SIGN_VERIFY", "kms:MessageType", "DIGEST",
     lambda engine, key, value: engine.sign(BOB, key, bytes(32), "ECDSA_SHA_256", value)),
    ("ML_DSA_44", "SIGN_VERIFY", "kms:SigningAlgorithm", "ML_DSA_SHAKE_256",
     lambda engine, key, value: engine.sign(BOB, key, MESSAGE, value)),
    ("HMAC_512", "GENERATE_VERIFY_MAC", "kms:MacAlgorithm", "HMAC_SHA_512",
     lambda engine, key, value: engine.generate_mac(BOB, key, MESSAGE, value)),
    ("ECC_NIST_P384", "KEY_AGREEMENT", "kms:KeyAgreementAlgorithm", "ECDH",
     lambda engine, key, value: engine.derive_shared_secret(BOB, key, generate("ECC_NIST_P384").public_key, value)),
    ("RSA_2048", "ENCRYPT_DECRYPT", "kms:EncryptionAlgorithm", "RSAES_OAEP_SHA_1",
     lambda engine, key, value: engine.encrypt(BOB, key, b"x", {}, algorithm=value)),
    ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "kms:DataKeyPairSpec", "ECC_NIST_P256",
     lambda engine, key, value: engine.generate_data_key_pair(BOB, key, value, {})),
    ("ECC_NIST_P256", "SIGN_VERIFY", "kms:RequestAlias", "alias/sign",
     lambda engine, key, value: engine.sign(BOB, value, bytes(32), "ECDSA_SHA_256")),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "usage", "name", "value", "call"), CONDITIONS, ids=[case[2] for case in CONDITIONS])
def test_conditions_on_what_is_asked_for(
    engine: Engine, spec: str, usage: str, name: str, value: str, call: Callable[[Engine, str, str], object]
) -> None:
    key = make(engine, spec, usage)
    if name == "kms:RequestAlias":
        engine.create_alias(OWNER, value, key)
    for wanted in (value, "something else"):
        condition = {"StringEquals": {name: wanted}}
        text = policy(owner_statement(), statement("Allow", BOB.arn, "kms:*", Condition=condition))
        engine.put_key_policy(OWNER, key, text)
        if wanted == value:
            call(engine, key, value)
        else:
            with pytest.raises(AccessDenied):
                call(engine, key, value)


def test_records_say_what_was_done_and_hold_no_message(engine: Engine, home: Path) -> None:
    key = make(engine, "ECC_NIST_P256")
    arn = engine.describe_key(OWNER, key).arn
    signature = engine.sign(ALICE, key, MESSAGE, "ECDSA_SHA_256").signature
    record = audit_records(home)[-1]
    assert (record["eventName"], record["readOnly"], record["resources"][0]["ARN"]) == ("Sign", True, arn)
    assert record["requestParameters"] == {
        "keyId": arn, "requestedKeyId": key, "messageType": "RAW", "signingAlgorithm": "ECDSA_SHA_256",
    }  # fmt: skip
    with pytest.raises(InvalidSignature):
        engine.verify(ALICE, key, b"y", signature, "ECDSA_SHA_256")
    assert audit_records(home)[-1]["errorCode"] == "KMSInvalidSignatureException"
    text = "".join(path.read_text() for path in (home / "audit").glob("*.jsonl"))
    assert MESSAGE.decode() not in text


def test_no_secret_without_its_record(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    agreement = make(engine, "ECC_NIST_P256", "KEY_AGREEMENT")
    kem = make(engine, "ML_KEM_768", "ENCAPSULATE_DECAPSULATE")
    symmetric = make(engine, "SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT")
    peer = generate("ECC_NIST_P256").public_key
    wiped: list[bool] = []
    wipe = Secret.wipe

    def watch(secret: Secret) -> None:
        wipe(secret)
        wiped.append(True)

    def fail(*_: object) -> None:
        raise Internal("no space left on device")

    monkeypatch.setattr(engine._recorder._sink, "write", fail)
    monkeypatch.setattr(Secret, "wipe", watch)
    for call in (
        lambda: engine.derive_shared_secret(ALICE, agreement, peer),
        lambda: engine.encapsulate(ALICE, kem),
        lambda: engine.generate_data_key_pair(ALICE, symmetric, "ECC_NIST_P256", {}),
    ):
        wiped.clear()
        with pytest.raises(Internal):
            call()
        assert wiped


def test_private_keys_are_kept_and_dropped_with_the_others(engine: Engine, home: Path) -> None:
    key = make(engine, "ECC_NIST_P256")
    engine.sign(ALICE, key, MESSAGE, "ECDSA_SHA_256")
    assert len(engine._keyring._private_keys) == 1
    with open_kms(home) as other:
        make(other, "ECC_NIST_P256")  # whatever changes the table of backing keys
    engine.describe_key(OWNER, key)
    assert engine._keyring._private_keys == {}
    engine.sign(ALICE, key, MESSAGE, "ECDSA_SHA_256")
    engine._keyring.forget()
    assert engine._keyring._private_keys == {}


@pytest.mark.parametrize("field", ["wrapped", "public_key"])
def test_bad_material_in_the_store_is_tampering(engine: Engine, field: str) -> None:
    """Sealed properly, so that only reading the key itself can tell."""
    key = make(engine, "ECC_NIST_P256")
    (row,) = engine._store.find(BACKING_KEYS, key_id=engine._catalogue.resolve(key).row.key_id)
    if field == "wrapped":
        with Secret(b"no key") as bad:
            wrapped = engine._keyring.wrap(row.key_id, 1, row.spec, bad, row.created)
        changed = wrapped._replace(public_key=row.public_key)
    else:
        changed = row._replace(public_key=row.public_key[:-1])
    with engine._store.transaction() as transaction:
        transaction.put(BACKING_KEYS, changed)
        key_row = engine._catalogue.resolve(key).row
        transaction.put(KEYS, key_row._replace(backing_key_id=changed.backing_key_id))
    call: Callable[[], object] = {
        "wrapped": lambda: engine.sign(ALICE, key, MESSAGE, "ECDSA_SHA_256"),
        "public_key": lambda: engine.verify(ALICE, key, MESSAGE, b"x", "ECDSA_SHA_256"),
    }[field]
    with pytest.raises(IntegrityError):
        call()
