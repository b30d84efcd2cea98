"""Locking a mount: what programs see, what is in memory, what is on the disk; and that everything goes on after it."""

from __future__ import annotations

import errno
import json
import mmap
import os
import signal
import socket
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from envfs.access.resolver import Resolver
from envfs.format.geometry import HEADER_SIZE
from envfs.format.header import content_key, dek_context, header_key, parse_header_area
from envfs.kms.engine import Engine
from envfs.kms.rootkey import KEY_FILE_NAME, KeyFileUnlock
from envfs.service.runtime import candidates
from envfs.service.volume import open_volume
from tests.integration.revocation.agents import BUS_ERROR, Agent
from tests.integration.revocation.conftest import World, eventually, outcome
from tests.integration.revocation.memory import found_in_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount
    from tests.integration.users import UnixUser

    MakeAgent = Callable[[UnixUser | None], Agent]

PAGE = mmap.PAGESIZE
PAGES = b"".join(b"%03d." % number * (PAGE // 4) for number in range(64))


def secrets_of(world: World, home: Path, lower_file: Path) -> dict[str, bytes]:
    """What must not be in memory: computed from the KMS, as the mount does it."""
    with Engine.open(home, KeyFileUnlock(home / KEY_FILE_NAME)) as engine:
        volume = open_volume(world.mount.lower, engine)
        me = Resolver(engine).resolve(os.getuid(), os.getgid(), os.getpid())
        slot = parse_header_area(lower_file.read_bytes()[:HEADER_SIZE]).slots[0].slot
        dek = engine.decrypt(me, slot.blob, dek_context(volume.file.volume_id, slot.file_id, {}))
        found = {
            "root key": bytes(engine._root_key.expose()),
            "key of directory files": bytes(volume.keys.directory),
            "key that binds files": bytes(volume.keys._file_binding),
            "DEK": bytes(dek.expose()),
        }
        with volume.keys.file_key(dek, is_bound=volume.file.is_bound) as key:
            found["file key"] = bytes(key.expose())
            found["header key"] = bytes(header_key(key, slot.file_id))
            found["content key"] = bytes(content_key(key, slot.file_id, slot.suite))
    return found


def test_a_locked_mount_holds_no_key_and_goes_on_after_it(world: World, agent: MakeAgent, kms_home: Path) -> None:
    alice, bob = agent(world.alice), agent(world.bob)
    path, new = world.shared / "file", world.shared / "new"
    alice.write_file(path, PAGES)
    alice.write_file(world.shared / "secret", b"dirty")
    fd, his, written = alice.open(path, os.O_RDWR), bob.open(path), alice.open(new, os.O_RDWR | os.O_CREAT)
    shared = alice.map(fd, len(PAGES), mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    assert alice.pwrite(fd, b"dirty page") == alice.pwrite(written, b"dirty page") == 10
    assert alice.touch(shared, b"dirty map", PAGE) == b"done"
    assert bob.pread(his, 4, 2 * PAGE) == b"002."
    files = (one for one in world.mount.lower.rglob("*") if one.is_file() and not one.name.startswith("envfs."))
    (lower,) = (one for one in files if one.stat().st_size > len(PAGES))
    secrets = secrets_of(world, kms_home, lower)
    before = found_in_memory(world.mount.pid, secrets)
    assert {"root key", "content key", "key of directory files"} <= before  # so it would be found

    world.envfs("lock", world.mount.path)
    assert found_in_memory(world.mount.pid, secrets) == set()
    for attempt in (
        partial(alice.pread, fd),
        partial(bob.pread, his, 4, 2 * PAGE),
        partial(alice.pwrite, fd, b"later"),
        partial(alice.open, path),
        partial(alice.stat_size, path),
        partial(alice.stat_size, world.shared / "nothing"),
        partial(alice.listdir, world.shared),
        partial(agent(None).listdir, world.mount.path),
        partial(bob.splice, his, 4),
        partial(alice.fsync, fd),
    ):
        assert outcome(attempt) == errno.ENOKEY
    assert alice.look(shared) == BUS_ERROR
    status = json.loads(world.envfs("status", world.mount.path, "--json").stdout)
    assert (status["state"], status["locked"]) == ("serving", True)
    refused = world.envfs("dir", "show", world.mount.path, check=False)
    assert refused.returncode != 0
    bob.close(his)  # closing is all that can be done

    world.envfs("unlock", world.mount.path)
    assert alice.pread(fd, 10) == alice.pread(written, 10) == b"dirty page"
    assert alice.look(shared, PAGE) == b"dirt"
    assert alice.pwrite(fd, b"later", 3 * PAGE) == 5
    assert bob.pread(bob.open(path), 5, 3 * PAGE) == b"later"
    assert alice.read_file(world.shared / "secret") == b"dirty"
    alice.end()
    bob.end()
    world.mount.remount()
    reader = agent(world.alice)
    assert (
        reader.read_file(path)[: 2 * PAGE] == b"dirty page" + PAGES[10:PAGE] + b"dirty map" + PAGES[PAGE + 9 : 2 * PAGE]
    )
    reader.end()
    world.mount.umount()
    world.envfs("fsck", "--read-data", world.mount.lower)


def test_who_lost_access_meanwhile_does_not_get_it_back(world: World, agent: MakeAgent) -> None:
    path = world.shared / "file"
    alice, bob = agent(world.alice), agent(world.bob)
    alice.write_file(path, PAGES)
    hers, his = alice.open(path), bob.open(path)
    world.envfs("lock", world.mount.path)
    world.allow_users(world.alice)
    world.envfs("unlock", world.mount.path)
    assert alice.pread(hers) == b"000."
    eventually(lambda: bob.pread(his), errno.EACCES)


def test_who_lost_a_file_while_locked_keeps_it_from_nobody(world: World, agent: MakeAgent) -> None:
    """His handle is all that is open: the file's keys are made anew for the next who may open it."""
    path, other = world.shared / "file", world.shared / "other"
    alice, bob = agent(world.alice), agent(world.bob)
    for one in (path, other):
        alice.write_file(one, PAGES)
    third = world.shared / "third"
    alice.write_file(third, PAGES)
    his = [bob.open(one, os.O_RDWR) for one in (path, other, third)]
    open_beside = alice.open(third)  # behind his: when his is looked at, the keys are not there yet
    world.envfs("lock", world.mount.path)
    world.allow_users(world.alice)
    world.envfs("unlock", world.mount.path)
    assert alice.pread(open_beside) == b"000."
    for one in his:
        assert outcome(partial(bob.pread, one)) == errno.EACCES
    assert alice.read_file(path) == PAGES
    world.envfs("rewrap", other)
    hers = alice.open(path, os.O_RDWR)
    assert alice.pwrite(hers, b"later", PAGE) == 5
    alice.write_file(other, b"short")
    for one in his:
        eventually(partial(bob.pread, one), errno.EACCES)
    alice.close(hers)
    alice.end()
    bob.end()
    world.mount.remount()
    reader = agent(world.alice)
    assert reader.read_file(path) == PAGES[:PAGE] + b"later" + PAGES[PAGE + 5 :]
    assert reader.read_file(other) == b"short"


def test_only_root_and_its_owner_lock_and_unlock_a_mount(world: World, kms_home: Path) -> None:
    for command in ("lock", "unlock"):
        done = world.envfs(command, world.mount.path, user=world.bob, check=False)
        assert done.returncode != 0
    assert not json.loads(world.envfs("status", world.mount.path, "--json").stdout)["locked"]
    world.envfs("lock", world.mount.path)
    key_file = kms_home / KEY_FILE_NAME
    kept = key_file.rename(key_file.with_name("kept"))
    assert world.envfs("unlock", world.mount.path, check=False, stdin=subprocess.DEVNULL).returncode != 0
    assert outcome(partial(os.listdir, world.mount.path)) == errno.ENOKEY
    kept.rename(key_file)
    world.envfs("unlock", world.mount.path)
    assert os.listdir(world.mount.path) == ["shared"]


@pytest.mark.parametrize("options", [("lock-on=USR1", "isolate")])
def test_a_signal_locks_and_unmounting_needs_no_key(world: World, agent: MakeAgent) -> None:
    alice, bob = agent(world.alice), agent(world.bob)
    path = world.shared / "file"
    alice.write_file(path, PAGES)
    fd, his = alice.open(path, os.O_RDWR), bob.open(path)
    assert alice.pwrite(fd, b"dirty page") == 10
    assert bob.pread(his, 10) == b"dirty page"  # although he has no part in the page cache
    with pytest.raises(OSError, match="No such device"):
        bob.map(his, PAGE, mmap.MAP_SHARED, mmap.PROT_READ)
    os.kill(world.mount.pid, signal.SIGUSR1)
    eventually(partial(alice.pread, fd), errno.ENOKEY)
    alice.end()
    bob.end()
    world.mount.remount()
    assert agent(world.alice).read_file(path) == b"dirty page" + PAGES[10:]


def test_an_ordinary_user_locks_all_that_is_his(
    world: World, envfs: Envfs, mounted: Callable[..., Mount], run_as: Callable[..., Any]
) -> None:
    """And nothing of others, here root's."""
    lower = world.alice.home / "vault.enc"
    envfs("init", lower, user=world.alice)
    hers = mounted(lower=lower, user=world.alice)
    run_as(world.alice, lambda: (hers.path / "file").write_text("hers"))
    envfs("lock", "--all", user=world.alice)
    with pytest.raises(OSError, match="Required key") as error:
        run_as(world.alice, (hers.path / "file").read_text)
    assert error.value.errno == errno.ENOKEY
    assert os.listdir(world.mount.path) == ["shared"]
    envfs("unlock", hers.path, user=world.alice)
    assert run_as(world.alice, (hers.path / "file").read_text) == "hers"


def _impostor(user: UnixUser, path: Path, home: Path, told: Path) -> int:
    """A process of the user in the place of his mount's daemon; it writes down what comes through pipes."""
    child = os.fork()
    if child:
        return child
    try:
        os.setgroups([])
        os.setgid(user.gid)
        os.setuid(user.uid)
        path.unlink()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            while True:
                connection, _ = listener.accept()
                _, descriptors, *_ = socket.recv_fds(connection, 65536, 4)
                for one in descriptors:
                    told.write_bytes(os.read(one, 32))
                answer = {"ok": True, "result": {"kms_home": str(home)}}
                connection.sendall(json.dumps(answer).encode() + b"\n")
                connection.close()
    finally:
        os._exit(1)


def test_root_gives_no_root_key_to_another_users_process(
    world: World, envfs: Envfs, mounted: Callable[..., Mount], kms_home: Path
) -> None:
    """Who puts a program of his in the place of his mount's daemon names root's KMS as his."""
    lower, told = world.alice.home / "vault.enc", world.alice.home / "told"
    envfs("init", lower, user=world.alice)
    hers = mounted(lower=lower, user=world.alice)
    (socket_path,) = (
        path
        for directory in candidates(world.alice.uid)
        for path in directory.glob("*.sock")
        if path.owner() == world.alice.name
    )
    impostor = _impostor(world.alice, socket_path, kms_home, told)
    try:
        eventually(lambda: _answers(socket_path), True)
        done = world.envfs("unlock", hers.path, check=False)
    finally:
        os.kill(impostor, signal.SIGKILL)
        os.waitpid(impostor, 0)
    assert not told.exists()
    assert done.returncode == 4


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
            client.sendall(b"{}\n")
            return b"kms_home" in client.recv(4096)
        except OSError:
            return False
