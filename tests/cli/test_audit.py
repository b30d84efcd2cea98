"""`envfs audit`, `envfs kms verify` and `envfs kms whoami`: transcripts."""

from __future__ import annotations

import json
import os
import pwd
import signal
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import CommandLine

ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture(autouse=True)
def key(envfs: CommandLine, tmp_path: Path) -> str:
    envfs("kms init")
    (tmp_path / "plain").write_bytes(b"x")
    made = str(envfs("key create --alias payroll --json").json["arn"])
    envfs("kms encrypt alias/payroll plain -o sealed")
    envfs("kms decrypt sealed -o opened --context wrong=one")
    envfs("kms decrypt sealed -o opened")
    return made


def test_the_newest_records_come_last(envfs: CommandLine, key: str) -> None:
    lines = envfs("audit tail -n 3").out.splitlines()
    assert [line.split()[1:3] for line in lines] == [[ME, "Encrypt"], [ME, "Decrypt"], [ME, "Decrypt"]]
    assert [line.split()[4] for line in lines] == ["ok", "InvalidCiphertextException", "ok"]
    assert all(key.rpartition(":")[2] in line for line in lines)
    assert "key policy" in lines[0], "a record says what decided"
    records = [json.loads(line) for line in envfs("audit tail -n 2 --json").out.splitlines()]
    assert [record["eventName"] for record in records] == ["Decrypt", "QueryAudit"]
    assert envfs("audit tail -n 0").out == ""


def test_records_are_asked_for(envfs: CommandLine, key: str) -> None:
    def names(line: str) -> list[str]:
        return [json.loads(record)["eventName"] for record in envfs(f"audit query --json {line}").out.splitlines()]

    assert names("--key alias/payroll --event Decrypt") == ["Decrypt", "Decrypt"]
    assert names(f"--key {key} --error InvalidCiphertextException") == ["Decrypt"]
    assert names(f"--user {ME} --event CreateKey") == ["CreateKey"]
    assert names("--user nobody") == []
    assert names("--event Decrypt --limit 1") == ["Decrypt"]
    assert names("--event Decrypt --since 1h") == ["Decrypt", "Decrypt"]
    assert names("--event Decrypt --until 2026-01-01T00:00+00:00") == []


def test_what_is_written_from_now_on_is_followed_until_an_interrupt(envfs: CommandLine, key: str) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "envfs.cli", "audit", "tail", "-n", "1", "-f", "--json"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["eventName"] == "Decrypt"
        for name in ("DisableKey", "EnableKey"):
            envfs(f"key {name.removesuffix('Key').lower()} {key}")
            assert json.loads(process.stdout.readline())["eventName"] == name
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest, errors) == (130, "", "\nenvfs: interrupted\n")


@pytest.mark.parametrize("moment", ["tomorrow", "2026-13-01", "-1h", "99999999999999w", ""])
def test_what_is_no_time_is_a_wrong_argument(moment: str, envfs: CommandLine) -> None:
    answer = envfs("audit query --since", moment)
    assert answer.code == 2
    assert "is no time" in answer.err


def test_an_authentic_kms_is_said_to_be_so(envfs: CommandLine) -> None:
    for line, verdict in (
        ("audit verify", "the audit trail is authentic; 1 chain, "),
        ("kms verify", "the store and its audit trail are authentic; 1 chain, "),
    ):
        answer = envfs(line)
        assert answer.code == 0
        assert answer.out.startswith(verdict)
        found = envfs(f"{line} --json").json
        assert found["authentic"] is True
        assert found["problems"] == []
        assert found["records"] >= 5


def test_a_record_that_was_changed_is_found(envfs: CommandLine, home: Path) -> None:
    (chain,) = (home / "audit").iterdir()
    chain.write_bytes(chain.read_bytes().replace(b'"eventName":"Decrypt"', b'"eventName":"Encrypt"', 1))
    for line in ("audit verify", "kms verify"):
        answer = envfs(line)
        assert answer.code == 5
        assert answer.out.startswith("PROBLEM: audit/")
    assert json.loads(envfs("audit verify --json").out)["authentic"] is False


@pytest.mark.parametrize(
    ("table", "statement"),
    [
        ("aliases", "UPDATE aliases SET name = 'alias/stolen' WHERE name = 'alias/payroll'"),
        ("keys", "UPDATE keys SET state = 'Disabled'"),
        ("keys", "DELETE FROM keys WHERE manager = 'CUSTOMER'"),
        ("backing_keys", "UPDATE backing_keys SET created = 0"),
    ],
)
def test_a_row_that_was_changed_by_hand_is_found_and_refused(
    table: str, statement: str, envfs: CommandLine, home: Path
) -> None:
    database = sqlite3.connect(home / "kms.db")
    database.execute(statement)
    database.commit()
    database.close()
    answer = envfs("kms verify")
    assert (answer.code, answer.err) == (5, "")
    assert answer.out.startswith("PROBLEM: ")
    assert table in answer.out
    problems = json.loads(envfs("kms verify --json").out)["problems"]
    assert any(table in problem for problem in problems)
    assert envfs("key alias list" if table == "aliases" else "kms decrypt sealed").code == 5


def test_who_one_is_and_which_way(envfs: CommandLine, home: Path) -> None:
    me = envfs("kms whoami --json").json
    assert me["arn"] == f"arn:envfs:iam::000000000000:user/{ME}"
    assert (me["user_id"], me["user_name"], me["is_account_root"]) == (str(os.getuid()), ME, True)
    assert me["reached_by"] == f"the store in {home}"
    assert f"the store in {home}" in envfs("kms whoami").out
