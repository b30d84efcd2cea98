"""The helper of mount(8), called as mount(8) calls it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.integration.mounts import mountpoints

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.mount


def call(kms_home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    # mount(8) gives its helpers an environment with nothing in it of ours: the KMS is named in the options.
    return subprocess.run(
        [sys.executable, "-m", "envfs.cli.mount_helper", *arguments],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_line_of_fstab(volume: Path, directory: Callable[..., Path], kms_home: Path) -> None:
    path = directory("mount")
    done = call(kms_home, volume, path, "-o", f"rw,noxattr,nofail,_netdev,x-systemd.automount,home={kms_home}")
    try:
        assert (done.returncode, done.stderr, done.stdout) == (0, "", "")
        (path / "file").write_text("content")
        assert mountpoints(path) == [str(path)]
    finally:
        subprocess.run(["umount", path], timeout=60, check=False)


def test_fake_and_verbose(volume: Path, directory: Callable[..., Path], kms_home: Path) -> None:
    path = directory("mount")
    done = call(kms_home, volume, path, "-f", "-v", "-o", f"home={kms_home}")
    assert done.returncode == 0
    assert "can be mounted" in done.stdout
    assert mountpoints(path) == []


def test_unknown_options_are_refused_unless_it_is_told_to_be_sloppy(
    volume: Path, directory: Callable[..., Path], kms_home: Path
) -> None:
    path = directory("mount")
    assert call(kms_home, volume, path, "-f", "-o", f"home={kms_home},nonsense").returncode == 3
    assert call(kms_home, volume, path, "-f", "-s", "-o", f"home={kms_home},nonsense").returncode == 0
