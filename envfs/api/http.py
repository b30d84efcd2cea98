"""HTTP/1.1 on one connection: requests in, responses out, with bounds on sizes. Times are bounded by whoever calls."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import h11
import trio

from envfs.api.errors import MalformedRequest, RequestTooLarge

if TYPE_CHECKING:
    import socket

MAX_HEAD: Final = 16 << 10  # bytes of a request's line and headers (twice as many if they come all at once)
# Bytes. The largest request of the KMS is smaller: CreateKey with the longest policy, description and tags, each of
# whose characters JSON may write as an escape of 6 or 12 bytes.
MAX_BODY: Final = 512 << 10
_PART: Final = 16 << 10
_DRAINED: Final = 4 << 20  # bytes that a client may still have on the way when it is refused
_TOO_LARGE: Final = {413, 431}


class HttpRequest(NamedTuple):
    """`headers` have lower-case names; the values of one that came several times are joined by commas."""

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    body: bytes


class HttpResponse(NamedTuple):
    status: int
    content_type: bytes
    body: bytes
    request_id: str


# So many reads and writes that need not wait are done before other tasks get their turn.
_AT_ONCE: Final = 2


class HttpConnection:
    """The server's side of a connection, on a socket that does not block.

    The socket is used directly: trio's own sockets give all others a turn at every call, also where nothing has to be
    waited for, and a request takes three of them.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._at_once = 0
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self.in_request = False
        """Whether a part of a request has come, and its response has not been sent."""

    async def wait_for_request(self) -> bool:
        """Until the first bytes of a request are there; False when the client closes the connection. OSError."""
        if self._http.trailing_data[0]:
            return True
        part = await self._recv(_PART)
        if part:
            self._http.receive_data(part)
            self.in_request = True
        return bool(part)

    async def receive(self) -> HttpRequest | None:
        """The next request; None when the client has closed the connection. MalformedRequest, RequestTooLarge: the
        connection takes that error as a response and is then of no more use. OSError.
        """
        try:
            event = await self._next_event()
            if type(event) is not h11.Request:
                return None
            headers = _joined(event.headers)
            _check_framing(event, headers)
            body = await self._body(headers)
        except h11.RemoteProtocolError as error:
            if error.error_status_hint in _TOO_LARGE:
                raise RequestTooLarge(f"a request's headers have at most {MAX_HEAD} bytes") from None
            raise MalformedRequest(f"no HTTP/1.1 request: {error}") from None
        return HttpRequest(event.method, event.target, headers, body)

    async def send(self, response: HttpResponse) -> bool:
        """Whether another request can follow on this connection. OSError."""
        http = self._http
        if http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return False
        headers = [
            (b"x-amzn-RequestId", response.request_id.encode("ascii")),
            (b"Content-Type", response.content_type),
            (b"Content-Length", str(len(response.body)).encode("ascii")),
            (b"Date", _date(int(time.time()))),
        ]
        head = http.send(h11.Response(status_code=response.status, headers=headers, reason=_reason(response.status)))
        body = http.send(h11.Data(data=response.body))
        end = http.send(h11.EndOfMessage())
        await self._send_all(b"".join((head or b"", body or b"", end or b"")))
        self.in_request = False
        try:
            http.start_next_cycle()
        except h11.LocalProtocolError:  # one side has said that it closes, or has not finished
            return False
        return True

    async def drain(self) -> None:
        """Reads what the client still sends, so that the response reaches it: to close before would reset the
        connection.
        """
        try:
            self._socket.shutdown(1)  # SHUT_WR
            left = _DRAINED
            while left > 0 and (part := await self._recv(min(_PART, left))):
                left -= len(part)
        except OSError:
            pass  # it has gone, which is what it was waited for

    async def _next_event(self) -> object:
        http = self._http
        while True:
            event = http.next_event()
            if event is not h11.NEED_DATA:
                self.in_request = True
                return event
            if http.they_are_waiting_for_100_continue:
                await self._send_all(http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            part = await self._recv(_PART)
            self.in_request = self.in_request or bool(part)
            http.receive_data(part)

    async def _body(self, headers: dict[bytes, bytes]) -> bytes:
        length = headers.get(b"content-length", b"")
        # h11 has made sure that it is a number.
        if length and int(length) > MAX_BODY:
            raise _body_too_large()
        body = bytearray()
        while True:
            event = await self._next_event()
            if type(event) is h11.Data:
                body += event.data
                if len(body) > MAX_BODY:
                    raise _body_too_large()
            elif type(event) is h11.EndOfMessage:
                return bytes(body)
            else:  # closed in the middle of it
                raise MalformedRequest("the request is not complete")

    async def _recv(self, size: int) -> bytes:
        await self._take_turn()
        while True:
            try:
                return self._socket.recv(size)
            except BlockingIOError:
                self._at_once = 0
                await trio.lowlevel.wait_readable(self._socket)

    async def _send_all(self, content: bytes) -> None:
        await self._take_turn()
        rest = memoryview(content)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                self._at_once = 0
                await trio.lowlevel.wait_writable(self._socket)

    async def _take_turn(self) -> None:
        """A client that always has more to say must not keep the others waiting."""
        self._at_once += 1
        if self._at_once > _AT_ONCE:
            self._at_once = 0
            await trio.lowlevel.checkpoint()


def _joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    joined: dict[bytes, bytes] = {}
    for name, value in headers:
        joined[name] = joined[name] + b"," + value if name in joined else value
    return joined


def _check_framing(event: h11.Request, headers: dict[bytes, bytes]) -> None:
    """MalformedRequest if it could be argued where the request ends (RFC 9112 section 6.1): a proxy before us that
    argues otherwise would take the answer to a part of one client's request for that to the next client's.
    """
    if b"transfer-encoding" in headers and (b"content-length" in headers or event.http_version < b"1.1"):
        raise MalformedRequest("no HTTP/1.1 request: Transfer-Encoding beside Content-Length, or in HTTP/1.0")


def _body_too_large() -> RequestTooLarge:
    return RequestTooLarge(f"a request's body has at most {MAX_BODY} bytes")


@lru_cache(maxsize=2)
def _date(second: int) -> bytes:
    """RFC 9110 section 5.6.7."""
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(second)).encode("ascii")


_REASONS: Final = {200: b"OK", 400: b"Bad Request", 403: b"Forbidden", 404: b"Not Found", 500: b"Internal Server Error"}


def _reason(status: int) -> bytes:
    return _REASONS.get(status, b"")
