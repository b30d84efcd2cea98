"""HTTP on the sockets of a real server, byte by byte."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from botocore.config import Config

from envfs.api.http import MAX_BODY, MAX_HEAD
from envfs.api.server import IDLE_TIMEOUT, MAX_CONNECTIONS, MAX_OF_ONE_USER
from tests.integration.api.raw import Connection, request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.api.kms_server import KmsServer

WHO = "EnvfsKms.WhoAmI"


@pytest.fixture
def unix(server: KmsServer) -> Iterator[Connection]:
    with Connection(server.socket) as connection:
        yield connection


def port(server: KmsServer) -> int:
    return int(server.url.rpartition(":")[2])


def test_one_connection_takes_many_requests(unix: Connection) -> None:
    answers = [unix.call(WHO, {}) for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3
    assert len({answer.headers["x-amzn-requestid"] for answer in answers}) == 3
    assert answers[0].json["UserId"] == str(os.getuid())


def test_requests_may_come_before_their_predecessors_are_answered(unix: Connection) -> None:
    unix.send(request(WHO, b"{}") * 3)
    assert [response.status for _ in range(3) if (response := unix.receive())] == [200] * 3


def test_requests_may_come_in_chunks(unix: Connection) -> None:
    unix.send(request(WHO, b"", Content_Length="", Transfer_Encoding="chunked") + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n")
    response = unix.receive()
    assert response is not None
    assert response.status == 200


def test_a_body_that_waits_for_leave_gets_it(unix: Connection) -> None:
    unix.send(request(WHO, b"", Content_Length="2", Expect="100-continue"))
    leave = unix.receive()
    assert leave is not None
    assert leave.status == 100
    unix.send(b"{}")
    response = unix.receive()
    assert response is not None
    assert response.status == 200


def test_a_large_body_is_refused_before_it_is_sent(unix: Connection) -> None:
    unix.send(request(WHO, b"", Content_Length=str(MAX_BODY + 1), Expect="100-continue"))
    response = unix.receive()
    assert response is not None
    assert (response.status, response.code) == (413, "RequestEntityTooLargeException")
    assert unix.is_closed()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_is_refused(unix: Connection, chunked: bool) -> None:
    body = b" " * (4 * MAX_BODY)
    if chunked:
        head = request(WHO, b"", Content_Length="", Transfer_Encoding="chunked")
        unix.send(head + f"{len(body):x}\r\n".encode() + body)
    else:
        unix.send(request(WHO, body))
    response = unix.receive()
    assert response is not None
    assert (response.status, response.code) == (413, "RequestEntityTooLargeException")


def test_large_headers_are_refused(unix: Connection) -> None:
    unix.send(request(WHO, b"{}", X_Long="x" * (4 * MAX_HEAD)))
    response = unix.receive()
    assert response is not None
    assert response.code == "RequestEntityTooLargeException"


@pytest.mark.parametrize(
    ("raw", "code", "status"),
    [
        (b"nonsense\r\n\r\n", "MalformedHttpRequestException", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "MalformedHttpRequestException", 400),
        (b"POST / HTTP/1.1\r\n\r\n", "MalformedHttpRequestException", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "UnknownOperationException", 404),
        (request(WHO, b"{}").replace(b"POST /", b"POST /other"), "UnknownOperationException", 404),
        (request(WHO, b"{}").replace(b"POST /", b"POST /?Action=x"), "UnknownOperationException", 404),
        (request("", b"{}"), "UnknownOperationException", 400),
        (request("TrentService.Nothing", b"{}"), "UnknownOperationException", 400),
        (request("trentservice.ListKeys", b"{}"), "UnknownOperationException", 400),
        (request(WHO, b"{"), "SerializationException", 400),
        (request(WHO, b"[]"), "SerializationException", 400),
        (request(WHO, b"\xff\xfe"), "SerializationException", 400),
        (request(WHO, b'{"a":NaN}'), "SerializationException", 400),
        (request(WHO, b"[" * 60_000), "SerializationException", 400),
        (request("TrentService.ListKeys", b'{"Limit":' + b"9" * 5000 + b"}"), "SerializationException", 400),
    ],
)
def test_what_is_no_request_gets_a_well_formed_error(unix: Connection, raw: bytes, code: str, status: int) -> None:
    unix.send(raw)
    response = unix.receive()
    assert response is not None
    assert (response.code, response.status) == (code, status)
    assert response.headers["content-type"] == "application/x-amz-json-1.1"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_request_whose_end_can_be_argued_about_gets_one_answer(server: KmsServer, version: str) -> None:
    """A proxy that goes by Content-Length sends this as one request of one client. Were it answered twice, the second
    answer would go to the next client, and that one's answer to somebody else.
    """
    hidden = request(WHO, b"{}")
    body = b"0\r\n\r\n" + hidden
    length = str(len(body)) if version == "1.1" else ""
    raw = request(WHO, b"", Content_Length=length, Transfer_Encoding="chunked") + body
    with Connection(port(server)) as connection:
        connection.send(raw.replace(b"HTTP/1.1", f"HTTP/{version}".encode(), 1))
        response = connection.receive()
        assert response is not None
        assert response.code == "MalformedHttpRequestException"
        assert connection.receive() is None


def test_an_empty_body_is_an_empty_request(unix: Connection) -> None:
    unix.send(request(WHO, b""))
    response = unix.receive()
    assert response is not None
    assert response.status == 200


def test_a_header_of_authorization_means_nothing_on_the_unix_socket(unix: Connection) -> None:
    answer = unix.call(WHO, {}, Authorization="AWS4-HMAC-SHA256 nonsense")
    assert answer.json["UserId"] == str(os.getuid())


def test_a_request_that_is_not_signed_is_refused_on_tcp(server: KmsServer) -> None:
    with Connection(port(server)) as connection:
        answer = connection.call(WHO, {})
        assert (answer.status, answer.code) == (400, "MissingAuthenticationTokenException")
        form = request(
            "", b"Action=GetCallerIdentity&Version=2011-06-15", Content_Type="application/x-www-form-urlencoded"
        )
        connection.send(form)
        response = connection.receive()
        assert response is not None
        assert response.status == 403
        assert b"<Code>MissingAuthenticationToken</Code>" in response.body


def test_sts_answers_on_the_unix_socket(unix: Connection) -> None:
    kind = "application/x-www-form-urlencoded"
    for body, status in ((b"Action=GetCallerIdentity", 200), (b"Action=AssumeRole", 400), (b"nonsense", 400)):
        unix.send(request("", body, Content_Type=kind))
        response = unix.receive()
        assert response is not None
        assert (response.status, response.headers["content-type"]) == (status, "text/xml")


def test_the_request_id_is_that_of_the_audit_record(unix: Connection, server: KmsServer) -> None:
    answer = unix.call("TrentService.DescribeKey", {"KeyId": "alias/none"}, User_Agent="tests/1")
    found = unix.call("EnvfsKms.QueryAudit", {"EventName": "DescribeKey", "NewestFirst": True, "Limit": 1})
    (record,) = found.json["Records"]
    assert record["requestID"] == answer.headers["x-amzn-requestid"]
    assert (record["errorCode"], record["userAgent"]) == ("NotFoundException", "tests/1")


def test_an_operation_without_an_answer_has_an_empty_body(unix: Connection) -> None:
    key = unix.call("TrentService.CreateKey", {}).json["KeyMetadata"]["KeyId"]
    assert unix.call("TrentService.DisableKey", {"KeyId": key}).body == b""


def test_a_slow_operation_does_not_keep_others_waiting(server: KmsServer) -> None:
    """While RSA_4096 keys are made in turn, requests of others are answered: all of them before the last key is."""
    slow = [Connection(server.socket) for _ in range(3)]
    body = json.dumps({"KeySpec": "RSA_4096", "KeyUsage": "SIGN_VERIFY"}).encode()
    for connection in slow:
        connection.send(request("TrentService.CreateKey", body))
    with Connection(server.socket) as quick:
        assert [quick.call(WHO, {}).status for _ in range(20)] == [200] * 20
    slow[-1].socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        slow[-1].socket.recv(1)
    slow[-1].socket.settimeout(60)
    for connection in slow:
        response = connection.receive()
        assert response is not None
        assert response.status == 200
        connection.socket.close()


def test_hints_are_for_the_client_that_asks_for_them(unix: Connection) -> None:
    request_ = {"KeyId": "alias/none"}
    assert "hint" not in unix.call("TrentService.DescribeKey", request_).json
    assert "hint" in unix.call("TrentService.DescribeKey", request_, X_Envfs_Hints="1").json


@pytest.mark.users
def test_one_user_cannot_take_all_connections(
    server: KmsServer, unix_users: object, run_as: object, unix: Connection
) -> None:
    (alice,) = unix_users("alice")  # type: ignore[operator]
    assert run_as(alice, lambda: _statuses(server.socket, MAX_OF_ONE_USER + 2)) == [  # type: ignore[operator]
        *([200] * MAX_OF_ONE_USER),
        *([400] * 2),
    ]
    assert unix.call(WHO, {}).status == 200


def test_strangers_do_not_keep_who_signs_from_tcp(server: KmsServer) -> None:
    strangers = [Connection(port(server)) for _ in range(MAX_CONNECTIONS)]
    try:
        client = server.client(config=Config(retries={"max_attempts": 0}, read_timeout=IDLE_TIMEOUT / 2))
        client.generate_random(NumberOfBytes=1)
        assert strangers[0].is_closed()
        # Whoever has signed stays, and others go.
        strangers += [Connection(port(server)) for _ in range(MAX_CONNECTIONS)]
        client.generate_random(NumberOfBytes=2)
        assert sum(stranger.is_closed() for stranger in strangers[:MAX_CONNECTIONS]) == MAX_CONNECTIONS
    finally:
        for stranger in strangers:
            stranger.socket.close()


def _statuses(path: Path, count: int) -> list[int]:
    """What as many connections at once get, in order."""
    connections = [Connection(path) for _ in range(count)]
    try:
        return [_status(connection) for connection in connections]
    finally:
        for connection in connections:
            connection.socket.close()


def _status(connection: Connection) -> int:
    try:
        connection.send(request(WHO, b"{}"))
    except ConnectionError:
        pass  # refused already
    response = connection.receive()
    assert response is not None
    return response.status
