"""What depends on how it is mounted: read-only, without attributes, statfs; lower filesystems of several kinds."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import NOT_HERE
from tests.integration.posix.test_names import refuses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount

CONTENT = bytes(range(256)) * 1000
LONG = "n" * 250
TARGET = "t" * 4000


def fill(top: Path, *, xattrs: bool = True) -> None:
    """One of everything whose storage has a special case."""
    (top / "d" / LONG).mkdir(parents=True)
    (top / "d" / LONG / "f").write_bytes(CONTENT)
    (top / "empty").touch()
    (top / "f").write_bytes(CONTENT)
    os.link(top / "f", top / "second")
    os.symlink(TARGET, top / "l")
    os.link(top / "l", top / "d" / "l", follow_symlinks=False)
    os.mkfifo(top / "p")
    os.truncate(top / "empty", 1 << 30)
    if xattrs:
        os.setxattr(top / "f", "user.comment", b"value")
        os.setxattr(top / "d", "user." + "x" * 250, b"of a directory")


def check(top: Path, *, xattrs: bool = True) -> None:
    assert sorted(os.listdir(top)) == ["d", "empty", "f", "l", "p", "second"]
    assert (top / "d" / LONG / "f").read_bytes() == CONTENT
    assert (top / "second").read_bytes() == CONTENT
    assert (top / "f").stat().st_nlink == 2
    assert os.readlink(top / "l") == os.readlink(top / "d" / "l") == TARGET
    assert (top / "empty").stat().st_size == 1 << 30
    with open(top / "empty", "rb") as file:
        file.seek(1 << 29)
        assert file.read(10_000) == bytes(10_000)
    if xattrs:
        assert os.getxattr(top / "f", "user.comment") == b"value"
        assert os.getxattr(top / "d", "user." + "x" * 250) == b"of a directory"


def test_read_only_and_copied_elsewhere(
    envfs: Envfs, mounted: Callable[..., Mount], directory: Callable[..., Path]
) -> None:
    """The lower directory is copied with rsync and with tar, and mounted there with the same KMS, read-only, too."""
    mount = mounted()
    fill(mount.path)
    mount.umount()
    copies = directory("copies")
    subprocess.run(["rsync", "-aXH", f"{mount.lower}/", copies / "rsync"], check=True, timeout=60)
    (copies / "tar").mkdir()
    everything = ("--xattrs", "--xattrs-include=*", "--sparse")
    archive = copies / "archive"
    subprocess.run(["tar", *everything, "-C", mount.lower, "-cf", archive, "."], check=True, timeout=60)
    subprocess.run(["tar", *everything, "-C", copies / "tar", "-xpf", archive], check=True, timeout=60)
    shutil.rmtree(mount.lower)
    for name in ("rsync", "tar"):
        assert envfs("fsck", "--read-data", copies / name).returncode == 0
        copy = mounted("ro", lower=copies / name)
        check(copy.path)
        top = copy.path
        for attempt in (
            lambda top=top: (top / "new").touch(),
            lambda top=top: os.open(top / "f", os.O_WRONLY),
            lambda top=top: os.truncate(top / "f", 0),
            lambda top=top: os.unlink(top / "f"),
            lambda top=top: os.rename(top / "f", top / "g"),
            lambda top=top: os.chmod(top / "f", 0),
            lambda top=top: os.utime(top / "f"),
            lambda top=top: os.setxattr(top / "f", "user.a", b""),
            lambda top=top: (top / "dir").mkdir(),
        ):
            refuses(errno.EROFS, attempt)
        check(copy.path)


@pytest.fixture(params=["ext4", "xfs", "btrfs"])
def lower_filesystem(request: pytest.FixtureRequest, directory: Callable[..., Path]) -> Iterator[Path]:
    """A fresh filesystem on a loop device."""
    kind = str(request.param)
    if os.getuid() != 0:
        pytest.skip("needs root, to mount a filesystem")
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"needs mkfs.{kind}")
    image, top = directory("image") / "image", directory("filesystem")
    with open(image, "wb") as file:
        file.truncate(320 << 20)
    subprocess.run([f"mkfs.{kind}", "-q", image], check=True, timeout=60)
    command: list[str | Path] = ["mount", "-t", kind, "-o", "loop", image, top]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        pytest.skip(f"{NOT_HERE}no {kind}, or no loop devices: {done.stderr}")
    try:
        yield top
    finally:
        subprocess.run(["umount", top], check=True, timeout=60)


def test_lower_filesystems(lower_filesystem: Path, envfs: Envfs, mounted: Callable[..., Mount]) -> None:
    lower = lower_filesystem / "lower"
    envfs("init", lower)
    mount = mounted(lower=lower)
    fill(mount.path)
    with open(mount.path / "f", "r+b") as file:
        file.write(CONTENT[::-1])
        os.fsync(file.fileno())
        file.seek(0)
        file.write(CONTENT)
    mount.remount()
    check(mount.path)
    os.unlink(mount.path / "second")
    os.link(mount.path / "f", mount.path / "second")
    mount.remount()
    check(mount.path)
    mount.umount()
    assert envfs("fsck", "--read-data", lower).returncode == 0


def test_a_lower_filesystem_without_attributes(
    envfs: Envfs, mounted: Callable[..., Mount], directory: Callable[..., Path]
) -> None:
    """ramfs has none: setting one is refused, everything else works."""
    if os.getuid() != 0:
        pytest.skip("needs root, to mount a ramfs")
    top = directory("ramfs")
    subprocess.run(["mount", "-t", "ramfs", "ramfs", top], check=True, timeout=60)
    try:
        envfs("init", top / "lower")
        mount = mounted(lower=top / "lower")
        fill(mount.path, xattrs=False)
        refuses(errno.EOPNOTSUPP, lambda: os.setxattr(mount.path / "f", "user.a", b""))
        assert os.listxattr(mount.path / "f") == []
        mount.remount()
        check(mount.path, xattrs=False)
        mount.umount()
        assert envfs("fsck", "--read-data", top / "lower").returncode == 0
    finally:
        subprocess.run(["umount", top], check=True, timeout=60)


class TestWithoutAttributes:
    @pytest.fixture
    def mount_options(self) -> str:
        return "noxattr"

    def test_none_can_be_set_or_listed(self, here: Path) -> None:
        (here / "f").write_bytes(b"x")
        for attempt in (
            lambda: os.setxattr(here / "f", "user.a", b""),
            lambda: os.getxattr(here / "f", "user.a"),
            lambda: os.removexattr(here / "f", "user.a"),
        ):
            refuses(errno.EOPNOTSUPP, attempt)
        assert (here / "f").read_bytes() == b"x"


def test_statfs_is_the_lower_ones(here: Path, shared: Mount) -> None:
    ours, lower = os.statvfs(here), os.statvfs(shared.lower)
    assert (ours.f_blocks, ours.f_bsize, ours.f_frsize) == (lower.f_blocks, lower.f_bsize, lower.f_frsize)
    assert ours.f_namemax == 255
    assert 0 < ours.f_bavail <= ours.f_blocks
