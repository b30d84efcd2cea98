"""The scripts of a fresh checkout, run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.command import REPOSITORY
from tests.integration.mounts import daemons, end_process, mountpoints

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.mounts import Mount

TIMEOUT = 300.0
VENV = Path(sys.prefix)


def run_script(*words: str | Path, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"ENVFS_HOME": str(home)} if home else {})
    return subprocess.run(
        [REPOSITORY / "scripts" / words[0], *words[1:]],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        env=environment,
    )


@pytest.fixture
def _set_up() -> None:
    if not (VENV / ".envfs-installed").exists():
        pytest.skip("the virtual environment was not made by the scripts: run scripts/test")


@pytest.mark.mount
@pytest.mark.usefixtures("_set_up")
def test_quickstart_mounts_and_can_be_run_again_whatever_became_of_the_mount(
    directory: Callable[..., Path], kms_home: Path
) -> None:
    top = directory("quickstart")
    lower, mountpoint = top / "lower", top / "mount"
    for state in ("fresh", "mounted", "dead", "unmounted"):
        if state == "dead":
            end_process(*daemons(mountpoint))
        if state == "unmounted":
            subprocess.run([VENV / "bin" / "envfs", "umount", mountpoint], check=True, timeout=TIMEOUT)
        done = run_script("quickstart", lower, mountpoint, home=kms_home)
        assert done.returncode == 0, (state, done.stderr)
        assert mountpoints(top) == [str(mountpoint)], state
        assert (mountpoint / "envfs-quickstart.txt").read_text() in done.stdout.replace("    ", "")
    subprocess.run([VENV / "bin" / "envfs", "umount", mountpoint], check=True, timeout=TIMEOUT)


@pytest.mark.usefixtures("_set_up")
def test_quickstart_touches_no_directory_that_holds_something_else(directory: Callable[..., Path]) -> None:
    lower = directory("lower")
    (lower / "mine.txt").write_text("mine")
    done = run_script("quickstart", lower, lower.parent / "mount", home=lower.parent / "kms")
    assert done.returncode != 0
    assert "neither empty nor an envfs volume" in done.stderr
    assert [entry.name for entry in lower.iterdir()] == ["mine.txt"]


def test_install_system_is_harmless_twice_and_takes_back_only_its_own(directory: Callable[..., Path]) -> None:
    prefix = directory("prefix")
    files = [prefix / "usr/local/bin/envfs", prefix / "sbin/mount.fuse.envfs"]
    arguments = ("--prefix", prefix, "--venv", VENV)
    for _ in range(2):
        done = run_script("install-system", *arguments)
        assert done.returncode == 0, done.stderr
    for path in files:
        helped = subprocess.run([path, "--help"], capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert helped.returncode == 0, helped.stderr
    share = prefix / "usr/local/share"
    units = prefix / "usr/local/lib/systemd/system"
    for path in (
        *(units / name for name in ("envfs@.service", "envfs-kms.service")),
        *(share / "man/man1" / name for name in ("envfs.1", "envfs-mount.1", "envfs-audit-report.1")),
        *(share / "bash-completion/completions/envfs", share / "fish/vendor_completions.d/envfs.fish"),
    ):
        assert path.stat().st_mode & 0o777 == 0o644
    assert (share / "zsh/site-functions/_envfs").read_text().startswith("#compdef envfs\n")
    assert run_script("install-system", *arguments, "--uninstall").returncode == 0
    assert not [path for path in prefix.rglob("*") if path.is_file()]

    files[0].write_text("#!/bin/sh\necho somebody else's\n")
    done = run_script("install-system", *arguments)
    assert done.returncode != 0
    assert "not from here" in done.stderr
    run_script("install-system", *arguments, "--uninstall")
    assert "somebody else's" in files[0].read_text()


def test_the_helper_of_mount_8_mounts(
    mounted: Callable[..., Mount], directory: Callable[..., Path], kms_home: Path
) -> None:
    """With the arguments that mount(8) gives: source, target, -o with its own words among ours."""
    first = mounted()
    (first.path / "file").write_text("through the helper")
    first.umount()
    prefix = directory("prefix")
    assert run_script("install-system", "--prefix", prefix, "--venv", VENV).returncode == 0
    options = f"rw,nofail,x-systemd.automount,noxattr,home={kms_home}"
    done = subprocess.run(
        [prefix / "sbin/mount.fuse.envfs", first.lower, first.path, "-o", options],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (first.path / "file").read_text() == "through the helper"
