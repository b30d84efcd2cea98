"""Attacks on real mounts by somebody who writes the lower directory, and is an ordinary user of the mount, too."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.conftest import (
    _base,
    _command,
    _user_table,
    directory,
    envfs,
    kms_home,
    lower,
    mounted,
    pytest_itemcollected,
    run_as,
    unix_group,
    unix_users,
    volume,
)
from tests.integration.users import UnixUser

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.mounts import Mount

__all__ = [
    "_base",
    "_command",
    "_user_table",
    "directory",
    "envfs",
    "kms_home",
    "lower",
    "mounted",
    "pytest_itemcollected",
    "run_as",
    "unix_group",
    "unix_users",
    "volume",
]


class Victim:
    """A mount with a directory that nobody but root may enter, one that everybody may write, and a user in between.

    The volume's key is the service's: what keeps `eve` out of `secret` are Unix modes, and what keeps her from getting
    round them by moving ciphertext are places.
    """

    def __init__(self, mount: Mount, eve: UnixUser, run_as: Callable[..., Any]) -> None:
        self.mount = mount
        self.path = mount.path
        self.secret, self.public = mount.path / "secret", mount.path / "public"
        self.eve = eve
        self._run_as = run_as
        self.secret.mkdir(mode=0o700)
        self.public.mkdir()
        self.public.chmod(0o777)

    def as_eve(self, function: Callable[[], Any]) -> Any:
        return self._run_as(self.eve, function)

    def lower(self, path: Path) -> Path:
        """The lower path of something in the mount."""
        number = path.lstat().st_ino
        found = [entry for entry in self.mount.lower.rglob("*") if entry.lstat().st_ino == number]
        assert len(found) == 1
        return found[0]

    def free_name(self, name: str) -> Path:
        """The lower path that a file `name` of hers in `public` would have; neither kernel nor daemon know it."""
        path = self.public / name
        self.as_eve(path.touch)
        lower = self.lower(path)
        self.mount.umount()
        lower.unlink()
        self.mount.mount()
        return lower


@pytest.fixture
def victim(mounted: Callable[..., Mount], run_as: Callable[..., Any]) -> Victim:
    if os.getuid() != 0:
        pytest.skip("needs root, to be more than one user")
    return Victim(mounted(), UnixUser.nobody(), run_as)
