"""Serving a KMS: its Unix socket (also in each mount), TCP if asked, and its maintenance."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import math
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from envfs.access.resolver import Resolver
from envfs.api import used_dates
from envfs.api.callers import Signatures
from envfs.api.respond import Responder
from envfs.api.server import Server
from envfs.api.used_dates import UsedDates
from envfs.errors import ConfigError, EnvfsError
from envfs.kms.engine import Engine
from envfs.service import hardening, kms_socket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from envfs.kms.rootkey import Unlock

    Report = Callable[[dict[str, Any]], None]

MAINTENANCE_INTERVAL = 60.0  # seconds
_BACKLOG = 128
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address to listen at; port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """What `envfs kms serve` was asked for. `socket` None: the path where clients look."""

    home: Path
    socket: Path | None = None
    tcp: Address | None = None


def parse_address(text: str, *, anywhere: bool) -> Address:
    """`HOST:PORT`, an IP address (`[::1]:8080`) or `localhost`. ConfigError for another form, or for an address that
    other hosts can reach unless `anywhere`.
    """
    host, _, port = text.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ConfigError(f"{text!r} is no address", hint="write 127.0.0.1:8080 or [::1]:8080") from None
    if not (port.isascii() and port.isdecimal() and int(port) < 1 << 16):
        raise ConfigError(f"{text!r} has no port", hint="write 127.0.0.1:8080; port 0 takes a free one")
    if not address.is_loopback and not anywhere:
        raise ConfigError(
            f"{host} can be reached by other hosts, and what is sent there is not encrypted: there is no TLS",
            hint="listen at 127.0.0.1 and put a TLS proxy or an SSH tunnel before it, or insist: --tcp-without-tls",
        )
    return Address(host, int(port))


def serve(request: ServeRequest, unlock: Unlock, report: Report) -> None:
    """Serves until a signal ends it. `report` hears where, when clients can connect."""
    protection = hardening.protect_process()
    _log.info("serving the KMS in %s (%s)", request.home, protection)
    with Engine.open(request.home, unlock) as engine:
        unlock.wipe()
        trio.run(_serve, request, engine, report)
    _log.info("ended")


async def _serve(request: ServeRequest, engine: Engine, report: Report) -> None:
    resolver = Resolver(engine)
    path = request.socket or kms_socket.socket_path(request.home)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(open_server(engine))
        unix = stack.enter_context(listening(path, everybody=True))
        places: dict[str, Any] = {"kms_home": os.fspath(request.home), "socket": os.fspath(path), "pid": os.getpid()}
        tcp = signatures = None
        if request.tcp is not None:
            tcp = stack.enter_context(_listening_tcp(request.tcp))
            places["tcp"] = str(Address(*tcp.getsockname()[:2]))
            used = UsedDates(request.home / used_dates.FILE_NAME)
            signatures = Signatures(engine, resolver, await _next_second(), used)
        # Before anybody is told that it runs, and may end it at once.
        signals = stack.enter_context(trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        report(places)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_on_signal, signals, nursery.cancel_scope)
            nursery.start_soon(maintain, engine)
            nursery.start_soon(server.serve_unix, unix, resolver)
            if tcp is not None and signatures is not None:
                nursery.start_soon(server.serve_tcp, tcp, signatures)


@contextlib.contextmanager
def open_server(engine: Engine) -> Iterator[Server]:
    """A server of `engine`. What runs in its worker thread is waited for at the end."""
    responder = Responder(engine)
    try:
        yield Server(responder, privileged={0, os.geteuid()})
    finally:
        responder.close()


@contextlib.contextmanager
def listening(path: Path, *, everybody: bool) -> Iterator[socket.socket]:
    """The Unix socket at `path`, which is removed at the end. ConfigError, OSError."""
    listener = kms_socket.listen(path, everybody=everybody)
    identity = kms_socket.identity_of(path)
    try:
        with listener:
            yield listener
    finally:
        if identity is not None:
            kms_socket.remove(path, identity)


async def maintain(engine: Engine) -> None:
    """What is due in the KMS, now and each minute: deletions, rotations, expiries."""
    while True:
        try:
            engine.maintain()
        except (EnvfsError, OSError) as error:
            _log.warning("the maintenance of the KMS failed, and is tried again: %s", error)
        except Exception:  # noqa: BLE001  (a defect there must not take the mount down)
            _log.exception("the maintenance of the KMS failed")
        await trio.sleep(MAINTENANCE_INTERVAL)


@contextlib.contextmanager
def _listening_tcp(address: Address) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    if not ipaddress.ip_address(address.host).is_loopback:
        _log.warning("%s can be reached by other hosts, without TLS: who listens in reads keys and plaintexts", address)
    with socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG) as listener:
        yield listener


async def _next_second() -> float:
    """Waits for it and returns it. Signatures are dated in whole seconds: one of the present second might have been
    used with a server that ended in it.
    """
    second = float(math.floor(time.time()) + 1)
    await trio.sleep(second - time.time() + 0.01)  # a little more, so that no clock lags behind
    return second


async def _end_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for number in signals:
        _log.info("%s: ending", signal.Signals(number).name)
        scope.cancel()
