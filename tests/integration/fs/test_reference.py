"""What was written through a mount, read by the reader that was written from docs/FORMAT.md alone."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.integration.fs.conftest import run
from tests.integration.fs.test_programs import inventory
from tests.reference import read_volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount


@pytest.mark.parametrize(
    ("suite", "block_size"), [("aes-256-gcm", 16384), ("aes-256-gcm-siv", 4096), ("chacha20-poly1305", 65536)]
)
def test_the_reference_reader_gets_the_same_bytes(
    suite: str,
    block_size: int,
    envfs: Envfs,
    directory: Callable[..., Path],
    mounted: Callable[..., Mount],
    tree: Path,
    kms_home: Path,
    tmp_path: Path,
) -> None:
    lower = directory("volume")
    envfs("init", lower, "--suite", suite, "--block-size", str(block_size))
    mount = mounted(lower=lower)
    run("cp", "-a", tree / "json", tree / "link", tree / ("n" * 255), mount.path)
    envfs("key", "create", "--alias", "other")
    (mount.path / "keyed").mkdir()
    envfs("dir", "set-key", mount.path / "keyed", "alias/other")
    (mount.path / "keyed" / "file").write_bytes(b"under another key")
    with open(mount.path / "sparse", "wb") as file:
        file.seek(10 * block_size + 5)
        file.write(b"end")
        file.seek(3)
        file.write(b"start")
    os.truncate(mount.path / "sparse", 12 * block_size)
    os.symlink("t" * 4000, mount.path / "far")
    os.rename(mount.path / "json", mount.path / ("renamed" * 30))
    os.rename(mount.path / "link", mount.path / "keyed" / "link")
    os.setxattr(mount.path / "sparse", "user.comment", b"value")
    (mount.path / "empty").touch()
    expected = inventory(mount.path)
    mount.umount()
    out = tmp_path / "out"
    assert read_volume.main(["--home", str(kms_home), str(lower), str(out)]) == 0
    assert inventory(out) == expected
    assert os.getxattr(out / "sparse", "user.comment") == b"value"


def test_after_a_kill(mounted: Callable[..., Mount], kms_home: Path, tmp_path: Path) -> None:
    mount = mounted()
    (mount.path / "d").mkdir()
    with open(mount.path / "d" / "f", "wb") as file:
        file.write(b"x" * 100_000)
        file.flush()
        os.fsync(file.fileno())
    subprocess.run(["cp", "-r", mount.path / "d", mount.path / "e"], check=True, timeout=60)
    mount.kill()
    mount.mount()
    expected = inventory(mount.path)
    mount.umount()
    out = tmp_path / "out"
    assert read_volume.main(["--home", str(kms_home), str(mount.lower), str(out)]) == 0
    assert inventory(out) == expected
    assert (out / "d" / "f").read_bytes() == b"x" * 100_000
