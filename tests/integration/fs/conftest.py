"""Fixtures for what applications do inside a mount.

mount      a mount of a fresh volume on tmpfs, as root with many users (or for whoever runs the tests)
on_disk    the same with the lower directory on a disk, where reads may have to wait and syncs mean something
tree       a real source tree to copy: a part of this interpreter's standard library
"""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount

TREE_FILES = 1500


@pytest.fixture
def mount(mounted: Callable[..., Mount]) -> Mount:
    return mounted()


@pytest.fixture
def disk_volume(envfs: Envfs) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="envfs-test-", dir="/var/tmp") as directory:
        lower = Path(directory, "lower")
        envfs("init", lower)
        yield lower


@pytest.fixture
def on_disk(disk_volume: Path, mounted: Callable[..., Mount]) -> Iterator[Mount]:
    mount = mounted(lower=disk_volume)
    yield mount
    if mount.is_mounted:  # before its lower directory goes
        mount.umount()


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 1,500 files in directories of a few levels, with modes, times to the nanosecond, and links of both kinds."""
    library = Path(sysconfig.get_path("stdlib"))
    target = tmp_path_factory.mktemp("tree") / "library"
    left = TREE_FILES
    for path in sorted(library.rglob("*.py")):
        relative = path.relative_to(library)
        if left == 0 or {"site-packages", "dist-packages", "__pycache__"} & set(relative.parts):
            continue
        if not path.is_file() or path.stat().st_size > 200_000:
            continue
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target / relative)
        left -= 1
    assert left < TREE_FILES - 500, "this interpreter's library has too few files"
    (target / "readonly.py").write_text("# nobody may write this\n")
    (target / "readonly.py").chmod(0o444)
    (target / "run").write_text("#!/bin/sh\necho ran\n")
    (target / "run").chmod(0o755)
    (target / "empty").touch()
    (target / "link").symlink_to("readonly.py")
    (target / "dangling").symlink_to("../nowhere/" + "x" * 200)
    (target / "second").hardlink_to(target / "run")
    (target / ("n" * 255)).write_text("a long name")
    return target


def run(*command: str | Path, status: int = 0, **options: Any) -> str:
    """Run a program to its end; its standard output. Any other exit status than `status` fails the test."""
    settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 120, "stdin": subprocess.DEVNULL}
    done = subprocess.run(command, check=False, **(settings | options))
    if done.returncode != status:
        pytest.fail(f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return str(done.stdout)
