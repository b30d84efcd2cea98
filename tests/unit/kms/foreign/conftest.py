from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from envfs.kms.foreign import endpoint as endpoint_module
from tests.foreign.faulty_kms import CREDENTIALS, FaultyKms, faulty_kms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture(scope="module")
def _foreign() -> Iterator[FaultyKms]:
    with faulty_kms() as kms:
        yield kms


@pytest.fixture
def foreign(_foreign: FaultyKms) -> Iterator[FaultyKms]:
    """The same for all tests of a module, without fault to begin with."""
    _foreign.fault = None
    _foreign.requests.clear()
    yield _foreign
    _foreign.faults.clear()
    _foreign.stop()
    _foreign.start()


@pytest.fixture
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limits of calls, so short that a test need not wait for them."""
    monkeypatch.setattr(endpoint_module, "ATTEMPT_SECONDS", 0.4)
    monkeypatch.setattr(endpoint_module, "TOTAL_SECONDS", 1.0)
    monkeypatch.setattr(endpoint_module, "FIRST_PAUSE", 0.01)
