"""The control socket of a mount: the daemon's side.

A Unix stream socket; one connection carries one request and one response, each a line of JSON:

    → {"op": "file-show"} ⏎   with the descriptor of the path (O_PATH) as SCM_RIGHTS
    ← {"ok": true, "result": {…}} ⏎   or   {"ok": false, "error": {"type": …, "message": …, "hint": …}} ⏎

An operation that takes long (its handler returns a `LongOperation`) sends lines of progress and items before
(`envfs.service.reporting`). It ends when its client closes the connection, or only its sending side.

A path in the mount travels as a descriptor that the client has opened: so the kernel has decided that he may reach
it, and the daemon need not walk paths in its own mount, which would be requests to itself. Who asks is what
SO_PEERCRED says. Lines, time and the number of connections are bounded, and nothing here awaits while it holds
anything of the filesystem.
"""

from __future__ import annotations

import array
import contextlib
import json
import logging
import os
import socket
from collections import Counter
from typing import TYPE_CHECKING, Any

import trio

from envfs.access.peer import Peer, peer_of
from envfs.errors import ConfigError
from envfs.service import wire
from envfs.service.kms_socket import bind
from envfs.service.peer import MAX_LINE
from envfs.service.reporting import LongOperation, Reporter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Handler = Callable[[Peer, dict[str, Any], int | None], dict[str, Any] | LongOperation]

_MAX_CONNECTIONS = 32
_MAX_OF_ONE_USER = 4  # other than root and the mount's owner
_TIMEOUT = 10  # seconds for a client to send its line, and again to take the answer
_MAX_DESCRIPTORS = 1
_log = logging.getLogger(__name__)


class ControlServer:
    """Listens from construction on. `handler(peer, request, descriptor)` runs in the trio thread and must not block.

    `requests` counts those of the filesystem, to which an operation that takes long gives way.
    """

    def __init__(
        self, path: Path, handler: Handler, *, everybody: bool, requests: Callable[[], int] = lambda: 0
    ) -> None:
        self._path = path
        self._handler = handler
        self._requests = requests
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # A predecessor's socket is stale: the name is the device number, which is ours while we are mounted.
            path.unlink(missing_ok=True)
            bind(listener, path, 0o666 if everybody else 0o600)
            listener.listen(_MAX_CONNECTIONS)
            self._identity = _identity(path)
        except BaseException:
            listener.close()
            raise
        self._listener = trio.socket.from_stdlib_socket(listener)
        self._connected: Counter[int] = Counter()  # uid → connections
        # Threads of their own: a descriptor may lead to a filesystem that keeps close(2) waiting for ever, and those
        # that wait for the lower filesystem must not wait for that.
        self._closers = trio.CapacityLimiter(_MAX_CONNECTIONS)

    async def serve(self) -> None:
        """Answer until cancelled."""
        limit = trio.Semaphore(_MAX_CONNECTIONS)
        async with trio.open_nursery() as nursery:
            while True:
                await limit.acquire()
                try:
                    connection, _ = await self._listener.accept()
                except OSError as error:
                    limit.release()
                    _log.warning("the control socket could not accept: %s", error)
                    await trio.sleep(1)  # out of descriptors, most likely: others need them first
                    continue
                nursery.start_soon(self._connection, connection, limit)

    def close(self) -> None:
        """Stop listening and remove the socket, unless somebody else's has taken its place."""
        self._listener.close()
        if _identity(self._path) == self._identity:
            self._path.unlink(missing_ok=True)

    async def _connection(self, connection: trio.socket.SocketType, limit: trio.Semaphore) -> None:
        try:
            uid = peer_of(connection).uid
        except OSError:
            uid = -1
        self._connected[uid] += 1
        try:
            if self._connected[uid] <= _MAX_OF_ONE_USER or uid in {0, os.geteuid()}:
                await self._talk(connection)
        finally:
            connection.close()
            self._connected[uid] -= 1
            limit.release()

    async def _talk(self, connection: trio.socket.SocketType) -> None:
        descriptors: list[int] = []
        line = b""
        try:
            with trio.move_on_after(_TIMEOUT):
                line = await _receive_line(connection, descriptors)
            if not line:
                return  # somebody who only wanted to know which process listens here
            answer = self._respond(peer_of(connection), line, descriptors)
            response = answer if isinstance(answer, dict) else await self._take_long(connection, answer)
            if response is None:
                return  # nobody waits for it any more
            with trio.move_on_after(_TIMEOUT):
                await _send_all(connection, json.dumps(response).encode() + b"\n")
        except OSError as error:
            _log.info("a control connection broke: %s", error)
        finally:
            connection.close()
            for descriptor in descriptors:
                # In a thread: should it be the last reference to a mount that was detached, then closing it
                # writes dirty pages back, which are requests that this thread has to answer.
                await trio.to_thread.run_sync(os.close, descriptor, limiter=self._closers, abandon_on_cancel=True)

    def _respond(self, peer: Peer, line: bytes, descriptors: list[int]) -> dict[str, Any] | LongOperation:
        try:
            result = self._handler(peer, _parse(line), descriptors[0] if descriptors else None)
            return {"ok": True, "result": result} if isinstance(result, dict) else result
        except wire.EXPECTED as error:
            return wire.failure(error)
        except Exception as error:  # noqa: BLE001  (a defect must not take the mount down)
            _log.exception("a control request failed")
            return wire.failure(error)

    async def _take_long(self, connection: trio.socket.SocketType, operation: LongOperation) -> dict[str, Any] | None:
        """Carry it out while its client listens; None if he went away."""
        response: dict[str, Any] | None = None

        async def send(content: bytes) -> None:
            await _send_all(connection, content)

        async def watch() -> None:
            with contextlib.suppress(OSError):
                await connection.recv(1)  # he has nothing more to say
            nursery.cancel_scope.cancel()

        async def tell() -> None:
            try:
                await reporter.keep_telling()
            except (OSError, trio.TooSlowError):
                nursery.cancel_scope.cancel()

        reporter = Reporter(send, self._requests)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            nursery.start_soon(tell)
            try:
                response = {"ok": True, "result": await operation(reporter)}
            except trio.TooSlowError:
                _log.info("a client takes no more of what its operation tells it")
            except wire.EXPECTED as error:
                response = wire.failure(error)
            except Exception as error:  # noqa: BLE001  (a defect must not take the mount down)
                _log.exception("a control request failed")
                response = wire.failure(error)
            await reporter.finish()
            nursery.cancel_scope.cancel()
        return response


async def _receive_line(connection: trio.socket.SocketType, descriptors: list[int]) -> bytes:
    """The bytes up to the newline (or to the bound, or to the end); received descriptors are added to the list."""
    space = socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
    received = b""
    while not received.endswith(b"\n") and len(received) < MAX_LINE:
        part, ancillary, flags, _ = await connection.recvmsg(MAX_LINE - len(received), space, socket.MSG_CMSG_CLOEXEC)
        for level, kind, raw in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(raw[: len(raw) - len(raw) % numbers.itemsize])
                descriptors.extend(numbers)
        if flags & socket.MSG_CTRUNC or len(descriptors) > _MAX_DESCRIPTORS:
            raise ConnectionError("more than one descriptor")
        if not part:
            break
        received += part
    return received


async def _send_all(connection: trio.socket.SocketType, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[await connection.send(view) :]


def _parse(line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise ConfigError(f"a request is one line of at most {MAX_LINE} bytes")
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict) or not isinstance(request.get("op"), str):
        raise ConfigError('a request is a JSON object with an "op"')
    return request


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
