"""The example of docs/OPERATIONS.md, word for word: what it promises about users, root and a key is what happens."""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.command import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount
    from tests.integration.users import UnixUser


def policy_of_the_page() -> str:
    page = (REPOSITORY / "docs" / "OPERATIONS.md").read_text()
    found = re.search(r"<<'POLICY'\n(.*?)\n +POLICY\n", page, re.DOTALL)
    assert found is not None
    return found[1]


def read(path: Path) -> bytes:
    """With open(2) and read(2) alone, in the child of `run_as`."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)


def append(path: Path, content: bytes) -> int:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        return os.write(fd, content)
    finally:
        os.close(fd)


def create(path: Path, content: bytes) -> int:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return os.write(fd, content)
    finally:
        os.close(fd)


def test_alice_writes_bob_reads_and_root_does_neither(
    envfs: Envfs,
    mounted: Callable[..., Mount],
    unix_users: Callable[..., list[UnixUser]],
    run_as: Callable[..., Any],
    kms_home: Path,
) -> None:
    alice, bob, carol = unix_users("alice", "bob", "carol")
    mount = mounted()
    policy = kms_home.parent / "payroll.json"
    text = policy_of_the_page().replace("user/alice", f"user/{alice.name}").replace("user/bob", f"user/{bob.name}")
    policy.write_text(text)
    envfs("key", "create", "--alias", "payroll", "--description", "Payroll", "--policy", policy)
    payroll = mount.path / "payroll"
    payroll.mkdir()
    payroll.chmod(0o777)
    envfs("dir", "set-key", payroll, "alias/payroll")
    path = payroll / "may.ods"

    run_as(alice, lambda: create(path, b"wages"))
    path.chmod(0o666)
    assert run_as(alice, lambda: read(path)) == b"wages"
    assert run_as(bob, lambda: read(path)) == b"wages"
    for user in (bob, carol):
        with pytest.raises(PermissionError):
            run_as(user, lambda: append(path, b"!"))
        with pytest.raises(PermissionError):
            run_as(user, lambda: create(payroll / "new", b""))
    with pytest.raises(PermissionError):
        run_as(carol, lambda: read(path))
    with pytest.raises(PermissionError):  # root is no exception
        read(path)

    answers = {
        (user.name, access): envfs("explain", "--user", user.name, path, "--access", access, check=False).returncode
        for user in (alice, bob, carol)
        for access in ("read", "write")
    }
    assert [user for user, code in answers.items() if code == 0] == [
        (alice.name, "read"),
        (alice.name, "write"),
        (bob.name, "read"),
    ]
    assert set(answers.values()) == {0, 4}

    envfs("key", "disable", "alias/payroll")
    with pytest.raises(OSError, match="Required key not available") as refused:
        run_as(alice, lambda: read(path))
    assert refused.value.errno == errno.ENOKEY
    envfs("key", "enable", "alias/payroll")
    assert run_as(alice, lambda: read(path)) == b"wages"

    envfs("key", "policy", "get", "alias/payroll", policy)
    policy.write_text(policy.read_text().replace(f"user/{bob.name}", f"user/{carol.name}"))
    envfs("key", "policy", "put", "alias/payroll", policy)
    assert run_as(carol, lambda: read(path)) == b"wages"
    with pytest.raises(PermissionError):
        run_as(bob, lambda: read(path))


def test_an_ordinary_user_mounts_for_himself(
    envfs: Envfs,
    mounted: Callable[..., Mount],
    unix_users: Callable[..., list[UnixUser]],
    run_as: Callable[..., Any],
    directory: Callable[..., Path],
) -> None:
    alice, bob = unix_users("alice", "bob")
    lower = directory("hers", owner=alice, mode=0o700)
    envfs("init", lower, user=alice)
    mount = mounted(lower=lower, user=alice)
    path = mount.path / "diary"
    run_as(alice, lambda: create(path, b"mine"))
    assert run_as(alice, lambda: read(path)) == b"mine"
    for other in (bob, None):
        with pytest.raises(PermissionError):  # the kernel lets nobody else in, root included
            run_as(other, lambda: read(path)) if other else read(path)
    mount.kill()
    mount.mount()
    assert run_as(alice, lambda: read(path)) == b"mine"
