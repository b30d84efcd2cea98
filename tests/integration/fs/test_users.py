"""Several Unix users in one mount: the KMS decides about content, the Unix modes about everything else."""

from __future__ import annotations

import errno
import grp
import json
import os
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.integration.users import UnixUser

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount

READ, WRITE, CREATE = "kms:Decrypt", "kms:GenerateDataKey", "kms:GenerateDataKey"
ADMINISTRATION = [
    "kms:Describe*",
    "kms:Get*",
    "kms:List*",
    "kms:Put*",
    "kms:Enable*",
    "kms:Disable*",
    "kms:CreateAlias",
]
NOBODY_AT_ALL = UnixUser("nobody at all", 54_321, 54_321, None)  # type: ignore[arg-type]  # has no home, nor a name


def statement(who: str, *actions: str, sid: str = "", **more: Any) -> dict[str, Any]:
    allow = {"Sid": sid or who.rpartition("/")[2].replace("-", ""), "Effect": "Allow", "Resource": "*"}
    return allow | {"Principal": {"AWS": f"arn:envfs:iam::000000000000:{who}"}, "Action": list(actions)} | more


class World(NamedTuple):
    """A mount with a directory `shared`, open to everybody by its mode, whose new files get a key of their own."""

    mount: Mount
    envfs: Envfs
    shared: Path
    alice: UnixUser
    bob: UnixUser
    run_as: Callable[..., Any]
    policy: Path

    def allow(self, *statements: dict[str, Any]) -> None:
        """In a process of its own, as an administrator does it."""
        self.policy.write_text(json.dumps(document(*statements)))
        self.envfs("key", "policy", "put", "alias/shared", self.policy)


def document(*statements: dict[str, Any]) -> dict[str, Any]:
    administration = statement("root", *ADMINISTRATION, sid="Administration")
    return {"Version": "2012-10-17", "Statement": [administration, *statements]}


@pytest.fixture
def world(
    envfs: Envfs,
    mounted: Callable[..., Mount],
    unix_users: Callable[..., list[UnixUser]],
    run_as: Callable[..., Any],
    directory: Callable[..., Path],
) -> World:
    mount = mounted()
    alice, bob = unix_users("alice", "bob")
    policy = directory("policies") / "policy.json"
    policy.write_text(json.dumps(document(statement(f"user/{alice.name}", READ, WRITE))))
    envfs("key", "create", "--alias", "shared", "--policy", policy)
    shared = mount.path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    envfs("dir", "set-key", shared, "alias/shared")
    return World(mount, envfs, shared, alice, bob, run_as, policy)


def read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)


def write(path: Path, content: bytes, flags: int = os.O_CREAT | os.O_TRUNC) -> None:
    fd = os.open(path, os.O_WRONLY | flags, 0o666)
    try:
        assert os.write(fd, content) == len(content)
    finally:
        os.close(fd)


def refused(world: World, who: UnixUser | None, what: Callable[[], object], code: int = errno.EACCES) -> None:
    """`who`, None for root, gets this errno."""
    with pytest.raises(OSError) as error:  # noqa: PT011 - the errno says it
        world.run_as(who, what) if who else what()
    assert error.value.errno == code


def test_alice_reads_what_bob_and_root_may_not(world: World) -> None:
    path = world.shared / "secret"
    world.run_as(world.alice, lambda: write(path, b"content"))
    world.run_as(world.alice, lambda: path.chmod(0o666))
    assert world.run_as(world.alice, lambda: read(path)) == b"content"
    for who in (world.bob, None, NOBODY_AT_ALL):
        refused(world, who, lambda: read(path))
        refused(world, who, lambda: write(path, b"x", 0))
        refused(world, who, lambda: write(path, b"x", os.O_TRUNC))
        refused(world, who, lambda: os.truncate(path, 0))
        refused(world, who, lambda: write(world.shared / "new", b"x"))
    assert os.listdir(world.shared) == ["secret"]
    # What the modes decide: looking, moving, removing. The owner's file stays hers wherever it is.
    assert world.run_as(world.bob, lambda: path.stat().st_size) == 7
    world.run_as(world.bob, lambda: path.rename(world.shared / "moved"))
    refused(world, world.bob, lambda: (world.shared / "moved").chmod(0o600), errno.EPERM)
    moved = world.shared / "moved"
    assert world.run_as(world.alice, lambda: read(moved)) == b"content"
    world.run_as(world.bob, moved.unlink)
    assert os.listdir(world.shared) == []


