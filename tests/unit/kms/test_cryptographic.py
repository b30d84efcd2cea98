from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from envfs.crypto.secret import Secret
from envfs.errors import (
    AccessDenied,
    Disabled,
    FormatError,
    IncorrectKey,
    Internal,
    InvalidCiphertext,
    NotFound,
    Validation,
)
from envfs.format.blob import Blob
from envfs.kms.bootstrap import init_kms
from envfs.kms.policy.decision import Reason
from tests.unit.kms.kit import (
    ALICE,
    BOB,
    CONTEXT,
    OWNER,
    ROOT,
    THROUGH_MOUNT,
    open_kms,
    owner_statement,
    policy,
    statement,
    users_policy,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from envfs.kms.engine import Engine


@pytest.fixture
def key(engine: Engine) -> str:
    """The id of a key that alice may use, with the alias alias/pay."""
    made = engine.create_key(OWNER, policy=users_policy(ALICE))
    engine.create_alias(OWNER, "alias/pay", made.key_id)
    return made.key_id


def test_a_data_key_comes_back_from_its_blob(engine: Engine, key: str) -> None:
    data_key = engine.generate_data_key(ALICE, key, CONTEXT, THROUGH_MOUNT)
    assert len(data_key.plaintext) == 32
    assert len(data_key.blob) == 116
    assert data_key.key_arn == engine.describe_key(OWNER, key).arn == engine.key_arn_of_blob(data_key.blob)
    assert engine.decrypt(ALICE, data_key.blob, CONTEXT, THROUGH_MOUNT) == data_key.plaintext


def test_it_comes_back_in_another_process(home: Path, engine: Engine, key: str) -> None:
    data_key = engine.generate_data_key(ALICE, key, CONTEXT)
    with open_kms(home) as other:
        assert other.decrypt(ALICE, data_key.blob, CONTEXT) == data_key.plaintext


def test_no_two_data_keys_are_alike(engine: Engine, key: str) -> None:
    keys = [engine.generate_data_key(ALICE, key, CONTEXT) for _ in range(4)]
    assert len({bytes(one.plaintext.expose()) for one in keys}) == 4
    assert len({Blob.parse(one.blob).salt for one in keys}) == 4


@pytest.mark.parametrize("length", [1, 64, 1024])
def test_data_keys_of_other_lengths(engine: Engine, key: str, length: int) -> None:
    data_key = engine.generate_data_key(ALICE, key, CONTEXT, number_of_bytes=length)
    assert len(data_key.plaintext) == length
    assert engine.decrypt(ALICE, data_key.blob, CONTEXT) == data_key.plaintext


@pytest.mark.parametrize("length", [0, -1, 1025])
def test_lengths_that_are_refused(engine: Engine, key: str, length: int) -> None:
    with pytest.raises(Validation):
        engine.generate_data_key(ALICE, key, CONTEXT, number_of_bytes=length)


@pytest.mark.parametrize("size", [1, 4096])
@pytest.mark.parametrize("make", [bytes, Secret])
def test_encrypt_and_decrypt(engine: Engine, key: str, size: int, make: Callable[[bytes], bytes | Secret]) -> None:
    engine.put_key_policy(OWNER, key, policy(owner_statement(), statement("Allow", ALICE.arn, "kms:*crypt")))
    plaintext = os.urandom(size)
    blob = engine.encrypt(ALICE, "alias/pay", make(plaintext), CONTEXT).blob
    assert engine.decrypt(ALICE, blob, CONTEXT) == Secret(plaintext)


@pytest.mark.parametrize("size", [0, 4097])
def test_plaintexts_that_are_refused(engine: Engine, key: str, size: int) -> None:
    with pytest.raises(Validation):
        engine.encrypt(OWNER, key, bytes(size), CONTEXT)


def test_a_context_is_a_set_of_pairs(engine: Engine, key: str) -> None:
    blob = engine.generate_data_key(ALICE, key, {"a": "1", "b": "2"}).blob
    engine.decrypt(ALICE, blob, {"b": "2", "a": "1"})


@pytest.mark.parametrize(
    "context", [{}, {"a": "bc"}, {"ab": "c "}, {"AB": "c"}, {"ab": "c", "d": ""}, {"a": "b", "c": ""}]
)
def test_another_context_is_invalid_ciphertext_without_a_word(
    engine: Engine, key: str, context: dict[str, str]
) -> None:
    blob = engine.generate_data_key(ALICE, key, {"ab": "c"}).blob
    with pytest.raises(InvalidCiphertext) as caught:
        engine.decrypt(ALICE, blob, context)
    assert (str(caught.value), caught.value.message, caught.value.hint) == ("", "", "")
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("context", [{"": "x"}, {"a": "\ud800"}, {"a": "x" * 8192}])
def test_contexts_that_are_refused(engine: Engine, key: str, context: dict[str, str]) -> None:
    for call in (
        lambda: engine.generate_data_key(ALICE, key, context),
        lambda: engine.encrypt(OWNER, key, b"x", context),
        lambda: engine.decrypt(ALICE, b"x", context),
    ):
        with pytest.raises(Validation):
            call()


@pytest.mark.parametrize("damage", ["backing_key_id", "salt", "ciphertext", "tag"])
def test_damage_is_invalid_ciphertext(engine: Engine, key: str, damage: str) -> None:
    blob = Blob.parse(engine.generate_data_key(ALICE, key, CONTEXT).blob)
    value: bytes = getattr(blob, damage)
    broken = replace(blob, **{damage: bytes([value[0] ^ 1]) + value[1:]}).serialise()
    with pytest.raises(InvalidCiphertext):
        engine.decrypt(ALICE, broken, CONTEXT)


@pytest.mark.parametrize("blob", [b"", b"x", b"EK", b"EK\x02" + bytes(113), b"EK\x01\x02" + bytes(112), bytes(7000)])
def test_what_is_no_blob_is_invalid_ciphertext(engine: Engine, key: str, blob: bytes) -> None:
    with pytest.raises(InvalidCiphertext):
        engine.decrypt(ALICE, blob, CONTEXT)


def test_unknown_and_forbidden_keys_behind_a_blob_look_alike(engine: Engine, key: str, tmp_path: Path) -> None:
    forbidden = engine.generate_data_key(ALICE, key, CONTEXT).blob
    unknown = replace(Blob.parse(forbidden), key_id=bytes(16)).serialise()
    owned = engine.wrap_service_owned(Secret(b"x" * 32), CONTEXT)
    init_kms(tmp_path / "other", owner_uid=OWNER.uid)
    with open_kms(tmp_path / "other") as other:
        foreign = other.generate_data_key(OWNER, other.create_key(OWNER).key_id, CONTEXT).blob
    messages = set()
    for blob in (forbidden, unknown, owned, foreign):
        with pytest.raises(AccessDenied) as caught:
            engine.decrypt(BOB, blob, CONTEXT)
        messages.add((str(caught.value), caught.value.hint, caught.value.__cause__))
    assert len(messages) == 1


def test_a_forbidden_key_tells_neither_its_state_nor_whether_the_blob_is_whole(engine: Engine, key: str) -> None:
    blob = engine.generate_data_key(ALICE, key, CONTEXT).blob
    engine.disable_key(OWNER, key)
    with pytest.raises(AccessDenied):
        engine.decrypt(BOB, blob, CONTEXT)
    with pytest.raises(AccessDenied):
        engine.decrypt(BOB, blob[:-1] + bytes([blob[-1] ^ 1]), {})
    with pytest.raises(Disabled):
        engine.decrypt(ALICE, blob, CONTEXT)


def test_a_blob_of_one_key_does_not_open_as_another_s(engine: Engine, key: str) -> None:
    """Who may use one key relabels the blob of another with its id."""
    mine = engine.create_key(OWNER, policy=users_policy(BOB))
    theirs = Blob.parse(engine.generate_data_key(ALICE, key, CONTEXT).blob)
    my_blob = Blob.parse(engine.generate_data_key(BOB, mine.key_id, CONTEXT).blob)
    for forged in (replace(theirs, key_id=my_blob.key_id), replace(my_blob, backing_key_id=theirs.backing_key_id)):
        with pytest.raises(InvalidCiphertext):
            engine.decrypt(BOB, forged.serialise(), CONTEXT)


def test_the_caller_may_insist_on_a_key(engine: Engine, key: str) -> None:
    other = engine.create_key(OWNER, policy=users_policy(ALICE))
    blob = engine.generate_data_key(ALICE, key, CONTEXT).blob
    engine.decrypt(ALICE, blob, CONTEXT, key_id="alias/pay")
    with pytest.raises(IncorrectKey):
        engine.decrypt(ALICE, blob, CONTEXT, key_id=other.key_id)


def test_opening_for_writing_needs_both_actions(engine: Engine, key: str) -> None:
    blob = engine.generate_data_key(ALICE, key, CONTEXT).blob
    reader = statement("Allow", ALICE.arn, "kms:Decrypt")
    engine.put_key_policy(OWNER, key, policy(owner_statement(), reader))
    engine.decrypt(ALICE, blob, CONTEXT)
    with pytest.raises(AccessDenied):
        engine.decrypt(ALICE, blob, CONTEXT, also=("kms:GenerateDataKey",))


def test_somebody_may_drop_files_in_that_he_can_never_read(engine: Engine, key: str) -> None:
    dropper = statement("Allow", BOB.arn, "kms:GenerateDataKey")
    engine.put_key_policy(OWNER, key, policy(owner_statement(), dropper))
    blob = engine.generate_data_key(BOB, key, CONTEXT).blob
    with pytest.raises(AccessDenied):
        engine.decrypt(BOB, blob, CONTEXT)


def test_root_is_no_exception(engine: Engine, key: str) -> None:
    blob = engine.generate_data_key(ALICE, key, CONTEXT).blob
    with pytest.raises(AccessDenied):
        engine.decrypt(ROOT, blob, CONTEXT, THROUGH_MOUNT)
    with pytest.raises(AccessDenied):
        engine.generate_data_key(ROOT, key, CONTEXT, THROUGH_MOUNT)


def test_policies_see_context_and_facts(engine: Engine, key: str) -> None:
    condition = {
        "StringEquals": {"kms:EncryptionContext:envfs:volume": "00" * 16, "kms:ViaService": "envfs"},
        "StringLike": {"envfs:Path": "/finance/*"},
    }
    allow = statement("Allow", ALICE.arn, "kms:*", Condition=condition)
    engine.put_key_policy(OWNER, key, policy(owner_statement(), allow))
    engine.generate_data_key(ALICE, key, CONTEXT, THROUGH_MOUNT)
    for context, facts in (
        ({"envfs:volume": "11" * 16}, THROUGH_MOUNT),
        (CONTEXT, replace(THROUGH_MOUNT, path="/engineering/plan")),
        (CONTEXT, replace(THROUGH_MOUNT, via_service=None)),
    ):
        with pytest.raises(AccessDenied):
            engine.generate_data_key(ALICE, key, context, facts)


def test_the_alias_of_the_request_is_a_fact(engine: Engine, key: str) -> None:
    allow = statement("Allow", ALICE.arn, "kms:*", Condition={"StringEquals": {"kms:RequestAlias": "alias/pay"}})
    engine.put_key_policy(OWNER, key, policy(owner_statement(), allow))
    engine.generate_data_key(ALICE, "alias/pay", CONTEXT)
    engine.generate_data_key(ALICE, engine.account.alias_arn("alias/pay"), CONTEXT)
    with pytest.raises(AccessDenied):
        engine.generate_data_key(ALICE, key, CONTEXT)


@pytest.mark.parametrize("name", ["alias/none", "01234567-89ab-4def-8123-456789abcdef"])
def test_a_key_that_is_not_there(engine: Engine, name: str) -> None:
    with pytest.raises(NotFound):
        engine.generate_data_key(ALICE, name, CONTEXT)


def test_keys_of_envfs_itself(engine: Engine, key: str) -> None:
    secret = Secret.random()
    blob = engine.wrap_service_owned(secret, {"envfs:volume": "00"})
    assert engine.unwrap_service_owned(blob, {"envfs:volume": "00"}) == secret
    with pytest.raises(InvalidCiphertext):
        engine.unwrap_service_owned(blob, {"envfs:volume": "01"})
    with pytest.raises(InvalidCiphertext):
        engine.unwrap_service_owned(engine.generate_data_key(ALICE, key, {}).blob, {})
    with pytest.raises(FormatError):
        engine.unwrap_service_owned(b"EK", {})
    with pytest.raises(NotFound):
        engine.describe_key(OWNER, engine.key_arn_of_blob(blob))


def test_without_a_record_there_is_no_key(
    home: Path, engine: Engine, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = engine.generate_data_key(ALICE, key, CONTEXT).blob
    handed_out: list[Secret] = []
    monkeypatch.setattr(engine._recorder._sink, "write", lambda _: _raise(Internal("disk full")))
    original = engine._decrypt

    def watched(*arguments: object) -> Secret:
        handed_out.append(original(*arguments))  # type: ignore[arg-type]
        return handed_out[-1]

    monkeypatch.setattr(engine, "_decrypt", watched)
    with pytest.raises(Internal, match="disk full"):
        engine.decrypt(ALICE, blob, CONTEXT)
    assert [secret.is_wiped for secret in handed_out] == [True]
    with pytest.raises(Internal, match="disk full"):
        engine.generate_data_key(ALICE, key, CONTEXT)


def _raise(error: Exception) -> None:
    raise error


def test_explain_says_what_would_be_decided(engine: Engine, key: str, home: Path) -> None:
    blob = engine.generate_data_key(ALICE, key, CONTEXT).blob
    before = sum(path.stat().st_size for path in (home / "audit").iterdir())
    assert (
        engine.explain(ALICE, "kms:Decrypt", blob, CONTEXT).text == "allowed by Allow statement 'Users' of key policy"
    )
    assert engine.explain(BOB, "kms:Decrypt", blob, CONTEXT).reason is Reason.NO_MATCH
    assert engine.explain(OWNER, "kms:PutKeyPolicy", "alias/pay", {}).allowed
    assert engine.explain(ALICE, "kms:Decrypt", "alias/none", {}).reason is Reason.UNKNOWN_KEY
    assert engine.explain(ALICE, "kms:Decrypt", b"EK", {}).reason is Reason.UNKNOWN_KEY
    assert sum(path.stat().st_size for path in (home / "audit").iterdir()) == before
    engine.disable_key(OWNER, key)
    assert engine.explain(ALICE, "kms:Decrypt", blob, CONTEXT).reason is Reason.KEY_STATE
    with pytest.raises(Validation):
        engine.explain(ALICE, "kms:CreateKey", blob, CONTEXT)


def test_closing_wipes_every_key(engine: Engine, key: str) -> None:
    engine.generate_data_key(ALICE, key, CONTEXT)
    kept = [secret for _, secret in engine._keyring._unwrapped.values()]
    root_key = engine._root_key
    engine.close()
    assert kept
    assert all(secret.is_wiped for secret in [*kept, root_key])
    engine.close()
