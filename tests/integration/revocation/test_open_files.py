"""What becomes of open files when their opener is not allowed any more: real processes of real users."""

from __future__ import annotations

import errno
import json
import mmap
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.integration.revocation.agents import BUS_ERROR, Agent
from tests.integration.revocation.conftest import READ, WRITE, World, eventually, outcome, statement
from tests.integration.users import UnixUser

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeAgent = Callable[[UnixUser | None], Agent]

PAGE = mmap.PAGESIZE
CONTENT = b"".join(b"%07d\n" % number for number in range(1 << 17))  # 1 MiB
SHARED, PRIVATE = mmap.MAP_SHARED, mmap.MAP_PRIVATE


def test_a_policy_takes_reading_away_from_one_and_leaves_it_to_another(world: World, agent: MakeAgent) -> None:
    path = world.shared / "file"
    alice, bob = agent(world.alice), agent(world.bob)
    alice.write_file(path, CONTENT)
    fd = bob.open(path)
    shared, private = (bob.map(fd, len(CONTENT), kind, mmap.PROT_READ) for kind in (SHARED, PRIVATE))
    assert bob.pread(fd) == bob.look(shared) == bob.look(private) == b"0000"
    reading = alice.start_reading(path, CONTENT)
    world.allow_users(world.alice)
    assert outcome(lambda: bob.open(path)) == errno.EACCES  # at once
    eventually(lambda: bob.pread(fd), errno.EACCES)
    for offset in range(0, len(CONTENT), len(CONTENT) // 16):  # also of pages that alice has just brought in
        assert outcome(partial(bob.pread, fd, 4, offset)) == errno.EACCES
    assert alice.stop_reading(reading)
    # Without anybody who brings pages in, maps have nothing to see.
    eventually(lambda: bob.look(shared, PAGE), BUS_ERROR)
    eventually(lambda: bob.look(private, PAGE), BUS_ERROR)
    assert outcome(lambda: bob.splice(fd, 4)) == errno.EACCES
    # Nor if somebody opens it now: what he reads does not come into the page cache.
    assert alice.read_file(path) == CONTENT
    assert bob.look(shared, PAGE) == bob.look(private, PAGE) == BUS_ERROR
    assert outcome(lambda: bob.splice(fd, 4)) == errno.EACCES
    # One record for each handle that was lost.
    records = [json.loads(line) for line in world.envfs("audit", "query", "--json").stdout.splitlines()]
    (loss,) = [record for record in records if record["eventName"] == "OpenFileRevoked"]
    assert loss["userIdentity"]["userName"] == world.bob.name
    assert loss["errorCode"] == "AccessDeniedException"
    assert loss["envfs"]["path"] == "/shared/file"


def test_what_was_written_before_is_there_and_what_comes_after_is_not(world: World, agent: MakeAgent) -> None:
    path, grown = world.shared / "file", world.shared / "grown"
    alice, bob = agent(world.alice), agent(world.bob)
    alice.write_file(path, bytes(len(CONTENT)))
    reader = alice.open(path)
    fd, new = bob.open(path, os.O_RDWR), bob.open(grown, os.O_RDWR | os.O_CREAT)
    written = bob.map(fd, len(CONTENT), SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    assert bob.pwrite(fd, CONTENT[: 4 * PAGE]) == 4 * PAGE
    assert bob.touch(written, b"mapped", 8 * PAGE) == b"done"
    assert bob.pwrite(new, CONTENT) == len(CONTENT)
    world.allow_users(world.alice)
    eventually(lambda: bob.pwrite(fd, b"later", 6 * PAGE), errno.EACCES)
    eventually(lambda: bob.pwrite(new, b"later"), errno.EACCES)
    eventually(lambda: bob.touch(written, b"later", 10 * PAGE), BUS_ERROR)
    assert outcome(lambda: bob.ftruncate(fd, 0)) == errno.EACCES
    assert outcome(lambda: bob.fsync(fd)) is None
    after = CONTENT[: 4 * PAGE] + bytes(4 * PAGE) + b"mapped" + bytes(len(CONTENT) - 8 * PAGE - 6)
    found = alice.pread(reader, len(CONTENT))
    landed = found[6 * PAGE :][:5] == b"later"  # before the change was noticed: then it is no later write
    assert found == (after[: 6 * PAGE] + b"later" + after[6 * PAGE + 5 :] if landed else after)
    alice.end()
    bob.end()
    world.mount.remount()
    assert agent(world.alice).read_file(path) == found
    assert agent(world.alice).read_file(grown)[5:] == CONTENT[5:]


def test_a_revoked_writer_beside_an_allowed_one(world: World, agent: MakeAgent) -> None:
    """The kernel writes everybody's dirty pages through any of the handles that may write."""
    path = world.shared / "file"
    alice, bob = agent(world.alice), agent(world.bob)
    alice.write_file(path, bytes(16 * PAGE))
    hers, his = alice.open(path, os.O_RDWR), bob.open(path, os.O_RDWR)
    assert alice.pwrite(hers, b"a" * PAGE) == bob.pwrite(his, b"b" * PAGE, PAGE) == PAGE
    world.allow_users(world.alice)
    eventually(lambda: bob.pread(his), errno.EACCES)
    for number in range(20):
        assert alice.pwrite(hers, b"%04d" % number * (PAGE // 4), 2 * PAGE) == PAGE
        assert outcome(lambda: bob.pwrite(his, b"x" * PAGE, 2 * PAGE)) == errno.EACCES
        assert outcome(lambda: bob.pwrite(his, b"x", 3 * PAGE + 5)) == errno.EACCES
        assert alice.pread(hers, PAGE, 2 * PAGE) == b"%04d" % number * (PAGE // 4)
    alice.fsync(hers)
    alice.end()
    bob.end()
    world.mount.remount()
    expected = b"a" * PAGE + b"b" * PAGE + b"0019" * (PAGE // 4) + bytes(13 * PAGE)
    assert agent(world.alice).read_file(path) == expected


def test_every_kind_of_change_takes_effect(
    world: World, agent: MakeAgent, unix_group: Callable[..., str], run_as: Callable[..., Any]
) -> None:
    """Grant, group, identity policy, key state; and what was taken away is given back to the same descriptor."""
    path = world.shared / "file"
    group = unix_group("staff", world.bob)
    world.allow(statement(f"user/{world.alice.name}", READ, WRITE), statement(f"group/{group}", READ))
    agent(world.alice).write_file(path, CONTENT)
    bob, carol = agent(world.bob), agent(world.carol)
    fd = bob.open(path)
    run_as(UnixUser.current(), ["gpasswd", "-d", world.bob.name, group])
    eventually(lambda: bob.pread(fd), errno.EACCES)
    run_as(UnixUser.current(), ["gpasswd", "-a", world.bob.name, group])
    eventually(lambda: bob.pread(fd), b"0000")
    # A grant, made and revoked.
    grant = world.envfs("grant", "create", "alias/shared", "--to", world.carol.name, "--operation", "Decrypt", "--json")
    hers = carol.open(path)
    assert carol.pread(hers) == b"0000"
    world.envfs("grant", "revoke", "alias/shared", _grant_id(grant.stdout))
    eventually(lambda: carol.pread(hers), errno.EACCES)
    assert bob.pread(fd) == b"0000"
    # An identity policy, through the key policy's delegation.
    policy = world.policy.with_name("identity.json")
    policy.write_text('{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"kms:Decrypt","Resource":"*"}}')
    world.envfs("iam", "user-policy", "put", world.carol.name, "reader", policy)
    eventually(lambda: carol.pread(hers), b"0000")
    world.envfs("iam", "user-policy", "delete", world.carol.name, "reader")
    eventually(lambda: carol.pread(hers), errno.EACCES)
    # The key's state, which is for everybody.
    world.envfs("key", "disable", "alias/shared")
    eventually(lambda: bob.pread(fd), errno.ENOKEY)
    world.envfs("key", "enable", "alias/shared")
    eventually(lambda: bob.pread(fd), b"0000")


def test_access_that_runs_out_ends_by_itself(world: World, agent: MakeAgent) -> None:
    path = world.shared / "file"
    agent(world.alice).write_file(path, CONTENT)
    end = int(time.time()) + 4
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end))
    until = {"Condition": {"DateLessThan": {"aws:CurrentTime": when}}}
    epoch = {"Condition": {"NumericLessThan": {"aws:EpochTime": str(end)}}}
    world.allow(
        statement(f"user/{world.bob.name}", READ, **until), statement(f"user/{world.carol.name}", READ, **epoch)
    )
    bob, carol = agent(world.bob), agent(world.carol)
    his, hers = bob.open(path), carol.open(path)
    assert bob.pread(his) == carol.pread(hers) == b"0000"
    assert time.time() < end
    eventually(lambda: bob.pread(his), errno.EACCES)
    eventually(lambda: carol.pread(hers), errno.EACCES)
    assert time.time() >= end


def test_files_without_a_name_renamed_ones_and_ones_without_a_key(world: World, agent: MakeAgent) -> None:
    alice, bob = agent(world.alice), agent(world.bob)
    paths = {name: world.shared / name for name in ("renamed", "unlinked", "empty")}
    for name in ("renamed", "unlinked"):
        alice.write_file(paths[name], CONTENT)
    alice.write_file(paths["empty"], b"")
    descriptors = {name: bob.open(path) for name, path in paths.items()}
    assert [bob.pread(descriptors[name]) for name in paths] == [b"0000", b"0000", b""]
    alice.rename(paths["renamed"], world.shared / "elsewhere")
    alice.unlink(paths["unlinked"])
    world.allow_users(world.alice)
    for fd in descriptors.values():
        eventually(partial(bob.pread, fd), errno.EACCES)
    alice.write_file(paths["empty"], CONTENT)  # bob, who has it open, does not keep her from it
    assert outcome(lambda: bob.pread(descriptors["empty"])) == errno.EACCES
    assert alice.read_file(paths["empty"]) == CONTENT
    world.allow_users(world.alice, world.bob)
    eventually(lambda: bob.pread(descriptors["renamed"]), b"0000")


def test_root_is_no_exception_and_a_handle_is_its_openers(world: World, agent: MakeAgent) -> None:
    path = world.shared / "file"
    alice, bob, carol, root = agent(world.alice), agent(world.bob), agent(world.carol), agent(None)
    alice.write_file(path, CONTENT)
    fd, passed = root.open(path), bob.send_descriptor(bob.open(path), carol)
    assert root.pread(fd) == carol.pread(passed) == b"0000"  # the kernel does not ask who uses a descriptor
    world.allow_users(world.alice)
    eventually(partial(carol.pread, passed), errno.EACCES)
    world.policy.write_text(world.policy.read_text().replace(":root", f":user/{world.carol.name}"))
    world.envfs("key", "policy", "put", "alias/shared", world.policy, "--bypass-lockout-check")
    eventually(partial(root.pread, fd), errno.EACCES)
    assert alice.read_file(path) == CONTENT


def test_a_change_through_the_mounts_own_kms(world: World, agent: MakeAgent) -> None:
    """bob administers the key without being able to open the KMS: the mount's socket serves him."""
    path = world.shared / "file"
    alice = agent(world.alice)
    alice.write_file(path, CONTENT)
    world.allow(statement(f"user/{world.alice.name}", READ, WRITE), statement(f"user/{world.bob.name}", "kms:*"))
    fd = alice.open(path)
    policy = world.bob.home / "policy.json"
    policy.write_text(world.policy.read_text().replace(f"user/{world.alice.name}", f"user/{world.carol.name}"))
    home = world.mount.envfs._home_of(None)
    world.envfs("key", "policy", "put", "alias/shared", policy, user=world.bob, home=home)
    eventually(lambda: alice.pread(fd), errno.EACCES)


def _grant_id(text: str) -> str:
    grant_id: str = json.loads(text)["grant_id"]
    return grant_id


def test_another_key_of_an_open_file_takes_it_from_who_may_not_use_that(world: World, agent: MakeAgent) -> None:
    """And leaves it to who may: nothing in the KMS is changed."""
    alice, bob = agent(world.alice), agent(world.bob)
    world.envfs("key", "create", "--alias", "hers")
    world.envfs("access", "grant", world.alice.name, "write", "alias/hers")
    for command in ("rewrap", "rekey"):
        path = world.shared / command
        alice.write_file(path, CONTENT)
        hers, his = alice.open(path, os.O_RDWR), bob.open(path)
        assert bob.pread(his) == b"0000"
        world.envfs(command, "--to", "alias/hers", path)
        eventually(partial(bob.pread, his), errno.EACCES)
        assert alice.pwrite(hers, b"hers", PAGE) == 4
        assert alice.pread(hers, 4, PAGE) == b"hers"


def test_who_lost_a_file_without_a_key_keeps_nobody_from_writing_it(world: World, agent: MakeAgent) -> None:
    """As long as he may read it, a writer whose key he may not use has to wait for him."""
    path = world.shared / "log"
    alice, bob = agent(world.alice), agent(world.bob)
    alice.write_file(path, b"")
    world.mount.umount()
    files = (one for one in world.mount.lower.rglob("*") if one.is_file() and not one.name.startswith("envfs."))
    os.truncate(next(files), 0)  # what a power failure may leave: no header, and so no key
    world.mount.mount()
    his = bob.open(path)
    assert bob.pread(his) == b""
    world.allow_users(world.alice)
    eventually(lambda: bob.pread(his), errno.EACCES)
    assert alice.pwrite(alice.open(path, os.O_RDWR), b"hers") == 4
    assert outcome(lambda: bob.pread(his)) == errno.EACCES
    world.allow_users(world.alice, world.bob)
    eventually(lambda: bob.pread(his), b"hers")
