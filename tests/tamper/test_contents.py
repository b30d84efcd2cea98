"""Files whose lower files are changed: headers, sizes, whole states, symlinks; and who may look at what comes next."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.integration.users import UnixUser

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount

BLOCK = 16384
SLOT, SLOTS = 448, (128, 576)
OLD, NEW = b"o" * (2 * BLOCK + 100), b"n" * (4 * BLOCK + 100)


def lower_of(mount: Mount, path: Path) -> Path:
    number = path.lstat().st_ino
    return next(entry for entry in mount.lower.rglob("*") if entry.lstat().st_ino == number)


@pytest.mark.parametrize("damage", ["zeros", "a bit"])
@pytest.mark.parametrize("slot", SLOTS)
def test_an_older_header_is_not_put_in_force_by_damaging_the_newer(
    mounted: Callable[..., Mount], slot: int, damage: str
) -> None:
    """One slot of two may be damaged: the other says the same, and still that the file was longer."""
    mount = mounted()
    path = mount.path / "file"
    path.write_bytes(NEW)
    lower = lower_of(mount, path)
    mount.umount()
    with open(lower, "r+b") as file:
        file.seek(slot)
        raw = file.read(SLOT)
        file.seek(slot)
        file.write(bytes(SLOT) if damage == "zeros" else raw[:40] + bytes([raw[40] ^ 1]) + raw[41:])
    mount.mount()
    assert path.read_bytes() == NEW
    mount.umount()
    os.truncate(lower, 1024 + 2 * (BLOCK + 28))
    mount.mount()
    with pytest.raises(OSError, match="Input/output error"):
        path.read_bytes()


@pytest.mark.parametrize("looked", ["at its size", "at its content"])
def test_another_state_that_comes_while_mounted_is_seen_whole(mounted: Callable[..., Mount], looked: str) -> None:
    """Neither old pages nor an old size with zeros behind the end. That it is old cannot be told."""
    mount = mounted()
    path = mount.path / "file"
    path.write_bytes(OLD)
    lower = lower_of(mount, path)
    mount.umount()
    before = lower.read_bytes()
    mount.mount()
    path.write_bytes(NEW)
    mount.remount()
    assert path.stat().st_size == len(NEW) if looked == "at its size" else path.read_bytes() == NEW
    with open(lower, "r+b") as file:
        file.write(before)
        file.truncate()
    assert path.read_bytes() == OLD
    os.truncate(lower, 0)
    assert path.read_bytes() == b""
    assert path.stat().st_size == 0


def test_the_text_of_a_symlink_leads_to_no_other_file(
    mounted: Callable[..., Mount], directory: Callable[..., Path]
) -> None:
    """It may name a file beside it, which goes when the symlink goes."""
    mount = mounted()
    link = mount.path / "link"
    link.symlink_to("target")
    lower = lower_of(mount, link)
    victim = directory("v") / "f"
    victim.write_bytes(b"somebody else's")
    (mount.lower / "envfs.link.d").mkdir()
    there = os.path.relpath(victim, mount.lower)
    text = "envfs.link.d/..".ljust(11 + 32 - len(there), "/") + there
    assert len(text) == 11 + 32
    assert (mount.lower / text).samefile(victim)
    mount.umount()
    lower.unlink()
    lower.symlink_to(text)
    mount.mount()
    with pytest.raises(OSError, match="Input/output error"):
        os.readlink(link)
    link.unlink()
    assert victim.read_bytes() == b"somebody else's"


def test_a_read_only_mount_stays_one(mounted: Callable[..., Mount]) -> None:
    """What root takes away with mount(8) is the kernel's flag. The daemon shares its lock with others."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    mount = mounted()
    (mount.path / "file").write_bytes(OLD)
    mount.umount()
    before = {path: path.lstat().st_mtime_ns for path in (mount.lower, *mount.lower.rglob("*"))}
    mount.options = ("ro",)
    mount.mount()
    subprocess.run(["mount", "-i", "-o", "remount,rw", mount.path], check=True, timeout=60)
    changes: list[Callable[[], Any]] = [
        lambda: (mount.path / "file").write_bytes(NEW),
        (mount.path / "new").touch,
        (mount.path / "new").mkdir,
        lambda: (mount.path / "new").symlink_to("x"),
        lambda: (mount.path / "new").hardlink_to(mount.path / "file"),
        lambda: (mount.path / "file").rename(mount.path / "new"),
        (mount.path / "file").unlink,
        lambda: (mount.path / "file").chmod(0o600),
        lambda: os.truncate(mount.path / "file", 0),
        lambda: os.setxattr(mount.path / "file", "user.a", b"1"),
    ]
    for change in changes:
        with pytest.raises(OSError, match="Read-only file system"):
            change()
    assert (mount.path / "file").read_bytes() == OLD
    mount.umount()
    assert {path: path.lstat().st_mtime_ns for path in (mount.lower, *mount.lower.rglob("*"))} == before


