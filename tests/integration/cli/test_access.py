"""`envfs access` on directories of a real mount, with real users: what it says is what their processes then get."""

from __future__ import annotations

import errno
import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.cli.conftest import Served

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount
    from tests.integration.users import UnixUser

    RunAs = Callable[..., Any]

pytestmark = pytest.mark.users


@pytest.fixture
def alice(unix_users: Callable[..., list[UnixUser]]) -> UnixUser:
    return unix_users("alice")[0]


@pytest.fixture
def bob(unix_users: Callable[..., list[UnixUser]]) -> UnixUser:
    return unix_users("bob")[0]


@pytest.fixture
def top(envfs: Envfs, mounted: Callable[..., Mount], volume: Path, alice: UnixUser) -> Path:
    """A mountpoint with a directory `payroll`, whose key alice administers and nobody but the owner uses."""
    envfs("key", "create", "--alias", "payroll", "--admin", alice.name)
    path = mounted().path
    for name in ("payroll", "other"):
        (path / name).mkdir()
        (path / name).chmod(0o777)
    envfs("dir", "set-key", path / "payroll", "alias/payroll")
    envfs("dir", "label", path / "payroll", "project=apollo")
    write(path / "payroll/file", b"salaries")
    return path


@pytest.fixture
def served(envfs: Envfs, kms_home: Path, top: Path) -> Served:
    """Runs commands as a user against the KMS of root, which the mount serves."""
    return Served(envfs, kms_home)


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o666)


def attempt(run_as: RunAs, user: UnixUser, path: Path, flags: int = os.O_RDONLY) -> str:
    """`ok`, or the name of the errno, of an open(2) in a process of the user."""

    def open_it() -> str:
        try:
            os.close(os.open(path, flags, 0o666))
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return "ok"

    return str(run_as(user, open_it))


def test_a_grant_opens_what_has_the_label_and_moving_does_not_evade_it(
    top: Path, envfs: Envfs, bob: UnixUser, alice: UnixUser, run_as: RunAs
) -> None:
    payroll, zeus = top / "payroll", top / "zeus"
    zeus.mkdir()
    zeus.chmod(0o777)
    envfs("dir", "set-key", zeus, "alias/payroll")
    envfs("dir", "label", zeus, "project=zeus")
    write(zeus / "secret", b"of zeus")
    assert attempt(run_as, bob, payroll / "file") == "EACCES"
    told = json.loads(envfs("access", "grant", bob.name, "read", payroll, "--json").stdout)
    assert [one["access"]["read"]["allowed"] for one in told["now"]] == [True]
    assert attempt(run_as, bob, payroll / "file") == "ok"
    assert attempt(run_as, bob, payroll / "file", os.O_WRONLY) == "EACCES"
    assert attempt(run_as, bob, payroll / "new", os.O_WRONLY | os.O_CREAT) == "EACCES"
    # bob may rename what lies in these directories, and gains nothing by it.
    run_as(bob, lambda: os.rename(zeus / "secret", payroll / "secret"))
    assert attempt(run_as, bob, payroll / "secret") == "EACCES"
    run_as(bob, lambda: os.rename(payroll / "file", top / "other/file"))
    assert attempt(run_as, bob, top / "other/file") == "ok"
    revoked = json.loads(envfs("access", "revoke", bob.name, "all", payroll, "--json").stdout)
    assert (len(revoked["revoked"]), revoked["still"]) == (1, [])
    assert attempt(run_as, bob, top / "other/file") == "EACCES"


def test_by_path_goes_by_the_path_whatever_it_is_called(top: Path, envfs: Envfs, bob: UnixUser, run_as: RunAs) -> None:
    odd = top / "payroll/a\nb*${aws:username}"
    odd.mkdir()
    (top / "payroll/a\nbc").mkdir()
    for directory in (odd, top / "payroll/a\nbc"):
        write(directory / "file", b"x")
    done = envfs("access", "grant", bob.name, "read", odd, check=False)
    assert done.returncode == 3, "nothing sets it apart from payroll"
    assert "dir label" in done.stderr
    envfs("access", "grant", bob.name, "read", odd, "--by-path")
    assert attempt(run_as, bob, odd / "file") == "ok"
    assert attempt(run_as, bob, top / "payroll/a\nbc/file") == "EACCES", "its name is no pattern"
    envfs("access", "revoke", bob.name, "read", odd)
    assert attempt(run_as, bob, odd / "file") == "EACCES"


