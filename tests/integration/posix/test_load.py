"""scripts/load and scripts/soak in short: what they check holds, and the scripts say how they are used."""

from __future__ import annotations

import os
import shutil
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


def as_a_program(envfs: Envfs, directory: Path) -> Path:
    """For scripts, which want the name of one."""
    command = directory / "envfs"
    command.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in envfs.argv) + ' "$@"\n')
    command.chmod(0o755)
    return command


@pytest.mark.mount
@pytest.mark.parametrize("program", ["fio", "stress-ng"])
def test_short_form_of_programs(envfs: Envfs, tmp_path: Path, directory: Callable[..., Path], program: str) -> None:
    """fio verifies what it wrote, stress-ng's stressors what they do; scripts/programs checks the volume afterwards."""
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    if not os.path.exists("/dev/fuse"):
        pytest.skip("needs /dev/fuse")
    sizes = {"SIZE_EACH": "1m", "SECONDS_EACH": "1", "STRESSORS": "dentry rename flock utime xattr"}
    done = subprocess.run(
        [REPOSITORY / "scripts" / "programs", program],
        env=os.environ | {"ENVFS": str(as_a_program(envfs, tmp_path)), "SCRATCH": str(directory("scratch"))} | sizes,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"ok       {program}" in done.stdout


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
    command = as_a_program(envfs, tmp_path)
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
