"""Signed requests on TCP: replays, and the moment when a server begins."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

from envfs.api.callers import Signatures
from envfs.api.errors import SignatureMismatch, UnrecognizedClient
from envfs.api.http import HttpRequest
from envfs.api.used_dates import UsedDates
from envfs.service.kms_server import Address, parse_address
from tests.integration.api.raw import Connection, request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from envfs.kms.engine import Engine
    from tests.integration.api.kms_server import KmsServer


def signed(server: KmsServer, body: bytes, service: str = "kms") -> bytes:
    """A request to list keys as the SDK signs it."""
    target = "TrentService.ListKeys"
    url = f"{server.url}/"
    asked = AWSRequest("POST", url, data=body, headers={"X-Amz-Target": target})
    credentials = BotoCredentials(server.owner.access_key_id, server.owner.secret)
    SigV4Auth(credentials, service, "local").add_auth(asked)
    headers = {name: str(asked.headers[name]) for name in ("X-Amz-Date", "Authorization")}
    return request(target, body, Host=server.url.removeprefix("http://"), **headers)


def send(server: KmsServer, raw: bytes) -> tuple[int, str]:
    with Connection(int(server.url.rpartition(":")[2])) as connection:
        connection.send(raw)
        response = connection.receive()
        assert response is not None
        return response.status, "" if response.status == 200 else response.code


def test_an_equal_request_in_the_same_moment_is_answered(server: KmsServer) -> None:
    raw = signed(server, b'{"Limit": 7}')
    assert [send(server, raw) for _ in range(2)] == [(200, ""), (200, "")]


def test_a_request_for_another_service_or_with_another_body_is_refused(server: KmsServer) -> None:
    refused = (400, "InvalidSignatureException")
    assert send(server, signed(server, b"{}", service="sts")) == refused
    assert send(server, signed(server, b'{"Limit": 1}').replace(b'"Limit": 1', b'"Limit": 2')) == refused


class _Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    from envfs.kms.bootstrap import init_kms
    from envfs.kms.engine import Engine
    from envfs.kms.rootkey import KEY_FILE_NAME, KeyFileUnlock

    home = tmp_path / "kms"
    init_kms(home)
    with Engine.open(home, KeyFileUnlock(home / KEY_FILE_NAME)) as engine:
        yield engine


def _request(access_key_id: str, secret: str) -> HttpRequest:
    asked = AWSRequest("POST", "http://127.0.0.1:1/", data=b"{}", headers={"X-Amz-Target": "TrentService.ListKeys"})
    SigV4Auth(BotoCredentials(access_key_id, secret), "kms", "local").add_auth(asked)
    headers = {name.lower().encode(): str(value).encode() for name, value in asked.headers.items()}
    return HttpRequest(b"POST", b"/", {b"host": b"127.0.0.1:1", **headers}, b"{}")


def test_a_replay_is_refused_for_as_long_as_its_date_would_do(engine: Engine, tmp_path: Path) -> None:
    import os
    import pwd

    from envfs.access.resolver import Resolver

    resolver = Resolver(engine)
    me = resolver.resolve(os.getuid(), os.getgid(), os.getpid())
    made = engine.create_access_key(me, pwd.getpwuid(os.getuid()).pw_name)
    credentials = (made.key.access_key_id, made.secret.expose().decode())
    clock = _Clock(time.time())
    signatures = Signatures(engine, resolver, clock.now - 10, UsedDates(tmp_path / "used"), clock)
    asked = _request(*credentials)
    assert signatures.identify(asked, "kms").arn == me.arn
    clock.now += 1.9
    signatures.identify(asked, "kms")
    for later in (3, 200, 100):
        clock.now += later
        with pytest.raises(SignatureMismatch):
            signatures.identify(asked, "kms")
    # Another server, which began after the request was signed.
    clock.now = time.time() + 30
    with pytest.raises(SignatureMismatch, match="older than this server"):
        Signatures(engine, resolver, clock.now - 5, UsedDates(tmp_path / "used"), clock).identify(asked, "kms")
    with pytest.raises(UnrecognizedClient):
        signatures.identify(_request("AKIA" + "X" * 16, credentials[1]), "kms")
    engine.delete_access_key(me, credentials[0])
    with pytest.raises(UnrecognizedClient):
        signatures.identify(_request(*credentials), "kms")


def test_only_loopback_addresses_are_listened_at_unless_one_insists() -> None:
    from envfs.errors import ConfigError

    assert parse_address("localhost:0", anywhere=False) == Address("127.0.0.1", 0)
    assert str(parse_address("[::1]:8080", anywhere=False)) == "[::1]:8080"
    with pytest.raises(ConfigError, match="not encrypted"):
        parse_address("0.0.0.0:8080", anywhere=False)
    assert parse_address("0.0.0.0:8080", anywhere=True).port == 8080
    for text in ("8080", "localhost", "host.example:80", "127.0.0.1:http", "127.0.0.1:70000", ":80"):
        with pytest.raises(ConfigError):
            parse_address(text, anywhere=True)


def test_what_is_no_json_is_refused_after_the_signature(server: KmsServer) -> None:
    assert send(server, signed(server, json.dumps([1]).encode())) == (400, "SerializationException")


def test_a_request_of_a_client_whose_clock_is_fast_cannot_be_sent_again_to_the_next_server(
    engine: Engine, tmp_path: Path
) -> None:
    """It is dated after the next server's beginning, so its date alone does not tell."""
    import os
    import pwd

    from envfs.access.resolver import Resolver

    resolver = Resolver(engine)
    me = resolver.resolve(os.getuid(), os.getgid(), os.getpid())
    made = engine.create_access_key(me, pwd.getpwuid(os.getuid()).pw_name)
    clock = _Clock(time.time() - 120)
    fast = _request(made.key.access_key_id, made.secret.expose().decode())

    def server() -> Signatures:
        return Signatures(engine, resolver, clock.now, UsedDates(tmp_path / "used"), clock)

    assert server().identify(fast, "kms").arn == me.arn
    for later in (1, 60, 70):
        clock.now += later
        with pytest.raises(SignatureMismatch, match="predecessor"):
            server().identify(fast, "kms")
