"""`envfs access` on keys: transcripts. On directories: tests/integration/cli/test_access.py."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import CommandLine


@pytest.fixture(autouse=True)
def key(envfs: CommandLine) -> str:
    envfs("kms init")
    return str(envfs("key create --alias payroll --json").json["key_id"])


def grants(envfs: CommandLine) -> list[dict[str, object]]:
    found: list[dict[str, object]] = envfs("grant list alias/payroll --json").json["grants"]
    return found


def test_the_same_twice_is_one_grant_and_revoking_takes_just_that(envfs: CommandLine) -> None:
    first = envfs("access grant nobody read alias/payroll --json --reason", "ticket 4711: audit").json
    assert (first["made"], first["already"]) == ("grant", False)
    again = envfs("access grant nobody read alias/payroll --json").json
    assert (again["id"], again["already"]) == (first["id"], True)
    envfs("grant create alias/payroll --to nobody --operation Decrypt --name mine")
    assert len(grants(envfs)) == 2
    (listed,) = envfs("access list nobody --json").json["access"]
    assert (listed["who"], listed["access"], listed["reason"]) == ("nobody", "read", "ticket 4711: audit")
    assert envfs("access revoke nobody write alias/payroll").code == 4
    revoked = envfs("access revoke nobody read alias/payroll --json").json
    assert [one["id"] for one in revoked["revoked"]] == [first["id"]]
    assert "mine" in revoked["still"][0]
    assert [grant["name"] for grant in grants(envfs)] == ["mine"]


def test_an_end_makes_a_policy_that_the_next_one_replaces(envfs: CommandLine) -> None:
    made = envfs("access grant nobody write alias/payroll --until 8h --json --reason r").json
    assert made["made"] == "policy"
    later = envfs("access grant nobody write alias/payroll --until 2099-12-31T12:00:00Z --json").json
    assert (later["id"], later["already"], later["until"]) == (made["id"], False, "2099-12-31T12:00:00Z")
    assert envfs("access grant nobody write alias/payroll --until 2099-12-31T12:00:00Z --json").json["already"]
    assert envfs("iam user-policy list nobody --json").json == {"policies": [made["id"]]}
    permanent = envfs("access grant nobody write alias/payroll")
    assert "there is a policy of the same until 2099-12-31T12:00:00Z" in permanent.out
    assert {one["made"] for one in envfs("access list --json").json["access"]} == {"grant", "policy"}
    assert len(envfs("access revoke nobody --everywhere --json").json["revoked"]) == 2
    again = envfs("access revoke nobody --everywhere")
    assert (again.code, again.out) == (0, "`access grant` gave nobody nothing, on no key\n")
    assert envfs("access revoke nobody --everywhere --json").json["revoked"] == []
    assert envfs("access list --json").json["access"] == []


def test_a_policy_that_the_keys_own_policy_makes_void_is_told(envfs: CommandLine, tmp_path: Path) -> None:
    me = envfs("kms whoami --json").json["arn"]
    statement = {"Effect": "Allow", "Principal": {"AWS": me}, "Action": "kms:*", "Resource": "*"}
    (tmp_path / "policy.json").write_text(json.dumps({"Version": "2012-10-17", "Statement": statement}))
    assert "is void" not in envfs("access grant nobody read alias/payroll --until 1d").out
    assert envfs("key policy put alias/payroll policy.json").code == 0
    assert "this one is void" in envfs("access grant nobody read alias/payroll --until 1d").out
    assert "void" not in envfs("access grant nobody read alias/payroll").out


def test_an_administrator_gets_the_policy_of_the_template(envfs: CommandLine, key: str) -> None:
    made = envfs("access grant @daemon admin alias/payroll --json").json
    document = json.loads(envfs(f"iam group-policy get daemon {made['id']}").out)
    assert {one["Resource"] for one in document["Statement"]} == {made["key"]}
    actions = {action for one in document["Statement"] for action in one["Action"]}
    assert {"kms:Put*", "kms:CreateGrant"} <= actions
    assert not actions & {"kms:*", "kms:Decrypt", "kms:GenerateDataKey"}
    assert envfs("access revoke @daemon all alias/payroll").code == 0
    assert envfs("iam group-policy list daemon --json").json == {"policies": []}


def test_a_dry_run_shows_the_calls_and_makes_none(envfs: CommandLine) -> None:
    shown = envfs("access grant nobody read alias/payroll --dry-run --json").json["calls"]
    assert [call["operation"] for call in shown] == ["CreateGrant"]
    shown = envfs("access grant nobody read alias/payroll --until 1d --dry-run --json").json["calls"]
    assert [call["operation"] for call in shown] == ["EnvfsIam.PutPolicy"]
    assert grants(envfs) == []
    envfs("access grant nobody read alias/payroll")
    assert "RevokeGrant" in envfs("access revoke nobody all alias/payroll --dry-run").out
    assert len(grants(envfs)) == 1


def test_the_reason_is_in_the_audit_trail(envfs: CommandLine) -> None:
    envfs("access grant nobody read alias/payroll --reason", "why")
    envfs("access grant nobody read alias/payroll --until 1d --reason", "because")
    records = [json.loads(line) for line in envfs("audit query --event CreateGrant --json").out.splitlines()]
    assert records[-1]["requestParameters"]["name"] == "access/read/why"
    records = [json.loads(line) for line in envfs("audit query --event PutUserPolicy --json").out.splitlines()]
    assert json.loads(records[-1]["requestParameters"]["policyDocument"])["Id"] == "because"


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        ("access grant no-such-user read alias/payroll", 4, "there is no user"),
        ("access grant @no-such-group read alias/payroll", 4, "there is no Unix group"),
        ("access grant arn:envfs:iam::000000000000:root read alias/payroll", 3, "neither a user nor a group"),
        ("access grant ${aws:username} read alias/payroll", 3, "cannot be named in a policy"),
        ("access grant * read alias/payroll", 3, "cannot be named in a policy"),
        ("access grant nobody read alias/nothing", 4, "NotFoundException"),
        ("access grant nobody read ./nowhere", 3, "neither a path that exists nor a key"),
        ("access grant nobody read .", 6, "not below an envfs mountpoint"),
        ("access grant nobody read alias/payroll --by-path", 3, "not for a key"),
        ("access grant nobody read alias/payroll --until 2001-01-01", 2, "has passed already"),
        ("access grant nobody read alias/payroll --until nonsense", 2, "is no time"),
        ("access grant nobody sing alias/payroll", 2, "sing"),
        ("access revoke nobody read", 2, "--everywhere"),
        ("access revoke nobody read alias/payroll --everywhere", 2, "--everywhere"),
        ("access revoke nobody read alias/payroll", 4, "nothing of that kind"),
    ],
)
def test_what_cannot_be_is_said(line: str, code: int, text: str, envfs: CommandLine) -> None:
    answer = envfs(line)
    assert (answer.code, text in answer.err) == (code, True), answer.err


def test_a_group_with_a_space_cannot_be_named(envfs: CommandLine) -> None:
    answer = envfs("access grant", "@domain users", "read", "alias/payroll")
    assert (answer.code, "' ' cannot stand in an ARN" in answer.err) == (3, True)


def test_envfss_own_key_needs_no_grants(envfs: CommandLine, tmp_path: Path) -> None:
    envfs("init lower")
    answer = envfs("access grant nobody read alias/envfs/volume")
    assert (answer.code, "there is nothing to grant" in answer.err) == (3, True)
