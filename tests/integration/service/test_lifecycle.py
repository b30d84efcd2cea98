"""A mount from its beginning to its end: ready when the command returns, gone when umount returns, whatever ends it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.mounts import daemons, end_process, mountpoints

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount

TIMEOUT = 60


def wait_for_end(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], TIMEOUT)[0], f"process {pid} does not end"
    finally:
        os.close(handle)


def has_ended(pid: int) -> bool:
    """Whether the process has ended now; a zombie has."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 0)[0])
    finally:
        os.close(handle)


def test_usable_when_mount_returns_and_gone_when_umount_returns(mounted: Callable[..., Mount]) -> None:
    mount = mounted()
    pid = mount.pid
    (mount.path / "file").write_text("content")
    assert (mount.path / "file").read_text() == "content"
    mount.umount()
    assert has_ended(pid)
    assert os.listdir(mount.path) == []
    mount.mount()
    assert (mount.path / "file").read_text() == "content"


def test_mountinfo_names_type_and_lower_directory(mounted: Callable[..., Mount], envfs: Envfs) -> None:
    mount = mounted("noexec")
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    (line,) = [line for line in lines if f" {mount.path} " in line]
    fields, _, rest = line.partition(" - ")
    assert rest.split()[:2] == ["fuse.envfs", str(mount.lower)]
    assert {"default_permissions", "allow_other"} <= set(rest.split()[2].split(","))
    assert {"nosuid", "nodev", "noexec"} <= set(fields.split()[5].split(","))


@pytest.mark.parametrize("name", ["with blank", "comma,and\\backslash", "ümläut", "new\nline", "percent%s"])
def test_any_name_will_do_for_both_directories(
    name: str, directory: Callable[..., Path], envfs: Envfs, mounted: Callable[..., Mount]
) -> None:
    lower = directory(f"{name} lower")
    envfs("init", lower)
    mount = mounted(lower=lower, path=directory(f"{name} mount"))
    (mount.path / "file").write_text("content")
    status = json.loads(envfs("status", mount.path, "--json").stdout)
    assert (status["mountpoint"], status["lower"], status["state"]) == (str(mount.path), str(lower), "serving")
    mount.umount()
    mount.mount()
    assert (mount.path / "file").read_text() == "content"
    mount.umount()


def test_status_tells_of_one_and_of_all(mounted: Callable[..., Mount], envfs: Envfs, kms_home: Path) -> None:
    mount = mounted("noxattr,nopoll")
    one = json.loads(envfs("status", mount.path, "--json").stdout)
    assert one["pid"] == mount.pid
    assert one["kms_home"] == str(kms_home)
    assert one["options"] == ["rw", "noxattr", "nopoll", "allow_other"]
    assert one["counters"]["file_handles"] == 0
    every = json.loads(envfs("status", "--json").stdout)["mounts"]
    assert [entry["pid"] for entry in every if entry["mountpoint"] == str(mount.path)] == [mount.pid]
    assert str(mount.path) in envfs("status").stdout
    assert "serving" in envfs("status", mount.path).stdout


def test_status_never_asks_the_filesystem(mounted: Callable[..., Mount], envfs: Envfs) -> None:
    mount = mounted()
    os.kill(mount.pid, signal.SIGSTOP)
    try:
        # A stopped daemon answers nothing: a stat of the mountpoint would hang for ever, a list of mounts must not.
        done = envfs("umount", mount.path / ".." / "nowhere", check=False)
        assert done.returncode == 6
    finally:
        os.kill(mount.pid, signal.SIGCONT)


