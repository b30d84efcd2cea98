from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from envfs.service import mountinfo

if TYPE_CHECKING:
    from pathlib import Path

TEXT = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
25 22 0:22 / /proc rw,nosuid - proc proc rw
40 22 0:45 / /srv/vault rw,nosuid,nodev shared:7 master:3 - fuse.envfs /srv/vault\040enc rw,user_id=1000,group_id=1000
41 22 0:46 / /srv/a\134b\011c rw - fuse.envfs /lower rw,user_id=0,group_id=0,allow_other
42 22 0:47 / /srv/vault rw - tmpfs tmpfs rw
nonsense
43 22 0:48 /
"""


def test_lines_become_entries_and_nonsense_is_left_out() -> None:
    entries = mountinfo.parse(TEXT)
    assert [entry.mount_id for entry in entries] == [22, 25, 40, 41, 42]
    vault = entries[2]
    assert (vault.device, vault.mountpoint, vault.source) == ("0:45", "/srv/vault", "/srv/vault enc")
    assert vault.fstype == mountinfo.FILESYSTEM_TYPE
    assert vault.owner_uid == 1000
    assert "nosuid" in vault.options


def test_octal_escapes_of_blank_tab_and_backslash() -> None:
    assert mountinfo.parse(TEXT)[3].mountpoint == "/srv/a\\b\tc"


def test_owner_is_root_where_the_line_says_nothing() -> None:
    assert mountinfo.parse(TEXT)[0].owner_uid == 0


def test_the_topmost_of_several_mounts_at_one_place_counts() -> None:
    found = mountinfo.at_mountpoint("/srv/vault", mountinfo.parse(TEXT))
    assert found is not None
    assert found.fstype == "tmpfs"


def test_by_mount_id() -> None:
    entries = mountinfo.parse(TEXT)
    assert mountinfo.by_mount_id(41, entries) == entries[3]
    assert mountinfo.by_mount_id(99, entries) is None


def test_the_kernels_own_list_has_the_root() -> None:
    root = mountinfo.at_mountpoint("/")
    assert root is not None
    assert root.device == f"{os.major(os.stat('/').st_dev)}:{os.minor(os.stat('/').st_dev)}"


def test_a_plain_directory_is_no_mountpoint(tmp_path: Path) -> None:
    assert mountinfo.at_mountpoint(tmp_path) is None


def test_a_symlink_and_a_relative_path_lead_to_the_mountpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/link").symlink_to("/proc")
    (tmp_path / "deep/twice").symlink_to("../deep/link")
    monkeypatch.chdir(tmp_path)
    for path in ("/proc", "/proc/", "/../proc", tmp_path / "deep/link", "deep/link", "deep/twice"):
        found = mountinfo.at_mountpoint(path)
        assert found is not None, path
        assert found.mountpoint == "/proc"


def test_a_loop_of_symlinks_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert mountinfo.at_mountpoint(tmp_path / "a") is None
