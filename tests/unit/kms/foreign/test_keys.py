"""Keys that stand for keys of another KMS: policies and records are ours, and neither KMS opens a blob alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pytest

from envfs.crypto.secret import Secret
from envfs.errors import (
    AccessDenied,
    Disabled,
    DryRunOperation,
    EnvfsError,
    FormatError,
    InvalidCiphertext,
    KmsUnreachable,
    NotFound,
    Throttling,
    UnsupportedOperation,
    Validation,
)
from envfs.format.blob import read_any_blob, read_blob
from envfs.format.foreign_blob import ForeignBlob
from envfs.kms.foreign.configuration import ForeignKey
from envfs.kms.foreign.endpoint import endpoint_of
from envfs.kms.foreign.exchange import Answer, Exchange, Pending, Question, ask, complete
from envfs.kms.model import ORIGIN_FOREIGN, RequestFacts
from tests.foreign.faulty_kms import ALIAS, ARN, REGION, FaultyKms
from tests.unit.kms.kit import ALICE, BOB, CONTEXT, OWNER, THROUGH_MOUNT, audit_records, users_policy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from envfs.kms.engine import Engine


@pytest.fixture
def place(foreign: FaultyKms) -> ForeignKey:
    found = ForeignKey(ALIAS, REGION, foreign.url)
    endpoint_of(found)._breaker._succeeded()
    return found


@pytest.fixture
def key(engine: Engine, place: ForeignKey, foreign: FaultyKms) -> str:
    made = engine.create_key(OWNER, origin=ORIGIN_FOREIGN, foreign=place, policy=users_policy(ALICE))
    foreign.requests.clear()
    return made.arn


def opened(engine: Engine, blob: bytes) -> bytes:
    with engine.decrypt(ALICE, blob, CONTEXT, THROUGH_MOUNT) as plaintext:
        return bytes(plaintext.expose())


def test_a_data_key_comes_back_and_the_other_kms_never_sees_it(engine: Engine, key: str, foreign: FaultyKms) -> None:
    made = engine.generate_data_key(ALICE, key, CONTEXT, THROUGH_MOUNT)
    plain = bytes(made.plaintext.expose())
    assert opened(engine, made.blob) == plain
    assert [name for name, _ in foreign.requests] == ["Encrypt", "Decrypt"]
    assert all(request["EncryptionContext"] == CONTEXT for _, request in foreign.requests)
    import base64

    seen = base64.b64decode(foreign.requests[0][1]["Plaintext"])
    assert seen != plain
    assert plain not in made.blob
    assert seen not in made.blob
    assert len(made.blob) == 270  # with a foreign ciphertext of 184 bytes: fits into a header with 74 bytes of labels


def test_every_blob_has_a_secret_of_its_own(engine: Engine, key: str, foreign: FaultyKms) -> None:
    for _ in range(5):
        engine.encrypt(OWNER, key, b"the same", CONTEXT)
    assert len({request["Plaintext"] for _, request in foreign.requests}) == 5


@pytest.mark.parametrize("part", ["key id", "backing key id", "length", "foreign ciphertext", "ciphertext", "tag"])
def test_a_blob_that_was_changed(engine: Engine, key: str, part: str) -> None:
    blob = engine.generate_data_key(ALICE, key, CONTEXT, THROUGH_MOUNT).blob
    at = {"key id": 4, "backing key id": 20, "length": 37, "foreign ciphertext": 200, "ciphertext": 225, "tag": -1}[
        part
    ]
    changed = bytearray(blob)
    changed[at] ^= 1
    with pytest.raises((InvalidCiphertext, AccessDenied)):
        engine.decrypt(ALICE, bytes(changed), CONTEXT, THROUGH_MOUNT)


def test_a_foreign_ciphertext_of_another_blob_opens_nothing(engine: Engine, key: str) -> None:
    one, other = (engine.generate_data_key(ALICE, key, CONTEXT, THROUGH_MOUNT).blob for _ in range(2))
    with pytest.raises(InvalidCiphertext):
        engine.decrypt(ALICE, one[:38] + other[38:222] + one[222:], CONTEXT, THROUGH_MOUNT)


def test_another_context(engine: Engine, key: str) -> None:
    blob = engine.generate_data_key(ALICE, key, CONTEXT, THROUGH_MOUNT).blob
    with pytest.raises(InvalidCiphertext):
        engine.decrypt(ALICE, blob, {**CONTEXT, "project": "apollo"}, THROUGH_MOUNT)


@pytest.mark.parametrize("fault", ["wrong plaintext", "short plaintext", "wrong key"])
def test_a_kms_that_answers_wrongly_gives_no_plaintext(
    engine: Engine, key: str, foreign: FaultyKms, fault: str
) -> None:
    blob = engine.generate_data_key(ALICE, key, CONTEXT, THROUGH_MOUNT).blob
    foreign.fault = fault
    with pytest.raises(EnvfsError):
        engine.decrypt(ALICE, blob, CONTEXT, THROUGH_MOUNT)


def test_who_is_denied_here_is_not_even_asked_for_there(
    engine: Engine, key: str, foreign: FaultyKms, home: Path
) -> None:
    blob = engine.generate_data_key(ALICE, key, CONTEXT, THROUGH_MOUNT).blob
    foreign.requests.clear()
    for attempt in (
        lambda: engine.decrypt(BOB, blob, CONTEXT, THROUGH_MOUNT),
        lambda: engine.generate_data_key(BOB, key, CONTEXT, THROUGH_MOUNT),
    ):
        with pytest.raises(AccessDenied):
            attempt()
    engine.disable_key(OWNER, key)
    with pytest.raises(Disabled):
        engine.decrypt(ALICE, blob, CONTEXT, THROUGH_MOUNT)
    assert foreign.requests == []


def test_what_the_other_kms_refuses_is_in_our_trail(engine: Engine, key: str, foreign: FaultyKms, home: Path) -> None:
    blob = engine.generate_data_key(ALICE, key, CONTEXT, THROUGH_MOUNT).blob
    foreign.fault = "denied"
    with pytest.raises(AccessDenied):
        engine.decrypt(ALICE, blob, CONTEXT, THROUGH_MOUNT)
    record = audit_records(home)[-1]
    assert (record["eventName"], record["errorCode"]) == ("Decrypt", "AccessDeniedException")
    assert foreign.url in record["errorMessage"]


def test_creating_one_tries_it_out_and_pins_the_arn(engine: Engine, place: ForeignKey, foreign: FaultyKms) -> None:
    made = engine.create_key(OWNER, origin=ORIGIN_FOREIGN, foreign=place)
    assert [name for name, _ in foreign.requests] == ["Encrypt", "Decrypt"]
    assert (made.origin, made.foreign_key, made.enabled) == (ORIGIN_FOREIGN, ARN, True)
    assert engine.get_foreign_key(OWNER, made.arn) == ForeignKey(ARN, REGION, foreign.url)


@pytest.mark.parametrize("fault", ["denied", "gone", "wrong plaintext", "wrong key"])
def test_a_foreign_key_that_does_not_work_makes_none(
    engine: Engine, place: ForeignKey, foreign: FaultyKms, fault: str
) -> None:
    before = engine.list_keys(OWNER)
    foreign.fault = fault
    with pytest.raises(EnvfsError):
        engine.create_key(OWNER, origin=ORIGIN_FOREIGN, foreign=place)
    assert engine.list_keys(OWNER) == before


def test_who_may_create_keys_may_not_make_us_connect_somewhere(
    engine: Engine, place: ForeignKey, foreign: FaultyKms
) -> None:
    def allow(*actions: str) -> None:
        import json

        statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        engine.put_identity_policy(
            OWNER, ALICE.arn, "keys", json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        )

    allow("kms:*")
    with pytest.raises(AccessDenied, match="envfs:UseForeignKms"):
        engine.create_key(ALICE, origin=ORIGIN_FOREIGN, foreign=place)
    assert foreign.requests == []
    allow("kms:*", "envfs:UseForeignKms")
    assert engine.create_key(ALICE, origin=ORIGIN_FOREIGN, foreign=place).foreign_key == ARN


def test_what_a_foreign_key_cannot_be_or_do(engine: Engine, place: ForeignKey, key: str) -> None:
    with pytest.raises(UnsupportedOperation):
        engine.create_key(OWNER, origin=ORIGIN_FOREIGN)
    with pytest.raises(UnsupportedOperation):
        engine.create_key(OWNER, origin=ORIGIN_FOREIGN, foreign=place, spec="HMAC_256", usage="GENERATE_VERIFY_MAC")
    with pytest.raises(Validation):
        engine.create_key(OWNER, foreign=place)
    for operation in (engine.rotate_key_on_demand, engine.enable_key_rotation):
        with pytest.raises(UnsupportedOperation, match="rotated by the KMS that holds it"):
            operation(OWNER, key)
    with pytest.raises(UnsupportedOperation):
        engine.delete_imported_key_material(OWNER, key)
    with pytest.raises(UnsupportedOperation):
        engine.get_foreign_key(OWNER, engine.create_key(OWNER).arn)


def test_re_encrypting_between_here_and_there(engine: Engine, key: str) -> None:
    local = engine.create_key(OWNER).arn
    first = engine.encrypt(OWNER, local, b"a volume that moves", CONTEXT).blob
    there = engine.re_encrypt(OWNER, first, key, source_context=CONTEXT, destination_context=CONTEXT).blob
    assert isinstance(read_any_blob(there), ForeignBlob)
    again = engine.re_encrypt(OWNER, there, key, source_context=CONTEXT, destination_context=CONTEXT).blob
    back = engine.re_encrypt(OWNER, again, local, source_context=CONTEXT, destination_context=CONTEXT).blob
    assert read_blob(back)
    for blob in (there, again, back):
        with engine.decrypt(OWNER, blob, CONTEXT) as plaintext:
            assert bytes(plaintext.expose()) == b"a volume that moves"


def test_a_local_key_opens_no_foreign_blob(engine: Engine, key: str) -> None:
    local = engine.create_key(OWNER)
    blob = engine.encrypt(OWNER, key, b"x", CONTEXT).blob
    other = engine.encrypt(OWNER, local.arn, b"x", CONTEXT).blob
    for forged in (blob[:4] + other[4:36] + blob[36:], other[:4] + blob[4:36] + other[36:]):
        with pytest.raises(InvalidCiphertext):
            engine.decrypt(OWNER, forged, CONTEXT)
    with pytest.raises(FormatError):
        read_blob(blob)


def test_deleting_the_key_here_ends_its_blobs_whatever_happens_there(
    engine: Engine, key: str, clock: Callable[[], float]
) -> None:
    blob = engine.encrypt(OWNER, key, b"x", CONTEXT).blob
    engine.schedule_key_deletion(OWNER, key, 7)
    clock.now += 8 * 86_400  # type: ignore[attr-defined]
    engine.maintain()
    with pytest.raises(AccessDenied):
        engine.decrypt(OWNER, blob, CONTEXT)
    with pytest.raises(NotFound):
        engine.describe_key(OWNER, key)


# In the thread of an event loop


T = TypeVar("T")


class Recorded:
    """Asks, and remembers what was asked and answered."""

    def __init__(self) -> None:
        self.questions: list[Question] = []
        self.answers: list[Answer] = []
        self.before: Callable[[], None] = lambda: None

    async def __call__(self, question: Question) -> Answer:
        self.before()
        self.questions.append(question)
        self.answers.append(ask(question))
        return self.answers[-1]


def pending_of(call: Callable[[], object]) -> Pending:
    with pytest.raises(Pending) as caught:
        call()
    return caught.value


async def completed(engine: Engine, call: Callable[[], T], asking: Recorded) -> T:
    return await complete(engine, call, pending_of(call), asking)


async def test_a_call_that_has_to_ask_leaves_nothing_behind_and_is_made_again(
    engine: Engine, key: str, home: Path, foreign: FaultyKms
) -> None:
    engine.never_wait()
    asking, before = Recorded(), len(audit_records(home))
    pending = pending_of(lambda: engine.generate_data_key(ALICE, key, CONTEXT, THROUGH_MOUNT))
    assert len(audit_records(home)) == before
    assert foreign.requests == []
    made = await complete(engine, lambda: engine.generate_data_key(ALICE, key, CONTEXT, THROUGH_MOUNT), pending, asking)
    plain = bytes(made.plaintext.expose())
    found = await completed(engine, lambda: engine.decrypt(ALICE, made.blob, CONTEXT, THROUGH_MOUNT), asking)
    assert bytes(found.expose()) == plain
    assert [record["eventName"] for record in audit_records(home)[before:]] == ["GenerateDataKey", "Decrypt"]
    for answer in asking.answers:
        assert answer.secret is not None
        with pytest.raises(ValueError, match="wiped"):
            answer.secret.expose()


async def test_whoever_was_shut_out_while_the_answer_came_gets_nothing(engine: Engine, key: str, home: Path) -> None:
    blob = engine.generate_data_key(ALICE, key, CONTEXT, THROUGH_MOUNT).blob
    engine.never_wait()
    asking = Recorded()
    asking.before = lambda: engine.put_key_policy(OWNER, key, users_policy(BOB))
    with pytest.raises(AccessDenied):
        await completed(engine, lambda: engine.decrypt(ALICE, blob, CONTEXT, THROUGH_MOUNT), asking)
    assert audit_records(home)[-1]["errorCode"] == "AccessDeniedException"


async def test_re_encrypting_between_two_foreign_keys_asks_twice(engine: Engine, key: str, place: ForeignKey) -> None:
    other = engine.create_key(OWNER, origin=ORIGIN_FOREIGN, foreign=place).arn
    blob = engine.encrypt(OWNER, key, b"x", CONTEXT).blob
    engine.never_wait()
    asking = Recorded()
    moved = await completed(
        engine,
        lambda: engine.re_encrypt(OWNER, blob, other, source_context=CONTEXT, destination_context=CONTEXT),
        asking,
    )
    assert [question.operation for question in asking.questions] == ["decrypt", "encrypt"]
    found = await completed(engine, lambda: engine.decrypt(OWNER, moved.blob, CONTEXT), asking)
    assert bytes(found.expose()) == b"x"


async def test_creating_a_key_waits_too(engine: Engine, place: ForeignKey) -> None:
    engine.never_wait()
    asking = Recorded()
    made = await completed(engine, lambda: engine.create_key(OWNER, origin=ORIGIN_FOREIGN, foreign=place), asking)
    assert (made.foreign_key, len(asking.questions)) == (ARN, 1)


async def test_an_error_is_raised_by_the_call_and_recorded(engine: Engine, key: str, home: Path) -> None:
    blob = engine.generate_data_key(ALICE, key, CONTEXT, THROUGH_MOUNT).blob
    engine.never_wait()

    async def refuse(_: Question) -> Answer:
        return Answer(error=Throttling("enough"))

    call = lambda: engine.decrypt(ALICE, blob, CONTEXT, THROUGH_MOUNT)  # noqa: E731
    with pytest.raises(Throttling, match="enough"):
        await complete(engine, call, pending_of(call), refuse)
    assert audit_records(home)[-1]["errorCode"] == "ThrottlingException"


async def test_a_question_that_changes_with_every_answer_ends(engine: Engine) -> None:
    def call() -> None:
        raise Pending(Question("decrypt", ForeignKey(ARN, REGION)))

    async def answer(_: Question) -> Answer:
        return Answer(Secret(bytes(32)))

    with pytest.raises(KmsUnreachable):
        await complete(engine, call, pending_of(call), answer)


def test_an_encrypted_secret_is_given_once_and_then_known() -> None:
    question = Question("encrypt", ForeignKey(ARN, REGION), (("a", "b"),))
    with Exchange() as exchange:
        exchange.put(question, Answer(Secret(b"s" * 32), b"ciphertext"))
        assert exchange.take(question).ciphertext == b"ciphertext"
        with pytest.raises(Pending):
            exchange.take(question)
        known = exchange.take(Question("decrypt", question.place, question.context, b"ciphertext"))
        assert known.secret is not None
        assert bytes(known.secret.expose()) == b"s" * 32


def test_a_dry_run_of_a_new_data_key(engine: Engine, key: str) -> None:
    with pytest.raises(DryRunOperation):
        engine.generate_data_key(ALICE, key, CONTEXT, RequestFacts(dry_run=True))