@pytest.mark.skipif(os.getuid() != 0, reason="the socket of root's mounts")
def test_a_mount_whose_socket_was_removed_is_unreachable_and_not_called_dead(
    mounted: Callable[..., Mount], envfs: Envfs
) -> None:
    mount = mounted()
    device = json.loads(envfs("status", mount.path, "--json").stdout)["device"]
    Path(f"/run/envfs/{device.replace(':', '_')}.sock").unlink()
    done = envfs("status", mount.path, "--json", check=False)
    assert (done.returncode, json.loads(done.stdout)["state"]) == (6, "unreachable")
    pid = mount.pid
    mount.umount()
    wait_for_end(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_unmounts_and_loses_nothing(number: signal.Signals, mounted: Callable[..., Mount]) -> None:
    mount = mounted()
    pid = mount.pid
    content = os.urandom(3_000_000)
    (mount.path / "file").write_bytes(content)
    os.kill(pid, number)
    wait_for_end(pid)
    assert mountpoints(mount.path) == []
    mount.mount()
    assert (mount.path / "file").read_bytes() == content


def test_a_signal_while_a_file_is_open_keeps_what_was_written_before(mounted: Callable[..., Mount]) -> None:
    mount = mounted()
    pid = mount.pid
    content = os.urandom(2_000_000)
    file = os.open(mount.path / "file", os.O_WRONLY | os.O_CREAT)
    os.write(file, content)
    os.kill(pid, signal.SIGTERM)
    wait_for_end(pid)
    with pytest.raises(OSError, match="not connected"):
        os.fsync(file)
    with pytest.raises(OSError, match="not connected"):
        os.close(file)
    assert mountpoints(mount.path) == []
    mount.mount()
    assert (mount.path / "file").read_bytes() == content


def test_killed_and_mounted_again_with_all_that_was_synced(mounted: Callable[..., Mount], envfs: Envfs) -> None:
    mount = mounted()
    content = os.urandom(1_000_000)
    file = os.open(mount.path / "file", os.O_WRONLY | os.O_CREAT)
    os.write(file, content)
    os.fsync(file)
    end_process(mount.pid)
    with pytest.raises(OSError, match="not connected"):
        os.close(file)
    # The dead mount is still there, is told apart, and is cleared away by umount.
    assert mountpoints(mount.path) == [str(mount.path)]
    assert json.loads(envfs("status", mount.path, "--json", check=False).stdout)["state"] == "dead"
    refused = envfs("mount", mount.lower, mount.path, check=False)
    assert refused.returncode == 6
    assert "dead mount" in refused.stderr
    assert f"next: envfs umount {mount.path}" in refused.stderr
    envfs("umount", mount.path)
    assert mountpoints(mount.path) == []
    mount.mount()
    assert (mount.path / "file").read_bytes() == content


def test_in_use_is_refused_with_who_uses_it_and_lazy_detaches(mounted: Callable[..., Mount], envfs: Envfs) -> None:
    mount = mounted()
    pid = mount.pid
    (mount.path / "dir").mkdir()
    with subprocess.Popen(["sleep", "600"], cwd=mount.path / "dir") as user:
        try:
            refused = envfs("umount", mount.path, check=False)
            assert refused.returncode == 6
            assert f"sleep (pid {user.pid})" in refused.stderr
            assert "--lazy" in refused.stderr
            assert mountpoints(mount.path) == [str(mount.path)]
            envfs("umount", "--lazy", mount.path)
            assert mountpoints(mount.path) == []
        finally:
            user.kill()
    wait_for_end(pid)


def test_unmounted_from_outside_the_daemon_ends_by_itself(mounted: Callable[..., Mount]) -> None:
    mount = mounted()
    pid = mount.pid
    subprocess.run(["umount", mount.path], check=True, timeout=TIMEOUT)
    wait_for_end(pid)
    mount.mount()


def test_the_control_socket_goes_with_the_mount(mounted: Callable[..., Mount], envfs: Envfs) -> None:
    mount = mounted()
    device = json.loads(envfs("status", mount.path, "--json").stdout)["device"]
    socket = f"/run/envfs/{device.replace(':', '_')}.sock"
    assert os.path.exists(socket) == (os.getuid() == 0)
    mount.umount()
    assert not os.path.exists(socket)


def test_a_mount_leaves_no_descriptor_behind_in_its_daemon(mounted: Callable[..., Mount], envfs: Envfs) -> None:
    mount = mounted()
    (mount.path / "file").touch()
    envfs("file", "show", mount.path / "file")
    before = mount.descriptors()
    for _ in range(5):
        envfs("file", "show", mount.path / "file")
        envfs("status", mount.path)
    assert mount.descriptors() <= before


def test_in_the_foreground_it_lives_as_long_as_the_command(
    volume: Path, directory: Callable[..., Path], envfs: Envfs, kms_home: Path
) -> None:
    path = directory("mount")
    argv = [*envfs.argv, "mount", str(volume), str(path), "--foreground"]
    with subprocess.Popen(argv, env=os.environ | {"ENVFS_HOME": str(kms_home)}, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b"ready" in line:
                break
        assert daemons(path) == [process.pid]
        (path / "file").write_text("content")
        process.send_signal(signal.SIGINT)
        process.stderr.read()
        assert process.wait(TIMEOUT) == 0
    assert mountpoints(path) == []


def test_read_only_refuses_writers_and_may_be_mounted_twice(
    volume: Path, directory: Callable[..., Path], mounted: Callable[..., Mount], envfs: Envfs
) -> None:
    writer = mounted()
    (writer.path / "file").write_text("content")
    writer.umount()
    first, second = mounted("ro", path=directory("first")), mounted("ro", path=directory("second"))
    for mount in (first, second):
        assert (mount.path / "file").read_text() == "content"
        with pytest.raises(OSError, match="Read-only file system"):
            (mount.path / "other").touch()
    assert envfs("mount", volume, writer.path, check=False).returncode == 6


@pytest.mark.skipif(os.getuid() != 0, reason="only root may set it")
def test_root_gets_a_read_ahead_of_one_mebibyte(mounted: Callable[..., Mount], envfs: Envfs) -> None:
    mount = mounted()
    device = json.loads(envfs("status", mount.path, "--json").stdout)["device"]
    assert Path(f"/sys/class/bdi/{device}/read_ahead_kb").read_text() == "1024\n"


def test_the_mount_command_does_not_hold_its_callers_pipe(volume: Path, mounted: Callable[..., Mount]) -> None:
    # `mounted` runs the command with captured streams and a time limit: it would not have returned.
    mount = mounted()
    for number in (0, 1, 2):
        assert not os.readlink(f"/proc/{mount.pid}/fd/{number}").startswith("pipe:")
    assert os.readlink(f"/proc/{mount.pid}/cwd") == "/"
