"""One server for each module: the tests make keys of their own, and leave it as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.api.conformance import check_answers
from tests.integration.api.kms_server import KmsServer, public_directory, running_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def server() -> Iterator[KmsServer]:
    with public_directory() as directory, running_server(directory) as server:
        yield server


@pytest.fixture
def kms(server: KmsServer) -> Iterator[Any]:
    """boto3's client of the KMS, as its owner. Every answer is compared with the service model."""
    client = server.client()
    check_answers(client)
    yield client
    client.close()


@pytest.fixture
def key(kms: Any) -> str:
    """The id of a new symmetric key."""
    return str(kms.create_key()["KeyMetadata"]["KeyId"])
