"""What a mount counts, seen through `envfs top` and `envfs status --metrics`."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount
    from tests.integration.users import UnixUser


def samples(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@pytest.mark.users
def test_who_did_what_is_counted_for_him(
    mounted: Callable[..., Mount],
    envfs: Envfs,
    unix_users: Callable[..., list[UnixUser]],
    run_as: Callable[..., Any],
) -> None:
    alice, bob = unix_users("alice", "bob")
    mount = mounted()
    (mount.path / "dir").mkdir()
    envfs("key", "create", "--alias", "team", "--user", alice.name, "--user", "root")
    envfs("dir", "set-key", mount.path / "dir", "alias/team")
    (mount.path / "dir/file").write_bytes(bytes(100_000))
    (mount.path / "dir/file").chmod(0o644)
    mount.remount()
    for user in (alice, bob):
        run_as(user, ["cat", str(mount.path / "dir/file")])
    found = samples(envfs("status", "--metrics", mount.path).stdout)

    def of(name: str, user: UnixUser) -> float:
        return found[f'envfs_user_{name}_total{{mountpoint="{mount.path}",user="{user.name}"}}']

    assert (of("opens", alice), of("denied", alice)) == (1, 0)
    assert of("read_bytes", alice) == 100_000
    assert (of("opens", bob), of("denied", bob), of("read_bytes", bob)) == (0, 1, 0)
    assert found[f'envfs_failures_total{{mountpoint="{mount.path}",errno="EACCES"}}'] == 1
    assert found[f'envfs_requests_total{{mountpoint="{mount.path}",operation="open"}}'] == 2

    refused = run_as(alice, [*envfs.argv, "top", "--times", "1", str(mount.path)])
    assert refused.returncode != 0
    assert "told to root and to the mount's owner" in refused.stderr


def test_top_shows_what_happens_meanwhile(mounted: Callable[..., Mount], envfs: Envfs) -> None:
    mount = mounted()
    with subprocess.Popen(
        ["sh", "-c", f"while :; do cat {mount.path}/* ; echo x > {mount.path}/f; done"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as busy:
        try:
            shown = json.loads(envfs("top", "--times", "1", "--every", "1", "--json", mount.path).stdout)
            text = envfs("top", "--times", "1", "--every", "0.5").stdout
        finally:
            busy.kill()
    (one,) = shown["mounts"]
    assert one["mountpoint"] == str(mount.path)
    assert one["operations_per_second"]["open"] > 0
    assert one["users_per_second"]["root"]["opens"] > 0
    assert str(mount.path) in text
    assert "OPERATION" in text
    assert "USER" in text


def test_without_a_mount_there_is_nothing_to_show(envfs: Envfs, directory: Callable[..., Any]) -> None:
    empty = directory("empty")
    for command in (("top",), ("status", "--metrics")):
        done = envfs(*command, empty, check=False)
        assert done.returncode == 6
        assert "no envfs is mounted at" in done.stderr
