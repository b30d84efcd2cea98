"""`envfs grant`: transcripts."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import CommandLine

ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture(autouse=True)
def key(envfs: CommandLine) -> str:
    envfs("kms init")
    return str(envfs("key create --alias payroll --json").json["key_id"])


def test_a_grant_from_its_making_to_its_end(envfs: CommandLine) -> None:
    assert envfs("grant list alias/payroll").out == "there are no grants; envfs grant create makes one\n"
    line = "grant create alias/payroll --to nobody --operation Decrypt --operation DescribeKey --name audit --json"
    made = envfs(line).json
    assert list(made) == ["grant_id", "grant_token"]
    again = envfs(line).json
    assert again["grant_id"] == made["grant_id"], "the same request with a name is the same grant"
    assert again["grant_token"] != made["grant_token"]
    (grant,) = envfs("grant list alias/payroll --json").json["grants"]
    assert grant["grantee_principal"] == "arn:envfs:iam::000000000000:user/nobody"
    assert (grant["grant_id"], grant["name"]) == (made["grant_id"], "audit")
    assert grant["operations"] == ["Decrypt", "DescribeKey"]
    assert "grant_token" not in grant
    table = envfs("grant list alias/payroll").out.splitlines()
    assert table[0].split() == ["GRANT_ID", "NAME", "TO", "OPERATIONS", "CONSTRAINTS"]
    assert len(table) == 2
    assert envfs(f"grant revoke alias/payroll {made['grant_id']}").code == 0
    assert envfs("grant list alias/payroll --json").json == {"grants": []}
    gone = envfs(f"grant revoke alias/payroll {made['grant_id']}")
    assert gone.code == 4
    assert "NotFoundException" in gone.err


def test_contexts_and_groups(envfs: CommandLine) -> None:
    envfs(
        "grant create alias/payroll --to @daemon --operation Decrypt --context-equals year=2026 --context-equals a=b=c"
    )
    envfs("grant create alias/payroll --to nobody --operation Encrypt --context-subset year=2026")
    constraints = {
        grant["grantee_principal"].rpartition(":")[2]: grant["constraints"]
        for grant in envfs("grant list alias/payroll --json").json["grants"]
    }
    assert constraints == {
        "group/daemon": {"EncryptionContextEquals": {"year": "2026", "a": "b=c"}},
        "user/nobody": {"EncryptionContextSubset": {"year": "2026"}},
    }
    (only,) = envfs("grant list alias/payroll --to nobody --json").json["grants"]
    assert only["operations"] == ["Encrypt"]


def test_a_grant_is_retired_by_its_id_or_by_its_token(envfs: CommandLine, tmp_path: Path) -> None:
    line = f"grant create alias/payroll --to nobody --retiring {ME} --operation Decrypt --json"
    first, second = envfs(line).json, envfs(line).json
    retirable = envfs(f"grant list --retirable {ME} --json").json["grants"]
    assert {grant["grant_id"] for grant in retirable} == {first["grant_id"], second["grant_id"]}
    (tmp_path / "token").write_text(second["grant_token"] + "\n")
    assert envfs(f"grant retire alias/payroll {first['grant_id']}").code == 0
    assert envfs("grant retire --token-file token").code == 0
    assert envfs(f"grant list --retirable {ME} --json").json == {"grants": []}


def test_a_dry_run_makes_nothing(envfs: CommandLine) -> None:
    answer = envfs("grant create alias/payroll --to nobody --operation Decrypt --dry-run")
    assert (answer.code, answer.out) == (0, "it would have succeeded\n")
    assert envfs("grant list alias/payroll --json").json == {"grants": []}
    refused = envfs("grant create alias/payroll --to nobody --operation Sign --dry-run")
    assert refused.code == 4
    assert "ValidationException" in refused.err


@pytest.mark.parametrize(
    "line",
    [
        "grant create alias/payroll --to nobody",
        "grant create alias/payroll --operation Decrypt",
        "grant list",
        "grant list alias/payroll --retirable nobody",
        "grant retire alias/payroll",
        "grant retire",
        "grant revoke alias/payroll",
    ],
)
def test_what_is_missing_is_said(line: str, envfs: CommandLine) -> None:
    answer = envfs(line)
    assert answer.code == 2
    assert "Usage:" in answer.err


@pytest.mark.parametrize("content", ["", "\n", "x" * 9000])
def test_what_is_no_token_is_not_sent(content: str, envfs: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(content)
    answer = envfs("grant retire --token-file token")
    assert answer.code == 3
    assert "this is no grant token" in answer.err
