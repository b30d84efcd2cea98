"""A quota of the lower filesystem is used up: EDQUOT, nothing is lost, and it goes on when there is room again.

tmpfs with a quota for each user (Linux 6.6, CONFIG_TMPFS_QUOTA), and btrfs with one for a subvolume. Where the daemon
is root's, the quota of the user whose files they are has to hold all the same.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import NOT_HERE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount
    from tests.integration.users import UnixUser

MIB = 1 << 20
LIMIT = 24 * MIB
OLD = random.Random(1).randbytes(3 * MIB)


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def _tmpfs(top: Path, _image: Path) -> Path:
    options = f"usrquota,usrquota_block_hardlimit={LIMIT},mode=0755"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", top], check=False, timeout=60)
    if done.returncode != 0:
        pytest.skip(f"{NOT_HERE}this kernel has no quotas of tmpfs (CONFIG_TMPFS_QUOTA)")
    (top / "lower").mkdir()
    return top / "lower"


def _btrfs(top: Path, image: Path) -> Path:
    if shutil.which("btrfs") is None:
        pytest.skip("needs btrfs")
    with open(image, "wb") as file:
        file.truncate(400 * MIB)
    run("mkfs.btrfs", "-q", image)
    done = subprocess.run(["mount", "-t", "btrfs", "-o", "loop", image, top], check=False, timeout=60)
    if done.returncode != 0:
        pytest.skip(f"{NOT_HERE}no btrfs, or no loop devices")
    lower = top / "lower"
    run("btrfs", "quota", "enable", top)
    run("btrfs", "subvolume", "create", lower)
    run("btrfs", "qgroup", "limit", str(LIMIT), lower)
    return lower


@pytest.fixture(params=[_tmpfs, _btrfs], ids=["tmpfs", "btrfs"])
def limited(request: pytest.FixtureRequest, directory: Callable[..., Path]) -> Iterator[Path]:
    """A directory in which a user can have LIMIT bytes."""
    if os.getuid() != 0:
        pytest.skip("needs root, to mount a filesystem with quotas")
    top = directory("filesystem")
    try:
        yield request.param(top, directory("image") / "image")
    finally:
        if os.path.ismount(top):
            run("umount", top)


def sync_lower(lower: Path) -> None:
    """btrfs counts what has reached the disk."""
    fd = os.open(lower, os.O_RDONLY)
    try:
        os.fsync(fd)
        run("sync", "-f", lower)
    finally:
        os.close(fd)


def write(path: Path, content: bytes, flags: int = 0) -> int:
    """0, or the errno of the write or of the sync."""
    fd = -1
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o600)
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view[:MIB]) :]
        os.fsync(fd)
    except OSError as error:
        return error.errno or -1
    finally:
        if fd >= 0:
            try:
                os.close(fd)
            except OSError:
                pass
    return 0


@pytest.mark.parametrize("whose", ["hers", "roots"])
def test_a_quota_is_used_up(
    limited: Path,
    whose: str,
    envfs: Envfs,
    mounted: Callable[..., Mount],
    unix_users: Callable[..., list[UnixUser]],
    run_as: Callable[..., Any],
) -> None:
    (alice,) = unix_users("alice")
    if whose == "hers":
        os.chown(limited, alice.uid, alice.gid)
    user = alice if whose == "hers" else None
    envfs("init", limited, user=user)
    mount = mounted(lower=limited, user=user)
    if user is None:
        mount.path.chmod(0o777)
    try:
        use_up(mount, alice, run_as)
    finally:
        if mount.is_mounted:
            mount.umount()
    assert envfs("fsck", "--read-data", limited, user=user, check=False).returncode == 0


def use_up(mount: Mount, alice: UnixUser, run_as: Callable[..., Any]) -> None:
    old, new = mount.path / "old", mount.path / "new"
    assert run_as(alice, lambda: write(old, OLD)) == 0
    sync_lower(mount.lower)
    assert run_as(alice, lambda: write(new, random.Random(2).randbytes(2 * LIMIT))) == errno.EDQUOT
    sync_lower(mount.lower)
    assert run_as(alice, lambda: write(old, random.Random(3).randbytes(LIMIT), os.O_APPEND)) == errno.EDQUOT
    # What there is room for, and what not, is the lower filesystem's business; an error must be that.
    assert run_as(alice, lambda: write(old, OLD[:100_000])) in {0, errno.EDQUOT}
    mount.remount()
    assert run_as(alice, old.read_bytes)[: len(OLD)] == OLD
    run_as(alice, new.unlink)
    run_as(alice, lambda: os.truncate(old, len(OLD)))
    sync_lower(mount.lower)
    assert run_as(alice, lambda: write(new, OLD)) == 0
    mount.remount()
    assert run_as(alice, new.read_bytes) == OLD
    assert run_as(alice, old.read_bytes) == OLD
