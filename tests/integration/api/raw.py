"""HTTP as bytes, so that a test can send what no client would."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error's code."""
        return str(self.json["__type"])


class Connection:
    """A connection to the Unix socket at `place`, or to a TCP port of this host."""

    def __init__(self, place: Path | int) -> None:
        if isinstance(place, int):
            self.socket = socket.create_connection(("127.0.0.1", place), timeout=TIMEOUT)
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(TIMEOUT)
            self.socket.connect(os.fspath(place))
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, raw: bytes) -> None:
        self.socket.sendall(raw)

    def receive(self) -> Response | None:
        """The next response; None if the connection was closed instead."""
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        length = int(headers.get("content-length", "0"))
        while len(self._rest) < length:
            part = self.socket.recv(1 << 16)
            assert part, "the response is cut off"
            self._rest += part
        body, self._rest = self._rest[:length], self._rest[length:]
        return Response(int(first.split()[1]), headers, body)

    def call(self, target: str, content: object, **headers: str) -> Response:
        self.send(request(target, json.dumps(content).encode(), **headers))
        response = self.receive()
        assert response is not None
        return response

    def is_closed(self) -> bool:
        """Waits until the server has closed it."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def _until(self, mark: bytes) -> bytes | None:
        while mark not in self._rest:
            try:
                part = self.socket.recv(1 << 16)
            except ConnectionError:
                part = b""
            if not part:
                assert not self._rest, f"the response is cut off: {self._rest!r}"
                return None
            self._rest += part
        found, _, self._rest = self._rest.partition(mark)
        return found


def request(target: str, body: bytes, **headers: str) -> bytes:
    """One well-formed request, but for what is asked otherwise."""
    fields = {
        "Host": "localhost",
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": target,
        "Content-Length": str(len(body)),
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return f"POST / HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body