def test_pages_in_memory_and_open_files_are_nobody_elses(world: World) -> None:
    """Alice has it open and the kernel has its pages: bob's open is decided on its own."""
    path = world.shared / "secret"
    world.run_as(world.alice, lambda: write(path, b"content"))

    ready, release = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(world.alice.gid, world.alice.gid, world.alice.gid)
        os.setresuid(world.alice.uid, world.alice.uid, world.alice.uid)
        fd = os.open(path, os.O_RDWR)
        os.read(fd, 100)
        os.write(ready[1], b"1")
        os.read(release[0], 1)
        os._exit(0)
    try:
        assert os.read(ready[0], 1) == b"1"
        refused(world, world.bob, lambda: read(path))
        refused(world, None, lambda: read(path))
    finally:
        os.write(release[1], b"1")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        for fd in (*ready, *release):
            os.close(fd)


def test_who_may_read_may_not_write(world: World) -> None:
    path = world.shared / "paper"
    world.allow(statement(f"user/{world.alice.name}", READ, WRITE), statement(f"user/{world.bob.name}", READ))
    world.run_as(world.alice, lambda: write(path, b"content"))
    path.chmod(0o666)
    assert world.run_as(world.bob, lambda: read(path)) == b"content"
    refused(world, world.bob, lambda: write(path, b"x", os.O_APPEND))
    refused(world, world.bob, lambda: os.truncate(path, 1))
    refused(world, world.bob, lambda: os.open(path, os.O_RDWR))
    world.run_as(world.bob, lambda: os.utime(path))  # by its mode he may
    assert world.run_as(world.alice, lambda: read(path)) == b"content"


def test_files_can_be_dropped_by_who_may_only_create(world: World) -> None:
    world.allow(statement(f"user/{world.alice.name}", READ, WRITE), statement(f"user/{world.bob.name}", CREATE))
    path = world.shared / "report"

    def drop() -> int:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        for number in range(100):  # also into the middle of blocks and pages that are there already
            os.write(fd, b"%05d" % number * 200)
        os.pwrite(fd, b"HEAD", 0)
        size = os.fstat(fd).st_size
        os.close(fd)
        return size

    assert world.run_as(world.bob, drop) == 100_000
    refused(world, world.bob, lambda: read(path))
    refused(world, world.bob, lambda: write(path, b"x", os.O_APPEND))
    content = world.run_as(world.alice, path.read_bytes)
    assert content == b"HEAD" + b"".join(b"%05d" % number * 200 for number in range(100))[4:]
    world.mount.remount()
    assert world.run_as(world.alice, path.read_bytes) == content


def test_a_policy_counts_at_the_next_open(world: World) -> None:
    path = world.shared / "secret"
    world.run_as(world.alice, lambda: write(path, b"content"))
    refused(world, world.bob, lambda: read(path))
    world.allow(statement(f"user/{world.bob.name}", READ))
    assert world.run_as(world.bob, lambda: read(path)) == b"content"
    refused(world, world.alice, lambda: read(path))
    world.allow(statement(f"user/{world.alice.name}", READ), statement(f"user/{world.bob.name}", READ, Effect="Deny"))
    refused(world, world.bob, lambda: read(path))
    assert world.run_as(world.alice, lambda: read(path)) == b"content"


