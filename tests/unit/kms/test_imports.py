"""Imported key material: wrapped by the caller, imported, expired, deleted, imported again, rotated."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import load_der_public_key

from envfs.crypto.secret import Secret
from envfs.errors import (
    AccessDenied,
    Conflict,
    ExpiredImportToken,
    IncorrectKeyMaterial,
    InvalidCiphertext,
    InvalidImportToken,
    InvalidState,
    KmsError,
    NotFound,
    UnsupportedOperation,
    Validation,
)
from envfs.kms.material.encryption import oaep
from envfs.kms.material.generate import Material, generate
from envfs.kms.model import KeyState, RequestFacts
from envfs.kms.operations import imports
from envfs.kms.schema import BACKING_KEYS
from tests.unit.kms.kit import ALICE, BOB, OWNER, Clock, audit_records, open_kms, owner_statement, policy, statement

if TYPE_CHECKING:
    from pathlib import Path

    from envfs.kms.engine import Engine
    from envfs.kms.model import ImportedMaterial, ImportParameters

DAY = 86_400
OAEP, KEY_WRAP = "RSAES_OAEP_SHA_256", "RSA_AES_KEY_WRAP_SHA_256"
FOREVER: dict[str, Any] = {"expiration_model": "KEY_MATERIAL_DOES_NOT_EXPIRE"}
MATERIAL = bytes(range(32))
OTHER = bytes(32)


def make(engine: Engine, spec: str = "SYMMETRIC_DEFAULT", usage: str = "ENCRYPT_DECRYPT") -> str:
    text = policy(owner_statement(), statement("Allow", ALICE.arn, "kms:*"))
    return engine.create_key(OWNER, spec=spec, usage=usage, origin="EXTERNAL", policy=text).key_id


def wrap(parameters: ImportParameters, raw: bytes, algorithm: str = OAEP) -> bytes:
    public = load_der_public_key(parameters.public_key)
    assert isinstance(public, rsa.RSAPublicKey)
    if algorithm.startswith("RSAES"):
        return public.encrypt(raw, oaep(algorithm))
    key = os.urandom(32)
    return public.encrypt(key, oaep(algorithm)) + aes_key_wrap_with_padding(key, raw)


def bring(engine: Engine, key: str, raw: bytes = MATERIAL, algorithm: str = OAEP, **more: Any) -> ImportedMaterial:
    """Imports `raw`, which never expires unless `more` says so."""
    parameters = engine.get_parameters_for_import(ALICE, key, algorithm, "RSA_2048")
    terms = FOREVER | more if "valid_to" not in more else more
    return engine.import_key_material(ALICE, key, parameters.token, wrap(parameters, raw, algorithm), **terms)


def state(engine: Engine, key: str) -> KeyState:
    return engine.describe_key(ALICE, key).state


def test_a_key_without_material_can_be_used_for_nothing(engine: Engine) -> None:
    key = make(engine)
    assert state(engine, key) is KeyState.PENDING_IMPORT
    for call in (lambda: engine.encrypt(ALICE, key, b"x", {}), lambda: engine.generate_data_key(ALICE, key, {})):
        with pytest.raises(InvalidState):
            call()


def test_material_is_imported_and_used(engine: Engine, home: Path) -> None:
    key = make(engine)
    imported = bring(engine, key)
    found = engine.describe_key(ALICE, key)
    assert imported.key_arn == found.arn
    assert (found.state, found.current_material_id) == (KeyState.ENABLED, imported.material_id)
    assert (found.expiration_model, found.valid_to) == ("KEY_MATERIAL_DOES_NOT_EXPIRE", None)
    blob = engine.encrypt(ALICE, key, b"secret", {}).blob
    assert engine.decrypt(ALICE, blob, {}) == Secret(b"secret")
    with open_kms(home) as other:
        assert other.decrypt(ALICE, blob, {}) == Secret(b"secret")


@pytest.mark.parametrize("wrapping", ["RSA_2048", "RSA_3072", "RSA_4096"])
def test_each_size_of_wrapping_key(engine: Engine, wrapping: str) -> None:
    key = make(engine)
    parameters = engine.get_parameters_for_import(ALICE, key, OAEP, wrapping)
    public = load_der_public_key(parameters.public_key)
    assert isinstance(public, rsa.RSAPublicKey)
    assert public.key_size == int(wrapping[4:])
    assert len(parameters.token) <= 6144
    engine.import_key_material(ALICE, key, parameters.token, wrap(parameters, MATERIAL), **FOREVER)
    assert state(engine, key) is KeyState.ENABLED


def test_a_private_key_is_imported_and_signs(engine: Engine) -> None:
    for spec, usage, algorithm in [
        ("RSA_2048", "SIGN_VERIFY", "RSASSA_PSS_SHA_256"), ("ECC_NIST_P256", "SIGN_VERIFY", "ECDSA_SHA_256"),
        ("ECC_NIST_EDWARDS25519", "SIGN_VERIFY", "ED25519_SHA_512"),
    ]:  # fmt: skip
        key, made = make(engine, spec, usage), generate(spec)
        with pytest.raises(InvalidState):
            engine.get_public_key(ALICE, key)
        bring(engine, key, bytes(made.private.expose()), KEY_WRAP)
        assert engine.get_public_key(ALICE, key).der == made.public_key
        engine.verify(ALICE, key, b"x", engine.sign(ALICE, key, b"x", algorithm).signature, algorithm)


def test_an_imported_rsa_key_decrypts(engine: Engine) -> None:
    key, made = make(engine, "RSA_2048", "ENCRYPT_DECRYPT"), generate("RSA_2048")
    bring(engine, key, bytes(made.private.expose()), KEY_WRAP)
    public = load_der_public_key(made.public_key)
    assert isinstance(public, rsa.RSAPublicKey)
    ciphertext = public.encrypt(b"secret", oaep(OAEP))
    assert engine.decrypt_request(ALICE, ciphertext, {}, key_id=key, algorithm=OAEP).plaintext == Secret(b"secret")


def test_imported_keys_agree(engine: Engine) -> None:
    key, made, peer = (
        make(engine, "ECC_NIST_P256", "KEY_AGREEMENT"),
        generate("ECC_NIST_P256"),
        generate("ECC_NIST_P256"),
    )
    bring(engine, key, bytes(made.private.expose()), OAEP)
    assert engine.derive_shared_secret(ALICE, key, peer.public_key).origin == "EXTERNAL"


@pytest.mark.parametrize("size", [32, 33, 64])
def test_an_imported_hmac_key_computes(engine: Engine, size: int) -> None:
    import hmac

    key, raw = make(engine, "HMAC_256", "GENERATE_VERIFY_MAC"), os.urandom(size)
    bring(engine, key, raw)
    assert engine.generate_mac(ALICE, key, b"x", "HMAC_SHA_256").mac == hmac.digest(raw, b"x", "sha256")


def test_what_is_no_material_for_the_key(engine: Engine) -> None:
    wrong: list[tuple[str, str, bytes, str]] = [
        ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", bytes(16), OAEP),
        ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", bytes(33), OAEP),
        ("HMAC_512", "GENERATE_VERIFY_MAC", bytes(63), OAEP),
        ("ECC_NIST_P256", "SIGN_VERIFY", bytes(generate("ECC_SECG_P256K1").private.expose()), OAEP),
        ("ECC_NIST_P256", "SIGN_VERIFY", bytes(32), KEY_WRAP),
        ("RSA_2048", "SIGN_VERIFY", bytes(generate("ECC_NIST_P256").private.expose()), KEY_WRAP),
    ]
    for spec, usage, raw, algorithm in wrong:
        key = make(engine, spec, usage)
        with pytest.raises(IncorrectKeyMaterial):
            bring(engine, key, raw, algorithm)
        assert state(engine, key) is KeyState.PENDING_IMPORT


def test_other_material_is_refused(engine: Engine) -> None:
    key = make(engine)
    bring(engine, key)
    blob = engine.encrypt(ALICE, key, b"secret", {}).blob
    for attempt in range(2):
        with pytest.raises(IncorrectKeyMaterial):
            bring(engine, key, OTHER)
        if attempt == 0:
            engine.delete_imported_key_material(ALICE, key)
    bring(engine, key)
    assert engine.decrypt(ALICE, blob, {}) == Secret(b"secret")


def test_the_same_material_in_another_key_has_another_id(engine: Engine) -> None:
    first, second = make(engine), make(engine)
    assert bring(engine, first).material_id != bring(engine, second).material_id


def test_deleted_material_is_gone_until_it_is_imported_again(engine: Engine, home: Path) -> None:
    key = make(engine)
    imported = bring(engine, key)
    blob = engine.encrypt(ALICE, key, b"secret", {}).blob
    (row,) = engine._catalogue.backing_keys(engine._catalogue.resolve(key).row.key_id)
    in_files = [path for path in home.iterdir() if path.is_file() and row.wrapped in path.read_bytes()]
    assert in_files
    assert engine.delete_imported_key_material(ALICE, key) == imported
    assert [path for path in home.iterdir() if path.is_file() and row.wrapped in path.read_bytes()] == []
    assert not engine._store.erasure_is_due()
    assert state(engine, key) is KeyState.PENDING_IMPORT
    with pytest.raises(InvalidState):
        engine.decrypt(ALICE, blob, {})
    assert engine.delete_imported_key_material(ALICE, key) == imported  # once more has no effect
    assert bring(engine, key) == imported
    assert state(engine, key) is KeyState.ENABLED
    assert engine.decrypt(ALICE, blob, {}) == Secret(b"secret")
    (again,) = engine._catalogue.backing_keys(row.key_id)
    assert again == row


def test_nothing_to_delete(engine: Engine) -> None:
    key = make(engine)
    assert engine.delete_imported_key_material(ALICE, key).material_id == ""
    assert state(engine, key) is KeyState.PENDING_IMPORT
    with pytest.raises(NotFound):
        engine.delete_imported_key_material(ALICE, key, "00" * 32)


def test_expired_material_is_not_used_whether_maintenance_ran_or_not(engine: Engine, clock: Clock) -> None:
    key = make(engine)
    end = int(clock.now) + DAY
    bring(engine, key, valid_to=end)
    found = engine.describe_key(ALICE, key)
    assert (found.expiration_model, found.valid_to) == ("KEY_MATERIAL_EXPIRES", end)
    blob = engine.encrypt(ALICE, key, b"secret", {}).blob
    clock.now = end - 1
    assert engine.decrypt(ALICE, blob, {}) == Secret(b"secret")
    clock.now = end
    for call in (lambda: engine.decrypt(ALICE, blob, {}), lambda: engine.encrypt(ALICE, key, b"x", {})):
        with pytest.raises(InvalidState):
            call()
    assert state(engine, key) is KeyState.PENDING_IMPORT
    engine.maintain()
    (row,) = engine._catalogue.backing_keys(engine._catalogue.resolve(key).row.key_id)
    assert row.wrapped == b""
    assert state(engine, key) is KeyState.PENDING_IMPORT
    bring(engine, key)
    assert engine.decrypt(ALICE, blob, {}) == Secret(b"secret")


def test_expired_private_keys_are_not_used(engine: Engine, clock: Clock) -> None:
    key, made = make(engine, "ECC_NIST_P256", "SIGN_VERIFY"), generate("ECC_NIST_P256")
    bring(engine, key, bytes(made.private.expose()), valid_to=clock.now + 10)
    engine.sign(ALICE, key, b"x", "ECDSA_SHA_256")  # and the key is in the keyring now
    clock.now += 11
    for call in (
        lambda: engine.sign(ALICE, key, b"x", "ECDSA_SHA_256"),
        lambda: engine.verify(ALICE, key, b"x", b"y", "ECDSA_SHA_256"),
        lambda: engine.get_public_key(ALICE, key),
    ):
        with pytest.raises(InvalidState):
            call()


def test_expired_material_is_imported_again_before_maintenance_came(engine: Engine, clock: Clock) -> None:
    key = make(engine)
    bring(engine, key, valid_to=clock.now + 10)
    blob = engine.encrypt(ALICE, key, b"secret", {}).blob
    clock.now += 11
    bring(engine, key)
    engine.maintain()
    assert engine.decrypt(ALICE, blob, {}) == Secret(b"secret")


def test_importing_again_changes_when_material_expires(engine: Engine, clock: Clock) -> None:
    key = make(engine)
    bring(engine, key, valid_to=clock.now + DAY)
    bring(engine, key, valid_to=clock.now + 2 * DAY)
    assert engine.describe_key(ALICE, key).valid_to == int(clock.now + 2 * DAY)
    bring(engine, key)
    assert engine.describe_key(ALICE, key).valid_to is None
    clock.now += 3 * DAY
    engine.maintain()
    assert state(engine, key) is KeyState.ENABLED


def test_importing_again_does_not_enable_a_key(engine: Engine) -> None:
    key = make(engine)
    bring(engine, key)
    engine.disable_key(OWNER, key)
    bring(engine, key)
    assert state(engine, key) is KeyState.DISABLED


def test_model_and_time_go_together(engine: Engine, clock: Clock) -> None:
    key, now = make(engine), int(clock.now)
    wrong: list[dict[str, Any]] = [
        {},
        {"valid_to": now + DAY, "expiration_model": "KEY_MATERIAL_DOES_NOT_EXPIRE"},
        {"valid_to": now},
        {"valid_to": now - 1},
        {"valid_to": now + 366 * DAY},
        {"valid_to": now + 0.5},
        {"valid_to": float("nan")},
        {"valid_to": float("inf")},
        {"valid_to": -1e300},
        {"valid_to": 1e300},
        {"valid_to": now + DAY, "expiration_model": "SOMETIMES"},
        FOREVER | {"import_type": "OTHER"},
        FOREVER | {"import_type": "NEW_KEY_MATERIAL", "key_material_id": "00" * 32},
        FOREVER | {"description": "x" * 257},
    ]
    parameters = engine.get_parameters_for_import(ALICE, key, OAEP, "RSA_2048")
    for terms in wrong:
        with pytest.raises(Validation):
            engine.import_key_material(ALICE, key, parameters.token, wrap(parameters, MATERIAL), **terms)
    assert state(engine, key) is KeyState.PENDING_IMPORT


@pytest.mark.parametrize(
    "terms", [{"import_type": "NEW_KEY_MATERIAL"}, {"description": "x"}, {"key_material_id": "00" * 32}]
)
def test_some_terms_are_for_symmetric_keys_alone(engine: Engine, terms: dict[str, Any]) -> None:
    with pytest.raises(Validation):
        bring(engine, make(engine, "HMAC_256", "GENERATE_VERIFY_MAC"), **terms)


def test_a_token_is_good_for_a_day_and_one_key(engine: Engine, clock: Clock, home: Path) -> None:
    key, other = make(engine), make(engine)
    parameters = engine.get_parameters_for_import(ALICE, key, OAEP, "RSA_2048")
    assert parameters.valid_to == int(clock.now) + DAY
    sealed = wrap(parameters, MATERIAL)
    with pytest.raises(InvalidImportToken):
        engine.import_key_material(ALICE, other, parameters.token, sealed, **FOREVER)
    for token in (b"", b"x", bytes(3000), parameters.token[:-1]):
        with pytest.raises(InvalidImportToken):
            engine.import_key_material(ALICE, key, token, sealed, **FOREVER)
    clock.now = parameters.valid_to
    with pytest.raises(ExpiredImportToken):
        engine.import_key_material(ALICE, key, parameters.token, sealed, **FOREVER)
    clock.now = parameters.valid_to - 1
    with open_kms(home, clock=clock) as process:  # nothing of it is kept in the process that made it
        process.import_key_material(ALICE, key, parameters.token, sealed, **FOREVER)


def test_material_wrapped_under_another_key(engine: Engine) -> None:
    key = make(engine)
    first, second = (engine.get_parameters_for_import(ALICE, key, OAEP, "RSA_2048") for _ in range(2))
    for token, sealed in ((first.token, wrap(second, MATERIAL)), (first.token, b""), (first.token, bytes(256))):
        with pytest.raises(InvalidCiphertext) as caught:
            engine.import_key_material(ALICE, key, token, sealed, **FOREVER)
        assert caught.value.message == ""


@pytest.mark.parametrize(
    ("algorithm", "spec", "error"),
    [
        ("RSAES_PKCS1_V1_5", "RSA_2048", UnsupportedOperation),
        (KEY_WRAP, "RSA_2048", UnsupportedOperation),
        (OAEP, "SM2", UnsupportedOperation),
        ("nothing", "RSA_2048", Validation),
    ],
)
def test_ways_of_wrapping_that_are_refused(engine: Engine, algorithm: str, spec: str, error: type[KmsError]) -> None:
    with pytest.raises(error):
        engine.get_parameters_for_import(ALICE, make(engine), algorithm, spec)


def test_only_keys_of_external_origin(engine: Engine) -> None:
    key = engine.create_key(OWNER, policy=policy(owner_statement(), statement("Allow", ALICE.arn, "kms:*"))).key_id
    for call in (
        lambda: engine.get_parameters_for_import(ALICE, key, OAEP, "RSA_2048"),
        lambda: engine.import_key_material(ALICE, key, b"x", b"y", **FOREVER),
        lambda: engine.delete_imported_key_material(ALICE, key),
    ):
        with pytest.raises(UnsupportedOperation):
            call()


def test_who_may(engine: Engine) -> None:
    key = make(engine)
    for call in (
        lambda: engine.get_parameters_for_import(BOB, key, OAEP, "RSA_2048"),
        lambda: engine.import_key_material(BOB, key, b"x", b"y", **FOREVER),
        lambda: engine.delete_imported_key_material(BOB, key),
    ):
        with pytest.raises(AccessDenied):
            call()


@pytest.mark.parametrize(
    ("condition", "is_allowed"),
    [
        ({"StringEquals": {"kms:ExpirationModel": "KEY_MATERIAL_EXPIRES"}}, True),
        ({"StringEquals": {"kms:ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE"}}, False),
        ({"DateLessThan": {"kms:ValidTo": "2023-11-16T00:00:00Z"}}, True),
        ({"DateLessThan": {"kms:ValidTo": "2023-11-15T00:00:00Z"}}, False),
        ({"NumericLessThan": {"kms:ValidTo": "1700092800"}}, True),
        ({"NumericLessThan": {"kms:ValidTo": "1700006400"}}, False),
    ],
)
def test_conditions_on_an_import(engine: Engine, clock: Clock, condition: dict[str, Any], is_allowed: bool) -> None:
    key = make(engine)
    parameters = engine.get_parameters_for_import(ALICE, key, OAEP, "RSA_2048")
    text = policy(owner_statement(), statement("Allow", BOB.arn, "kms:ImportKeyMaterial", Condition=condition))
    engine.put_key_policy(OWNER, key, text)
    arguments = (BOB, key, parameters.token, wrap(parameters, MATERIAL))
    valid_to = clock.now + DAY  # 2023-11-15T22:13:20Z
    if is_allowed:
        engine.import_key_material(*arguments, valid_to=valid_to)
    else:
        with pytest.raises(AccessDenied):
            engine.import_key_material(*arguments, valid_to=valid_to)


@pytest.mark.parametrize("name", ["kms:WrappingAlgorithm", "kms:WrappingKeySpec"])
def test_conditions_on_wrapping(engine: Engine, name: str) -> None:
    key = make(engine)
    value = {"kms:WrappingAlgorithm": OAEP, "kms:WrappingKeySpec": "RSA_2048"}[name]
    only = statement("Allow", BOB.arn, "kms:*", Condition={"StringEquals": {name: value}})
    engine.put_key_policy(OWNER, key, policy(owner_statement(), only))
    engine.get_parameters_for_import(BOB, key, OAEP, "RSA_2048")
    with pytest.raises(AccessDenied):
        engine.get_parameters_for_import(BOB, key, "RSAES_OAEP_SHA_1", "RSA_4096")


def test_records_hold_neither_token_nor_material(engine: Engine, home: Path, clock: Clock) -> None:
    key = make(engine)
    bring(engine, key, valid_to=clock.now + DAY, description="from the safe")
    engine.delete_imported_key_material(ALICE, key)
    records = audit_records(home)[-3:]
    assert [(record["eventName"], record["readOnly"]) for record in records] == [
        ("GetParametersForImport", True), ("ImportKeyMaterial", False), ("DeleteImportedKeyMaterial", False),
    ]  # fmt: skip
    arn = engine.describe_key(OWNER, key).arn
    assert records[0]["requestParameters"] == {
        "keyId": arn, "requestedKeyId": key, "wrappingAlgorithm": OAEP, "wrappingKeySpec": "RSA_2048",
    }  # fmt: skip
    assert records[1]["requestParameters"] == {
        "keyId": arn, "requestedKeyId": key, "expirationModel": "KEY_MATERIAL_EXPIRES",
        "validTo": "2023-11-15T22:13:20Z", "keyMaterialDescription": "from the safe",
    }  # fmt: skip


def rotations(engine: Engine, key: str) -> list[tuple[str, str | None]]:
    found, _ = engine.list_key_rotations(ALICE, key, include="ALL_KEY_MATERIAL")
    return [(one.material_state, one.import_state) for one in found]


def test_new_material_waits_for_a_rotation(engine: Engine) -> None:
    key = make(engine)
    first = bring(engine, key)
    old = engine.encrypt(ALICE, key, b"old", {}).blob
    second = bring(engine, key, OTHER, import_type="NEW_KEY_MATERIAL", description="the second")
    assert second.material_id != first.material_id
    assert engine.describe_key(ALICE, key).current_material_id == first.material_id
    assert rotations(engine, key) == [("CURRENT", "IMPORTED"), ("PENDING_ROTATION", "IMPORTED")]
    engine.rotate_key_on_demand(OWNER, key)
    assert rotations(engine, key) == [("NON_CURRENT", "IMPORTED"), ("CURRENT", "IMPORTED")]
    assert engine.describe_key(ALICE, key).current_material_id == second.material_id
    new = engine.encrypt(ALICE, key, b"new", {}).blob
    assert engine.decrypt(ALICE, old, {}) == Secret(b"old")
    # A key needs all its material, and takes each piece of it again.
    engine.delete_imported_key_material(ALICE, key)
    engine.delete_imported_key_material(ALICE, key, first.material_id)
    assert bring(engine, key, key_material_id=first.material_id) == first
    assert state(engine, key) is KeyState.PENDING_IMPORT
    assert bring(engine, key, OTHER) == second
    assert state(engine, key) is KeyState.ENABLED
    assert engine.decrypt(ALICE, old, {}) == Secret(b"old")
    assert engine.decrypt(ALICE, new, {}) == Secret(b"new")


def test_a_rotation_needs_new_material(engine: Engine) -> None:
    key = make(engine)
    bring(engine, key)
    with pytest.raises(Conflict):
        engine.rotate_key_on_demand(OWNER, key)


def test_what_import_types_expect(engine: Engine) -> None:
    key = make(engine)
    with pytest.raises(IncorrectKeyMaterial):
        bring(engine, key, import_type="EXISTING_KEY_MATERIAL")
    bring(engine, key, import_type="NEW_KEY_MATERIAL")
    with pytest.raises(IncorrectKeyMaterial):
        bring(engine, key, import_type="NEW_KEY_MATERIAL")
    with pytest.raises(IncorrectKeyMaterial):
        bring(engine, key, OTHER, import_type="EXISTING_KEY_MATERIAL")
    with pytest.raises(IncorrectKeyMaterial):
        bring(engine, key, key_material_id="00" * 32)


def test_material_that_waits_can_be_replaced(engine: Engine, clock: Clock) -> None:
    key = make(engine)
    bring(engine, key)
    waiting = bring(engine, key, OTHER, import_type="NEW_KEY_MATERIAL", valid_to=clock.now + 10)
    assert bring(engine, key, OTHER, import_type="NEW_KEY_MATERIAL", valid_to=clock.now + 20) == waiting
    with pytest.raises(InvalidState):
        bring(engine, key, b"3" * 32, import_type="NEW_KEY_MATERIAL")
    assert engine.delete_imported_key_material(ALICE, key, waiting.material_id) == waiting
    assert rotations(engine, key) == [("CURRENT", "IMPORTED")]
    assert state(engine, key) is KeyState.ENABLED
    bring(engine, key, b"3" * 32, import_type="NEW_KEY_MATERIAL", valid_to=clock.now + 20)
    clock.now += 30
    assert state(engine, key) is KeyState.ENABLED  # what waits is nothing that the key needs
    engine.maintain()
    assert rotations(engine, key) == [("CURRENT", "IMPORTED")]


def test_material_of_a_key_that_is_to_be_deleted(engine: Engine) -> None:
    key = make(engine)
    bring(engine, key)
    parameters = engine.get_parameters_for_import(ALICE, key, OAEP, "RSA_2048")
    engine.schedule_key_deletion(OWNER, key, 7)
    with pytest.raises(InvalidState):
        engine.import_key_material(ALICE, key, parameters.token, wrap(parameters, MATERIAL), **FOREVER)
    engine.delete_imported_key_material(ALICE, key)
    assert state(engine, key) is KeyState.PENDING_DELETION
    engine.cancel_key_deletion(OWNER, key)
    assert state(engine, key) is KeyState.PENDING_IMPORT
    bring(engine, key)
    assert state(engine, key) is KeyState.ENABLED


def test_a_right_that_was_withdrawn_while_a_wrapping_key_was_made(
    engine: Engine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make(engine)
    made = []

    def slow(spec: str) -> Material:
        made.append(generate(spec))
        other.put_key_policy(OWNER, key, policy(owner_statement()))
        return made[0]

    monkeypatch.setattr(imports, "generate", slow)
    with open_kms(home) as other, pytest.raises(AccessDenied):
        engine.get_parameters_for_import(ALICE, key, OAEP, "RSA_2048")
    assert made[0].private.is_wiped
    assert "AccessDeniedException" in [record.get("errorCode") for record in audit_records(home)]


def test_service_managed_keys_take_none(engine: Engine) -> None:
    arn = engine.service_managed_key("alias/envfs/default")
    with pytest.raises(AccessDenied):
        engine.import_key_material(OWNER, arn, b"x", b"y", **FOREVER)
    with pytest.raises(AccessDenied):
        engine.delete_imported_key_material(OWNER, arn, facts=RequestFacts(via_service="envfs"))


def test_a_change_by_another_process_counts(engine: Engine, home: Path) -> None:
    key = make(engine)
    bring(engine, key)
    blob = engine.encrypt(ALICE, key, b"secret", {}).blob
    with open_kms(home) as other:
        other.delete_imported_key_material(ALICE, key)
    with pytest.raises(InvalidState):
        engine.decrypt(ALICE, blob, {})
    assert len(engine._store.find(BACKING_KEYS, key_id=engine._catalogue.resolve(key).row.key_id)) == 1
