"""Ciphertext that is moved or linked to where modes do not protect it, while the volume is mounted and in use.

Eve may write the lower directory, and is an ordinary user of the mount; the KMS would let her open everything.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.tamper.conftest import Victim

SECRET = b"nobody but root reads this"


@pytest.fixture
def stolen(victim: Victim) -> Path:
    """Where Eve wants the secret to appear, in the lower directory: `public/mine`."""
    return victim.free_name("mine")


@pytest.fixture
def secret(victim: Victim, stolen: Path) -> Path:
    path = victim.secret / "file"
    path.write_bytes(SECRET)
    path.chmod(0o644)  # the directory's mode is what protects it
    return path


def refused(victim: Victim, function: Callable[[], Any]) -> int:
    """The errno that Eve gets."""
    try:
        got = victim.as_eve(function)
    except OSError as error:
        return error.errno or 0
    return pytest.fail(f"she got {got!r}")


def test_a_file_that_has_lost_its_name(victim: Victim, secret: Path, stolen: Path) -> None:
    """An O_PATH descriptor asks nobody, and an open through it comes when no name is left to compare with."""
    os.link(victim.lower(secret), stolen)
    mine = victim.public / "mine"

    def attack() -> bytes:
        descriptor = os.open(mine, os.O_PATH)
        mine.unlink()
        with open(f"/proc/self/fd/{descriptor}", "rb") as file:
            return file.read()

    assert refused(victim, attack) == errno.EIO


def test_a_file_that_somebody_has_open(victim: Victim, secret: Path, stolen: Path) -> None:
    with secret.open("rb") as opened:
        assert opened.read() == SECRET
        victim.lower(secret).rename(stolen)
        assert refused(victim, (victim.public / "mine").read_bytes) == errno.EIO


def test_a_file_that_is_linked_and_looked_up_by_its_own_name(victim: Victim, secret: Path, stolen: Path) -> None:
    """The kernel knows that `mine` is that inode; later the inode is known by the name where it belongs."""
    mine, lower = victim.public / "mine", victim.lower(secret)
    victim.mount.remount()
    os.link(lower, stolen)
    victim.as_eve(mine.stat)
    assert secret.read_bytes() == SECRET
    assert refused(victim, mine.read_bytes) in {errno.EIO, errno.ENOENT}
    assert secret.read_bytes() == SECRET


def test_a_file_that_was_there_for_a_moment(victim: Victim, secret: Path, stolen: Path) -> None:
    mine, lower = victim.public / "mine", victim.lower(secret)
    victim.mount.remount()
    lower.rename(stolen)
    victim.as_eve(mine.stat)
    stolen.rename(lower)
    with secret.open("rb") as opened:
        assert opened.read() == SECRET
        assert refused(victim, mine.read_bytes) in {errno.EIO, errno.ENOENT}


def test_a_symlink_that_is_linked_and_looked_up_by_its_own_name(victim: Victim, stolen: Path) -> None:
    link, mine = victim.secret / "link", victim.public / "mine"
    link.symlink_to("a secret target")
    lower = victim.lower(link)
    victim.mount.remount()
    os.link(lower, stolen, follow_symlinks=False)
    victim.as_eve(lambda: mine.lstat().st_size)
    assert os.readlink(link) == "a secret target"
    assert refused(victim, lambda: os.readlink(mine)) in {errno.EIO, errno.ENOENT}


def test_the_attributes_of_a_file(victim: Victim, secret: Path, stolen: Path) -> None:
    os.setxattr(secret, "user.note", b"secret, too")
    os.link(victim.lower(secret), stolen)
    victim.mount.remount()
    assert refused(victim, lambda: os.getxattr(victim.public / "mine", "user.note")) == errno.EIO
    assert refused(victim, lambda: os.listxattr(victim.public / "mine")) == errno.EIO


@pytest.mark.parametrize("way", ["read", "rename"])
def test_a_directory_that_is_in_use(victim: Victim, stolen: Path, way: str) -> None:
    """What is in it was found to belong to it, when it stood elsewhere; and a rename writes a new place."""
    inner, mine = victim.secret / "directory", victim.public / "mine"
    inner.mkdir(mode=0o777)
    inner.chmod(0o777)
    (inner / "file").write_bytes(SECRET)
    assert (inner / "file").read_bytes() == SECRET
    victim.lower(inner).rename(stolen)
    if way == "read":
        assert refused(victim, (mine / "file").read_bytes) == errno.EIO
        return
    assert refused(victim, lambda: mine.rename(victim.public / "yours")) == errno.EIO
    victim.mount.remount()
    assert refused(victim, (mine / "file").read_bytes) == errno.EIO


def test_a_link_that_was_made_through_the_mount_is_a_name_like_the_other(victim: Victim, secret: Path) -> None:
    """The guard against the others must not stand in its way, in whatever order the two are used."""
    other = victim.secret / "other"
    other.hardlink_to(secret)
    victim.mount.remount()
    for path in (secret, other, secret):
        assert path.stat().st_nlink == 2
        assert path.read_bytes() == SECRET
    with secret.open("rb") as opened:
        other.unlink()
        victim.secret.joinpath("third").hardlink_to(secret)
        assert (victim.secret / "third").stat().st_ino == os.fstat(opened.fileno()).st_ino
        assert (victim.secret / "third").read_bytes() == SECRET
