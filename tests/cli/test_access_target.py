"""Whose mounts are believed when they say which key a directory has."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from envfs.cli.access_target import require_trusted
from envfs.errors import AccessDenied
from envfs.service import mountinfo

if TYPE_CHECKING:
    from pathlib import Path

STRANGER = 54321


def mount_of(uid: int) -> mountinfo.MountEntry:
    line = f"36 35 0:45 / /mnt rw - fuse.envfs /lower rw,user_id={uid},group_id=0"
    (entry,) = mountinfo.parse(line)
    return entry


def test_root_the_caller_and_the_owner_of_the_kms_are_believed(tmp_path: Path) -> None:
    for uid in (0, os.geteuid()):
        require_trusted(mount_of(uid), tmp_path)
    if os.geteuid() == 0:
        os.chown(tmp_path, STRANGER, -1)
        require_trusted(mount_of(STRANGER), tmp_path)


def test_a_strangers_mount_cannot_have_another_key_granted(tmp_path: Path) -> None:
    for home in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(AccessDenied, match="any key"):
            require_trusted(mount_of(STRANGER), home)
