"""The audit trail: what records say, and what an attacker on the files can hide."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from envfs.crypto.secret import Secret
from envfs.errors import AccessDenied, EnvfsError, Internal, InvalidCiphertext, InvalidTag
from envfs.kms.audit.chain import MAX_LINE
from envfs.kms.audit.record import MAX_PARAMETERS, MAX_PATH
from envfs.kms.audit.trail import AuditTrail
from envfs.kms.audit.verify import Verification, verify_trail
from envfs.kms.model import RequestFacts
from tests.unit.kms.kit import ALICE, BOB, CONTEXT, OWNER, THROUGH_MOUNT, audit_records, open_kms, users_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from envfs.kms.engine import Engine
    from envfs.kms.model import DataKey
    from tests.unit.kms.kit import Clock


@pytest.fixture
def data_key(engine: Engine) -> DataKey:
    """Made under a key that alice may use. So far there are two records."""
    key = engine.create_key(OWNER, policy=users_policy(ALICE)).key_id
    return engine.generate_data_key(ALICE, key, CONTEXT, THROUGH_MOUNT)


def trail(home: Path) -> Path:
    (path,) = (home / "audit").iterdir()
    return path


def abandon(engine: Engine) -> None:
    """Leaves the chain as a kill does: not anchored."""
    sink = engine._recorder._sink
    assert isinstance(sink, AuditTrail)
    sink._release()


def verify(home: Path) -> Verification:
    with open_kms(home) as engine:
        return engine.verify_audit()


def test_a_record_has_cloudtrail_s_fields(home: Path, engine: Engine, data_key: DataKey, clock: Clock) -> None:
    engine.decrypt(ALICE, data_key.blob, CONTEXT, THROUGH_MOUNT, also=("kms:GenerateDataKey",))
    record = audit_records(home)[2]
    assert (len(record.pop("requestID")), len(record.pop("eventID")), len(record.pop("tag"))) == (36, 36, 64)
    statement = {"policy": "key policy", "sid": "Users", "number": 2, "effect": "Allow"}
    allowed = {"allowed": True, "reason": "key-policy", "statements": [statement]}
    assert record == {
        "eventVersion": "1.09",
        "userIdentity": {
            "type": "IAMUser",
            "principalId": "1001",
            "arn": ALICE.arn,
            "accountId": "000000000000",
            "userName": "alice",
        },
        "eventTime": "2023-11-14T22:13:20Z",
        "eventSource": "kms.envfs",
        "eventName": "Decrypt",
        "awsRegion": "local",
        "readOnly": True,
        "requestParameters": {
            "keyId": data_key.key_arn,
            "encryptionContext": dict(CONTEXT),
            "also": ["kms:GenerateDataKey"],
        },
        "responseElements": None,
        "resources": [{"accountId": "000000000000", "type": "AWS::KMS::Key", "ARN": data_key.key_arn}],
        "eventType": "AwsApiCall",
        "recipientAccountId": "000000000000",
        "envfs": {
            "uid": 1001,
            "gid": 1001,
            "pid": 4242,
            "path": "/finance/report",
            "access": "read",
            "viaService": "envfs",
            "decisions": [allowed, allowed],
            "generation": record["envfs"]["generation"],
        },
        "sequence": 3,
    }
    clock.now += 60
    engine.decrypt(ALICE, data_key.blob, CONTEXT)
    assert audit_records(home)[3]["eventTime"] == "2023-11-14T22:14:20Z"


def test_denials_and_failures_are_recorded(home: Path, engine: Engine, data_key: DataKey) -> None:
    with pytest.raises(AccessDenied):
        engine.decrypt(BOB, data_key.blob, CONTEXT)
    with pytest.raises(InvalidCiphertext):
        engine.decrypt(ALICE, data_key.blob, {})
    denied, damaged = audit_records(home)[2:]
    assert denied["errorCode"] == "AccessDeniedException"
    assert denied["userIdentity"]["userName"] == "bob"
    assert denied["envfs"]["decisions"] == [{"allowed": False, "reason": "no-match", "statements": []}]
    assert (damaged["errorCode"], damaged["errorMessage"]) == ("InvalidCiphertextException", "")


def test_the_owner_is_called_root(home: Path, engine: Engine, data_key: DataKey) -> None:
    assert audit_records(home)[0]["userIdentity"]["type"] == "Root"


def test_records_never_hold_a_secret(home: Path, engine: Engine, data_key: DataKey) -> None:
    engine.put_key_policy(OWNER, data_key.key_arn, users_policy(ALICE, OWNER))
    blob = engine.encrypt(OWNER, data_key.key_arn, b"plaintext of forty characters, not to see", CONTEXT).blob
    engine.decrypt(ALICE, blob, CONTEXT)
    engine.decrypt(ALICE, data_key.blob, CONTEXT)
    engine.unwrap_service_owned(engine.wrap_service_owned(Secret(b"s" * 32), CONTEXT), CONTEXT)
    engine.close()
    text = trail(home).read_bytes()
    assert text.count(b"\n") == 6  # the service-owned key is not audited
    for secret in (b"plaintext of", data_key.plaintext, data_key.blob[20:], blob[20:]):
        raw = bytes(secret.expose()) if isinstance(secret, Secret) else secret
        assert raw not in text
        assert raw[:12].hex().encode() not in text


@pytest.mark.parametrize(
    "nasty", ['"', "\\", "\n", "\0", "\x7f", "</script>", "\u2028", "ä€😀", "\udcff", '"}\n{"a":"']
)
def test_whatever_a_caller_chooses_stays_inside_its_string(
    home: Path, engine: Engine, data_key: DataKey, nasty: str
) -> None:
    facts = RequestFacts(via_service=nasty, path=f"/{nasty}", access="write")
    context = {f"k{nasty}": nasty} if "\udcff" not in nasty else {}
    with pytest.raises(InvalidCiphertext):
        engine.decrypt(ALICE, data_key.blob, context, facts)
    record = audit_records(home)[-1]
    assert record["envfs"]["path"] == f"/{nasty}"
    assert record["envfs"]["viaService"] == nasty
    assert record["requestParameters"].get("encryptionContext", {}) == context
    assert engine.verify_audit().is_intact


LONG = 200_000 * "é\U0001f512"


@pytest.mark.parametrize(
    "call",
    [
        lambda engine, key: engine.encrypt(ALICE, key, b"x", {"a": LONG}),
        lambda engine, key: engine.re_encrypt(ALICE, b"x", key, source_context={"a": LONG}, destination_context={}),
        lambda engine, key: engine.create_key(ALICE, policy=LONG, description=LONG, tags={LONG: LONG}),
        lambda engine, key: engine.encrypt(ALICE, LONG, b"x", {}),
        lambda engine, key: engine.unpin_user(ALICE, LONG),
        lambda engine, key: engine.put_identity_policy(OWNER, ALICE.arn, LONG, "{}"),
        lambda engine, key: engine.put_key_policy(OWNER, key, json.dumps({f"{LONG[:8000]}": 1})),
        lambda engine, key: engine.untag_resource(OWNER, key, [f"name {number}" for number in range(100_000)]),
        lambda engine, key: engine.encrypt(ALICE, key, b"x", {}, RequestFacts(path=LONG, via_service="envfs")),
    ],
)
def test_no_caller_can_make_a_record_that_is_too_long_to_be_verified(
    home: Path, engine: Engine, call: Callable[[Engine, str], object]
) -> None:
    """It would look like tampering, and nothing that comes after it would be verified."""
    key = engine.create_key(OWNER).key_id
    with pytest.raises(EnvfsError):
        call(engine, key)
    engine.disable_key(OWNER, key)
    found = engine.verify_audit()
    assert (found.problems, found.records) == ((), 3)
    record = audit_records(home)[1]
    assert "errorCode" in record
    parameters = record["requestParameters"]
    assert not parameters.get("omitted") or parameters["originalSize"] > MAX_PARAMETERS
    assert len(record["envfs"].get("path", "")) <= MAX_PATH + 1


def test_a_long_list_cannot_hide_what_a_grant_allows(home: Path, engine: Engine) -> None:
    key = engine.create_key(OWNER).key_id
    engine.create_grant(OWNER, key, ALICE.arn, ["Encrypt", *100_000 * ["Decrypt"]])
    parameters = audit_records(home)[-1]["requestParameters"]
    assert (parameters["granteePrincipal"], parameters["operations"]) == (ALICE.arn, ["Decrypt", "Encrypt"])
    with pytest.raises(InvalidTag, match="at most 50"):
        engine.untag_resource(OWNER, key, 51 * ["a"])


def test_what_is_too_long_all_the_same_is_not_written(home: Path, engine: Engine) -> None:
    one = make_trail(engine, home)
    with pytest.raises(Internal, match="too long"):
        one.write(f'{{"a":"{MAX_LINE * "x"}"')
    one.write('{"a":1')
    one.close()
    assert check(engine, home).is_intact


def test_a_trail_that_nobody_touched(home: Path, engine: Engine, data_key: DataKey) -> None:
    while_open = engine.verify_audit()
    assert (while_open.chains, while_open.records, while_open.problems, while_open.notices) == (1, 2, (), ())
    engine.close()
    assert verify(home).is_intact
    assert trail(home).stat().st_mode & 0o777 == 0o600


def test_nothing_is_written_before_the_first_record(home: Path, engine: Engine) -> None:
    assert engine.verify_audit() == Verification(0, 0, (), ())
    assert not (home / "audit").exists()


def test_a_later_process_continues_the_chain(home: Path, engine: Engine, data_key: DataKey) -> None:
    engine.close()
    for _ in range(3):
        with open_kms(home) as later:
            later.decrypt(ALICE, data_key.blob, CONTEXT)
    assert [one["sequence"] for one in audit_records(home)] == [1, 2, 3, 4, 5]
    assert verify(home).is_intact


def test_processes_that_write_at_once_have_chains_of_their_own(home: Path, engine: Engine, data_key: DataKey) -> None:
    with open_kms(home) as second, open_kms(home) as third:
        for one in (engine, second, third, second, engine):
            one.decrypt(ALICE, data_key.blob, CONTEXT)
        assert engine.verify_audit().is_intact
    found = engine.verify_audit()
    assert (found.chains, found.records, found.is_intact) == (3, 7, True)


def lines(home: Path) -> list[bytes]:
    return trail(home).read_bytes().splitlines(keepends=True)


def drop(which: int) -> Callable[[list[bytes]], list[bytes]]:
    return lambda given: given[:which] + given[which + 1 :]


def change(old: bytes, new: bytes) -> Callable[[list[bytes]], list[bytes]]:
    return lambda given: [given[0], given[1].replace(old, new), *given[2:]]


@pytest.mark.parametrize(
    "attack",
    [
        drop(0),
        drop(1),
        drop(3),
        lambda given: given[:2],
        lambda given: [],
        lambda given: [given[1], given[0], *given[2:]],
        lambda given: [*given, given[-1]],
        lambda given: [*given[:2], given[1], *given[2:]],
        lambda given: [*given, b"x\n"],
        lambda given: [*given[:-1], given[-1][:-1]],
        lambda given: [b"\n", *given],
        change(b"alice", b"alicf"),
        change(b'"tag":"', b'"tag":"0'),
        change(b'{"eventVersion"', b'{ "eventVersion"'),
    ],
    ids=[
        "first removed",
        "middle removed",
        "last removed",
        "cut",
        "emptied",
        "reordered",
        "last replayed",
        "middle replayed",
        "rubbish added",
        "last newline removed",
        "empty line added",
        "content changed",
        "tag changed",
        "space added",
    ],
)
def test_tampering_with_a_trail_is_found(
    home: Path, engine: Engine, data_key: DataKey, attack: Callable[[list[bytes]], list[bytes]]
) -> None:
    for _ in range(2):
        engine.decrypt(ALICE, data_key.blob, CONTEXT)
    engine.close()
    trail(home).write_bytes(b"".join(attack(lines(home))))
    found = verify(home)
    assert not found.is_intact
    # What a process does after it neither hides it, nor is it hindered by it.
    with open_kms(home) as later:
        later.decrypt(ALICE, data_key.blob, CONTEXT)
    assert not verify(home).is_intact


def test_a_trail_that_is_gone_is_missed(home: Path, engine: Engine, data_key: DataKey) -> None:
    engine.close()
    name = trail(home).name
    trail(home).unlink()
    (problem,) = verify(home).problems
    assert problem == f"audit/{name[:8]}….jsonl is missing"


def test_a_trail_of_another_kms_or_of_nobody_is_a_stranger(home: Path, engine: Engine, data_key: DataKey) -> None:
    shutil.copy(trail(home), home / "audit" / ("00" * 16 + ".jsonl"))
    (problem,) = engine.verify_audit().problems
    assert "is not known to the KMS" in problem


def test_lines_of_one_chain_do_not_count_in_another(home: Path, engine: Engine, data_key: DataKey) -> None:
    with open_kms(home) as second:
        second.decrypt(ALICE, data_key.blob, CONTEXT)
    engine.close()
    one, other = sorted((home / "audit").iterdir())
    first, second_bytes = one.read_bytes(), other.read_bytes()
    one.write_bytes(second_bytes)
    other.write_bytes(first)
    assert len(verify(home).problems) == 2


def test_a_database_that_was_put_back_is_noticed(home: Path, engine: Engine, data_key: DataKey, tmp_path: Path) -> None:
    engine.close()
    shutil.copy(home / "kms.db", tmp_path / "yesterday")
    with open_kms(home) as later:
        later.create_key(OWNER)
        later.decrypt(ALICE, data_key.blob, CONTEXT)
    shutil.copy(tmp_path / "yesterday", home / "kms.db")
    (problem,) = verify(home).problems
    assert "the KMS's store was put back" in problem


@pytest.mark.parametrize("torn", [b"{", b'{"eventVersion":"1.09","userId', b"\0" * 400, b"\xff"])
def test_a_line_that_a_crash_cut_off_is_accounted_for(
    home: Path, engine: Engine, data_key: DataKey, torn: bytes
) -> None:
    engine.close()
    with trail(home).open("ab") as file:
        file.write(torn)
    before = verify(home)
    assert before.is_intact
    assert len(before.notices) == 1
    with open_kms(home) as later:
        later.decrypt(ALICE, data_key.blob, CONTEXT)
    after = verify(home)
    assert (after.records, after.is_intact, len(after.notices)) == (4, True, 1)
    record = json.loads(lines(home)[3])
    assert record["eventName"] == "RecoverAuditChain"
    assert record["requestParameters"]["length"] == len(torn)
    # And the account is itself part of the chain.
    trail(home).write_bytes(b"".join(drop(3)(lines(home))))
    assert not verify(home).is_intact


def test_records_after_the_last_anchor_survive_a_kill(home: Path, engine: Engine, data_key: DataKey) -> None:
    abandon(engine)
    with open_kms(home) as later:
        later.decrypt(ALICE, data_key.blob, CONTEXT)
    assert [one["sequence"] for one in audit_records(home)] == [1, 2, 3]
    assert verify(home).is_intact


@contextmanager
def small_files() -> Iterator[None]:
    """No file may grow beyond 8 KiB; writing on gives EFBIG, as a full disk gives ENOSPC.

    Only around what is tested: what pytest itself writes may go to a file, too.
    """
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, previous)


def test_when_the_disk_is_full_there_is_no_key_and_no_half_record(
    home: Path, engine: Engine, data_key: DataKey
) -> None:
    results = []
    with small_files():
        for _ in range(20):
            try:
                engine.decrypt(ALICE, data_key.blob, CONTEXT)
                results.append("a key")
            except Internal as error:
                results.append(error.message)
    given = results.count("a key")
    assert 0 < given < 20
    assert set(results[given:]) == {results[-1]}
    assert "audit record cannot be written" in results[-1]
    found = engine.verify_audit()
    assert (found.records, found.problems, found.notices) == (2 + given, (), ())


def test_a_trail_that_cannot_be_opened_gives_no_key(home: Path, engine: Engine, data_key: DataKey) -> None:
    engine.close()
    shutil.move(home / "audit", home / "elsewhere")
    (home / "audit").write_text("a file")
    with open_kms(home) as later, pytest.raises(Internal, match="cannot be opened"):
        later.decrypt(ALICE, data_key.blob, CONTEXT)


@pytest.mark.parametrize("is_first", [True, False], ids=["new chain", "old chain"])
def test_a_chain_that_the_store_does_not_know_is_not_written_to(
    home: Path, monkeypatch: pytest.MonkeyPatch, *, is_first: bool
) -> None:
    with open_kms(home) as engine:
        if not is_first:
            engine.service_managed_key("alias/envfs/volume")
            abandon(engine)
    with open_kms(home) as later:
        with monkeypatch.context() as broken:
            broken.setattr(later._store, "transaction", lambda: _raise(Internal("busy")))
            for _ in range(3):
                with pytest.raises(Internal, match="busy"):
                    later.list_keys(OWNER)
        assert later.verify_audit().problems == ()
        assert len(list((home / "audit").iterdir())) == (0 if is_first else 1)
        later.list_keys(OWNER)
        assert later.verify_audit().problems == ()


def _raise(error: Exception) -> None:
    raise error


def make_trail(engine: Engine, home: Path, **options: int) -> AuditTrail:
    return AuditTrail(home / "audit", engine._store, engine._root_key, engine.store_id, lambda: 0.0, **options)


def check(engine: Engine, home: Path) -> Verification:
    return verify_trail(home / "audit", engine._store, engine._root_key, engine.store_id)


def test_the_head_is_anchored_every_so_many_records(home: Path, engine: Engine) -> None:
    small = make_trail(engine, home, anchor_every=5)
    for _ in range(12):
        small.write('{"a":1')
    path = trail(home)
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:10]))
    assert check(engine, home).is_intact  # the limit: what came after the anchor can be cut off
    path.write_bytes(b"".join(whole[:9]))
    assert not check(engine, home).is_intact


def test_a_large_file_is_sealed_and_a_new_one_begun(home: Path, engine: Engine) -> None:
    small = make_trail(engine, home, seal_at=300)
    for _ in range(12):
        small.write('{"a":1')
    small.close()
    found = check(engine, home)
    assert (found.records, found.is_intact) == (12, True)
    assert found.chains == 3
    sealed = max((home / "audit").iterdir(), key=lambda path: path.stat().st_size)
    sealed.write_bytes(sealed.read_bytes() + b"{}\n")
    assert not check(engine, home).is_intact


def test_an_empty_file_is_the_trace_of_a_kill(home: Path, engine: Engine, data_key: DataKey) -> None:
    (home / "audit" / ("ab" * 16 + ".jsonl")).touch()
    found = engine.verify_audit()
    assert found.is_intact
    assert "is empty" in found.notices[0]
