"""`envfs key create --foreign`: what is asked for, what is refused, and what is told of the key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.foreign.faulty_kms import ALIAS, ARN, CREDENTIALS, REGION, FaultyKms, faulty_kms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import CommandLine


@pytest.fixture(autouse=True)
def kms(envfs: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    assert envfs("kms init").code == 0


@pytest.fixture
def foreign() -> Iterator[FaultyKms]:
    with faulty_kms() as kms:
        yield kms


def test_a_key_that_is_held_elsewhere(envfs: CommandLine, foreign: FaultyKms) -> None:
    line = f"key create --alias cloud --foreign {ALIAS} --region {REGION} --endpoint-url {foreign.url} --json"
    made = envfs(line).json
    assert (made["origin"], made["foreign_key"], made["state"]) == ("EXTERNAL_KEY_STORE", ARN, "Enabled")
    shown = envfs("key show alias/cloud --json").json
    assert (shown["foreign_key"], shown["foreign_region"], shown["foreign_endpoint"]) == (ARN, REGION, foreign.url)
    assert "foreign_profile" not in shown
    assert len(envfs("key list --json").json["keys"]) == 1
    assert envfs("key rotate alias/cloud").code != 0
    foreign.fault = "disabled"
    answer = envfs(f"key create --foreign {ARN} --endpoint-url {foreign.url}")
    assert answer.code != 0
    assert "DisabledException" in answer.err
    assert len(envfs("key list --json").json["keys"]) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (f"--foreign {ALIAS}", "--region is missing"),
        ("--region eu-central-1", "where the key of --foreign is"),
        ("--endpoint-url https://kms.example.com", "where the key of --foreign is"),
        ("--profile envfs", "where the key of --foreign is"),
        (f"--foreign {ARN} --spec HMAC_256", "does not go together"),
        (f"--foreign {ARN} --origin EXTERNAL", "does not go together"),
        (f"--foreign {ARN} --endpoint-url http://kms.example.com", "use https"),
        (f"--foreign {ARN} --endpoint-url kms.example.com", "no URL"),
    ],
)
def test_what_makes_no_key(envfs: CommandLine, words: str, said: str) -> None:
    answer = envfs(f"key create {words}")
    assert answer.code != 0
    assert said in answer.err
    assert envfs("key list --json").json["keys"] == []
