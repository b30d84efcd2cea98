"""What the audit trail says of people who used a mount: asked for by the paths that they know."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount
    from tests.integration.users import UnixUser

pytestmark = pytest.mark.users


def test_who_read_what_below_a_path_and_who_was_denied(
    mounted: Callable[..., Mount],
    envfs: Envfs,
    unix_users: Callable[..., list[UnixUser]],
    run_as: Callable[..., Any],
) -> None:
    alice, bob = unix_users("alice", "bob")
    mount = mounted()
    (mount.path / "finance").mkdir()
    (mount.path / "finance2").mkdir()
    envfs("key", "create", "--alias", "finance", "--user", alice.name)
    envfs("iam", "user-policy", "put", "root", "all", input=_ALL)
    envfs("dir", "set-key", mount.path / "finance", "alias/finance")
    for place in ("finance", "finance2"):
        (mount.path / place / "report").write_text("x")
        (mount.path / place / "report").chmod(0o644)
    for place in ("finance", "finance2"):
        for user in (alice, bob):
            run_as(user, ["cat", str(mount.path / place / "report")])

    def asked(*question: str) -> list[tuple[str, str]]:
        lines = envfs("audit", "query", "--json", "--since", "today", "--event", "Decrypt", *question).stdout
        records = [json.loads(line) for line in lines.splitlines()]
        return [(one["userIdentity"]["userName"], one["envfs"]["path"]) for one in records]

    people = {alice.name, bob.name}
    finance = str(mount.path / "finance")
    assert {who for who in asked("--path", finance) if who[0] in people} == {
        (alice.name, "/finance/report"),
        (bob.name, "/finance/report"),
    }
    assert asked("--path", finance, "--denied") == [(bob.name, "/finance/report")]
    assert asked("--path", f"{finance}/re*t", "--denied", "--user", alice.name) == []
    assert {path for _, path in asked("--path", str(mount.path), "--user", bob.name)} == {
        "/finance/report",
        "/finance2/report",
    }

    report = json.loads(envfs("audit", "report", "--path", finance, "--json").stdout)
    found = {use["user"]: use for use in report["uses"] if use["user"] in people}
    assert (found[alice.name]["read"], found[alice.name]["refused"]) == (1, 0)
    assert (found[bob.name]["read"], found[bob.name]["refused"]) == (0, 1)
    assert found[alice.name]["alias"] == "alias/finance"
    assert report["trail"] == "authentic"


_ALL = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kms:*", "Resource": "*"}]})
