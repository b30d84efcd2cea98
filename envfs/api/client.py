"""The client of the KMS's Unix socket, for the command line: blocking, one connection."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any, Final

from envfs.access.peer import Peer, peer_of
from envfs.api.errors import error_from
from envfs.errors import ConfigError, Internal

if TYPE_CHECKING:
    from typing import Self

CONTENT_TYPE: Final = "application/x-amz-json-1.1"
HINTS_HEADER: Final = "X-Envfs-Hints"  # asks the server to send the next step with an error
USER_AGENT: Final = "envfs"
TIMEOUT: Final = 120.0  # seconds; the slowest operations read whole audit trails


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket that is connected already. Connects once: a server that closes it has gone."""

    def __init__(self, connected: socket.socket) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self.sock = connected

    def connect(self) -> None:
        raise ConnectionError("the KMS has closed the connection")


class SocketClient:
    """A connection to the KMS that listens at `path`. A context manager that closes it.

    OSError if nobody listens there; ConfigError if the listening process is of a user who is not in `trusted` (None:
    anybody): requests hold secrets, which a stranger who was quicker to make the socket would get.
    """

    def __init__(self, path: str | os.PathLike[str], trusted: Container[int] | None = None) -> None:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.settimeout(TIMEOUT)
            connected.connect(os.fspath(path))
            self.server: Peer = peer_of(connected)
            if trusted is not None and self.server.uid not in trusted:
                raise ConfigError(
                    f"{os.fspath(path)}: uid {self.server.uid} listens there, who does not own the KMS",
                    hint="do not trust this socket; ask the owner of the KMS where his listens",
                )
        except BaseException:
            connected.close()
            raise
        self._http = _UnixConnection(connected)

    def call(self, target: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer of `target` (`TrentService.Decrypt`); raises the EnvfsError that the KMS answers with."""
        headers = {
            "Content-Type": CONTENT_TYPE,
            "X-Amz-Target": target,
            "User-Agent": USER_AGENT,
            HINTS_HEADER: "1",
        }
        try:
            self._http.request("POST", "/", json.dumps(request).encode("ascii"), headers)
            response = self._http.getresponse()
            status, raw = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Internal(
                f"the KMS behind the socket did not answer: {error}", hint="look whether its server runs, and try again"
            ) from error
        answer = _parse(raw)
        if status != http.client.OK:
            raise error_from(answer)
        return answer

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _parse(raw: bytes) -> dict[str, Any]:
    if not raw:
        return {}  # an operation that has nothing to answer
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise Internal("the KMS behind the socket answered with something that is no JSON object")
    return answer