def test_a_policy_may_speak_of_paths_and_of_what_is_done(world: World) -> None:
    drafts = world.shared / "drafts"
    drafts.mkdir()
    drafts.chmod(0o777)
    world.allow(
        statement(f"user/{world.alice.name}", READ, WRITE),
        statement(f"user/{world.bob.name}", READ, WRITE, Condition={"StringLike": {"envfs:Path": "/shared/drafts/*"}}),
    )
    for path in (world.shared / "final", drafts / "one"):
        world.run_as(world.alice, lambda path=path: write(path, b"content"))
    refused(world, world.bob, lambda: read(world.shared / "final"))
    assert world.run_as(world.bob, lambda: read(drafts / "one")) == b"content"
    world.run_as(world.bob, lambda: write(drafts / "two", b"his"))
    refused(world, world.bob, lambda: write(world.shared / "two", b"his"))


def test_groups_are_principals(world: World, unix_group: Callable[..., str]) -> None:
    group = unix_group("staff", world.bob)
    path = world.shared / "secret"
    world.run_as(world.alice, lambda: write(path, b"content"))
    world.allow(statement(f"group/{group}", READ), statement(f"user/{world.alice.name}", READ, WRITE))
    assert world.run_as(world.bob, lambda: read(path)) == b"content"


def test_a_disabled_key_is_not_available(world: World) -> None:
    path = world.shared / "secret"
    world.run_as(world.alice, lambda: write(path, b"content"))
    world.envfs("key", "disable", "alias/shared")
    for attempt in (
        lambda: read(path),
        lambda: write(path, b"x", 0),
        lambda: write(world.shared / "new", b"x"),
    ):
        refused(world, world.alice, attempt, errno.ENOKEY)
    done = world.run_as(world.alice, ["cat", path])
    assert done.stderr.endswith("Required key not available\n")
    assert world.run_as(world.alice, ["ls", "-l", world.shared]).returncode == 0
    world.envfs("key", "enable", "alias/shared")
    assert world.run_as(world.alice, lambda: read(path)) == b"content"


def test_empty_files_are_for_everybody_with_a_name(world: World) -> None:
    """There is nothing to decrypt, but an unknown uid is nobody, and writing is a matter of the key."""
    path = world.shared / "empty"
    world.run_as(world.alice, lambda: write(path, b""))
    path.chmod(0o666)
    refused(world, world.bob, lambda: write(path, b"x", 0))
    refused(world, NOBODY_AT_ALL, lambda: read(path))


def test_owners_and_modes_are_those_of_the_users(world: World) -> None:
    def make() -> None:
        os.umask(0o022)
        write(world.shared / "file", b"x")
        (world.shared / "dir").mkdir()
        os.symlink("file", world.shared / "link")
        os.mkfifo(world.shared / "pipe")
        (world.shared / "dir" / ("n" * 255)).mkdir(mode=0o700)

    world.run_as(world.alice, make)
    for name in ("file", "dir", "link", "pipe", f"dir/{'n' * 255}"):
        found = (world.shared / name).lstat()
        assert (found.st_uid, found.st_gid) == (world.alice.uid, world.alice.gid)
    assert stat.S_IMODE((world.shared / "file").stat().st_mode) == 0o644
    refused(world, world.bob, lambda: os.listdir(world.shared / "dir" / ("n" * 255)))
    refused(world, world.bob, lambda: write(world.shared / "dir" / "mine", b""))
    refused(world, world.bob, lambda: os.chown(world.shared / "file", world.bob.uid, -1), errno.EPERM)
    os.chown(world.shared / "file", world.bob.uid, world.bob.gid)
    assert world.run_as(world.alice, lambda: read(world.shared / "file")) == b"x"
    refused(world, world.alice, lambda: (world.shared / "file").chmod(0o600), errno.EPERM)


