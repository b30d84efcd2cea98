"""`envfs key`: transcripts."""

from __future__ import annotations

import json
import os
import pwd
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import CommandLine

ME = pwd.getpwuid(os.getuid()).pw_name
ROOT = "arn:envfs:iam::000000000000:root"


@pytest.fixture(autouse=True)
def kms(envfs: CommandLine) -> None:
    envfs("kms init")


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def statement(action: str | list[str], principal: str = ROOT, effect: str = "Allow") -> dict[str, Any]:
    return {"Effect": effect, "Principal": {"AWS": principal}, "Action": action, "Resource": "*"}


def test_a_key_from_its_making_to_its_listing(envfs: CommandLine) -> None:
    made = envfs("key create --alias payroll --json --description", "all salaries").json
    assert list(made) == [
        "key_id",
        "arn",
        "state",
        "manager",
        "description",
        "created",
        "spec",
        "usage",
        "origin",
        "aliases",
    ]
    assert (made["state"], made["manager"], made["spec"]) == ("Enabled", "CUSTOMER", "SYMMETRIC_DEFAULT")
    assert (made["description"], made["aliases"]) == ("all salaries", ["alias/payroll"])
    for name in (made["key_id"], made["arn"], "alias/payroll"):
        assert envfs(f"key show {name} --json").json == made
    assert envfs("key list --json").json == {"keys": [made]}
    table = envfs("key list").out.splitlines()
    assert table[0].split() == ["KEY_ID", "ALIASES", "STATE", "MANAGER", "DESCRIPTION"]
    assert table[1].split() == [made["key_id"], "alias/payroll", "Enabled", "CUSTOMER", "all", "salaries"]


def test_no_keys_is_said_so(envfs: CommandLine) -> None:
    assert envfs("key list").out == "there are no keys; envfs key create makes one\n"
    assert envfs("key list --json").json == {"keys": []}


def test_disabled_and_enabled(envfs: CommandLine) -> None:
    key = envfs("key create --json").json["key_id"]
    assert envfs(f"key disable {key}").code == 0
    assert envfs(f"key show {key} --json").json["state"] == "Disabled"
    assert envfs(f"key enable {key}").code == 0
    assert envfs(f"key show {key} --json").json["state"] == "Enabled"


def test_a_key_that_is_not_there_is_refused_with_aws_code(envfs: CommandLine) -> None:
    for line in ("key show alias/absent", "key enable alias/absent", "key policy get alias/absent"):
        answer = envfs(line)
        assert answer.code == 4
        assert "NotFoundException" in answer.err


def test_a_taken_alias_makes_no_key(envfs: CommandLine) -> None:
    envfs("key create --alias payroll")
    answer = envfs("key create --alias alias/payroll")
    assert answer.code == 4
    assert answer.err == (
        "envfs: the alias alias/payroll exists (AlreadyExistsException)\n  next: envfs key show alias/payroll\n"
    )
    assert len(envfs("key list --json").json["keys"]) == 1


def test_an_alias_that_is_refused_afterwards_names_the_key_that_was_made(envfs: CommandLine) -> None:
    answer = envfs("key create --alias aws/mine")
    assert answer.code == 4
    (key,) = envfs("key list --json").json["keys"]
    assert f"the key {key['key_id']} was made all the same" in answer.err


def test_a_policy_comes_back_as_it_was_put(envfs: CommandLine, tmp_path: Path) -> None:
    key = envfs("key create --json").json["key_id"]
    text = policy(statement("kms:*"), statement("kms:Decrypt", f"arn:envfs:iam::000000000000:user/{ME}"))
    (tmp_path / "policy.json").write_text(text)
    assert envfs(f"key policy put {key} policy.json").code == 0
    assert envfs(f"key policy get {key}").out == text + "\n"
    assert envfs(f"key policy get {key} copy.json").out == ""
    assert (tmp_path / "copy.json").read_text() == text + "\n"
    assert envfs(f"key policy put {key} copy.json").code == 0


def test_a_policy_from_stdin(envfs: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    key = envfs("key create --json").json["key_id"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(policy(statement("kms:*")).encode())))
    assert envfs(f"key policy put {key}").code == 0


def test_the_default_policy_is_aws(envfs: CommandLine) -> None:
    key = envfs("key create --json").json["key_id"]
    (only,) = json.loads(envfs(f"key policy get {key}").out)["Statement"]
    assert (only["Effect"], only["Principal"], only["Action"]) == ("Allow", {"AWS": ROOT}, "kms:*")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("nonsense", "MalformedPolicyDocumentException"),
        (policy(statement("kms:Decrypt")), "MalformedPolicyDocumentException"),
        (policy(statement("kms:Decript"), statement("kms:*")), "MalformedPolicyDocumentException"),
        (policy(statement("kms:*"), statement("kms:Decrypt", "x" * 33_000)), "LimitExceededException"),
    ],
    ids=["no JSON", "lock-out", "misspelt", "too long"],
)
def test_a_bad_policy_is_refused_and_nothing_made_or_changed(
    text: str, code: str, envfs: CommandLine, tmp_path: Path
) -> None:
    key = envfs("key create --json").json["key_id"]
    before = envfs(f"key policy get {key}").out
    (tmp_path / "bad.json").write_text(text)
    for line in (f"key policy put {key} bad.json", "key create --policy bad.json"):
        answer = envfs(line)
        assert answer.code == 4
        assert code in answer.err
    assert envfs(f"key policy get {key}").out == before
    assert len(envfs("key list --json").json["keys"]) == 1


def test_a_policy_file_that_is_not_there_is_a_wrong_argument(envfs: CommandLine) -> None:
    answer = envfs("key create --policy absent.json")
    assert answer.code == 2
    assert "absent.json" in answer.err


def test_the_service_managed_key_cannot_be_changed(envfs: CommandLine, tmp_path: Path) -> None:
    key = envfs("init vault.enc --json").json["key"]
    (tmp_path / "policy.json").write_text(policy(statement("kms:*")))
    for line in (f"key disable {key}", f"key policy put {key} policy.json"):
        answer = envfs(line)
        assert answer.code == 4
        assert "managed by envfs" in answer.err
    assert envfs(f"key show {key} --json").json["state"] == "Enabled"
