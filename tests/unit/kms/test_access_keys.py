from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING

import pytest

from envfs.crypto.secret import Secret
from envfs.errors import AccessDenied, AlreadyExists, IntegrityError, LimitExceeded, NotFound, Validation
from tests.unit.kms.kit import ALICE, BOB, OWNER, People, audit_records, open_kms, policy, statement

if TYPE_CHECKING:
    from pathlib import Path

    from envfs.kms.engine import Engine


def test_a_new_access_key_looks_as_aws_makes_them_and_signs(engine: Engine) -> None:
    made = engine.create_access_key(OWNER, "alice")
    assert re.fullmatch(r"AKIA[A-Z2-7]{16}", made.key.access_key_id)
    assert re.fullmatch(rb"[A-Za-z0-9+/]{40}", made.secret.expose())
    assert engine.signing_secret(made.key.access_key_id) == (1001, "alice", made.secret)
    assert engine.list_access_keys(OWNER, "alice") == (made.key,)


def test_one_may_be_given(engine: Engine) -> None:
    engine.create_access_key(OWNER, "alice", access_key_id="A" * 16, secret=Secret(b"s" * 16))
    assert engine.signing_secret("A" * 16) == (1001, "alice", Secret(b"s" * 16))
    with pytest.raises(AlreadyExists):
        engine.create_access_key(OWNER, "bob", access_key_id="A" * 16)


@pytest.mark.parametrize(
    ("access_key_id", "secret"),
    [("A" * 15, b"s" * 16), ("A-" * 8, b"s" * 16), ("A" * 16, b"s" * 15), ("A" * 16, b"s" * 15 + b"\n")],
)
def test_one_that_is_given_must_be_one(engine: Engine, access_key_id: str, secret: bytes) -> None:
    with pytest.raises(Validation):
        engine.create_access_key(OWNER, "alice", access_key_id=access_key_id, secret=Secret(secret))


def test_a_user_has_at_most_two(engine: Engine) -> None:
    for _ in range(2):
        engine.create_access_key(OWNER, "alice")
    with pytest.raises(LimitExceeded):
        engine.create_access_key(OWNER, "alice")
    engine.create_access_key(OWNER, "bob")


def test_the_user_must_exist_and_be_himself(engine: Engine, people: People) -> None:
    with pytest.raises(NotFound):
        engine.create_access_key(OWNER, "nobody")
    engine.confirm_pin(1001, "alice")
    people.uids["alice"] = 1234
    with pytest.raises(Validation, match="another uid"):
        engine.create_access_key(OWNER, "alice")


def test_making_one_pins_its_user(engine: Engine) -> None:
    engine.create_access_key(OWNER, "alice")
    assert not engine.confirm_pin(4321, "alice")


def test_one_that_is_deleted_signs_nothing_any_more(engine: Engine) -> None:
    made = engine.create_access_key(OWNER, "alice").key.access_key_id
    engine.delete_access_key(OWNER, made)
    assert engine.signing_secret(made) is None
    with pytest.raises(NotFound):
        engine.delete_access_key(OWNER, made)


def test_each_needs_its_permission_on_the_users_arn(engine: Engine) -> None:
    made = engine.create_access_key(OWNER, "bob").key.access_key_id
    for call in (
        lambda: engine.create_access_key(ALICE, "alice"),
        lambda: engine.list_access_keys(ALICE, "alice"),
        lambda: engine.delete_access_key(ALICE, made),
        lambda: engine.delete_access_key(ALICE, "there is none"),
    ):
        with pytest.raises(AccessDenied):
            call()
    own = policy({"Effect": "Allow", "Action": "iam:*AccessKey*", "Resource": ALICE.arn})
    engine.put_identity_policy(OWNER, ALICE.arn, "own-keys", own)
    mine = engine.create_access_key(ALICE, "alice").key
    assert engine.list_access_keys(ALICE, "alice") == (mine,)
    with pytest.raises(AccessDenied):
        engine.delete_access_key(ALICE, made)
    with pytest.raises(AccessDenied):
        engine.create_access_key(ALICE, "bob")
    engine.delete_access_key(ALICE, mine.access_key_id)


def test_the_secret_is_in_no_record_and_in_no_row(engine: Engine, home: Path) -> None:
    secret = bytes(engine.create_access_key(OWNER, "alice").secret.expose())
    (record,) = [one for one in audit_records(home) if one["eventName"] == "CreateAccessKey"]
    assert record["requestParameters"]["userName"] == "alice"
    assert secret.decode() not in str(audit_records(home))
    assert all(secret not in path.read_bytes() for path in home.glob("kms.db*"))


def test_a_row_that_was_given_to_another_user_is_refused(home: Path) -> None:
    with open_kms(home) as engine:
        made = engine.create_access_key(OWNER, "alice").key.access_key_id
    with sqlite3.connect(home / "kms.db") as database:
        database.execute("UPDATE access_keys SET uid = 1002, user = 'bob'")
    database.close()
    with pytest.raises(IntegrityError), open_kms(home) as engine:
        engine.signing_secret(made)


def test_a_sibling_is_an_engine_of_its_own_on_the_same_store(engine: Engine) -> None:
    with engine.sibling() as sibling:
        made = sibling.create_access_key(OWNER, "alice").key
    assert engine.list_access_keys(OWNER, "alice") == (made,)
    key = engine.create_key(OWNER, policy=policy(statement("Allow", [OWNER.arn, BOB.arn], "kms:*"))).key_id
    blob = engine.encrypt(OWNER, key, b"plaintext", {}).blob
    with engine.sibling() as sibling, sibling.decrypt(BOB, blob, {}) as plaintext:
        assert plaintext.expose() == b"plaintext"
    assert engine.verify_audit().is_intact


def test_who_may_not_delete_an_access_key_learns_nothing_of_it(engine: Engine) -> None:
    of_bob = engine.create_access_key(OWNER, "bob").key.access_key_id
    own = policy({"Effect": "Allow", "Action": "iam:DeleteAccessKey", "Resource": ALICE.arn})
    engine.put_identity_policy(OWNER, ALICE.arn, "own-keys", own)
    messages = set()
    for access_key_id in (of_bob, "A" * 20):
        with pytest.raises(AccessDenied) as caught:
            engine.delete_access_key(ALICE, access_key_id)
        messages.add(str(caught.value))
    assert len(messages) == 1
    assert BOB.name not in messages.pop()


def test_nobody_else_makes_access_keys_of_the_account_root(engine: Engine) -> None:
    anybodys = policy({"Effect": "Allow", "Action": "iam:CreateAccessKey", "Resource": "*"})
    engine.put_identity_policy(OWNER, ALICE.arn, "help-desk", anybodys)
    engine.create_access_key(ALICE, "bob")
    with pytest.raises(AccessDenied, match="owns the KMS"):
        engine.create_access_key(ALICE, "olga")
    assert engine.list_access_keys(OWNER, "olga") == ()
    engine.create_access_key(OWNER, "olga")
