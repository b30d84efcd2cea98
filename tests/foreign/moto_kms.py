"""moto's KMS on a socket of its own, in this process."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import boto3
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from tests.foreign.faulty_kms import CREDENTIALS, REGION

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def moto_kms() -> Iterator[str]:
    """The URL of the emulator, which forgets everything afterwards."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def client(url: str) -> Any:
    """boto3's, with the credentials that tests use."""
    return boto3.client(
        "kms",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )
