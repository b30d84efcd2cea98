"""Several processes on one KMS, some of which are killed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from envfs.errors import ConfigError
from envfs.kms.audit.trail import AuditTrail
from envfs.kms.bootstrap import init_kms
from envfs.kms.engine import DATABASE, Engine
from envfs.kms.model import KeyState
from envfs.kms.rootkey import KEY_FILE_NAME, KeyFileUnlock
from envfs.kms.schedule import DAY
from envfs.kms.schema import ALIASES, BACKING_KEYS, KEYS, TAGS, Table
from envfs.kms.sqlite_store import SqliteStore
from tests.integration.kms import worker
from tests.integration.kms.killing import killed_at_every_line
from tests.unit.kms.kit import (
    ALICE,
    BOB,
    CONTEXT,
    OWNER,
    OWNER_UID,
    Clock,
    every,
    make_kms,
    open_kms,
    policy,
    statement,
    users_policy,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from tests.integration.users import UnixUser

TIMEOUT = 60
REPOSITORY = Path(worker.__file__).parents[3]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_kms(tmp_path / "kms")


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """start("change", "a") runs a worker; whatever still runs at the end is killed."""
    running: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.integration.kms.worker", arguments[0], str(home), *arguments[1:]]
        pipe = subprocess.PIPE
        running.append(subprocess.Popen(command, cwd=REPOSITORY, stdin=pipe, stdout=pipe, text=True))
        return running[-1]

    yield run
    for process in running:
        process.kill()
        process.wait(timeout=TIMEOUT)
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


def read_lines(process: subprocess.Popen[str], count: int) -> list[list[str]]:
    assert process.stdout is not None
    lines = [process.stdout.readline().split() for _ in range(count)]
    assert all(lines), "a worker ended by itself"
    return lines


def kill(process: subprocess.Popen[str]) -> list[list[str]]:
    """SIGKILL, and what it had still said."""
    process.kill()
    assert process.stdout is not None
    said = [line.split() for line in process.stdout if line.endswith("\n")]
    process.wait(timeout=TIMEOUT)
    return said


def check_what_was_said(home: Path, said: list[list[str]]) -> None:
    """Whatever a process was told to be done is done, and stands in the audit trail."""
    with open_kms(home) as engine:
        keys = {entry.key_id for entry in every(engine.list_keys, OWNER)}
        aliases = {alias.name: alias.target_key_id for alias in every(engine.list_aliases, OWNER)}
        for word, key, *more in said:
            assert key in keys
            if word == "alias":
                assert aliases[more[0]] == key
            elif word == "policy":
                assert BOB.arn in engine.get_key_policy(OWNER, key)
            elif word == "disabled":
                assert engine.describe_key(OWNER, key).state is KeyState.DISABLED
            else:
                assert word in {"created", "generated"}
        found = engine.verify_audit()
        assert found.problems == ()
        assert engine._store.verify_all() == []
    recorded = [json.loads(line) for path in (home / "audit").iterdir() for line in path.read_text().splitlines()]
    names = [(one["eventName"], one["requestParameters"].get("keyId", "")[-36:]) for one in recorded if "tag" in one]
    events = {"created": "CreateKey", "alias": "CreateAlias", "generated": "GenerateDataKey", "policy": "PutKeyPolicy",
              "disabled": "DisableKey"}  # fmt: skip
    for word, key, *_ in said:
        assert (events[word], key) in names


def test_readers_see_whole_states_while_others_change(home: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    """Each of the readers verifies every digest, again and again, from within one state at a time."""
    writers = [start("change", f"p{number}") for number in range(6)]
    readers = [start("verify") for _ in range(4)]
    said = [line for process in writers for line in read_lines(process, 8)]
    verified = [line for process in readers for line in read_lines(process, 5)]
    for process in writers:
        said += kill(process)
    for process in readers:
        verified += kill(process)
    assert {tuple(line) for line in verified} == {("authentic",)}
    check_what_was_said(home, said)


def test_ten_processes_change_and_use_keys_at_once(home: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    processes = [start("change", f"p{number}") for number in range(10)]
    said = [line for process in processes for line in read_lines(process, 10)]
    for process in processes:
        said += kill(process)
    assert len(said) >= 100
    check_what_was_said(home, said)


@pytest.mark.parametrize("after", [1, 2, 3, 4, 5, 6, 7, 11, 13, 17])
def test_a_process_that_is_killed_leaves_all_that_it_had_finished(
    home: Path, start: Callable[..., subprocess.Popen[str]], after: int
) -> None:
    process = start("change", "victim")
    said = read_lines(process, after)
    said += kill(process)
    check_what_was_said(home, said)
    survivor = start("change", "survivor")
    said += read_lines(survivor, 6) + kill(survivor)
    check_what_was_said(home, said)


def test_a_change_counts_at_the_next_call_of_another_process(
    home: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    with open_kms(home) as engine:
        key = engine.create_key(OWNER, policy=users_policy(ALICE)).key_id
        process = start("answer", engine.generate_data_key(ALICE, key, CONTEXT).blob.hex())
        assert read_lines(process, 1) == [["ready"]]

        def ask() -> str:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            return read_lines(process, 1)[0][0]

        assert ask() == "allowed"
        engine.put_key_policy(OWNER, key, users_policy(BOB))
        assert ask() == "AccessDenied"
        engine.put_key_policy(OWNER, key, users_policy(ALICE))
        assert ask() == "allowed"
        engine.disable_key(OWNER, key)
        assert ask() == "Disabled"
        engine.enable_key(OWNER, key)
        assert ask() == "allowed"
        engine.put_identity_policy(OWNER, ALICE.arn, "no", policy(statement("Deny", None, "kms:*")))
        assert ask() == "AccessDenied"
        engine.delete_identity_policy(OWNER, ALICE.arn, "no")
        assert ask() == "allowed"


STORE = ("envfs.kms.sqlite_store", "envfs.kms.sealed_store", "envfs.kms.sealed_table", "envfs.kms.digest_tree")
BOOTSTRAP = ("envfs.kms.bootstrap", "envfs.kms.rootkey", *STORE)
CHANGING = ("envfs.kms.core", "envfs.kms.audit.trail", *STORE)
CONVERTING = ("envfs.kms.migrations", "envfs.kms.version_1", *STORE)
GOLDEN = REPOSITORY / "tests" / "golden" / "version-1" / "kms"


def test_making_a_kms_can_be_killed_anywhere(tmp_path: Path) -> None:
    home = tmp_path / "kms"
    kills = 0
    for _ in killed_at_every_line(lambda: init_kms(home, owner_uid=OWNER_UID), *BOOTSTRAP, step=11):
        kills += 1
        key_file = home / KEY_FILE_NAME
        assert not key_file.exists() or len(key_file.read_bytes()) == 32
        if (home / DATABASE).exists():
            open_kms(home).close()
            for path in home.iterdir():
                path.unlink()
    assert kills > 20
    open_kms(home).close()
    assert {path.name for path in home.iterdir()} == {DATABASE, KEY_FILE_NAME}


@pytest.mark.parametrize("is_first", [True, False], ids=["first record", "later record"])
def test_a_change_can_be_killed_anywhere(home: Path, *, is_first: bool) -> None:
    old, new = users_policy(ALICE), users_policy(BOB)
    with open_kms(home) as engine:
        key = engine.create_key(OWNER, policy=old).key_id
        blob = engine.generate_data_key(ALICE, key, CONTEXT).blob

    def put() -> None:
        with open_kms(home) as engine:
            if not is_first:
                engine.decrypt(ALICE, blob, CONTEXT)
            engine.put_key_policy(OWNER, key, new)

    outcomes = set()
    for _ in killed_at_every_line(put, *CHANGING, step=23):
        with open_kms(home) as engine:
            found = engine.get_key_policy(OWNER, key)
            outcomes.add(found)
            assert engine._store.verify_all() == []
            assert engine.verify_audit().problems == ()
            engine.put_key_policy(OWNER, key, old)
    assert outcomes == {old, new}
    with open_kms(home) as engine:
        assert engine.get_key_policy(OWNER, key) == new


def test_a_conversion_can_be_killed_anywhere(tmp_path: Path) -> None:
    """What is left is the whole of version 1 or the whole of version 2."""
    home = tmp_path / "kms"

    def fresh() -> None:
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(GOLDEN, home)
        home.chmod(0o700)
        (home / KEY_FILE_NAME).chmod(0o400)

    fresh()
    versions = set()
    for _ in killed_at_every_line(lambda: open_kms(home).close(), *CONVERTING, step=41):
        store = SqliteStore.open(home / DATABASE)
        versions.add(store.schema_version)
        store.close()
        with open_kms(home) as engine:
            assert engine._store.verify_all() == []
            assert len(every(engine.list_keys, OWNER)) == 3
            assert engine.verify_audit().problems == ()
        fresh()
    assert versions == {1, 2}


def test_another_user_cannot_open_it(
    directory: Callable[..., Path], unix_users: Callable[..., list[UnixUser]], run_as: Callable[..., Any]
) -> None:
    home = directory("kms", mode=0o700)
    init_kms(home)
    (mallory,) = unix_users("mallory")

    def unlock() -> str:
        try:
            Engine.open(home, KeyFileUnlock(home / KEY_FILE_NAME)).close()
        except ConfigError as error:
            return error.message
        return "opened"

    assert "you have no access to the KMS" in run_as(mallory, unlock)
    home.chmod(0o755)
    assert "you have no access to the KMS" in run_as(mallory, unlock)


LIFE = ("envfs.kms.operations.maintenance", "envfs.kms.operations.deletion", "envfs.kms.operations.rotation",
        "envfs.kms.core", "envfs.kms.sealed_store", "envfs.kms.sqlite_store")  # fmt: skip


def test_a_rotation_can_be_killed_anywhere(home: Path) -> None:
    clock = Clock()
    with open_kms(home, clock=clock) as engine:
        key = engine.create_key(OWNER, policy=users_policy(ALICE)).key_id
        engine.enable_key_rotation(OWNER, key, 90)
        blobs = [engine.generate_data_key(ALICE, key, CONTEXT).blob]
    rotations = 0

    def rotate() -> None:
        with open_kms(home, clock=clock) as engine:
            engine.maintain()

    outcomes = set()
    clock.now += 90 * DAY
    for _ in killed_at_every_line(rotate, *LIFE, step=37):
        with open_kms(home, clock=clock) as engine:
            found = len(every(engine.list_key_rotations, OWNER, key))
            outcomes.add(found - rotations)
            for blob in blobs:
                engine.decrypt(ALICE, blob, CONTEXT)
            blobs.append(engine.generate_data_key(ALICE, key, CONTEXT).blob)
            assert (engine._store.verify_all(), engine.verify_audit().problems) == ([], ())
        if found > rotations:
            rotations = found
            clock.now += 90 * DAY
    assert outcomes == {0, 1}


def test_a_deletion_can_be_killed_anywhere(home: Path) -> None:
    """The key is there with all that belongs to it, or nothing is; and in the end no file holds its material."""
    clock = Clock()
    keys: list[str] = []
    wrapped: list[bytes] = []

    def doom() -> None:
        with open_kms(home, clock=clock) as engine:
            keys.append(engine.create_key(OWNER, tags={"a": "b"}).key_id)
            engine.create_alias(OWNER, f"alias/{len(keys)}", keys[-1])
            engine.rotate_key_on_demand(OWNER, keys[-1])
            wrapped.extend(row.wrapped for row in engine._store.find(BACKING_KEYS, key_id=uuid.UUID(keys[-1]).bytes))
            engine.schedule_key_deletion(OWNER, keys[-1], 7)
        clock.now += 7 * DAY

    def delete() -> None:
        with open_kms(home, clock=clock) as engine:
            engine.maintain()

    doom()
    outcomes = set()
    for _ in killed_at_every_line(delete, *LIFE, step=43):
        with open_kms(home, clock=clock) as engine:
            key_id = uuid.UUID(keys[-1]).bytes
            tables: tuple[Table[Any], ...] = (BACKING_KEYS, ALIASES, TAGS, KEYS)
            left = [len(engine._store.find(table, key_id=key_id)) for table in tables]
            outcomes.add(tuple(left))
            assert (engine._store.verify_all(), engine.verify_audit().problems) == ([], ())
        if not any(left):
            doom()
    assert outcomes == {(2, 1, 1, 1), (0, 0, 0, 0)}
    delete()
    assert not any(piece in path.read_bytes() for path in home.glob("kms.db*") for piece in wrapped)


def test_several_writers_fill_files_of_the_trail(home: Path) -> None:
    """Processes whose chains are sealed again and again while others write: every record is in one chain, once."""
    with open_kms(home) as engine:
        key = engine.create_key(OWNER, policy=users_policy(ALICE)).key_id
        blob = engine.generate_data_key(ALICE, key, CONTEXT).blob
    children = []
    for _ in range(4):
        with warnings.catch_warnings():
            # The child takes no lock that another thread could have held at fork(2).
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            _write_and_exit(home, blob)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    with open_kms(home) as engine:
        found = engine.verify_audit()
        assert (found.problems, found.notices, found.records) == ((), (), 2 + 4 * 60)
        assert found.chains > 4 * 60 * 900 // 20_000
        used = engine.get_key_last_usage(OWNER, key).usage
        assert used is not None
        assert used.operation == "Decrypt"


def _write_and_exit(home: Path, blob: bytes) -> None:
    """In a child: 60 records, in files of at most 20 kB and a record. Never returns."""
    try:
        with open_kms(home) as engine:
            sink = engine._recorder._sink
            assert isinstance(sink, AuditTrail)
            sink._seal_at = 20_000
            for _ in range(60):
                engine.decrypt(ALICE, blob, CONTEXT)
    except BaseException:  # noqa: BLE001 - the parent asks for the exit status only
        os._exit(1)
    os._exit(0)
