"""scripts/load and scripts/soak in short: what they check holds, and the scripts say how they are used."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.integration.command import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount


@pytest.mark.parametrize(
    "words",
    [
        ("load", "--files", "200", "--tree", "300", "--open", "150", "--processes", "4", "--sparse", "100"),
        ("soak", "--minutes", "0.05", "--processes", "3"),
    ],
    ids=["load", "soak"],
)
def test_short_form(
    mounted: Callable[..., Mount], envfs: Envfs, tmp_path: Path, kms_home: Path, words: tuple[str]
) -> None:
    mount = mounted()
    command = tmp_path / "envfs"
    command.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in envfs.argv) + ' "$@"\n')
    command.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", f"trials.{words[0]}", mount.path, "--envfs", command, *words[1:]],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "scripts"), "ENVFS_HOME": str(kms_home)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    mount.umount()
    assert envfs("fsck", "--read-data", mount.lower).returncode == 0


@pytest.mark.parametrize("name", ["fsx", "load", "posix-suite", "programs", "soak"])
def test_help(name: str) -> None:
    done = subprocess.run(
        [REPOSITORY / "scripts" / name, "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
