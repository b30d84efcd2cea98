"""A KMS on a socket that behaves as badly as a test wants: Encrypt and Decrypt in AWS's JSON, and a fault at will."""

from __future__ import annotations

import base64
import json
import os
import socket
import socketserver
import ssl
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REGION = "eu-central-1"
ARN = f"arn:aws:kms:{REGION}:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OTHER_ARN = f"arn:aws:kms:{REGION}:111122223333:key/ffffffff-12ab-34cd-56ef-1234567890ab"
ALIAS = "alias/files"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "AWS_EC2_METADATA_DISABLED": "true",
}

_REFUSALS = {
    "denied": (400, "AccessDeniedException"),
    "disabled": (400, "DisabledException"),
    "pending deletion": (400, "KMSInvalidStateException"),
    "gone": (400, "NotFoundException"),
    "throttled": (400, "ThrottlingException"),
    "broken": (500, "KMSInternalException"),
    "unknown client": (400, "UnrecognizedClientException"),
    "expired": (400, "ExpiredTokenException"),
    "something new": (400, "SomethingNewException"),
}


class FaultyKms:
    """`fault` says what happens to requests from now on, None for nothing; `requests` are those that came."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.fault: str | None = None
        self.faults: list[str | None] = []  # for the next requests, before `fault` counts
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.ended = threading.Event()
        self._cipher = AESGCM(os.urandom(32))
        self._tls = tls
        self._server: _Server | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, after `stop` at the same port."""
        self.ended.clear()
        self._server = _Server(("127.0.0.1", self.port), self, self._tls)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Nobody listens any more."""
        self.ended.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.close_connections()
            self._server = None

    def answer(self, operation: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        context = json.dumps(request.get("EncryptionContext", {}), sort_keys=True).encode()
        key = ARN if request["KeyId"] in {ARN, ALIAS} else None
        if key is None:
            return 400, {"__type": "NotFoundException", "message": "no such key"}
        if operation == "Encrypt":
            nonce = os.urandom(12)
            # As long as AWS's own for 32 bytes.
            sealed = os.urandom(124) + nonce + self._cipher.encrypt(nonce, _bytes(request["Plaintext"]), context)
            return 200, {"CiphertextBlob": _text(sealed), "KeyId": key, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}
        sealed = _bytes(request["CiphertextBlob"])
        try:
            plain = self._cipher.decrypt(sealed[124:136], sealed[136:], context)
        except Exception:  # noqa: BLE001
            return 400, {"__type": "InvalidCiphertextException", "message": ""}
        return 200, {"Plaintext": _text(plain), "KeyId": key, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        kms = self.server.kms
        body = self.rfile.read(int(self.headers["Content-Length"]))
        operation, request = self.headers["X-Amz-Target"].partition(".")[2], json.loads(body)
        kms.requests.append((operation, request))
        fault = kms.faults.pop(0) if kms.faults else kms.fault
        if fault == "silent":
            kms.ended.wait(60)
            self.close_connection = True
        elif fault == "hangs up":
            self.close_connection = True
        elif fault in _REFUSALS:
            status, code = _REFUSALS[fault]
            self._send(status, json.dumps({"__type": code, "message": "as the test\nwants it"}).encode())
        elif fault == "garbage":
            self._send(200, b"<html>Welcome to the hotel's network</html>")
        elif fault == "no members":
            self._send(200, b"{}")
        elif fault == "bad base64":
            self._send(200, json.dumps({"CiphertextBlob": "%%", "Plaintext": "%%", "KeyId": ARN}).encode())
        elif fault == "endless":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\n\r\n")
            while not kms.ended.is_set():
                self.wfile.write(b"x" * 65536)
        else:
            self._answer(kms.answer(operation, request), fault)

    def _answer(self, answered: tuple[int, dict[str, Any]], fault: str | None) -> None:
        status, answer = answered
        if fault == "wrong key":
            answer["KeyId"] = OTHER_ARN
        if fault == "wrong plaintext" and "Plaintext" in answer:
            answer["Plaintext"] = _text(os.urandom(32))
        if fault == "short plaintext" and "Plaintext" in answer:
            answer["Plaintext"] = _text(b"short")
        if fault == "slow":
            time.sleep(2)
        body = json.dumps(answer).encode()
        if fault == "trickle":
            head = f"HTTP/1.1 {status} OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            for byte in head + body:
                if self.server.kms.ended.wait(0.05):
                    return
                self.wfile.write(bytes((byte,)))
        else:
            self._send(status, body)

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], kms: FaultyKms, tls: ssl.SSLContext | None) -> None:
        self.kms = kms
        self._tls = tls
        self._connections: list[socket.socket] = []
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.append(connection)
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            self._connections.append(connection)
        return connection, address

    def close_connections(self) -> None:
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            connection.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what is tested here."""


@contextmanager
def faulty_kms(*, tls: ssl.SSLContext | None = None) -> Iterator[FaultyKms]:
    kms = FaultyKms(tls=tls)
    try:
        yield kms
    finally:
        kms.stop()


def self_signed(directory: Path) -> tuple[ssl.SSLContext, Path]:
    """The server's side of TLS with a certificate that nobody vouches for, and the certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(_loopback())]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / "server.pem"
    key_path = directory / "server.key"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key_path)
    return context, path


def _loopback() -> Any:
    import ipaddress

    return ipaddress.ip_address("127.0.0.1")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
