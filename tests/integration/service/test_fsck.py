"""`envfs fsck` on real volumes: mounted and unmounted, by their owner and by others."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount
    from tests.integration.users import UnixUser


def fsck(envfs: Envfs, lower: Path, *options: str, code: int = 0, **how: Any) -> dict[str, Any]:
    done = envfs("fsck", lower, "--json", *options, check=False, **how)
    assert done.returncode == code, done.stderr + done.stdout
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_mounted_volume_is_clean_while_it_is_written(mounted: Callable[..., Mount], envfs: Envfs) -> None:
    mount = mounted()
    ended = threading.Event()

    def write() -> None:
        number = 0
        while not ended.is_set():
            directory = mount.path / f"dir{number % 7}"
            directory.mkdir(exist_ok=True)
            (directory / f"{'n' * 180}{number % 50}").write_bytes(os.urandom(number % 30_000))
            (directory / "moving").write_bytes(b"x" * 5000)
            os.replace(directory / "moving", mount.path / "moved")
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            assert fsck(envfs, mount.lower, "--read-data")["findings"] == []
        refused = envfs("fsck", mount.lower, "--repair", check=False)
        assert (refused.returncode, "envfs umount" in refused.stderr) == (6, True)
    finally:
        ended.set()
        writer.join()
    mount.umount()
    report = fsck(envfs, mount.lower, "--read-data", "--repair")
    assert report["clean"]
    assert report["findings"] == []


def test_damage_is_told_by_the_exit_code_and_mended(mounted: Callable[..., Mount], envfs: Envfs) -> None:
    mount = mounted()
    (mount.path / "file").write_bytes(b"content")
    lower = next(path for path in mount.lower.iterdir() if not path.name.startswith("envfs."))
    mount.umount()
    raw = bytearray(lower.read_bytes())
    raw[200] ^= 1
    lower.write_bytes(raw)
    assert [found["problem"] for found in fsck(envfs, mount.lower, code=5)["findings"]] == ["header-slot"]
    assert fsck(envfs, mount.lower, "--repair")["findings"][0]["outcome"] == "repaired"
    shown = envfs("fsck", mount.lower).stdout
    assert shown.startswith("clean: 1 directories, 1 files")
    mount.mount()
    assert (mount.path / "file").read_bytes() == b"content"


def test_an_ordinary_user_checks_his_own(
    mounted: Callable[..., Mount],
    envfs: Envfs,
    unix_users: Callable[..., list[UnixUser]],
    directory: Callable[..., Path],
) -> None:
    (alice,) = unix_users("alice")
    lower = directory("hers", owner=alice, mode=0o700)
    envfs("init", lower, user=alice)
    assert fsck(envfs, lower, "--read-data", user=alice)["clean"]
