"""Mutated requests to a real server: always a well-formed answer or a clean close; no traceback, no hang, no growth."""

from __future__ import annotations

import base64
import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from envfs.api.dispatch import TARGETS
from envfs.api.validation import Blob, Boolean, Integer, Kind, ListOf, StringMap, Structure, Text, Timestamp
from tests.integration.api.kms_server import KmsServer, public_directory, running_server
from tests.integration.api.raw import Connection, request

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 400
STRANGE: list[Any] = [
    None, True, False, 0, -1, 1 << 70, 1e308, 0.1, "", "x", "é\u0000\u202e", "\ud800", "A" * 9000, [], {}, [[]],
    [None], {"": ""}, {"a": {"b": []}}, "arn:envfs:kms:local:000000000000:key/", "alias/",
    "00000000-0000-0000-0000-000000000000",
    "===", base64.b64encode(bytes(7000)).decode(), "AQ==",
]  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[KmsServer]:
    with public_directory() as directory, running_server(directory) as server:
        yield server


def well_formed(kind: Kind, rng: random.Random) -> Any:
    """Some value that `kind` takes, or nearly."""
    match kind:
        case Text():
            return rng.choice(kind.enum) if kind.enum else rng.choice(["alias/none", "x" * max(1, kind.minimum)])
        case Blob():
            return base64.b64encode(rng.randbytes(rng.choice([1, 16, 256]))).decode()
        case Integer():
            return rng.randint(kind.minimum, kind.maximum)
        case Boolean():
            return rng.random() < 0.5
        case Timestamp():
            return rng.random() * 2e9
        case ListOf():
            return [well_formed(kind.member, rng) for _ in range(rng.randint(0, 3))]
        case StringMap():
            return {f"k{number}": "v" for number in range(rng.randint(0, 3))}
        case Structure():
            names = [name for name in kind.members if name in kind.required or rng.random() < 0.3]
            return {name: well_formed(kind.members[name], rng) for name in names}
    raise AssertionError(kind)


def mutated(content: Any, rng: random.Random) -> Any:
    """`content` with something in it replaced."""
    if isinstance(content, dict) and content and rng.random() < 0.8:
        name = rng.choice(list(content))
        return {**content, name: mutated(content[name], rng)}
    if isinstance(content, list) and content and rng.random() < 0.5:
        return [mutated(content[0], rng), *content[1:]]
    return rng.choice(STRANGE)


def check_answered(server: KmsServer, raw: bytes) -> None:
    """Sends it, says that nothing follows, and reads until the server closes the connection."""
    with Connection(server.socket) as connection:
        try:
            connection.send(raw)
            connection.socket.shutdown(1)
        except ConnectionError:
            pass  # refused and closed before all was sent
        while (response := connection.receive()) is not None:
            if response.status >= 400 and response.headers["content-type"] == "application/x-amz-json-1.1":
                assert response.code
                assert response.code != "InternalFailure", raw[:500]


def test_mutated_members(server: KmsServer) -> None:
    rng = random.Random(1)
    # Making RSA keys takes long and has tests of its own.
    targets = [target for target in sorted(TARGETS) if not target.endswith("GetParametersForImport")]
    for _ in range(ROUNDS):
        target = rng.choice(targets)
        content = mutated(well_formed(TARGETS[target].input, rng), rng)
        if "RSA" not in str(content):
            check_answered(server, request(target, json.dumps(content).encode()))


def test_mutated_json(server: KmsServer) -> None:
    rng = random.Random(2)
    raw = json.dumps(
        {"KeyId": "alias/none", "Plaintext": "AQ==", "EncryptionContext": {"a": "b"}, "DryRun": True}
    ).encode()
    for _ in range(ROUNDS):
        body = bytearray(raw)
        for _ in range(rng.randint(1, 4)):
            position = rng.randrange(len(body))
            body[position : position + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
        check_answered(server, request("TrentService.Encrypt", bytes(body)))


def test_mutated_http(server: KmsServer) -> None:
    rng = random.Random(3)
    raw = request("EnvfsKms.WhoAmI", b"{}", User_Agent="fuzz", Connection="keep-alive")
    for _ in range(ROUNDS):
        message = bytearray(raw)
        for _ in range(rng.randint(1, 6)):
            position = rng.randrange(len(message))
            message[position : position + rng.randint(0, 8)] = rng.choice([b"", rng.randbytes(3), b"\r\n", b": ", b"0"])
        check_answered(server, bytes(message))


def test_every_beginning_of_a_request(server: KmsServer) -> None:
    raw = request("EnvfsKms.WhoAmI", b"{}")
    for length in range(len(raw) + 1):
        check_answered(server, raw[:length])


def test_nothing_grows(server: KmsServer) -> None:
    """As many bad requests again leave the server with as many descriptors, and with no more memory than they have in
    the end anyway.
    """

    def storm(seed: int) -> tuple[int, int]:
        rng = random.Random(seed)
        for _ in range(ROUNDS):
            check_answered(
                server, request("TrentService.Decrypt", rng.randbytes(3000), X_Long="x" * rng.randint(1, 20000))
            )
        return server.descriptors(), server.memory_kib()

    storm(4)
    descriptors, memory = storm(5)
    after_descriptors, after_memory = storm(6)
    assert after_descriptors <= descriptors + 1
    assert after_memory <= memory + 2048
