"""Connections to a server in this process, in trio's virtual time."""

from __future__ import annotations

import json
import os
import socket
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from envfs.access.resolver import Resolver
from envfs.api.respond import Responder
from envfs.api.server import IDLE_TIMEOUT, MAX_OF_ONE_USER, REQUEST_TIMEOUT, RESERVED, Server
from envfs.api.worker import MAX_OF_ONE_USER as MAX_SLOW_OF_ONE_USER
from envfs.api.worker import Worker
from envfs.errors import Throttling
from envfs.kms.bootstrap import init_kms
from envfs.kms.engine import Engine
from envfs.kms.model import NO_FACTS
from envfs.kms.rootkey import KEY_FILE_NAME, KeyFileUnlock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

Clock = trio.testing.MockClock  # when nothing happens any more, its time jumps to the next time-out
REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: EnvfsKms.WhoAmI\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    home = tmp_path / "kms"
    init_kms(home)
    with Engine.open(home, KeyFileUnlock(home / KEY_FILE_NAME)) as engine:
        yield engine


@pytest.fixture
async def connection(engine: Engine, tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[trio.SocketStream]:
    """A connection to a server."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    responder = Responder(engine)
    nursery.start_soon(Server(responder).serve_unix, listener, Resolver(engine))
    stream = await trio.open_unix_socket(tmp_path / "s")
    async with stream:
        yield stream
    responder.close()


async def receive_all(stream: trio.SocketStream) -> bytes:
    """Until the server closes the connection."""
    received = b""
    while part := await stream.receive_some():
        received += part
    return received


def error_of(response: bytes) -> tuple[int, str]:
    head, _, body = response.rpartition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["__type"]


async def test_a_request_that_does_not_come_to_its_end_is_not_waited_for(
    connection: trio.SocketStream, autojump_clock: Clock
) -> None:
    started = trio.current_time()
    await connection.send_all(REQUEST[:-1])
    assert error_of(await receive_all(connection)) == (408, "RequestTimeoutException")
    assert REQUEST_TIMEOUT <= trio.current_time() - started < REQUEST_TIMEOUT + 5


async def test_one_byte_now_and_then_does_not_keep_a_connection(
    connection: trio.SocketStream, nursery: trio.Nursery, autojump_clock: Clock
) -> None:
    async def trickle() -> None:
        for byte in REQUEST:
            await trio.sleep(1)
            try:
                await connection.send_all(bytes([byte]))
            except trio.BrokenResourceError:
                return

    nursery.start_soon(trickle)
    assert error_of(await receive_all(connection)) == (408, "RequestTimeoutException")


async def test_a_connection_that_is_not_used_is_closed_without_a_word(
    connection: trio.SocketStream, autojump_clock: Clock
) -> None:
    started = trio.current_time()
    await connection.send_all(REQUEST)
    response = await receive_all(connection)
    assert response.startswith(b"HTTP/1.1 200 ")
    assert response.count(b"HTTP/1.1") == 1
    assert trio.current_time() - started >= IDLE_TIMEOUT


async def test_a_client_that_goes_in_the_middle_of_a_request_does_no_harm(
    connection: trio.SocketStream, autojump_clock: Clock
) -> None:
    await connection.send_all(REQUEST[:-1])
    await connection.send_eof()
    assert error_of(await receive_all(connection)) == (400, "MalformedHttpRequestException")


async def test_a_client_that_takes_no_response_is_not_waited_for(
    connection: trio.SocketStream, autojump_clock: Clock
) -> None:
    started = trio.current_time()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    with pytest.raises(trio.BrokenResourceError):  # the server takes no more while its responses are not taken
        await connection.send_all(REQUEST * 100_000)
    assert trio.current_time() - started >= REQUEST_TIMEOUT


async def test_a_defect_is_an_error_of_the_server_and_no_more(
    connection: trio.SocketStream, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("of one request")

    monkeypatch.setattr(Engine, "describe_key", fail)
    body = b'{"KeyId": "x"}'
    headers = REQUEST.replace(b"EnvfsKms.WhoAmI", b"TrentService.DescribeKey")
    headers = headers.replace(b"Length: 2", b"Length: %d" % len(body))
    await connection.send_all(headers.removesuffix(b"{}") + body)
    response = bytes(await connection.receive_some())
    assert error_of(response) == (500, "InternalFailure")
    assert b"of one request" not in response
    assert "of one request" in caplog.text
    await connection.send_all(REQUEST)
    assert json.loads(bytes(await connection.receive_some()).rpartition(b"\r\n\r\n")[2])["UserId"] == str(os.getuid())


async def test_whoever_is_refused_does_not_take_the_places_of_others(
    connection: trio.SocketStream, tmp_path: Path, autojump_clock: Clock
) -> None:
    """A few refusals at a time wait until they are read; of more, the connection is closed at once."""
    started = trio.current_time()
    async with AsyncExitStack() as stack:
        for _ in range(MAX_OF_ONE_USER - 1 + RESERVED):
            await stack.enter_async_context(await trio.open_unix_socket(tmp_path / "s"))
        for _ in range(300):
            async with await trio.open_unix_socket(tmp_path / "s") as further:
                assert await receive_all(further) == b""
        await connection.send_all(REQUEST)
        assert (await connection.receive_some()).startswith(b"HTTP/1.1 200 ")
        assert trio.current_time() == started


async def test_one_user_does_not_keep_others_from_slow_operations(engine: Engine, nursery: trio.Nursery) -> None:
    alice = Resolver(engine).resolve(os.getuid(), os.getgid(), os.getpid())
    worker = Worker(engine)

    async def ask() -> None:
        assert await worker.call(alice, "EnvfsKms.VerifyStore", {}, NO_FACTS) == {"Problems": []}

    async with trio.open_nursery() as asking:
        for _ in range(MAX_SLOW_OF_ONE_USER):
            asking.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Throttling):
            await ask()
        bob = replace(alice, uid=alice.uid + 1)
        assert await worker.call(bob, "EnvfsKms.VerifyStore", {}, NO_FACTS) == {"Problems": []}
    await ask()
    worker.close()
