"""The fixtures themselves: a test as another user is one only if it really runs as that user."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from tests.integration.users import UnixUser


def test_users_are_kept_apart_by_the_kernel(
    unix_users: Callable[..., list[UnixUser]], run_as: Callable[..., Any], directory: Callable[..., Path]
) -> None:
    alice, bob = unix_users("alice", "bob")
    path = directory("hers", owner=alice, mode=0o700) / "file"
    run_as(alice, lambda: path.write_text("hers"))
    assert path.stat().st_uid == alice.uid
    assert run_as(alice, ["cat", path]).stdout == "hers"
    assert run_as(bob, ["cat", path]).returncode == 1
    with pytest.raises(PermissionError):
        run_as(bob, path.read_text)


def test_a_user_has_the_groups_he_was_put_in(
    unix_users: Callable[..., list[UnixUser]], unix_group: Callable[..., str], run_as: Callable[..., Any]
) -> None:
    (alice,) = unix_users("alice")
    group = unix_group("staff", alice)
    assert group in run_as(alice, ["id", "-Gn"]).stdout.split()
    assert sorted(run_as(alice, os.getgroups)) == sorted(alice.groups)
