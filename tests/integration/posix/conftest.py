"""Mounts that are shared by all tests of a group, since making one takes longer than most of them.

here    an empty directory in a mount, for one test; parametrise `mount_options` (indirectly) for another mount
shared  that mount: Shared.path, .lower, .remount() (nothing is answered from a cache then)
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.command import Envfs
from tests.integration.conftest import _place_with_xattrs, _skip_without_fuse
from tests.integration.mounts import Mount, clear_away

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def pytest_itemcollected(item: pytest.Item) -> None:
    if "shared" in getattr(item, "fixturenames", ()):
        item.add_marker("mount")


@pytest.fixture(scope="session")
def _mounts(_command: list[str]) -> Iterator[Callable[[str], Mount]]:
    _skip_without_fuse()
    base = Path(tempfile.mkdtemp(prefix="envfs-test-", dir=_place_with_xattrs()))
    base.chmod(0o755)
    envfs = Envfs(_command, lambda _user: base / "kms")
    made: dict[str, Mount] = {}

    def mount(options: str) -> Mount:
        if options not in made:
            lower, path = base / f"lower{len(made)}", base / f"mount{len(made)}"
            path.mkdir()
            envfs("init", lower)
            made[options] = Mount(lower, path, tuple(options.split(",")) if options else (), None, None, envfs).mount()
        return made[options]

    try:
        yield mount
        for entry in made.values():
            entry.umount()
            checked = envfs("fsck", "--read-data", entry.lower, check=False)
            assert checked.returncode == 0, checked.stdout + checked.stderr
    finally:
        left = clear_away(base)
        shutil.rmtree(base)
    assert not left


@pytest.fixture
def mount_options() -> str:
    return ""


@pytest.fixture
def shared(_mounts: Callable[[str], Mount], mount_options: str) -> Mount:
    return _mounts(mount_options)


@pytest.fixture
def here(shared: Mount) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="test-", dir=shared.path))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)
