"""Mounts whose files have their keys in another KMS.

aws       the environment in which envfs finds credentials, and nothing else of this machine's configuration
cloud     factory: cloud(url, key) → a mount, run by whoever runs the tests, of a volume under that foreign key
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.foreign.faulty_kms import CREDENTIALS, REGION, FaultyKms, faulty_kms
from tests.integration.mounts import Mount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.command import Envfs


class WithCredentials:
    """`envfs` with credentials of AWS in its environment."""

    def __init__(self, envfs: Envfs, aws: dict[str, str]) -> None:
        self._envfs = envfs
        self.aws = aws

    def __call__(self, *arguments: str | Path, **options: Any) -> Any:
        return self._envfs(*arguments, env=self.aws | options.pop("env", {}), **options)


@pytest.fixture
def aws(tmp_path: Path) -> dict[str, str]:
    nothing = {"AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    return CREDENTIALS | nothing


@pytest.fixture
def keyed(envfs: Envfs, aws: dict[str, str]) -> WithCredentials:
    return WithCredentials(envfs, aws)


@pytest.fixture
def foreign() -> Iterator[FaultyKms]:
    with faulty_kms() as kms:
        yield kms


@pytest.fixture
def cloud(
    keyed: WithCredentials, lower: Path, directory: Callable[..., Path], mounted: Callable[..., Mount]
) -> Iterator[Callable[..., Mount]]:
    made: list[Mount] = []

    def mount(url: str, key: str, region: str = REGION) -> Mount:
        keyed("kms", "init")
        place = ("--foreign", key, "--region", region, "--endpoint-url", url)
        keyed("key", "create", "--alias", "cloud", *place)
        keyed("init", lower, "--key", "alias/cloud")
        envfs: Any = keyed
        made.append(Mount(lower, directory("cloud"), (), None, None, envfs).mount())
        return made[-1]

    yield mount
    for one in made:
        if one.is_mounted:
            one.umount()
