"""Connections: accepting them, bounding their number and the time they take, and closing them."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from envfs.access.peer import peer_of
from envfs.api.callers import Caller, SignedCaller, UnixCaller
from envfs.api.errors import MalformedRequest, RequestTimeout, RequestTooLarge
from envfs.api.http import HttpConnection
from envfs.api.respond import Responder, error_response, new_request_id
from envfs.errors import Throttling

if TYPE_CHECKING:
    from envfs.access.resolver import Resolver
    from envfs.api.callers import Signatures
    from envfs.errors import KmsError

MAX_CONNECTIONS: Final = 128  # of each listener
MAX_OF_ONE_USER: Final = 16  # on a Unix socket
RESERVED: Final = 16  # further ones on a Unix socket, for root and the server's own user
IDLE_TIMEOUT: Final = 60.0  # seconds between requests
REQUEST_TIMEOUT: Final = 15.0  # seconds from a request's first byte to its last, and again for taking the response
_LINGER: Final = 2.0  # seconds

_Handler: TypeAlias = Callable[[socket.socket], Awaitable[None]]
_log: Final = logging.getLogger(__name__)


class Server:
    """Serves the KMS on listening sockets, which it closes."""

    def __init__(self, responder: Responder, *, privileged: Collection[int] = ()) -> None:
        """`privileged`: uids to which the bound for one user does not apply."""
        self._responder = responder
        self._privileged = frozenset(privileged)

    def release(self) -> None:
        """Lets go of every engine but that of the loop; waits for calls that use one. For a thread."""
        self._responder.release()

    async def serve_unix(self, listener: socket.socket, resolver: Resolver) -> None:
        """Answers until cancelled. Who calls is what the kernel says."""
        connected: Counter[int] = Counter()  # uid → connections
        refusing = trio.CapacityLimiter(RESERVED)

        async def handle(connection: socket.socket) -> None:
            peer = peer_of(connection)
            connected[peer.uid] += 1
            try:
                if self._may_enter(peer.uid, connected):
                    await self._talk(connection, UnixCaller(peer, resolver))
                elif refusing.available_tokens:  # without it he is refused by being disconnected: others come first
                    async with refusing:
                        await self._refuse(connection)
            finally:
                connected[peer.uid] -= 1
                if not connected[peer.uid]:
                    del connected[peer.uid]

        await _accept(listener, handle, MAX_CONNECTIONS + 2 * RESERVED)

    async def serve_tcp(self, listener: socket.socket, signatures: Signatures) -> None:
        """Answers until cancelled. Every request is signed.

        Anybody may connect, so who has signed nothing yet has no right to his place: the one who is there for longest
        goes when there is no other place.
        """
        strangers: dict[trio.CancelScope, None] = {}  # the oldest connection first

        async def handle(connection: socket.socket) -> None:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with trio.CancelScope() as scope:
                strangers[scope] = None
                address = str(connection.getpeername()[0])
                try:
                    await self._talk(connection, SignedCaller(signatures, address, lambda: strangers.pop(scope, None)))
                finally:
                    strangers.pop(scope, None)

        def make_room() -> None:
            if strangers:
                oldest = next(iter(strangers))
                del strangers[oldest]
                oldest.cancel()

        await _accept(listener, handle, MAX_CONNECTIONS, make_room)

    def _may_enter(self, uid: int, connected: Counter[int]) -> bool:
        total = connected.total()
        if uid in self._privileged:
            return total <= MAX_CONNECTIONS + RESERVED
        return connected[uid] <= MAX_OF_ONE_USER and total <= MAX_CONNECTIONS

    async def _refuse(self, connection: socket.socket) -> None:
        """Somebody who has too many connections open gets an answer all the same, which clients know to wait after."""
        error = Throttling("too many connections")
        with trio.move_on_after(_LINGER):
            http = HttpConnection(connection)
            await http.send(error_response(error, new_request_id()))
            await http.drain()

    async def _talk(self, connection: socket.socket, caller: Caller) -> None:
        http = HttpConnection(connection)
        problem: KmsError | None = None
        with trio.CancelScope() as scope:
            problem = await self._serve_requests(http, caller, scope)
        if scope.cancelled_caught:
            if not http.in_request:
                return
            problem = RequestTimeout("the request did not come within the time that there is for one")
        if problem is not None:
            with trio.move_on_after(_LINGER):
                await http.send(error_response(problem, new_request_id()))
                await http.drain()

    async def _serve_requests(self, http: HttpConnection, caller: Caller, scope: trio.CancelScope) -> KmsError | None:
        """Until the client closes the connection, or breaks the protocol, which is returned as an error."""
        while True:
            scope.deadline = trio.current_time() + IDLE_TIMEOUT
            if not await http.wait_for_request():
                return None
            scope.deadline = trio.current_time() + REQUEST_TIMEOUT
            try:
                request = await http.receive()
            except (MalformedRequest, RequestTooLarge) as error:
                return error
            if request is None:
                return None
            scope.deadline = float("inf")  # what takes long is ours now
            response = await self._responder.respond(request, caller)
            scope.deadline = trio.current_time() + REQUEST_TIMEOUT
            if not await http.send(response):
                return None


async def _accept(
    listener: socket.socket, handle: _Handler, maximum: int, make_room: Callable[[], None] = lambda: None
) -> None:
    """Accepts connections until cancelled, at most `maximum` at a time: more wait in the kernel's queue. `make_room` is
    called when the last place was taken.
    """
    accepting = trio.socket.from_stdlib_socket(listener)
    limit = trio.Semaphore(maximum)
    with accepting:
        async with trio.open_nursery() as nursery:
            while True:
                if not limit.value:
                    make_room()
                await limit.acquire()
                try:
                    connection, _ = await accepting.accept()
                except OSError as error:
                    limit.release()
                    _log.warning("the KMS could not accept a connection: %s", error)
                    await trio.sleep(1)  # out of descriptors, most likely: others need them first
                    continue
                nursery.start_soon(_handle, connection, handle, limit)


async def _handle(
    connection: trio.socket.SocketType,
    handle: _Handler,
    limit: trio.Semaphore,
) -> None:
    try:
        with socket.socket(fileno=connection.detach()) as plain:  # HttpConnection says why
            plain.setblocking(False)
            await handle(plain)
    except OSError as error:
        _log.debug("a connection to the KMS broke: %s", error)
    except Exception:  # noqa: BLE001  (a defect must not take the other connections down)
        _log.exception("a connection to the KMS failed")
    finally:
        limit.release()