def test_an_end_comes_by_itself_for_open_files_as_well(top: Path, envfs: Envfs, bob: UnixUser, run_as: RunAs) -> None:
    path = top / "payroll/file"
    end = int(time.time()) + 10
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end))
    envfs("access", "grant", bob.name, "read", top / "payroll", "--until", moment)

    def read_until_refused() -> tuple[float, str]:
        fd = os.open(path, os.O_RDONLY)
        while time.time() < end + 30:
            try:
                assert os.pread(fd, 100, 0) == b"salaries"
            except OSError as error:
                return time.time(), errno.errorcode[error.errno or 0]
            time.sleep(0.05)
        return 0.0, "never"

    when, refused = run_as(bob, read_until_refused)
    assert refused == "EACCES"
    assert when >= end
    assert attempt(run_as, bob, path) == "EACCES"
    (listed,) = json.loads(envfs("access", "list", bob.name, "--json").stdout)["access"]
    assert listed["expired"]


def test_modes_that_still_forbid_it_are_told_with_what_would_help(
    top: Path, envfs: Envfs, bob: UnixUser, run_as: RunAs
) -> None:
    payroll = top / "payroll"
    payroll.chmod(0o700)
    done = envfs("access", "grant", bob.name, "write", payroll)
    assert f"{bob.name} can now: nothing" in done.stdout
    assert f"chmod o+x {payroll}" in done.stdout
    path = payroll / "file"
    path.chmod(0o600)
    explained = envfs("explain", "--user", bob.name, path, "--why-not", check=False)
    assert explained.returncode == 4
    for remedy in (f"chmod o+x {payroll}", f"chmod o+r {path}"):
        assert remedy in explained.stdout
    assert attempt(run_as, bob, path) == "EACCES"
    payroll.chmod(0o701)
    path.chmod(0o604)
    assert envfs("explain", "--user", bob.name, path).returncode == 0
    assert attempt(run_as, bob, path) == "ok"
    assert envfs("explain", "--user", bob.name, path, "--access", "write", check=False).returncode == 4
    assert attempt(run_as, bob, path, os.O_WRONLY) == "EACCES"


def test_a_key_administrator_who_is_no_root_does_it_over_the_socket(
    top: Path, served: Served, alice: UnixUser, bob: UnixUser, unix_group: Callable[..., str], run_as: RunAs
) -> None:
    payroll = str(top / "payroll")
    granted = served(alice, f"access grant {bob.name} read {payroll} --reason ticket --json")
    assert granted.json["made"] == "grant"
    assert attempt(run_as, bob, top / "payroll/file") == "ok"
    assert [one["user"] for one in served(alice, f"access who-can {payroll}/file --json").json["users"]] == [
        bob.name,
        "root",
    ]
    assert served(alice, f"explain --user {bob.name} {payroll}/file").code == 0
    table = served(alice, f"access matrix {payroll}").out.splitlines()
    assert [line.split() for line in table[:2]] == [["USER", "."], [bob.name, "r--"]]
    listed = served(alice, "access list alias/payroll --json").json
    assert [one["reason"] for one in listed["access"]] == ["ticket"]
    assert listed["not_seen"] == ["iam:GetAccountAuthorizationDetails on *"]
    # What she may not do, she is told with the permission for it.
    group = unix_group("staff", alice)
    for line, permission in (
        (f"access grant {alice.name} read {payroll}", "you lack kms:CreateGrant on"),
        (f"access grant @{group} read {payroll}", "you lack kms:CreateGrant on"),
        (f"access grant {bob.name} read {payroll} --until 1d", "you lack iam:PutUserPolicy on"),
        (f"access grant {bob.name} admin alias/payroll", "you lack iam:PutUserPolicy on"),
    ):
        refused = served(alice, line)
        assert (refused.code, permission in refused.err) == (4, True), refused.err
    assert attempt(run_as, alice, top / "payroll/file") == "EACCES"
    for line in (f"explain --user {alice.name} {payroll}/file", f"access who-can {payroll}"):
        refused = served(bob, line)
        assert (refused.code, "kms:GetKeyPolicy and kms:ListGrants" in refused.err) == (4, True)
    assert served(bob, f"access grant {bob.name} write {payroll}").code == 4
    assert served(alice, f"access revoke {bob.name} read {payroll}").code == 0
    assert attempt(run_as, bob, top / "payroll/file") == "EACCES"
    # Who asks about himself is told nothing of others.
    served(None, f"access grant {alice.name} read {payroll} --reason confidential")
    told = served(bob, f"explain --user {bob.name} {payroll}/file --json --why-not")
    assert (told.code, alice.name in told.out, "confidential" in told.out) == (4, False, False)
    assert "confidential" in served(None, f"explain --user {alice.name} {payroll}/file").out


