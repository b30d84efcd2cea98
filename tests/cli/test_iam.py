"""`envfs iam`: transcripts."""

from __future__ import annotations

import configparser
import json
import os
import pwd
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import CommandLine

ME = pwd.getpwuid(os.getuid()).pw_name
POLICY = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kms:ListKeys", "Resource": "*"}]}
)


@pytest.fixture(autouse=True)
def kms(envfs: CommandLine) -> None:
    envfs("kms init")


@pytest.mark.parametrize(("kind", "name"), [("user", "nobody"), ("group", "daemon"), ("group", "@daemon")])
def test_an_identity_policy_from_its_putting_to_its_deletion(
    kind: str, name: str, envfs: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "policy.json").write_text(POLICY)
    words = f"iam {kind}-policy"
    assert envfs(f"{words} list {name}").out == f"{name} has no policies; envfs {words} put attaches one\n"
    assert envfs(f"{words} put {name} listing policy.json").code == 0
    assert envfs(f"{words} list {name} --json").json == {"policies": ["listing"]}
    assert envfs(f"{words} list {name}").out == "listing\n"
    assert envfs(f"{words} get {name} listing").out == POLICY + "\n"
    assert envfs(f"{words} get {name} listing copy.json").out == ""
    assert (tmp_path / "copy.json").read_text() == POLICY + "\n"
    assert envfs(f"{words} delete {name} listing").code == 0
    gone = envfs(f"{words} get {name} listing copy.json")
    assert gone.code == 4
    assert "NotFoundException" in gone.err
    assert (tmp_path / "copy.json").read_text() == POLICY + "\n", "a refusal leaves the file alone"


def test_a_bad_policy_is_not_attached(envfs: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text(POLICY.replace("ListKeys", "ListKeyz"))
    answer = envfs("iam user-policy put nobody listing policy.json")
    assert answer.code == 4
    assert "MalformedPolicyDocumentException" in answer.err
    assert envfs("iam user-policy list nobody --json").json == {"policies": []}


def test_access_keys_are_shown_once(envfs: CommandLine) -> None:
    made = envfs(f"iam access-key create {ME} --json").json
    assert made["user_name"] == ME
    assert len(made["secret_access_key"]) == 40
    (listed,) = envfs(f"iam access-key list {ME} --json").json["access_keys"]
    assert listed["access_key_id"] == made["access_key_id"]
    assert "secret_access_key" not in listed
    table = envfs(f"iam access-key list {ME}")
    assert made["access_key_id"] in table.out
    assert made["secret_access_key"] not in table.out
    assert envfs(f"iam access-key delete {made['access_key_id']}").code == 0
    assert envfs(f"iam access-key list {ME}").out.startswith(f"{ME} has no access keys; ")


def test_a_secret_goes_into_a_file_that_is_the_callers_alone(envfs: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("old")
    (tmp_path / "credentials").chmod(0o644)
    answer = envfs(f"iam access-key create {ME} --credentials-file credentials --json").json
    assert "secret_access_key" not in answer
    assert (tmp_path / "credentials").stat().st_mode & 0o777 == 0o600
    credentials = configparser.ConfigParser()
    credentials.read(tmp_path / "credentials")
    assert credentials["default"]["aws_access_key_id"] == answer["access_key_id"]
    assert len(credentials["default"]["aws_secret_access_key"]) == 40


def test_a_key_that_there_is_already_can_be_brought_along(envfs: CommandLine, tmp_path: Path) -> None:
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    (tmp_path / "secret").write_text(secret + "\n")
    line = f"iam access-key create {ME} --access-key-id AKIAIOSFODNN7EXAMPLE --secret-access-key-file secret"
    answer = envfs(line)
    assert answer.code == 0
    assert "AKIAIOSFODNN7EXAMPLE" in answer.out
    assert secret not in answer.out
    taken = envfs(line)
    assert taken.code == 4
    assert secret not in taken.err


def test_an_empty_secret_is_none(envfs: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("\n")
    assert envfs(f"iam access-key create {ME} --secret-access-key-file secret").code == 3


def test_a_user_is_unpinned(envfs: CommandLine) -> None:
    made = envfs("key create --admin root --user nobody --json").json
    assert made["state"] == "Enabled"  # which has pinned them
    assert envfs("iam unpin nobody").code == 0
    again = envfs("iam unpin nobody")
    assert again.code == 4
    assert "NotFoundException" in again.err
