"""The KMS's commands for users who have no access to its store: through the socket, as who they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.cli.conftest import serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.cli.conftest import Served
    from tests.integration.command import Envfs
    from tests.integration.users import UnixUser

pytestmark = pytest.mark.users
BY_SERVER_AND_BY_MOUNT = pytest.mark.parametrize("served", ["serve", "mount"], indirect=True)

MAY_MAKE_KEYS = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["kms:CreateKey", "kms:ListKeys", "kms:ListAliases", "kms:CreateAlias", "kms:DeleteAlias"],
                "Resource": "*",
            }
        ],
    }
)


@pytest.fixture
def alice(unix_users: Callable[..., list[UnixUser]]) -> UnixUser:
    return unix_users("alice")[0]


@pytest.fixture
def bob(unix_users: Callable[..., list[UnixUser]]) -> UnixUser:
    return unix_users("bob")[0]


@pytest.fixture
def team_key(served: Served, alice: UnixUser, bob: UnixUser) -> str:
    """Made by alice, who administers it; bob uses it. Neither is root, and neither may enter the KMS's directory."""
    assert served(None, f"iam user-policy put {alice.name} make-keys", input=MAY_MAKE_KEYS).code == 0
    line = f"key create --alias team --admin {alice.name} --user {bob.name} --json"
    return str(served(alice, line).json["key_id"])


def test_everybody_is_who_the_kernel_says(served: Served, alice: UnixUser, bob: UnixUser) -> None:
    for user in (alice, bob):
        me = served(user, "kms whoami --json").json
        assert (me["user_name"], me["user_id"], me["is_account_root"]) == (user.name, str(user.uid), False)
        assert me["reached_by"].startswith("the socket /")
    assert served(None, "kms whoami --json").json["reached_by"] == f"the store in {served.home}"


def test_what_may_not_be_asked_is_not_said_to_be_nothing(
    served: Served, team_key: str, alice: UnixUser, bob: UnixUser
) -> None:
    assert served(alice, "key show alias/team --json").json["aliases"] == ["alias/team"]
    shown = served(bob, "key show alias/team --json").json
    assert shown["key_id"] == team_key
    assert "aliases" not in shown
    refused = served(bob, f"key disable {team_key}")
    assert "AccessDeniedException" in refused.err
    assert "next: who administers the key" in refused.err


@BY_SERVER_AND_BY_MOUNT
def test_an_administrator_manages_and_does_not_use(
    served: Served, team_key: str, alice: UnixUser, bob: UnixUser
) -> None:
    for line in (
        f"key disable {team_key}",
        "key enable alias/team",
        "key tag alias/team place=here",
        "key rotation enable alias/team",
        "key rotate alias/team",
        "key alias create alias/squad alias/team",
        "key alias delete alias/squad",
        f"key delete {team_key} --days 7",
        f"key cancel-deletion {team_key}",
        f"key enable {team_key}",
        "key policy get alias/team",
    ):
        answer = served(alice, line)
        assert answer.code == 0, f"{line}: {answer.err}"
    assert served(alice, "key show alias/team --json").json["state"] == "Enabled"
    assert served(alice, "key tags alias/team --json").json == {"tags": {"place": "here"}}
    sealed = served(bob, "kms encrypt alias/team --base64", input="for bob")
    assert sealed.code == 0
    for line, text in (
        ("kms encrypt alias/team --base64", "mine"),
        ("kms decrypt --base64", sealed.out),
        ("kms generate-data-key alias/team --json", ""),
        (f"grant create alias/team --to {alice.name} --operation Decrypt", ""),
    ):
        answer = served(alice, line, input=text)
        assert answer.code == 4, f"{line}: {answer.out}"
        assert "AccessDeniedException" in answer.err


@BY_SERVER_AND_BY_MOUNT
def test_a_user_uses_and_does_not_manage(served: Served, team_key: str, bob: UnixUser, alice: UnixUser) -> None:
    sealed = served(bob, "kms encrypt alias/team --base64 --context a=b", input="wages")
    opened = served(bob, "kms decrypt --base64 --context a=b", input=sealed.out)
    assert (opened.code, opened.out) == (0, "wages")
    path = bob.home / "key"
    answer = served(bob, f"kms generate-data-key alias/team --plaintext-file {path} --ciphertext-file {path}.enc")
    assert answer.code == 0
    assert (path.stat().st_mode & 0o777, path.stat().st_uid, path.stat().st_size) == (0o600, bob.uid, 32)
    policy = served(alice, f"key policy get {team_key}").out
    for line, text in (
        (f"key disable {team_key}", ""),
        (f"key policy put {team_key}", policy),
        (f"key delete {team_key}", ""),
        (f"key tag {team_key} a=b", ""),
        (f"grant create {team_key} --to {bob.name} --operation Decrypt", ""),
        ("key create", ""),
        ("key list", ""),
        ("audit tail", ""),
        ("kms verify", ""),
        (f"iam user-policy put {bob.name} everything", MAY_MAKE_KEYS),
        (f"iam access-key create {alice.name}", ""),
    ):
        answer = served(bob, line, input=text)
        assert answer.code == 4, f"{line}: {answer.out}{answer.err}"
        assert "AccessDeniedException" in answer.err