@pytest.fixture
def guarded(mounted: Callable[..., Mount], envfs: Envfs, directory: Callable[..., Path]) -> Callable[[list[str]], Path]:
    """A file without a header (a crash leaves such, and so does whoever cuts it) in a directory with a key of its own.

    Calling it lets these users, and nobody else, decrypt under that key.
    """
    if os.getuid() != 0:
        pytest.skip("needs root, to be more than one user")
    mount, policies = mounted(), directory("policies")
    key = json.loads(envfs("key", "create", "--json").stdout)["arn"]
    path = mount.path / "directory" / "file"
    path.parent.mkdir()
    envfs("dir", "set-key", path.parent, key)
    path.touch()
    path.chmod(0o666)
    lower = lower_of(mount, path)
    mount.umount()
    os.truncate(lower, 0)
    mount.mount()

    def allow(users: list[str]) -> Path:
        account = {"AWS": "arn:envfs:iam::000000000000:root"}
        named = {"AWS": [f"arn:envfs:iam::000000000000:user/{user}" for user in users]}
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Principal": account, "Action": ["kms:Put*", "kms:Get*"], "Resource": "*"},
                {"Effect": "Allow", "Principal": named, "Action": "kms:*", "Resource": "*"},
            ],
        }
        (policies / "policy").write_text(json.dumps(policy))
        envfs("key", "policy", "put", key, policies / "policy")
        return path

    return allow


def test_a_file_without_header_is_closed_to_who_may_not_read_it_later(
    guarded: Callable[[list[str]], Path], run_as: Callable[..., Any]
) -> None:
    """Whoever has it open reads what others write into it, out of the cache that they share."""
    path = guarded(["root"])
    with pytest.raises(PermissionError):
        run_as(UnixUser.nobody(), path.read_bytes)
    path.write_bytes(NEW)
    with pytest.raises(PermissionError):
        run_as(UnixUser.nobody(), path.read_bytes)


def _busy(do: Callable[[], Any]) -> bool:
    try:
        do()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return True
    return False


def test_one_who_may_no_longer_read_keeps_nobody_from_writing_and_sees_nothing_of_it(
    guarded: Callable[[list[str]], Path],
) -> None:
    path = guarded(["root", "nobody"])
    nobody = UnixUser.nobody()

    def as_nobody(do: Callable[[], Any]) -> Any:
        effective = os.geteuid(), os.getegid()
        os.setegid(nobody.gid)
        os.seteuid(nobody.uid)
        try:
            return do()
        finally:
            os.seteuid(effective[0])
            os.setegid(effective[1])

    descriptor = as_nobody(lambda: os.open(path, os.O_RDONLY))
    try:
        guarded(["root"])
        end = time.monotonic() + 15
        while _busy(lambda: path.write_bytes(NEW)):  # until it is noticed, which takes less than a second
            assert time.monotonic() < end
            time.sleep(0.05)
        with pytest.raises(PermissionError):
            as_nobody(lambda: os.pread(descriptor, 100, 0))
    finally:
        os.close(descriptor)
    assert path.read_bytes() == NEW
