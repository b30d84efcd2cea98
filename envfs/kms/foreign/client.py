"""A client of AWS KMS from botocore, loaded when it is first needed; credentials, regions, proxies as boto3 has them.

It sends through a transport of our own, whose deadline holds (`transport`), and tries nothing again by itself.
"""

from __future__ import annotations

import importlib
import io
import threading
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from envfs.errors import ConfigError
from envfs.kms.foreign.configuration import ForeignKey
from envfs.kms.foreign.transport import Answered, Transport

_LOOPBACK: Final = "http"


class Client:
    """One KMS as one set of credentials sees it. Safe for several threads. ConfigError where there is no botocore."""

    def __init__(self, place: ForeignKey) -> None:
        session_module, config_module, _ = load_botocore()
        session = session_module.Session(profile=place.profile or None)
        self._ca_bundle: str | None = session.get_config_variable("ca_bundle")
        # Nothing of the environment may decide whether a request is sent twice: `endpoint` does.
        config = config_module.Config(retries={"total_max_attempts": 1, "mode": "standard"})
        self._client = session.create_client(
            "kms", region_name=place.region, endpoint_url=place.endpoint or None, config=config
        )
        self._client.meta.events.register("before-send.kms", self._send)
        url = self._client.meta.endpoint_url
        self._transport = Transport(url, proxy=_proxy(url), ca_bundle=self._ca_bundle)
        self._of_thread = threading.local()

    def call(self, operation: str, parameters: dict[str, Any], deadline: float) -> dict[str, Any]:
        """The answer to `operation` (`decrypt`); raises what botocore raises, and what `Transport.send` does."""
        self._of_thread.deadline = deadline
        answer: dict[str, Any] = getattr(self._client, operation)(**parameters)
        return answer

    def close(self) -> None:
        self._transport.close()
        self._client.close()

    def _send(self, request: Any, **_event: object) -> object:
        """In place of botocore's own sending."""
        body = request.body if isinstance(request.body, bytes) else (request.body or "").encode()
        headers = {name: _text(value) for name, value in request.headers.items()}
        answered = self._transport.send(urlsplit(request.url).path or "/", headers, body, self._of_thread.deadline)
        awsrequest = importlib.import_module("botocore.awsrequest")
        return awsrequest.AWSResponse(request.url, answered.status, dict(answered.headers), _Raw(answered))


class _Raw(io.BytesIO):
    """A body that was read already, as botocore reads it."""

    def __init__(self, answered: Answered) -> None:
        super().__init__(answered.body)

    def stream(self, **_options: object) -> Iterator[bytes]:
        yield self.read()


def load_botocore() -> tuple[Any, Any, Any]:
    """The modules `session`, `config` and `exceptions` of botocore. ConfigError if it is not installed."""
    try:
        return (
            importlib.import_module("botocore.session"),
            importlib.import_module("botocore.config"),
            importlib.import_module("botocore.exceptions"),
        )
    except ImportError:
        raise ConfigError("foreign KMSs need boto3, which is not installed", hint="pip install 'envfs[aws]'") from None


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _proxy(url: str) -> str:
    """The proxy that the environment names for `url`; none for plain HTTP, which goes to this host alone."""
    utils = importlib.import_module("botocore.utils")
    scheme = urlsplit(url).scheme
    return "" if scheme == _LOOPBACK else str(utils.get_environ_proxies(url).get(scheme, ""))
