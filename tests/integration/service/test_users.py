"""Mounts of ordinary users, for themselves and without any privilege; and what they get from the mounts of others."""

from __future__ import annotations

import json
import os
import select
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import NOT_HERE
from tests.integration.mounts import mountpoints

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount
    from tests.integration.users import UnixUser

pytestmark = pytest.mark.users


@pytest.fixture
def alice(unix_users: Callable[..., list[UnixUser]]) -> UnixUser:
    return unix_users("alice")[0]


@pytest.fixture
def hers(alice: UnixUser, envfs: Envfs, mounted: Callable[..., Mount]) -> Mount:
    """A mount of her own volume, by herself."""
    envfs("init", alice.home / "vault.enc", user=alice)
    return mounted(lower=alice.home / "vault.enc", user=alice)


def test_a_user_makes_mounts_and_unmounts_her_own(
    hers: Mount, alice: UnixUser, envfs: Envfs, run_as: Callable[..., Any]
) -> None:
    run_as(alice, lambda: (hers.path / "file").write_text("hers"))
    assert run_as(alice, (hers.path / "file").read_text) == "hers"
    status = json.loads(envfs("status", hers.path, "--json", user=alice).stdout)
    assert (status["uid"], status["state"], status["options"]) == (alice.uid, "serving", ["rw"])
    hers.remount()
    assert run_as(alice, (hers.path / "file").read_text) == "hers"
    hers.umount()
    assert os.listdir(hers.path) == []


def test_her_files_that_nobody_may_write_are_still_hers(
    hers: Mount, alice: UnixUser, run_as: Callable[..., Any]
) -> None:
    def work() -> str:
        path = hers.path / "file"
        path.write_text("content")
        path.chmod(0o444)
        path.rename(hers.path / "renamed")
        return (hers.path / "renamed").read_text()

    assert run_as(alice, work) == "content"


def test_nobody_else_enters_her_mount_not_even_root(
    hers: Mount, alice: UnixUser, unix_users: Callable[..., list[UnixUser]], run_as: Callable[..., Any]
) -> None:
    (bob,) = unix_users("bob")
    assert "Permission denied" in run_as(bob, ["ls", hers.path]).stderr
    with pytest.raises(PermissionError):
        os.listdir(hers.path)


def test_root_sees_the_status_of_her_mount_without_entering_it(hers: Mount, alice: UnixUser, envfs: Envfs) -> None:
    status = json.loads(envfs("status", hers.path, "--json").stdout)
    assert (status["state"], status["uid"], status["pid"]) == ("serving", alice.uid, hers.pid)


def test_another_user_cannot_unmount_it_or_ask_its_daemon(
    hers: Mount, unix_users: Callable[..., list[UnixUser]], envfs: Envfs
) -> None:
    (bob,) = unix_users("bob")
    done = envfs("umount", hers.path, user=bob, check=False)
    assert done.returncode in {6, 8}
    assert hers.path.name in done.stderr
    assert json.loads(envfs("status", hers.path, "--json").stdout)["state"] == "serving"


def test_control_requests_of_her_own_work(
    hers: Mount, alice: UnixUser, envfs: Envfs, run_as: Callable[..., Any]
) -> None:
    run_as(alice, lambda: (hers.path / "file").write_text("hers"))
    shown = json.loads(envfs("file", "show", hers.path / "file", "--json", user=alice).stdout)
    assert shown["plain_size"] == 4
    arn = json.loads(envfs("key", "create", "--alias", "mine", "--json", user=alice).stdout)["arn"]
    told = json.loads(envfs("dir", "set-key", hers.path, "alias/mine", "--json", user=alice).stdout)
    assert told["own_key"] == arn
    assert envfs("explain", "--user", alice.name, hers.path / "file", user=alice).returncode == 0


def test_her_daemon_cannot_be_looked_into_by_herself(hers: Mount, alice: UnixUser, run_as: Callable[..., Any]) -> None:
    pid = hers.pid

    def look() -> bytes:
        with open(f"/proc/{pid}/mem", "rb") as memory:
            return memory.read(1)

    with pytest.raises(PermissionError):
        run_as(alice, look)


def test_allow_other_of_an_ordinary_user_is_up_to_fuse_conf(
    alice: UnixUser, envfs: Envfs, directory: Callable[..., Path]
) -> None:
    with open("/etc/fuse.conf") as file:
        if any(line.strip() == "user_allow_other" for line in file):
            pytest.skip(f"{NOT_HERE}/etc/fuse.conf permits it")
    envfs("init", alice.home / "vault.enc", user=alice)
    done = envfs(
        "mount", alice.home / "vault.enc", directory("m", owner=alice), "-o", "allow_other", user=alice, check=False
    )
    assert done.returncode == 3
    assert "user_allow_other" in done.stderr


def test_a_mountpoint_that_is_not_hers_is_refused(
    alice: UnixUser, envfs: Envfs, directory: Callable[..., Path]
) -> None:
    envfs("init", alice.home / "vault.enc", user=alice)
    done = envfs("mount", alice.home / "vault.enc", directory("roots"), user=alice, check=False)
    assert done.returncode == 6
    assert "not writable" in done.stderr


def test_the_kms_of_another_user_is_out_of_reach(
    alice: UnixUser, unix_users: Callable[..., list[UnixUser]], envfs: Envfs
) -> None:
    (bob,) = unix_users("bob")
    envfs("kms", "init", user=alice)
    done = envfs("key", "list", user=bob, home=alice.home / "kms", check=False)
    assert done.returncode in {3, 8}
    assert "Traceback" not in done.stderr


def test_a_signal_to_her_daemon_unmounts_and_loses_nothing(
    hers: Mount, alice: UnixUser, run_as: Callable[..., Any]
) -> None:
    run_as(alice, lambda: (hers.path / "file").write_text("hers"))
    pid = hers.pid
    handle = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGTERM)
        assert select.select([handle], [], [], 60)[0]
    finally:
        os.close(handle)
    assert mountpoints(hers.path) == []
    hers.mount()
    assert run_as(alice, (hers.path / "file").read_text) == "hers"


def test_what_fusermount_refuses_is_told_with_where_the_reason_stands(
    alice: UnixUser, envfs: Envfs, directory: Callable[..., Path]
) -> None:
    envfs("init", alice.home / "vault.enc", user=alice)
    sticky = directory("sticky", mode=0o1777)  # writable for her, but not hers: fusermount3 minds
    done = envfs("mount", alice.home / "vault.enc", sticky, user=alice, check=False)
    assert done.returncode == 6
    assert "the system refused the mount" in done.stderr
    (log,) = (alice.home / "kms/log").iterdir()
    assert str(log) in done.stderr
    assert "not owned by user" in log.read_text()


def test_killed_and_mounted_again(hers: Mount, alice: UnixUser, envfs: Envfs, run_as: Callable[..., Any]) -> None:
    def write() -> None:
        with (hers.path / "file").open("w") as file:
            file.write("synced")
            file.flush()
            os.fsync(file.fileno())

    run_as(alice, write)
    os.kill(hers.pid, 9)
    envfs("umount", hers.path, user=alice)
    hers.mount()
    assert run_as(alice, (hers.path / "file").read_text) == "synced"
