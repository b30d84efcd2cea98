"""The list of volumes, and what hangs on a key in them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from envfs.errors import ConfigError
from envfs.service.key_usage import count_usage, key_id_of, volume_of
from envfs.service.registry import DIRECTORY, known_volumes, remember
from tests.unit.fs.lab import Lab

if TYPE_CHECKING:
    from pathlib import Path


def test_volumes_are_remembered_by_place(tmp_path: Path) -> None:
    assert known_volumes(tmp_path) == []
    for path in ("a", "b", "a"):
        remember(tmp_path, bytes(16), tmp_path / path, "/mnt")
    remember(tmp_path, b"x" * 16, tmp_path / "a")
    found = known_volumes(tmp_path)
    assert {(one.volume_id, one.lower.name, one.mountpoint) for one in found} == {
        (bytes(16), "a", "/mnt"),
        (bytes(16), "b", "/mnt"),
        (b"x" * 16, "a", ""),
    }
    assert (tmp_path / DIRECTORY).stat().st_mode & 0o777 == 0o700


def test_what_is_no_entry_is_left_out(tmp_path: Path) -> None:
    remember(tmp_path, bytes(16), tmp_path)
    for number, content in enumerate((b"", b"[]", b'{"volume_id": "zz"}', b"\xff")):
        (tmp_path / DIRECTORY / f"{number}.json").write_bytes(content)
    assert len(known_volumes(tmp_path)) == 1


def test_a_home_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / DIRECTORY).write_bytes(b"")
    remember(tmp_path, bytes(16), tmp_path)


def test_files_bytes_and_directories_are_counted(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    try:
        key = lab.engine.create_key(lab.me).arn
        fs = lab.mount()
        directory = fs.mkdir(b"d")
        fs.fs.set_directory_key(directory.node_id, key)
        fs.mkdir(b"d/e")
        fs.write(b"d/f", b"x" * 5000)
        fs.write(b"d/e/" + b"n" * 255, b"y" * 70)
        fs.write(b"other", b"z")
        fs.symlink(b"d/link", b"f")
        lab.unmount()
        (lab.lower / "envfs.tmp.x").write_bytes(b"left")
        (lab.lower / "damaged").write_bytes(b"\x01" * 2000)
        volume_id = fs.fs.state.volume.volume_id
        volume = volume_of(lab.lower, volume_id)
        assert volume is not None
        assert volume_of(lab.lower, bytes(16)) is None
        assert volume_of(tmp_path, volume_id) is None
        found = count_usage(lab.lower, volume, key, lambda _: None, lambda: False)
        assert found.as_dict() == {
            "files": 2,
            "bytes": 5070,
            "directories": 1,
            "default": False,
            "unreadable": 1,
        }
        default = count_usage(lab.lower, volume, volume.key_arn, lambda _: None, lambda: False)
        assert (default.files, default.is_default) == (1, True)
        assert count_usage(lab.lower, volume, key, lambda _: None, lambda: True).files == 0
    finally:
        lab.close()
        assert os.path.exists(lab.lower)


@pytest.mark.parametrize("arn", ["", "x", "arn:envfs:kms:local:000000000000:key/12"])
def test_no_key(arn: str) -> None:
    with pytest.raises(ConfigError):
        key_id_of(arn)
