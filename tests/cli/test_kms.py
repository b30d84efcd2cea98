"""`envfs kms` and `envfs init`: what they make and what they refuse."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import CommandLine


def test_a_kms_is_made_and_its_owner_told_what_to_keep(envfs: CommandLine, home: Path) -> None:
    answer = envfs("kms init")
    assert answer.code == 0
    assert re.fullmatch(
        rf"kms home  {home}\nkms id    [0-9a-f]{{32}}\nroot key  {home}/root.key\n"
        rf"Without {home} what it encrypts is lost: keep backups in another place \(envfs kms backup\).\n",
        answer.out,
    )
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "root.key").stat().st_mode) == 0o400


def test_a_second_one_is_not_made_over_it(envfs: CommandLine, home: Path) -> None:
    envfs("kms init")
    before = (home / "root.key").read_bytes()
    answer = envfs("kms init")
    assert (answer.code, answer.out) == (3, "")
    assert answer.err == f"envfs: there is a KMS in {home} already\n  next: set ENVFS_HOME to make another one\n"
    assert (home / "root.key").read_bytes() == before


def test_partition_region_and_account_stand_in_the_arns(envfs: CommandLine) -> None:
    envfs("kms init --partition aws --region eu-north-1 --account 123456789012")
    arn = envfs("key create --json").json["arn"]
    assert arn.startswith("arn:aws:kms:eu-north-1:123456789012:key/")


@pytest.mark.parametrize("arguments", ["--account 12", "--account abcdefghijkl", "--partition a:b", "--region UPPER/"])
def test_what_cannot_stand_in_an_arn_is_refused(arguments: str, envfs: CommandLine, home: Path) -> None:
    answer = envfs(f"kms init {arguments}")
    assert answer.code in {3, 4}
    assert not (home / "kms.db").exists()


def test_a_passphrase_from_a_file(envfs: CommandLine, home: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("correct horse\n")
    (tmp_path / "same").write_text("correct horse")
    (tmp_path / "wrong").write_text("correct horse \n")
    answer = envfs("kms init --root-key passphrase --passphrase-file secret --json")
    assert answer.json["root_key"] == "a passphrase"
    assert not (home / "root.key").exists()
    assert envfs("key list --passphrase-file same").code == 0
    wrong = envfs("key list --passphrase-file wrong")
    assert wrong.code == 3
    assert wrong.err.startswith("envfs: the passphrase is wrong\n  next: ")


def test_a_passphrase_by_the_environment(envfs: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("correct horse\n")
    monkeypatch.setenv("ENVFS_PASSPHRASE_FILE", str(tmp_path / "secret"))
    assert envfs("kms init --root-key passphrase").code == 0
    assert envfs("key list").code == 0


@pytest.mark.parametrize(("content", "why"), [(b"", "is empty"), (b"\n", "is empty"), (b"x" * 4097, "more than 4096")])
def test_no_passphrase_is_not_one(content: bytes, why: str, envfs: CommandLine, home: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(content)
    answer = envfs("kms init --root-key passphrase --passphrase-file secret")
    assert answer.code == 3
    assert why in answer.err
    assert not home.exists()


def test_a_passphrase_file_that_is_not_there(envfs: CommandLine, home: Path) -> None:
    answer = envfs("kms init --root-key passphrase --passphrase-file absent")
    assert (answer.code, answer.err) == (8, "envfs: absent: No such file or directory\n")
    assert not home.exists()


def test_a_volume_comes_with_a_kms_if_there_is_none(envfs: CommandLine, home: Path, tmp_path: Path) -> None:
    made = envfs("init vault.enc --json").json
    assert list(made) == ["kms_home", "kms_id", "root_key", "lower", "volume_id", "key", "suite", "block_size"]
    assert made["lower"] == str(tmp_path / "vault.enc")
    assert made["kms_home"] == str(home)
    shown = envfs(f"key show {made['key']} --json").json
    assert (shown["manager"], shown["aliases"]) == ("SERVICE", ["alias/envfs/volume"])
    second = envfs("init second.enc --json").json
    assert list(second) == ["lower", "volume_id", "key", "suite", "block_size"]
    assert second["key"] == made["key"], "one service-managed key serves all volumes"


def test_a_volume_tells_how_to_go_on(envfs: CommandLine) -> None:
    assert envfs("init vault.enc").out.endswith("next: envfs mount vault.enc MOUNTPOINT\n")


def test_key_block_size_and_suite_can_be_chosen(envfs: CommandLine) -> None:
    envfs("kms init")
    key = envfs("key create --alias payroll --json").json["arn"]
    made = envfs("init vault.enc --key alias/payroll --block-size 4096 --suite aes-256-gcm-siv --json").json
    assert (made["key"], made["block_size"], made["suite"]) == (key, 4096, "aes-256-gcm-siv")


def test_a_key_that_cannot_be_used_makes_no_volume(envfs: CommandLine, tmp_path: Path) -> None:
    envfs("kms init")
    assert envfs("init vault.enc --key alias/absent").code == 4
    key = envfs("key create --json").json["key_id"]
    envfs(f"key disable {key}")
    answer = envfs(f"init vault.enc --key {key}")
    assert answer.code == 3
    assert answer.err.endswith(f"is Disabled\n  next: envfs key enable {key}\n")
    assert not (tmp_path / "vault.enc").exists()


def test_a_volume_that_cannot_be_made_makes_no_kms(envfs: CommandLine, home: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    for line in ("init full", "init full/file", "init absent/vault.enc"):
        answer = envfs(line)
        assert answer.code == 3
        assert "next: " in answer.err
    assert not home.exists()
    assert sorted(os.listdir(tmp_path)) == ["full"]


def test_without_a_kms_commands_say_how_to_make_one(envfs: CommandLine, home: Path) -> None:
    for line in ("key list", "key create", "key show x", "key policy get x"):
        answer = envfs(line)
        assert answer.code == 3
        assert answer.err.startswith(f"envfs: there is no KMS in {home}\n  next: envfs kms init")
    assert not home.exists()
