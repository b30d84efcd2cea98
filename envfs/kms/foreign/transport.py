"""Sending one HTTP request by a deadline that holds whatever the other side does.

The transport of botocore limits each wait for a byte, not their sum: who answers a byte at a time keeps a thread for
hours. Here every wait ends at the deadline of the whole request, and an answer has a largest size.
"""

from __future__ import annotations

import base64
import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

CONNECT_SECONDS: Final = 2.0
MAX_ANSWER: Final = 64 * 1024
_MAX_IDLE: Final = 8
_IDLE_SECONDS: Final = 20.0


class TooLarge(OSError):
    """An answer that no KMS gives."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An HTTP response."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class _BoundedSocket(io.RawIOBase):
    """A connected socket as http.client uses one; no operation lasts beyond `deadline` (time.monotonic)."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        super().__init__()
        self._socket = connection
        self._readers = 0
        self.deadline = deadline

    def _limit(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time for the request is over")
        self._socket.settimeout(left)

    def sendall(self, data: bytes) -> None:
        self._limit()
        self._socket.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        # A reader of its own for each response: the connection outlives it, or is closed first and read to its end.
        self._readers += 1
        return io.BufferedReader(_Reader(self))

    def receive_into(self, buffer: memoryview) -> int:
        self._limit()
        return self._socket.recv_into(buffer)

    def reader_closed(self) -> None:
        self._readers -= 1
        if self.closed and not self._readers:
            self._socket.close()

    def close(self) -> None:
        super().close()
        if not self._readers:
            self._socket.close()


class _Reader(io.RawIOBase):
    def __init__(self, connection: _BoundedSocket) -> None:
        super().__init__()
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._connection.receive_into(memoryview(buffer))

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._connection.reader_closed()


class Transport:
    """Connections to one endpoint, kept for the next request. Safe for several threads.

    `proxy`: the URL of an HTTP proxy, empty for none. `ca_bundle`: a file of certificates instead of the system's.
    """

    def __init__(self, url: str, *, proxy: str = "", ca_bundle: str | None = None) -> None:
        self._url = urlsplit(url)
        self._proxy = urlsplit(proxy) if proxy else None
        self._tls = ssl.create_default_context(cafile=ca_bundle) if self._url.scheme == "https" else None
        self._lock = threading.Lock()
        self._idle: list[tuple[float, http.client.HTTPConnection]] = []

    def send(self, target: str, headers: Mapping[str, str], body: bytes, deadline: float) -> Answered:
        """POST `body`. OSError (TimeoutError, ssl.SSLError) and HTTPException for what goes wrong on the way."""
        for connection in self._kept():
            try:
                return self._exchange(connection, target, headers, body, deadline)
            except TimeoutError:
                raise
            except (ConnectionError, http.client.BadStatusLine):
                continue  # closed by the other side while nobody used it
        return self._exchange(self._connect(deadline), target, headers, body, deadline)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
        deadline: float,
    ) -> Answered:
        bounded: Any = connection.sock
        bounded.deadline = deadline
        response: http.client.HTTPResponse | None = None
        try:
            connection.request("POST", target, body, dict(headers))
            response = connection.getresponse()
            content = response.read(MAX_ANSWER + 1)
            if len(content) > MAX_ANSWER:
                raise TooLarge("the answer is longer than any of a KMS")
        except BaseException:
            if response is not None:
                response.close()
            connection.close()
            raise
        self._keep(connection, response)
        return Answered(response.status, response.getheaders(), content)

    def _connect(self, deadline: float) -> http.client.HTTPConnection:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time for the request is over")
        connection = self._new_connection(min(CONNECT_SECONDS, left))
        try:
            connection.connect()
            connected: Any = _BoundedSocket(connection.sock, deadline)
            connection.sock = connected
        except BaseException:
            connection.close()
            raise
        connection.auto_open = 0  # a connection that was closed must not be opened again without a deadline
        return connection

    def _new_connection(self, timeout: float) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=timeout)
        if self._proxy is None:
            return http.client.HTTPSConnection(host, port, timeout=timeout, context=self._tls)
        through = http.client.HTTPSConnection(
            self._proxy.hostname or "", self._proxy.port or 8080, timeout=timeout, context=self._tls
        )
        through.set_tunnel(host, port or 443, _proxy_headers(self._proxy))
        return through

    def _kept(self) -> Iterator[http.client.HTTPConnection]:
        while True:
            with self._lock:
                if not self._idle:
                    return
                since, connection = self._idle.pop()
            if time.monotonic() - since < _IDLE_SECONDS:
                yield connection
            else:
                connection.close()

    def _keep(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        with self._lock:
            if not response.will_close and connection.sock is not None and len(self._idle) < _MAX_IDLE:
                self._idle.append((time.monotonic(), connection))
                return
        connection.close()


def _proxy_headers(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode("ascii")}
