"""Both sides of the control socket, against each other, over a real socket."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from envfs.access.peer import Peer, peer_of
from envfs.errors import AccessDenied, ConfigError
from envfs.service import client, mountinfo, runtime, wire
from envfs.service.control import ControlServer
from envfs.service.errors import MountError
from envfs.service.peer import MAX_LINE, inode_of
from envfs.service.reporting import Reporter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DEVICE = "0:4242"


def entry(owner: int | None = None) -> mountinfo.MountEntry:
    uid = os.geteuid() if owner is None else owner
    return mountinfo.MountEntry(
        1, DEVICE, "/srv/vault", frozenset(), mountinfo.FILESYSTEM_TYPE, "/lower", frozenset({f"user_id={uid}"})
    )


class Recorder:
    """A handler that keeps what it was given and answers with what it was told to."""

    def __init__(self, answer: dict[str, Any] | BaseException | None = None) -> None:
        self.answer = {"done": True} if answer is None else answer
        self.seen: list[tuple[Peer, dict[str, Any], int | None]] = []
        self.inode: int | None = None

    def __call__(self, peer: Peer, request: dict[str, Any], descriptor: int | None) -> dict[str, Any]:
        self.seen.append((peer, request, descriptor))
        if descriptor is not None:
            self.inode = inode_of(descriptor).number
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runtime, "candidates", lambda _uid: [tmp_path / "absent", tmp_path])
    return tmp_path / runtime.socket_name(DEVICE)


@asynccontextmanager
async def serving(place: Path, handler: Recorder, *, everybody: bool = False) -> AsyncIterator[ControlServer]:
    server = ControlServer(place, handler, everybody=everybody)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve)
            yield server
            nursery.cancel_scope.cancel()
    finally:
        server.close()


async def raw_exchange(place: Path, *chunks: bytes, descriptors: list[int] | None = None) -> Any:
    """Send bytes as they are, and return the parsed answer (None where the connection was just closed)."""

    def talk() -> Any:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(30)
            connection.connect(os.fspath(place))
            try:
                if descriptors:
                    socket.send_fds(connection, [chunks[0]], descriptors)
                for chunk in chunks[1 if descriptors else 0 :]:
                    connection.sendall(chunk)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.makefile("rb").readline()
            except (BrokenPipeError, ConnectionResetError):
                return None
            return json.loads(answer) if answer else None

    return await trio.to_thread.run_sync(talk)


async def test_a_request_and_who_made_it_reach_the_handler(place: Path) -> None:
    handler = Recorder({"value": "ü"})
    async with serving(place, handler):
        result = await trio.to_thread.run_sync(lambda: client.ask(entry(), "status", depth=2))
    assert result == {"value": "ü"}
    peer, request, descriptor = handler.seen[0]
    assert peer == Peer(os.getpid(), os.geteuid(), os.getegid())
    assert request == {"op": "status", "depth": 2}
    assert descriptor is None


async def test_a_descriptor_names_its_inode_and_is_closed_afterwards(place: Path, tmp_path: Path) -> None:
    handler = Recorder()
    target = tmp_path / "file"
    target.touch()
    with client.open_path(target) as opened:
        async with serving(place, handler):
            before = len(os.listdir("/proc/self/fd"))
            await trio.to_thread.run_sync(lambda: client.ask(entry(), "file-show", descriptor=opened.descriptor))
            received = handler.seen[0][2]
            while len(os.listdir("/proc/self/fd")) > before:
                await trio.lowlevel.checkpoint()
    assert received != opened.descriptor
    assert handler.inode == target.stat().st_ino


async def test_two_descriptors_are_refused_and_closed(place: Path, tmp_path: Path) -> None:
    handler = Recorder()
    async with serving(place, handler):
        descriptor = os.open(tmp_path, os.O_PATH)
        try:
            assert await raw_exchange(place, b'{"op": "x"}\n', descriptors=[descriptor, descriptor]) is None
        finally:
            os.close(descriptor)
        assert handler.seen == []
        assert (await raw_exchange(place, b'{"op": "still alive"}\n'))["ok"] is True


@pytest.mark.parametrize(
    "error", [AccessDenied("no", hint="ask"), ConfigError("wrong"), FileNotFoundError(2, "gone", "/x")]
)
async def test_errors_of_the_handler_are_raised_at_the_client(place: Path, error: Exception) -> None:
    async with serving(place, Recorder(error)):
        with pytest.raises(type(error)):
            await trio.to_thread.run_sync(lambda: client.ask(entry(), "status"))


async def test_a_defect_in_the_handler_does_not_end_the_server(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    handler = Recorder(ZeroDivisionError("inner"))
    async with serving(place, handler):
        with pytest.raises(wire.RemoteFailure, match="ZeroDivisionError"):
            await trio.to_thread.run_sync(lambda: client.ask(entry(), "status"))
        handler.answer = {"now": 1}
        assert await trio.to_thread.run_sync(lambda: client.ask(entry(), "status")) == {"now": 1}
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    "line",
    [b"\n", b"nonsense\n", b"[]\n", b"{}\n", b'{"op": 3}\n', b'{"op": "x"}', b"[" * 60000 + b"\n", b"\xff\xfe\n"],
    ids=["empty", "no JSON", "no object", "no op", "op no text", "no newline", "nested", "no UTF-8"],
)
async def test_what_is_no_request_is_answered_with_an_error(place: Path, line: bytes) -> None:
    handler = Recorder()
    async with serving(place, handler):
        answer = await raw_exchange(place, line)
    assert answer["error"]["type"] == "ConfigError"
    assert handler.seen == []


async def test_a_connection_that_asks_nothing_gets_no_answer(place: Path) -> None:
    handler = Recorder()
    async with serving(place, handler):
        assert await raw_exchange(place, b"") is None
    assert handler.seen == []


async def test_a_line_above_the_bound_is_refused(place: Path) -> None:
    handler = Recorder()
    async with serving(place, handler):
        answer = await raw_exchange(place, b'{"op": "' + b"x" * MAX_LINE + b'"}\n')
    # Unread bytes make the kernel reset the connection, so the answer may be lost; the request must be.
    assert answer is None or answer["ok"] is False
    assert handler.seen == []


async def test_a_request_may_come_in_pieces(place: Path) -> None:
    async with serving(place, Recorder()):
        assert (await raw_exchange(place, b'{"op"', b': "x', b'"}', b"\n"))["ok"] is True


async def test_a_client_that_says_nothing_keeps_nobody_waiting(place: Path) -> None:
    async with serving(place, Recorder()):
        silent = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(8)]
        try:
            for connection in silent:
                connection.connect(os.fspath(place))
            assert await trio.to_thread.run_sync(lambda: client.ask(entry(), "status")) == {"done": True}
        finally:
            for connection in silent:
                connection.close()


@pytest.mark.parametrize(("everybody", "mode"), [(True, 0o666), (False, 0o600)])
async def test_the_sockets_mode_says_who_may_connect(place: Path, everybody: bool, mode: int) -> None:
    async with serving(place, Recorder(), everybody=everybody):
        assert stat.S_IMODE(os.lstat(place).st_mode) == mode


async def test_a_stale_socket_is_replaced_and_ours_removed_at_the_end(place: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
        stale.bind(os.fspath(place))
    async with serving(place, Recorder()):
        assert await trio.to_thread.run_sync(lambda: client.ask(entry(), "status")) == {"done": True}
    assert place.name not in os.listdir(place.parent)


async def test_a_socket_that_took_our_place_is_left_alone(place: Path) -> None:
    async with serving(place, Recorder()):
        os.unlink(place)
        os.mkfifo(place)
    assert place.name in os.listdir(place.parent)


async def test_only_the_mounts_owner_speaks_for_it(place: Path) -> None:
    async with serving(place, Recorder()):
        with pytest.raises(MountError, match="no daemon answers"):
            await trio.to_thread.run_sync(lambda: client.ask(entry(owner=os.geteuid() + 1), "status"))


def test_no_socket_means_no_daemon(place: Path) -> None:
    assert not place.exists()
    with pytest.raises(MountError) as raised:
        client.ask(entry(), "status")
    assert "envfs umount /srv/vault" in raised.value.hint


async def test_the_connection_knows_the_daemons_process(place: Path) -> None:
    def pid() -> int:
        with client.Connection(entry()) as connection:
            return connection.pid

    async with serving(place, Recorder()):
        assert await trio.to_thread.run_sync(pid) == os.getpid()


def test_inodes_are_known_without_asking_the_filesystem(tmp_path: Path) -> None:
    with client.open_path(tmp_path) as opened:
        inode = inode_of(opened.descriptor)
        assert inode.number == tmp_path.stat().st_ino
        assert opened.mount is not None
        assert opened.mount.mount_id == inode.mount_id
        assert opened.envfs_mount is None


def test_a_symlink_at_the_end_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    with client.open_path(tmp_path / "link") as opened:
        assert inode_of(opened.descriptor).number == (tmp_path / "link").lstat().st_ino


def test_peer_of_a_socketpair_is_this_process() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert peer_of(left) == Peer(os.getpid(), os.geteuid(), os.getegid())


async def test_a_descriptor_that_cannot_be_closed_keeps_no_other_thread_busy(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may lead to a filesystem of the client's own, which answers close(2) when it likes."""
    handler, closing, release = Recorder(), threading.Event(), threading.Event()
    close = os.close

    def slow_close(descriptor: int) -> None:
        if handler.seen and descriptor == handler.seen[0][2]:
            closing.set()
            release.wait()
        close(descriptor)

    monkeypatch.setattr("envfs.service.control.os.close", slow_close)
    target = tmp_path / "file"
    target.touch()
    async with serving(place, handler):
        with client.open_path(target) as opened:
            await trio.to_thread.run_sync(lambda: client.ask(entry(), "file-show", descriptor=opened.descriptor))
        await trio.to_thread.run_sync(closing.wait)
        assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
        assert await trio.to_thread.run_sync(lambda: client.ask(entry(), "status")) == {"done": True}
        release.set()


