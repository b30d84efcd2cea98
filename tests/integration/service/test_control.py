"""What a running mount tells and does on request: directory keys, files, explanations; and who is refused."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount
    from tests.integration.users import UnixUser


def as_json(envfs: Envfs, *arguments: str | Path, **options: Any) -> Any:
    return json.loads(envfs(*arguments, "--json", **options).stdout)


def policy(account: str, *statements: dict[str, Any]) -> str:
    """A key policy in which the account root may do everything, and the statements hold."""
    root = {
        "Sid": "Owner",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:envfs:iam::{account}:root"},
        "Action": "kms:*",
        "Resource": "*",
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [root, *statements]})


def allow(sid: str, user: UnixUser, *actions: str) -> dict[str, Any]:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:envfs:iam::000000000000:user/{user.name}"},
        "Action": list(actions),
        "Resource": "*",
    }


@pytest.fixture
def payroll(envfs: Envfs, volume: Path) -> str:
    """The ARN of a key of its own, under the alias payroll. The KMS comes with the volume."""
    arn: str = as_json(envfs, "key", "create", "--alias", "payroll", "--description", "salaries")["arn"]
    return arn


def test_a_directory_key_counts_for_new_files_below_and_is_inherited(
    mounted: Callable[..., Mount], envfs: Envfs, payroll: str
) -> None:
    mount = mounted()
    top = mount.path / "payroll"
    (top / "2026").mkdir(parents=True)
    (top / "old").write_text("before")
    told = as_json(envfs, "dir", "set-key", top, "alias/payroll")
    assert told["own_key"] == told["key"] == payroll
    (top / "2026/new").write_text("after")
    below = as_json(envfs, "dir", "show", top / "2026")
    assert (below["own_key"], below["key"], below["path"]) == (None, payroll, "/payroll/2026")
    keys = [as_json(envfs, "file", "show", top / name)["key"] for name in ("old", "2026/new")]
    assert keys[1] == payroll
    assert keys[0] == as_json(envfs, "dir", "show", mount.path)["key"] != payroll
    mount.remount()
    (top / "2026/later").write_text("after a new mount")
    assert as_json(envfs, "file", "show", top / "2026/later")["key"] == payroll


def test_the_root_of_the_mount_can_have_a_key(mounted: Callable[..., Mount], envfs: Envfs, payroll: str) -> None:
    mount = mounted()
    assert as_json(envfs, "dir", "set-key", mount.path, payroll)["path"] == "/"
    (mount.path / "file").touch()
    (mount.path / "file").write_text("content")
    assert as_json(envfs, "file", "show", mount.path / "file")["key"] == payroll


def test_a_read_only_mount_takes_no_key(mounted: Callable[..., Mount], envfs: Envfs, payroll: str) -> None:
    mount = mounted("ro")
    done = envfs("dir", "set-key", mount.path, payroll, check=False)
    assert done.returncode == 6
    assert "read-only" in done.stderr


def test_a_key_that_is_not_there_or_disabled_is_refused(
    mounted: Callable[..., Mount], envfs: Envfs, payroll: str
) -> None:
    mount = mounted()
    done = envfs("dir", "set-key", mount.path, "alias/nonsense", check=False)
    assert done.returncode == 4
    envfs("key", "disable", payroll)
    done = envfs("dir", "set-key", mount.path, payroll, check=False)
    assert done.returncode == 3
    assert "Disabled" in done.stderr
    assert "envfs key enable" in done.stderr
    assert as_json(envfs, "dir", "show", mount.path)["own_key"] is None


def test_a_file_shows_the_same_in_the_mount_and_in_the_lower_directory(
    mounted: Callable[..., Mount], envfs: Envfs
) -> None:
    mount = mounted()
    before = set(os.listdir(mount.lower))
    (mount.path / "notes.txt").write_bytes(b"x" * 40_000)
    above = as_json(envfs, "file", "show", mount.path / "notes.txt")
    assert (above["path"], above["plain_size"], above["at_its_place"]) == ("/notes.txt", 40_000, True)
    (name,) = set(os.listdir(mount.lower)) - before - {"envfs.undo", "envfs.journal"}
    below = as_json(envfs, "file", "show", mount.lower / name)
    assert below["volume"] == str(mount.lower)
    assert above["key"].endswith(below["key_id"])
    for field in ("file_id", "suite", "block_size", "plain_size", "cipher_size", "labels"):
        assert above[field] == below[field], field


def test_what_has_no_header_to_show(mounted: Callable[..., Mount], envfs: Envfs, tmp_path: Path) -> None:
    mount = mounted()
    (mount.path / "link").symlink_to("target")
    (mount.path / "dir").mkdir()
    for name in ("link", "dir"):
        done = envfs("file", "show", mount.path / name, check=False)
        assert done.returncode == 3
        assert "no regular file" in done.stderr
    assert envfs("file", "show", mount.path / "absent", check=False).returncode == 8
    assert envfs("file", "show", mount.lower / "envfs.volume", check=False).returncode == 3
    (tmp_path / "elsewhere").touch()
    done = envfs("file", "show", tmp_path / "elsewhere", check=False)
    assert done.returncode == 3
    assert "neither in an envfs mount nor in a lower directory" in done.stderr


def test_damaged_headers_in_the_lower_directory_are_told(mounted: Callable[..., Mount], envfs: Envfs) -> None:
    mount = mounted()
    before = set(os.listdir(mount.lower))
    (mount.path / "file").write_text("content")
    mount.umount()
    (name,) = set(os.listdir(mount.lower)) - before - {"envfs.undo", "envfs.journal"}
    raw = (mount.lower / name).read_bytes()
    (mount.lower / name).write_bytes(raw[:128] + bytes(896) + raw[1024:])
    done = envfs("file", "show", mount.lower / name, check=False)
    assert done.returncode == 5
    assert "no header" in done.stderr
    (mount.lower / name).write_bytes(raw[:128] + b"X" * 896 + raw[1024:])
    assert envfs("file", "show", mount.lower / name, check=False).returncode == 5


def test_a_path_outside_every_mount_is_told_apart(envfs: Envfs, directory: Callable[..., Path]) -> None:
    plain = directory("plain")
    for arguments in (("dir", "show", plain), ("dir", "set-key", plain, "k"), ("explain", "--user", "root", plain)):
        done = envfs(*arguments, check=False)
        assert done.returncode == 6
        assert "not below an envfs mountpoint" in done.stderr


def test_explain_names_the_deciding_statement(
    mounted: Callable[..., Mount], envfs: Envfs, payroll: str, unix_users: Callable[..., list[UnixUser]]
) -> None:
    alice, bob = unix_users("alice", "bob")
    statements = [allow("Readers", alice, "kms:Decrypt"), allow("Droppers", bob, "kms:GenerateDataKey")]
    envfs("key", "policy", "put", payroll, input=policy("000000000000", *statements))
    mount = mounted()
    envfs("dir", "set-key", mount.path, payroll)
    (mount.path / "file").write_text("content")

    def explain(user: UnixUser, access: str, path: Path = mount.path / "file") -> tuple[int, dict[str, Any]]:
        done = envfs("explain", "--user", user.name, path, "--access", access, "--json", check=False)
        return done.returncode, json.loads(done.stdout)

    code, answer = explain(alice, "read")
    assert (code, answer["allowed"]) == (0, True)
    assert "'Readers'" in answer["decisions"][0]["text"]
    assert answer["path"] == "/file"
    code, answer = explain(alice, "write")
    assert (code, answer["allowed"]) == (4, False)
    assert [decision["allowed"] for decision in answer["decisions"]] == [True, False]
    code, answer = explain(bob, "read")
    assert (code, answer["allowed"]) == (4, False)
    assert "no statement and no grant allows it" in answer["decisions"][0]["text"]
    code, answer = explain(bob, "create", mount.path)
    assert (code, answer["decisions"][0]["allowed"]) == (4, True), "the modes of the directory count as well"
    mount.path.chmod(0o777)
    for path in (mount.path, mount.path / "new"):
        code, answer = explain(bob, "create", path)
        assert (code, answer["decisions"][0]["action"]) == (0, "kms:GenerateDataKey")
    done = envfs("explain", "--user", alice.name, mount.path, check=False)
    assert done.returncode == 3
    assert "--access create" in done.stderr
    assert "allowed: " in envfs("explain", "--user", str(alice.uid), mount.path / "file").stdout
    assert "DENIED: " in envfs("explain", "--user", bob.name, mount.path / "file", check=False).stdout


def test_explain_agrees_with_what_happens(
    mounted: Callable[..., Mount],
    envfs: Envfs,
    payroll: str,
    unix_users: Callable[..., list[UnixUser]],
    run_as: Callable[..., Any],
) -> None:
    alice, bob = unix_users("alice", "bob")
    envfs("key", "policy", "put", payroll, input=policy("000000000000", allow("Readers", alice, "kms:Decrypt")))
    mount = mounted()
    envfs("dir", "set-key", mount.path, payroll)
    path = mount.path / "file"
    path.write_text("content")
    path.chmod(0o666)
    for user in (alice, bob):
        explained = envfs("explain", "--user", user.name, path, check=False).returncode == 0
        assert (run_as(user, ["cat", path]).returncode == 0) is explained
    assert run_as(bob, ["cat", path]).stderr.endswith("Permission denied\n")


def test_users_ask_about_themselves_and_only_the_owner_about_others(
    mounted: Callable[..., Mount], envfs: Envfs, unix_users: Callable[..., list[UnixUser]]
) -> None:
    alice, bob = unix_users("alice", "bob")
    mount = mounted()
    (mount.path / "file").write_text("content")
    assert envfs("explain", "--user", alice.name, mount.path / "file", user=alice).returncode == 0
    done = envfs("explain", "--user", bob.name, mount.path / "file", user=alice, check=False)
    assert done.returncode == 4
    assert "only root, the KMS's owner and who administers the key" in done.stderr
    assert "kms:GetKeyPolicy and kms:ListGrants" in done.stderr
    done = envfs("explain", "--user", "no-such-user", mount.path / "file", check=False)
    assert done.returncode == 3


def test_only_a_directorys_owner_and_root_choose_its_key(
    mounted: Callable[..., Mount], envfs: Envfs, payroll: str, unix_users: Callable[..., list[UnixUser]]
) -> None:
    alice, bob = unix_users("alice", "bob")
    grant = [allow("Users", user, "kms:GenerateDataKey", "kms:Decrypt") for user in (alice, bob)]
    envfs("key", "policy", "put", payroll, input=policy("000000000000", *grant))
    mount = mounted()
    hers = mount.path / "hers"
    hers.mkdir()
    os.chown(hers, alice.uid, alice.gid)
    done = envfs("dir", "set-key", hers, payroll, user=bob, check=False)
    assert done.returncode == 4
    assert "owner" in done.stderr
    envfs("dir", "set-key", hers, payroll, user=alice)
    assert as_json(envfs, "dir", "show", hers, user=bob)["own_key"] == payroll


def test_a_key_that_a_user_may_not_use_is_not_his_to_choose(
    mounted: Callable[..., Mount], envfs: Envfs, payroll: str, unix_users: Callable[..., list[UnixUser]]
) -> None:
    (alice,) = unix_users("alice")
    mount = mounted()
    hers = mount.path / "hers"
    hers.mkdir()
    os.chown(hers, alice.uid, alice.gid)
    done = envfs("dir", "set-key", hers, payroll, user=alice, check=False)
    assert done.returncode == 4
    assert "AccessDeniedException" in done.stderr
    assert as_json(envfs, "dir", "show", hers)["own_key"] is None


def test_who_may_not_reach_a_path_is_told_nothing_about_it(
    mounted: Callable[..., Mount], envfs: Envfs, unix_users: Callable[..., list[UnixUser]]
) -> None:
    (alice,) = unix_users("alice")
    mount = mounted()
    (mount.path / "closed").mkdir(mode=0o700)
    (mount.path / "closed/file").write_text("content")
    done = envfs("file", "show", mount.path / "closed/file", user=alice, check=False)
    assert done.returncode == 8
    assert "Permission denied" in done.stderr


def test_counters_are_for_the_owner(
    mounted: Callable[..., Mount], envfs: Envfs, unix_users: Callable[..., list[UnixUser]]
) -> None:
    (alice,) = unix_users("alice")
    mount = mounted()
    assert "counters" not in as_json(envfs, "status", mount.path, user=alice)
    assert "counters" in as_json(envfs, "status", mount.path)


def test_a_policy_change_counts_at_the_next_open_of_a_running_mount(
    mounted: Callable[..., Mount],
    envfs: Envfs,
    payroll: str,
    unix_users: Callable[..., list[UnixUser]],
    run_as: Callable[..., Any],
) -> None:
    (alice,) = unix_users("alice")
    mount = mounted()
    envfs("dir", "set-key", mount.path, payroll)
    path = mount.path / "file"
    path.write_text("content")
    assert run_as(alice, ["cat", path]).returncode == 1
    envfs("key", "policy", "put", payroll, input=policy("000000000000", allow("Readers", alice, "kms:Decrypt")))
    assert run_as(alice, ["cat", path]).stdout == "content"
    envfs("key", "disable", payroll)
    done = run_as(alice, ["cat", path])
    assert done.returncode == 1
    assert "Required key not available" in done.stderr
    envfs("key", "enable", payroll)
    assert run_as(alice, ["cat", path]).stdout == "content"
