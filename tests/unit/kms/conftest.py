from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.kms.kit import Clock, People, make_kms, open_kms

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from envfs.kms.engine import Engine


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A KMS that nobody has opened yet."""
    return make_kms(tmp_path / "kms")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def people() -> People:
    return People()


@pytest.fixture
def engine(home: Path, clock: Clock, people: People) -> Generator[Engine, None, None]:
    with open_kms(home, clock=clock, people=people) as engine:
        yield engine