async def test_one_user_does_not_keep_the_others_from_being_answered(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = os.geteuid() + 1
    peers = iter([Peer(1, stranger, 1)] * 5)
    handler = Recorder()
    monkeypatch.setattr("envfs.service.control.peer_of", lambda connection: next(peers, peer_of(connection)))
    async with serving(place, handler):
        silent = [trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(5)]
        for connection in silent:
            await connection.connect(os.fspath(place))
        assert await silent[4].recv(1) == b""  # sent away at once; the others are waited for
        assert await trio.to_thread.run_sync(lambda: client.ask(entry(), "status")) == {"done": True}
        for connection in silent:
            connection.close()


def long_handler(operation: Any) -> Any:
    return lambda _peer, _request, _descriptor: operation


async def test_what_takes_long_tells_how_far_it_is_before_its_result(place: Path) -> None:
    told: list[dict[str, Any]] = []

    async def operation(reporter: Reporter) -> dict[str, Any]:
        for number in range(3):
            reporter.progress(done=number, total=3)
            await reporter.item(name=f"file {number}")
            await reporter.give_way()
        while {"progress": {"done": 2, "total": 3}} not in told:
            await trio.lowlevel.checkpoint()
        return {"files": 3}

    async with serving(place, long_handler(operation)):
        result = await trio.to_thread.run_sync(lambda: client.ask(entry(), "walk", listener=told.append))
    assert result == {"files": 3}
    assert [line["item"]["name"] for line in told if "item" in line] == ["file 0", "file 1", "file 2"]


async def test_what_takes_long_ends_when_its_client_goes_away(place: Path) -> None:
    cancelled = trio.Event()

    async def operation(_reporter: Reporter) -> dict[str, Any]:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with serving(place, long_handler(operation)):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(os.fspath(place))
            connection.sendall(b'{"op": "walk"}\n')
            await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(10):
            await cancelled.wait()


async def test_an_error_of_what_takes_long_is_told(place: Path) -> None:
    async def operation(_reporter: Reporter) -> dict[str, Any]:
        raise AccessDenied("not you", hint="ask")

    async with serving(place, long_handler(operation)):
        with pytest.raises(AccessDenied, match="not you"):
            await trio.to_thread.run_sync(lambda: client.ask(entry(), "walk"))


async def test_what_takes_long_gives_way_to_requests() -> None:
    """While requests come, they are served; and it goes on although they never stop coming."""
    served = 0

    async def requests() -> None:
        nonlocal served
        while True:
            served += 1
            await trio.lowlevel.checkpoint()

    async def send(_line: bytes) -> None:
        raise AssertionError

    reporter = Reporter(send, lambda: served)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(requests)
        await trio.lowlevel.checkpoint()
        for _ in range(3):
            before = served
            busy_until = time.monotonic() + 0.005
            while time.monotonic() < busy_until:
                pass
            await reporter.give_way()
            assert served > before
        nursery.cancel_scope.cancel()
