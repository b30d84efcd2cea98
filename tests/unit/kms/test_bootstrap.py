from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from envfs.crypto.secret import Secret
from envfs.errors import ConfigError, FormatError, UnsupportedVersion
from envfs.kms.bootstrap import init_kms
from envfs.kms.engine import DATABASE, Engine
from envfs.kms.rootkey import KEY_FILE_NAME, Argon2Cost, KeyFileUnlock, PassphraseUnlock
from envfs.kms.sqlite_store import SqliteStore
from tests.unit.kms.kit import OWNER, open_kms

if TYPE_CHECKING:
    from pathlib import Path

FAST = Argon2Cost(memory_kib=64, iterations=1, lanes=1)


def test_a_kms_is_for_its_owner_alone(home: Path) -> None:
    assert {path.name for path in home.iterdir()} == {DATABASE, KEY_FILE_NAME}
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / DATABASE).stat().st_mode) == 0o600
    assert stat.S_IMODE((home / KEY_FILE_NAME).stat().st_mode) == 0o400
    assert (home / KEY_FILE_NAME).stat().st_size == 32


def test_it_opens_under_the_id_that_was_told(tmp_path: Path) -> None:
    store_id = init_kms(tmp_path, partition="aws", region="eu-west-1", account="123456789012", owner_uid=7)
    with open_kms(tmp_path) as engine:
        assert engine.store_id == store_id
        assert engine.owner_uid == 7
        assert engine.account.root_arn == "arn:aws:iam::123456789012:root"


def test_the_owner_is_whoever_makes_it(tmp_path: Path) -> None:
    init_kms(tmp_path)
    with open_kms(tmp_path) as engine:
        assert engine.owner_uid == os.geteuid()


def test_with_a_passphrase_there_is_no_key_file(tmp_path: Path) -> None:
    passphrase = Secret(b"correct horse")
    init_kms(tmp_path, root_key="passphrase", passphrase=passphrase, cost=FAST)
    assert not (tmp_path / KEY_FILE_NAME).exists()
    Engine.open(tmp_path, PassphraseUnlock(passphrase)).close()
    with pytest.raises(ConfigError, match="the passphrase is wrong"):
        Engine.open(tmp_path, PassphraseUnlock(Secret(b"wrong horse")))


@pytest.mark.parametrize("passphrase", [None, Secret(b"")])
def test_an_empty_passphrase_is_refused(tmp_path: Path, passphrase: Secret | None) -> None:
    with pytest.raises(ConfigError, match="the passphrase is empty"):
        init_kms(tmp_path, root_key="passphrase", passphrase=passphrase)
    assert list(tmp_path.iterdir()) == []


def test_a_second_kms_is_refused_and_the_first_is_unharmed(home: Path) -> None:
    before = (home / KEY_FILE_NAME).read_bytes()
    with pytest.raises(ConfigError, match="there is a KMS in"):
        init_kms(home)
    assert (home / KEY_FILE_NAME).read_bytes() == before
    open_kms(home).close()


def test_a_key_file_that_is_there_is_used_and_never_replaced(tmp_path: Path) -> None:
    key_file = tmp_path / KEY_FILE_NAME
    key_file.write_bytes(b"k" * 32)
    key_file.chmod(0o400)
    init_kms(tmp_path)
    assert key_file.read_bytes() == b"k" * 32
    open_kms(tmp_path).close()


def test_leavings_of_an_attempt_that_was_killed_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / ".kms.db.new").write_bytes(b"half a database")
    (tmp_path / ".kms.db.new-journal").write_bytes(b"half a journal")
    (tmp_path / ".root.key.new").write_bytes(b"half a key")
    init_kms(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {DATABASE, KEY_FILE_NAME}
    open_kms(tmp_path).close()


@pytest.mark.parametrize("fields", [{"partition": "A"}, {"region": ""}, {"account": "12"}])
def test_bad_names_leave_nothing_behind(tmp_path: Path, fields: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        init_kms(tmp_path / "kms", **fields)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_others_can_change_is_refused(home: Path) -> None:
    home.chmod(0o770)
    with pytest.raises(ConfigError, match="can be changed by others"):
        open_kms(home)


def test_no_kms(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_kms(tmp_path)
    assert "envfs kms init" in caught.value.hint
    with pytest.raises(ConfigError) as caught:
        open_kms(tmp_path / "nowhere")
    assert "envfs kms init" in caught.value.hint


def test_the_key_file_of_another_kms(home: Path, tmp_path: Path) -> None:
    init_kms(tmp_path / "other")
    with pytest.raises(ConfigError, match="is not the root key file of this KMS"):
        Engine.open(home, KeyFileUnlock(tmp_path / "other" / KEY_FILE_NAME))


def test_the_wrong_way_to_unlock(home: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Engine.open(home, PassphraseUnlock(Secret(b"p")))
    assert caught.value.hint == "it is unlocked by: keyfile"


def test_a_newer_schema_is_refused_by_name(home: Path) -> None:
    store = SqliteStore.open(home / DATABASE)
    with store.writing():
        store.set_schema_version(3)
    store.close()
    with pytest.raises(UnsupportedVersion, match="schema version 3"):
        open_kms(home)


def test_another_program_s_database_is_refused(home: Path) -> None:
    store = SqliteStore.open(home / DATABASE)
    store._execute("PRAGMA application_id = 1")
    store.close()
    with pytest.raises(FormatError, match="not the database of an envfs KMS"):
        open_kms(home)


def test_the_keys_of_envfs_itself_are_in_no_listing(home: Path) -> None:
    with open_kms(home) as engine:
        assert engine.list_keys(OWNER)[0] == ()