def test_a_grant_lets_a_third_use_the_key_until_it_ends(
    served: Served, team_key: str, alice: UnixUser, bob: UnixUser, unix_users: Callable[..., list[UnixUser]]
) -> None:
    (carol,) = unix_users("carol")
    sealed = served(bob, "kms encrypt alias/team --base64 --context year=2026", input="wages").out
    assert served(carol, "kms decrypt --base64 --context year=2026", input=sealed).code == 4
    line = f"grant create alias/team --to {carol.name} --operation Decrypt --context-subset year=2026 --json"
    grant = served(alice, line).json["grant_id"]
    opened = served(carol, "kms decrypt --base64 --context year=2026", input=sealed)
    assert (opened.code, opened.out) == (0, "wages")
    assert served(carol, f"grant list {team_key}").code == 4
    assert served(alice, f"grant revoke {team_key} {grant}").code == 0
    assert served(carol, "kms decrypt --base64 --context year=2026", input=sealed).code == 4
    trail = served(None, f"audit query --user {carol.name} --event Decrypt --json").out.splitlines()
    records = [json.loads(line) for line in trail]
    assert [record.get("errorCode", "ok") for record in records] == [
        "AccessDeniedException",
        "ok",
        "AccessDeniedException",
    ]
    assert records[1]["envfs"]["decisions"][0]["grant"] == grant


def test_the_owner_gives_the_right_to_look_at_the_trail(served: Served, alice: UnixUser) -> None:
    assert served(alice, "audit tail").code == 4
    statement = {"Effect": "Allow", "Action": ["envfs:QueryAudit", "envfs:VerifyAudit"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    assert served(None, f"iam user-policy put {alice.name} auditor", input=policy).code == 0
    records = [json.loads(line) for line in served(alice, "audit tail --json").out.splitlines()]
    assert "PutUserPolicy" in {record["eventName"] for record in records}
    assert served(alice, "audit verify --json").json["authentic"] is True


def test_without_a_server_it_is_said_what_was_tried(envfs: Envfs, kms_home: Path, alice: UnixUser) -> None:
    envfs("kms", "init")
    answer = envfs("key", "list", user=alice, home=kms_home, check=False)
    assert answer.returncode == 3
    assert answer.stderr.splitlines() == [
        f"envfs: the KMS cannot be reached: {kms_home} is closed to you; no server of it is running",
        "  next: have its owner start `envfs kms serve`; ENVFS_KMS_SOCKET names a socket, ENVFS_HOME another KMS",
    ]


def test_a_stranger_who_listens_gets_nothing(
    envfs: Envfs, serving: Path, kms_home: Path, alice: UnixUser, bob: UnixUser, directory: Callable[..., Path]
) -> None:
    place = directory("trap", owner=bob)
    program = (
        "import os, socket; s = socket.socket(socket.AF_UNIX); s.bind('trap.sock'); os.chmod('trap.sock', 0o666)\n"
        "s.listen(); print(flush=True); c, _ = s.accept(); c.settimeout(60); print(len(c.recv(100000)), flush=True)"
    )
    options: dict[str, Any] = {"cwd": place, "user": bob.uid, "group": bob.gid, "extra_groups": []}
    python = _python_for_everybody()
    with subprocess.Popen([python, "-c", program], stdout=subprocess.PIPE, text=True, **options) as trap:
        assert trap.stdout is not None
        assert trap.stdout.readline() == "\n"
        variables = {"ENVFS_KMS_SOCKET": str(place / "trap.sock")}
        line = ["kms", "encrypt", "alias/x", "--base64"]
        answer = envfs(*line, user=alice, home=kms_home, check=False, env=variables, input="secret")
        received = trap.stdout.readline()
    assert answer.returncode == 3
    assert f"uid {bob.uid} listens there" in answer.stderr
    assert received == "0\n", "not a byte went to a stranger"
    real = envfs("kms", "whoami", user=alice, home=kms_home, env={"ENVFS_KMS_SOCKET": str(serving)})
    assert f"the socket {serving}" in real.stdout


def test_the_servers_of_others_than_the_owner_are_passed_over(
    envfs: Envfs, serving: Path, kms_home: Path, alice: UnixUser
) -> None:
    os.chown(serving, alice.uid, alice.gid)  # whose the file is does not matter: who listens, does
    assert envfs("kms", "whoami", user=alice, home=kms_home).returncode == 0


def test_an_owner_who_is_not_root_is_believed_about_his_own_kms_only(
    envfs: Envfs, alice: UnixUser, bob: UnixUser, directory: Callable[..., Path], kms_home: Path
) -> None:
    place = directory("srv", owner=alice)
    envfs("kms", "init", user=alice, home=place / "kms")
    envfs("kms", "init", home=kms_home)
    with serve(envfs, place / "kms", "--socket", place / "kms.sock", user=alice):
        asked: dict[str, Any] = {"user": bob, "check": False, "env": {"ENVFS_KMS_SOCKET": str(place / "kms.sock")}}
        hers = envfs("kms", "whoami", "--json", home=place / "kms", **asked)
        assert json.loads(hers.stdout)["user_name"] == bob.name
        of_root = envfs("kms", "whoami", home=kms_home, **asked)
    assert of_root.returncode == 3
    assert f"uid {alice.uid} listens there, who does not own the KMS" in of_root.stderr


def test_a_running_server_saves_its_owner_the_passphrase(
    envfs: Envfs, kms_home: Path, directory: Callable[..., Path]
) -> None:
    secret = directory("secrets", mode=0o700) / "passphrase"
    secret.write_text("correct horse\n")
    envfs("kms", "init", "--root-key", "passphrase", "--passphrase-file", secret)
    with serve(envfs, kms_home, "--passphrase-file", secret) as socket:
        assert f"the socket {socket}" in envfs("kms", "whoami", input="").stdout
        named = envfs("kms", "whoami", "--passphrase-file", secret)
        assert f"the store in {kms_home}" in named.stdout, "who gives the passphrase wants it used"
    alone = envfs("kms", "whoami", check=False, input="", start_new_session=True)
    assert alone.returncode == 3
    assert "a passphrase is needed" in alone.stderr


def _python_for_everybody() -> str:
    return "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