def test_the_sticky_bit_and_inherited_groups(world: World, unix_group: Callable[..., str]) -> None:
    group = grp.getgrnam(unix_group("team", world.alice)).gr_gid
    world.shared.chmod(0o1777)
    world.run_as(world.alice, lambda: write(world.shared / "hers", b"x"))
    refused(world, world.bob, (world.shared / "hers").unlink, errno.EPERM)
    refused(world, world.bob, lambda: (world.shared / "hers").rename(world.shared / "his"), errno.EPERM)
    os.chown(world.shared, -1, group)
    world.shared.chmod(0o2777)
    world.run_as(world.alice, lambda: write(world.shared / "teams", b"x"))
    world.run_as(world.alice, (world.shared / "dir").mkdir)
    assert (world.shared / "teams").stat().st_gid == group
    assert (world.shared / "dir").stat().st_gid == group
    assert (world.shared / "dir").stat().st_mode & stat.S_ISGID


def test_set_user_id_goes_when_the_content_changes(world: World) -> None:
    world.allow(statement(f"user/{world.alice.name}", READ, WRITE), statement(f"user/{world.bob.name}", READ, WRITE))
    path = world.shared / "program"
    world.run_as(world.alice, lambda: write(path, b"x"))
    for change in (
        lambda: write(path, b"y", 0),
        lambda: write(path, b"y", os.O_TRUNC),
        lambda: os.truncate(path, 0),
    ):
        path.chmod(0o6777)
        assert stat.S_IMODE(path.stat().st_mode) == 0o6777
        world.run_as(world.bob, change)
        assert stat.S_IMODE(path.stat().st_mode) == 0o777
    path.chmod(0o6755)
    os.chown(path, world.bob.uid, -1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    world.mount.remount()
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_every_decision_is_on_record(world: World, kms_home: Path) -> None:
    path = world.shared / "secret"
    world.run_as(world.alice, lambda: write(path, b"content"))
    world.run_as(world.alice, lambda: read(path))
    refused(world, world.bob, lambda: read(path))
    lines = [json.loads(line) for trail in (kms_home / "audit").iterdir() for line in trail.read_text().splitlines()]
    seen = {
        (line["eventName"], line["userIdentity"]["arn"].rpartition("/")[2], line.get("errorCode"))
        for line in lines
        if "/shared/secret" in json.dumps(line)
    }
    assert seen == {
        ("GenerateDataKey", world.alice.name, None),
        ("Decrypt", world.alice.name, None),
        ("Decrypt", world.bob.name, "AccessDeniedException"),
    }


def acl(*entries: tuple[int, int, int]) -> bytes:
    """system.posix_acl_access (acl(5)): tag, permissions and id of each entry, after the version."""
    packed = (part for tag, permissions, who in entries for part in (tag, permissions, who & 0xFFFF, who >> 16))
    return (2).to_bytes(4, "little") + b"".join(part.to_bytes(2, "little") for part in packed)


def test_acls_are_kept_and_enforced_where_they_were_asked_for(
    mounted: Callable[..., Mount], unix_users: Callable[..., list[UnixUser]], run_as: Callable[..., Any]
) -> None:
    mount = mounted("acl")
    alice, bob = unix_users("alice", "bob")
    mount.path.chmod(0o777)
    path, nobody = mount.path / "f", 0xFFFFFFFF
    run_as(alice, lambda: write(path, b"content"))
    path.chmod(0o600)
    with pytest.raises(PermissionError):
        run_as(bob, lambda: read(path))
    # user::rw- user:bob:r-- group::--- mask::r-- other::---
    named = acl((1, 6, nobody), (2, 4, bob.uid), (4, 0, nobody), (16, 4, nobody), (32, 0, nobody))
    run_as(alice, lambda: os.setxattr(path, "system.posix_acl_access", named))
    for _ in range(2):
        assert run_as(bob, lambda: read(path)) == b"content"
        with pytest.raises(PermissionError):
            run_as(bob, lambda: write(path, b"x", 0))
        assert os.getxattr(path, "system.posix_acl_access") == named
        assert stat.S_IMODE(path.stat().st_mode) == 0o640  # the mask shows as the group's permission
        mount.remount()
    run_as(alice, lambda: os.removexattr(path, "system.posix_acl_access"))
    with pytest.raises(PermissionError):
        run_as(bob, lambda: read(path))
