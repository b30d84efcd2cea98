"""Keys over their life on real mounts: rotation, rewrap, rekey, usage, and the end of a key."""

from __future__ import annotations

import errno
import json
import mmap
import os
import random
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.mounts import end_process

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount
    from tests.integration.users import UnixUser

BIG = random.Random(5).randbytes(6 << 20)


@pytest.fixture
def mount(mounted: Callable[..., Mount]) -> Mount:
    return mounted()


def new_key(envfs: Envfs, alias: str, *more: str) -> str:
    return str(json.loads(envfs("key", "create", "--alias", alias, "--json", *more).stdout)["key_id"])


def shown(envfs: Envfs, path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(envfs("file", "show", "--json", path).stdout)
    return found


def answer(envfs: Envfs, *arguments: str | Path, **named: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(envfs(*arguments, "--json", **named).stdout)
    return found


def test_rewrap_and_rekey_beside_writers_maps_and_readers(envfs: Envfs, mount: Mount) -> None:
    """An open descriptor, a shared map with dirty pages, and somebody who appends all the time."""
    new_key(envfs, "other")
    directory = mount.path / "d"
    directory.mkdir()
    (directory / "big").write_bytes(BIG)
    (directory / "log").write_bytes(b"")
    for number in range(50):
        (directory / f"small {number}").write_text(str(number))
    os.link(directory / "small 1", directory / "second name")
    stop = threading.Event()
    lines = 0

    def append() -> None:
        nonlocal lines
        with (directory / "log").open("ab", buffering=0) as log:
            while not stop.is_set():
                log.write(b"%09d\n" % lines)
                lines += 1

    writer = threading.Thread(target=append)
    writer.start()
    try:
        with (directory / "big").open("r+b") as file, mmap.mmap(file.fileno(), len(BIG)) as mapped:
            number, times = os.stat(file.fileno()).st_ino, os.stat(directory / "small 7")
            mapped[4096:4100] = b"dirt"
            before = shown(envfs, directory / "big")
            assert answer(envfs, "rewrap", "--to", "alias/other", directory)["failed"] == 0
            mapped[8192:8196] = b"more"
            assert answer(envfs, "rekey", directory)["done"] == 52
            mapped[12288:12292] = b"last"
            mapped.flush()
            assert os.stat(directory / "big").st_ino == number
    finally:
        stop.set()
        writer.join()
    wanted = bytearray(BIG)
    for offset, piece in ((4096, b"dirt"), (8192, b"more"), (12288, b"last")):
        wanted[offset : offset + 4] = piece
    for again in (False, True):
        if again:
            mount.remount()
        assert (directory / "big").read_bytes() == wanted
        assert (directory / "log").read_bytes() == b"".join(b"%09d\n" % line for line in range(lines))
        assert (directory / "second name").read_text() == "1"
        assert (directory / "small 7").stat().st_mtime_ns == times.st_mtime_ns
    after = shown(envfs, directory / "big")
    assert (after["key"] != before["key"], after["file_id"]) == (True, before["file_id"])
    assert not after["rekey_unfinished"]
    assert answer(envfs, "rewrap", "--to", "alias/other", directory)["done"] == 0
    envfs("fsck", "--read-data", mount.lower)


def test_a_daemon_that_is_killed_in_the_middle_of_a_rekey(envfs: Envfs, mount: Mount) -> None:
    """Every file reads as before, and the second run goes on where the first one was."""
    for number in range(3):
        (mount.path / f"big {number}").write_bytes(BIG)
    for number in range(30):
        (mount.path / f"small {number}").write_text(str(number))
    mount.remount()
    arguments = [*envfs.argv, "rekey", str(mount.path)]
    environment = os.environ | {"ENVFS_HOME": answer(envfs, "status", mount.path)["kms_home"]}
    with subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as client:
        time.sleep(0.25)
        mount.kill()
        client.wait(30)
    mount.mount()
    for again in (False, True):
        assert all((mount.path / f"big {number}").read_bytes() == BIG for number in range(3))
        assert all((mount.path / f"small {number}").read_text() == str(number) for number in range(30))
        if not again:
            assert answer(envfs, "rekey", mount.path)["failed"] == 0
            mount.remount()
    assert not any(shown(envfs, path)["rekey_unfinished"] for path in mount.path.iterdir())
    envfs("fsck", "--read-data", mount.lower)


def test_a_client_that_goes_away_leaves_files_that_can_be_used(envfs: Envfs, mount: Mount) -> None:
    (mount.path / "big").write_bytes(BIG)
    environment = os.environ | {"ENVFS_HOME": answer(envfs, "status", mount.path)["kms_home"]}
    arguments = [*envfs.argv, "rekey", str(mount.path)]
    with subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as client:
        time.sleep(0.2)
        end_process(client.pid)
    assert (mount.path / "big").read_bytes() == BIG
    assert answer(envfs, "rekey", mount.path)["done"] == 1
    assert (mount.path / "big").read_bytes() == BIG


def test_rotation_touches_no_file_and_old_files_stay_open(envfs: Envfs, mount: Mount) -> None:
    key = new_key(envfs, "mine")
    envfs("dir", "set-key", mount.path, "alias/mine")
    (mount.path / "f").write_text("before")
    mount.remount()
    lower = next(path for path in mount.lower.iterdir() if path.stat().st_ino == (mount.path / "f").stat().st_ino)
    raw = lower.read_bytes()
    with (mount.path / "f").open() as file:
        envfs("key", "rotate", "alias/mine")
        envfs("key", "rotation", "enable", "alias/mine", "--period-days", "90")
        assert file.read() == "before"
    assert lower.read_bytes() == raw
    assert (mount.path / "f").read_text() == "before"
    (mount.path / "g").write_text("after")
    assert answer(envfs, "rewrap", mount.path) == {
        "done": 1,
        "current": 1,
        "empty": 0,
        "gone": 0,
        "failed": 0,
        "problems": [],
    }
    assert len(key) == 36


def test_what_hangs_on_a_key_and_its_end(envfs: Envfs, mount: Mount, kms_home: Path) -> None:
    new_key(envfs, "doomed")
    directory = mount.path / "d"
    directory.mkdir()
    envfs("dir", "set-key", directory, "alias/doomed")
    (directory / "f").write_bytes(b"x" * 5000)
    (directory / "kept").write_bytes(b"x" * 70)
    (mount.path / "other").write_bytes(b"y")
    mount.remount()
    envfs("rewrap", "--to", "alias/envfs/volume", directory / "kept")
    used = answer(envfs, "key", "usage", "alias/doomed")["volumes"]
    assert [(one["files"], one["bytes"], one["directories"]) for one in used if one["lower"] == str(mount.lower)] == [
        (1, 5000, 1)
    ]
    deleted = envfs("key", "delete", "alias/doomed", "--days", "7")
    assert f"{mount.lower}: 1 files with 5000 bytes hang on this key" in deleted.stderr
    for number in (errno.ENOKEY,):
        with pytest.raises(OSError, match="Required key not available") as refused:
            (directory / "f").read_bytes()
        assert refused.value.errno == number
    key = used and answer(envfs, "key", "show", "alias/doomed")["key_id"]
    envfs("key", "cancel-deletion", key)
    envfs("key", "enable", key)
    assert (directory / "f").read_bytes() == b"x" * 5000
    assert (directory / "kept").read_bytes() == b"x" * 70
    assert (kms_home / "volumes").is_dir()


def test_files_of_which_one_may_not_use_the_key(
    envfs: Envfs, mount: Mount, unix_users: Callable[..., list[UnixUser]]
) -> None:
    """Each is told, the others go on; others' files are left alone; the exit code says that something failed."""
    (alice,) = unix_users("alice")
    new_key(envfs, "secret")
    new_key(envfs, "hers", "--user", alice.name)
    for name, alias in (("secret", "alias/secret"), ("hers", "alias/hers")):
        (mount.path / name).mkdir()
        envfs("dir", "set-key", mount.path / name, alias)
        (mount.path / name / "f").write_text(name)
        os.chown(mount.path / name, alice.uid, alice.gid)
        os.chown(mount.path / name / "f", alice.uid, alice.gid)
    (mount.path / "root's").write_text("root")
    done = envfs("rekey", mount.path, user=alice, check=False)
    assert done.returncode != 0
    assert "/secret/f: " in done.stderr
    assert "/root's: it belongs to somebody else" in done.stderr
    assert done.stdout == "1 files rekeyed, 2 failed\n"


def test_what_is_refused(envfs: Envfs, mounted: Callable[..., Mount], tmp_path: Path) -> None:
    mount = mounted()
    (mount.path / "f").write_text("content")
    for arguments in (["rewrap"], ["rekey"]):
        outside = envfs(*arguments, tmp_path, check=False)
        assert (outside.returncode, "mountpoint" in outside.stderr) == (6, True)
    assert envfs("rewrap", "--to", "alias/nobody", mount.path, check=False).returncode == 4
    mount.umount()
    mount.options = (*mount.options, "ro")
    mount.mount()
    refused = envfs("rekey", mount.path, check=False)
    assert (refused.returncode, "mounted read-only" in refused.stderr) == (6, True)


def test_a_lock_ends_a_rekey(envfs: Envfs, mount: Mount) -> None:
    """No key is left in memory; after the unlock the file reads as before, and the rekey can be completed."""
    for number in range(4):
        (mount.path / f"big {number}").write_bytes(BIG)
    arguments = [*envfs.argv, "rekey", str(mount.path)]
    environment = os.environ | {"ENVFS_HOME": answer(envfs, "status", mount.path)["kms_home"]}
    with subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True) as client:
        time.sleep(0.2)
        envfs("lock", mount.path)
        _, said = client.communicate(timeout=30)
    assert client.returncode == 0 or "is locked" in said
    envfs("unlock", mount.path)
    assert all((mount.path / f"big {number}").read_bytes() == BIG for number in range(4))
    assert answer(envfs, "rekey", mount.path)["failed"] == 0
    assert all((mount.path / f"big {number}").read_bytes() == BIG for number in range(4))
