"""A KMS that the first release made (tests/golden/version-1) is read for ever, and becomes one of today."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from envfs.errors import AccessDenied, IntegrityError, UnsupportedVersion
from envfs.kms.arn import key_id_text
from envfs.kms.engine import DATABASE
from envfs.kms.migrations import MIGRATIONS, open_sealed
from envfs.kms.model import KeyState
from envfs.kms.rootkey import KEY_FILE_NAME
from envfs.kms.schema import BACKING_KEYS, KEYS, PINS, SCHEMA_VERSION, SEALED_TABLES
from envfs.kms.sqlite_store import SqliteStore
from tests.reference import read_volume
from tests.unit.kms.kit import ALICE, BOB, CONTEXT, OWNER, open_kms, users_policy

GOLDEN = Path(__file__).parents[2] / "golden" / "version-1"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
YEAR = 365 * 24 * 60 * 60


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A copy of the KMS that the first release made."""
    home = tmp_path / "kms"
    shutil.copytree(GOLDEN / "kms", home)
    home.chmod(0o700)
    (home / KEY_FILE_NAME).chmod(0o400)
    return home


def contents(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables, and the schema."""
    connection = sqlite3.connect(path)
    names = [
        name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    ]
    found = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}
    found["schema"] = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY sql").fetchall()
    found["version"] = connection.execute("PRAGMA user_version").fetchall()
    connection.close()
    return found


def edit(home: Path, statement: str) -> None:
    connection = sqlite3.connect(home / DATABASE)
    with connection:
        connection.execute(statement)
    connection.close()


def test_the_golden_kms_is_of_version_1() -> None:
    assert contents(GOLDEN / "kms" / DATABASE)["version"] == [(1,)]
    assert set(MIGRATIONS) == set(range(1, SCHEMA_VERSION))


def test_data_keys_of_the_first_release_decrypt(home: Path) -> None:
    pay, old = EXPECTED["blobs"]
    with open_kms(home) as engine:
        plaintext = engine.decrypt(ALICE, bytes.fromhex(pay["blob"]), CONTEXT)
        assert bytes(plaintext.expose()).hex() == pay["plaintext"]
        with pytest.raises(AccessDenied):
            engine.decrypt(BOB, bytes.fromhex(pay["blob"]), CONTEXT)
        engine.enable_key(OWNER, EXPECTED["keys"]["old"])
        plaintext = engine.decrypt(ALICE, bytes.fromhex(old["blob"]), CONTEXT)
        assert bytes(plaintext.expose()).hex() == old["plaintext"]
        assert engine.verify_audit().problems == ()
        assert engine._store.verify_all() == []


def test_a_volume_of_the_first_release_can_be_read(home: Path, tmp_path: Path) -> None:
    """By the second reader, too, which knows the converted KMS from the document alone."""
    open_kms(home).close()
    assert read_volume.main(["--home", str(home), str(GOLDEN / "lower"), str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "report.txt").read_bytes() == b"written by the first release\n"


def test_nothing_is_lost(home: Path) -> None:
    before = contents(home / DATABASE)
    open_kms(home).close()
    after = contents(home / DATABASE)
    for table in SEALED_TABLES:
        if table.name in before and table.name != "audit_chains":
            width = len(before[table.name][0]) - 1  # without the MAC
            old = [tuple("AWS_KMS" if value == "ENVFS" else value for value in row[:-1]) for row in before[table.name]]
            assert [row[:width] for row in after[table.name]] == old
            assert old
    assert after["state"][0][1] > before["state"][0][1]


def test_new_columns_have_their_values(home: Path) -> None:
    with open_kms(home) as engine:
        keys = {key_id_text(row.key_id): row for row in engine._store.find(KEYS)}
        backing_keys = engine._store.find(BACKING_KEYS)
        service = keys.pop(EXPECTED["keys"]["service"][-36:])
        assert (service.rotation_period, service.next_rotation) == (365, service.created + YEAR)
        assert service.due == service.next_rotation
        assert len(keys) == 3  # two of customers, and that of envfs itself
        for row in keys.values():
            assert (row.deletion_date, row.rotation_period, row.next_rotation, row.due) == (0, 0, 0, 0)
            assert row.origin == "AWS_KMS"
        assert keys[EXPECTED["keys"]["old"]].state == KeyState.DISABLED
        assert len(backing_keys) == 4
        for backing_key in backing_keys:
            material = engine._keyring.unwrap(backing_key)
            assert backing_key.material_id == engine._keyring.material_id(backing_key.key_id, material)


def test_the_schema_is_that_of_a_new_kms(home: Path, tmp_path: Path) -> None:
    open_kms(home).close()
    SqliteStore.create(tmp_path / "new.db").close()
    assert contents(home / DATABASE)["schema"] == contents(tmp_path / "new.db")["schema"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE keys SET policy = replace(policy, 'alice', 'bob')",
        "UPDATE aliases SET created = 1",
        "UPDATE identity_policies SET principal = 'nobody'",
        "DELETE FROM identity_policies",
        "DELETE FROM pins WHERE uid = (SELECT max(uid) FROM pins)",
        "UPDATE backing_keys SET wrapped = zeroblob(48)",
        "UPDATE audit_chains SET size = 0",
        "UPDATE sets SET rows = 0 WHERE name = 'pins'",
        "DELETE FROM sets WHERE name = 'pins'",
        "UPDATE state SET generation = generation + 1",
        "DELETE FROM state",
    ],
)
def test_what_was_tampered_with_is_not_converted(home: Path, statement: str) -> None:
    edit(home, statement)
    before = contents(home / DATABASE)
    with pytest.raises(IntegrityError):
        open_kms(home)
    assert contents(home / DATABASE) == before


def test_a_failure_in_the_middle_leaves_the_old_version(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(home / DATABASE)

    def fail(_: object, version: int) -> None:
        raise RuntimeError("pulled plug")

    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, "set_schema_version", fail)
        with pytest.raises(RuntimeError, match="pulled plug"):
            open_kms(home)
    assert contents(home / DATABASE) == before
    with open_kms(home) as engine:
        assert engine._store.verify_all() == []


def test_a_store_that_is_current_is_left_alone(home: Path) -> None:
    open_kms(home).close()
    before = contents(home / DATABASE)
    open_kms(home).close()
    assert contents(home / DATABASE) == before


class Late(SqliteStore):
    """A process that looked at the version just before another one converted the store."""

    looks = 0

    @property
    def schema_version(self) -> int:
        self.looks += 1
        return 1 if self.looks == 1 else super().schema_version


def test_two_processes_that_find_version_1_convert_it_once(home: Path) -> None:
    late = Late.open(home / DATABASE)
    with open_kms(home) as engine:
        before = contents(home / DATABASE)
        sealed = open_sealed(late, engine._root_key, engine.store_id)
        assert late.looks > 1
        assert sealed.find(PINS) == engine._store.find(PINS)
        assert contents(home / DATABASE) == before
    late.close()


def test_a_process_of_another_release_stops(home: Path) -> None:
    with open_kms(home) as engine:
        edit(home, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        for _ in range(2):
            with pytest.raises(UnsupportedVersion, match=f"schema version {SCHEMA_VERSION + 1} now"):
                engine.list_keys(OWNER)
        edit(home, f"PRAGMA user_version = {SCHEMA_VERSION}")
        engine.list_keys(OWNER)


def test_a_version_from_nowhere_is_refused(home: Path) -> None:
    edit(home, "PRAGMA user_version = 0")
    with pytest.raises(IntegrityError, match="which never was"):
        open_kms(home)


def test_a_converted_kms_can_be_changed(home: Path) -> None:
    with open_kms(home) as engine:
        key = engine.create_key(OWNER, policy=users_policy(ALICE))
        engine.create_alias(OWNER, "alias/new", key.key_id)
        with pytest.raises(Exception, match="exists"):
            engine.create_alias(OWNER, "alias/pay", key.key_id)
        assert engine._store.verify_all() == []
