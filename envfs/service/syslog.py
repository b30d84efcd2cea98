"""Sending messages to a syslog server: RFC 5424, over /dev/log, UDP (RFC 5426) or TCP (RFC 6587 section 3.4.1)."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Final

from envfs.errors import ConfigError

if TYPE_CHECKING:
    from typing import Self

LOCAL: Final = "/dev/log"
DEFAULT_PORT: Final = 514
_AUTHPRIV: Final = 10  # facility: messages on security that not everybody should read
NOTICE: Final = 5
WARNING: Final = 4
_TIMEOUT: Final = 10.0  # seconds


class Syslog:
    """A connection to `address`: `local`, `udp:HOST[:PORT]` or `tcp:HOST[:PORT]`. ConfigError for another, OSError if
    nobody is there (UDP does not notice).
    """

    def __init__(self, address: str, application: str) -> None:
        self._header = f"{socket.gethostname()} {application} {os.getpid()}"
        self._is_stream = False
        kind, _, rest = address.partition(":")
        if address == "local":
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._connect(LOCAL)
            return
        host, port = _host_and_port(rest)
        if kind not in {"udp", "tcp"} or not host:
            raise ConfigError(f"no address of a syslog server: {address!r}", hint="local, udp:HOST:514 or tcp:HOST:514")
        self._is_stream = kind == "tcp"
        if self._is_stream:
            self._socket = socket.create_connection((host, port), timeout=_TIMEOUT)
        else:
            family, *_, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._connect(target)

    def _connect(self, target: object) -> None:
        self._socket.settimeout(_TIMEOUT)
        try:
            self._socket.connect(target)  # type: ignore[arg-type]  # a path or an address, as the family has it
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, time: str, message_id: str, text: str, severity: int) -> bool:
        """One message. `time` as RFC 3339 has it. False if it is too long for a datagram: then nothing was sent."""
        priority = _AUTHPRIV * 8 + severity
        line = f"<{priority}>1 {time or '-'} {self._header} {message_id or '-'} - {text}".encode(
            "ascii", "backslashreplace"
        )
        if self._is_stream:
            self._socket.sendall(b"%d %b" % (len(line), line))
            return True
        try:
            self._socket.send(line)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            return False
        return True


def _host_and_port(text: str) -> tuple[str, int]:
    """`HOST`, `HOST:PORT` or `[IPV6]:PORT`."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    if port and not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise ConfigError(f"{port!r} is no port", hint="a number below 65536")
    return host, int(port) if port else DEFAULT_PORT
