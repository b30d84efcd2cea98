"""Who calls: the user at the other end of a Unix socket, or the one whose access key signed the request."""

from __future__ import annotations

import hmac
import logging
import os
import pwd
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from envfs.access.peer import Peer
from envfs.api import sigv4
from envfs.api.http import HttpRequest
from envfs.api.replays import SeenSignatures
from envfs.crypto.secret import Secret
from envfs.errors import AccessDenied

if TYPE_CHECKING:
    from envfs.access.resolver import Resolver
    from envfs.api.used_dates import UsedDates
    from envfs.kms.engine import Engine
    from envfs.kms.model import Principal

_NO_PROCESS: Final = 0  # no process of this host is known to have sent the request
_log: Final = logging.getLogger(__name__)


class Caller(Protocol):
    """The other end of a connection."""

    @property
    def source_ip(self) -> str | None:
        """aws:SourceIp of its requests."""

    def identify(self, request: HttpRequest, service: str) -> Principal:
        """Whose request it is. `service` is what it is for: `kms` or `sts`. EnvfsError if it is nobody's."""


class UnixCaller:
    """The process that the kernel names. An Authorization header means nothing here."""

    source_ip: str | None = None

    def __init__(self, peer: Peer, resolver: Resolver) -> None:
        self._peer = peer
        self._resolver = resolver

    def identify(self, request: HttpRequest, service: str) -> Principal:  # noqa: ARG002
        peer = self._peer
        return self._resolver.resolve(peer.uid, peer.gid, peer.pid)


class Signatures:
    """Checks the signatures of all connections of one server. `started`: when it began to listen; `used`: what servers
    before it may have seen that is dated later.
    """

    def __init__(
        self,
        engine: Engine,
        resolver: Resolver,
        started: float,
        used: UsedDates,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._resolver = resolver
        self._clock = clock
        self._seen = SeenSignatures(started)
        self._used = used
        # Requests with an unknown access key are checked against this one, so that they take as long.
        self._nobodys_secret = Secret(os.urandom(20).hex().encode("ascii"))

    def identify(self, request: HttpRequest, service: str) -> Principal:
        """The user whose access key signed `request`. The errors of `sigv4`, or AccessDenied for a user who is not who
        he was.
        """
        now = self._clock()
        authorization = sigv4.read_authorization(request.headers)
        sigv4.check_scope(authorization, request.headers, region=self._engine.account.region, service=service)
        sigv4.check_date(authorization, now)
        found = self._engine.signing_secret(authorization.access_key_id)
        uid, user, secret = (-1, "", self._nobodys_secret) if found is None else found
        expected = sigv4.expected_signature(secret.expose(), request, authorization)
        is_right = hmac.compare_digest(expected, authorization.signature)
        if found is None:
            _log.info("a request with an unknown access key was refused")
            raise sigv4.unrecognized_client()
        secret.wipe()
        if not is_right:
            _log.info("a request with a wrong signature of the access key %s was refused", authorization.access_key_id)
            raise sigv4.mismatch()
        self._check_replay(authorization, now)
        return self._resolve(uid, user)

    def _check_replay(self, authorization: sigv4.Authorization, now: float) -> None:
        access_key_id, date = authorization.access_key_id, authorization.date
        self._used.check(access_key_id, date)
        self._seen.check(access_key_id, authorization.signature, date, now)
        self._used.use(access_key_id, date, now)

    def _resolve(self, uid: int, user: str) -> Principal:
        try:
            gid = pwd.getpwuid(uid).pw_gid
        except KeyError:
            raise AccessDenied(f"the user {user!r} of the access key is there no more") from None
        principal = self._resolver.resolve(uid, gid, _NO_PROCESS)
        if principal.name != user:
            raise AccessDenied(f"the access key belongs to {user!r}, and its uid to {principal.name!r}")
        return principal


class SignedCaller:
    """Somebody on the network, whose every request is signed. `on_identified` is called when one is his."""

    def __init__(self, signatures: Signatures, source_ip: str, on_identified: Callable[[], object]) -> None:
        self._signatures = signatures
        self._on_identified = on_identified
        self.source_ip: str | None = source_ip

    def identify(self, request: HttpRequest, service: str) -> Principal:
        principal = self._signatures.identify(request, service)
        self._on_identified()
        return principal