def test_labels_are_inherited_shown_bounded_and_not_taken_off_by_who_needs_them(
    top: Path, served: Served, envfs: Envfs, bob: UnixUser, run_as: RunAs
) -> None:
    below = top / "payroll/2026"
    below.mkdir()
    told = json.loads(envfs("dir", "label", below, "year=2026", "--json").stdout)
    assert (told["own_labels"], told["labels"]) == ({"year": "2026"}, {"project": "apollo", "year": "2026"})
    write(below / "file", b"x")
    assert json.loads(envfs("file", "show", below / "file", "--json").stdout)["labels"] == told["labels"]
    for pair, text in (
        ("envfs:volume=1", "reserved"),
        ("PROJECT=zeus", "differ in case only"),
        (f"long={'x' * 160}", "room for"),
        ("bell=\a", "printable"),
    ):
        done = envfs("dir", "label", below, pair, check=False)
        assert done.returncode in {3, 5}
        assert text in done.stderr
    assert "no label 'project' of its own" in envfs("dir", "label", below, "--remove", "project", check=False).stderr
    assert served(bob, f"dir label {below} a=b").code == 4
    envfs("dir", "label", below, "--remove", "year")
    assert json.loads(envfs("dir", "show", below, "--json").stdout)["labels"] == {"project": "apollo"}
    # What bob may make is `zeus`: he may add to the labels of a directory of his, and not take that one off.
    envfs("dir", "label", below, "project=zeus")
    envfs("access", "grant", bob.name, "write", below)
    os.chown(below, bob.uid, bob.gid)
    assert attempt(run_as, bob, below / "new", os.O_WRONLY | os.O_CREAT) == "ok"
    refused = served(bob, f"dir label {below} --remove project")
    assert (refused.code, "kms:GenerateDataKey" in refused.err) == (4, True)
    assert served(bob, f"dir label {below} stage=draft").code == 0


def test_who_may_grant_only_reading_grants_only_reading(
    top: Path, served: Served, envfs: Envfs, alice: UnixUser, bob: UnixUser, run_as: RunAs
) -> None:
    payroll = str(top / "payroll")
    text = json.loads(envfs("key", "policy", "get", "alias/payroll").stdout)
    text["Statement"].append(
        {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:envfs:iam::000000000000:user/{bob.name}"},
            "Action": "kms:CreateGrant",
            "Resource": "*",
            "Condition": {"ForAllValues:StringEquals": {"kms:GrantOperations": "Decrypt"}},
        }
    )
    envfs("key", "policy", "put", "alias/payroll", input=json.dumps(text))
    refused = served(bob, f"access grant {alice.name} write {payroll}")
    assert (refused.code, "you lack kms:CreateGrant on" in refused.err) == (4, True)
    # He may not look whether there is a grant already: the KMS itself sees that it is the same.
    ids = {served(bob, f"access grant {alice.name} read {payroll} --json").json["id"] for _ in range(2)}
    assert len(ids) == 1
    assert attempt(run_as, alice, top / "payroll/file") == "ok"
    refused = served(bob, f"access revoke {alice.name} read {payroll}")
    assert (refused.code, "kms:ListGrants on" in refused.err) == (4, True)
