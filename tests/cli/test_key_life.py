"""`envfs key`: what becomes of a key after it was made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import CommandLine


@pytest.fixture(autouse=True)
def kms(envfs: CommandLine) -> None:
    assert envfs("kms init").code == 0


@pytest.fixture
def key(envfs: CommandLine) -> str:
    return str(envfs("key create --alias payroll --json").json["key_id"])


def test_its_description_changes(envfs: CommandLine, key: str) -> None:
    assert envfs("key update alias/payroll --description", "since 2026").code == 0
    assert envfs(f"key show {key} --json").json["description"] == "since 2026"


def test_deletion_waits_and_can_be_cancelled(envfs: CommandLine, key: str) -> None:
    said = envfs("key delete alias/payroll --days 7").out
    assert f"envfs key cancel-deletion arn:envfs:kms:local:000000000000:key/{key}" in said
    shown = envfs(f"key show {key} --json").json
    assert shown["state"] == "PendingDeletion"
    assert shown["deletion_date"] > shown["created"]
    refused = envfs(f"key enable {key}")
    assert refused.code == 4
    assert "KMSInvalidStateException" in refused.err
    assert f"envfs key enable arn:envfs:kms:local:000000000000:key/{key}" in envfs(f"key cancel-deletion {key}").out
    shown = envfs(f"key show {key} --json").json
    assert shown["state"] == "Disabled"
    assert "deletion_date" not in shown


def test_deletion_as_json(envfs: CommandLine, key: str) -> None:
    answer = envfs("key delete alias/payroll --json").json
    assert answer["arn"].endswith(key)
    assert (answer["key_state"], answer["pending_window_in_days"]) == ("PendingDeletion", 30)


@pytest.mark.parametrize("days", ["6", "31", "0", "-1"])
def test_the_window_has_bounds(days: str, envfs: CommandLine, key: str) -> None:
    refused = envfs(f"key delete {key} --days {days}")
    assert refused.code == 4
    assert "ValidationException" in refused.err
    assert envfs(f"key show {key} --json").json["state"] == "Enabled"


def test_aliases_come_move_and_go(envfs: CommandLine, key: str) -> None:
    other = envfs("key create --json").json["key_id"]
    assert envfs("key alias create salaries alias/payroll").code == 0
    assert envfs("key show alias/salaries --json").json["key_id"] == key
    assert envfs(f"key alias update alias/salaries {other}").code == 0
    assert envfs("key show alias/salaries --json").json["key_id"] == other
    listed = envfs("key alias list --json").json["aliases"]
    assert [(one["alias_name"], one["target_key_id"]) for one in listed] == [
        ("alias/payroll", key),
        ("alias/salaries", other),
    ]
    assert "alias/salaries" not in envfs("key alias list alias/payroll").out
    assert envfs("key alias delete salaries").code == 0
    gone = envfs("key alias delete salaries")
    assert (gone.code, "NotFoundException" in gone.err) == (4, True)
    assert envfs(f"key alias list {other}").out == "there are no aliases; envfs key alias create makes one\n"


def test_tags(envfs: CommandLine) -> None:
    envfs("key create --alias tagged --tag team=finance --tag empty=")
    assert envfs("key tags alias/tagged --json").json == {"tags": {"empty": "", "team": "finance"}}
    assert envfs("key tag alias/tagged team=audit place=here").code == 0
    assert envfs("key untag alias/tagged empty place").code == 0
    assert envfs("key tags alias/tagged").out == "team  audit\n"
    envfs("key untag alias/tagged team")
    assert envfs("key tags alias/tagged").out == "no tags; envfs key tag alias/tagged NAME=VALUE puts one on it\n"


@pytest.mark.parametrize("pairs", ["team", "=finance", "a=1 a=2"])
def test_what_is_no_pair_is_a_wrong_argument(pairs: str, envfs: CommandLine, key: str) -> None:
    answer = envfs(f"key tag {key} {pairs}")
    assert answer.code == 2
    assert "Usage:" in answer.err


def test_rotation(envfs: CommandLine, key: str, tmp_path: Path) -> None:
    assert envfs("key rotation list alias/payroll").out.startswith("it has not been rotated; ")
    status = envfs("key rotation status alias/payroll --json").json
    assert status["key_rotation_enabled"] is False
    assert envfs("key rotation enable alias/payroll --period-days 90").code == 0
    status = envfs(f"key rotation status {key} --json").json
    assert (status["key_rotation_enabled"], status["rotation_period_in_days"]) == (True, 90)
    assert status["next_rotation_date"].startswith("20")
    (tmp_path / "plain").write_bytes(b"before")
    envfs(f"kms encrypt {key} plain -o before.enc")
    assert envfs("key rotate alias/payroll").code == 0
    (rotation,) = envfs("key rotation list alias/payroll --json").json["rotations"]
    assert rotation["rotation_type"] == "ON_DEMAND"
    assert envfs("kms decrypt before.enc").out == "before", "old material stays for decryption"
    assert len(envfs("key rotation list alias/payroll --all --json").json["rotations"]) == 2
    assert envfs("key rotation disable alias/payroll").code == 0
    assert envfs("key rotation status alias/payroll").out.splitlines()[1].split()[-1] == "no"


def test_the_usage_of_a_key_is_found_in_the_trail(envfs: CommandLine, key: str, tmp_path: Path) -> None:
    assert "not used since " in envfs("key last-usage alias/payroll").out
    (tmp_path / "plain").write_bytes(b"x")
    envfs(f"kms encrypt {key} plain -o out")
    found = envfs("key last-usage alias/payroll --json").json
    assert found["operation"] == "Encrypt"
    assert found["arn"].endswith(key)


def test_an_asymmetric_key_shows_its_algorithms_and_its_public_key(envfs: CommandLine, tmp_path: Path) -> None:
    made = envfs("key create --alias release --spec ECC_NIST_P256 --usage SIGN_VERIFY --json").json
    assert made["signing_algorithms"] == ["ECDSA_SHA_256"]
    assert envfs("key public alias/release -o release.pem").out == ""
    public = load_pem_public_key((tmp_path / "release.pem").read_bytes())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert envfs("key public alias/release").out == (tmp_path / "release.pem").read_text()
    assert envfs("key public alias/release --json").json["key_spec"] == "ECC_NIST_P256"


def test_a_symmetric_key_has_no_public_one(envfs: CommandLine, key: str) -> None:
    answer = envfs(f"key public {key}")
    assert answer.code == 4
    assert "UnsupportedOperationException" in answer.err


def test_a_policy_says_all_or_administrators_and_users_do(envfs: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text("{}")
    answer = envfs("key create --policy policy.json --admin root")
    assert answer.code == 2
    assert "--policy says all" in answer.err


def test_the_ready_made_policy_names_administrators_and_users(envfs: CommandLine) -> None:
    made = envfs("key create --admin root --user nobody --user @daemon --json").json
    statements = json.loads(envfs(f"key policy get {made['key_id']}").out)["Statement"]
    actions = {
        name: {action for one in statements if name in json.dumps(one["Principal"]) for action in one["Action"]}
        for name in ("user/root", "user/nobody", "group/daemon")
    }
    assert "kms:Decrypt" in actions["user/nobody"] & actions["group/daemon"]
    assert "kms:PutKeyPolicy" not in actions["user/nobody"] | actions["group/daemon"]
    assert "kms:Decrypt" not in actions["user/root"]


@pytest.mark.parametrize(
    "command", ["key create --user @no-such-group", "grant create KEY --operation Decrypt --to @no-such-group"]
)
def test_nothing_is_allowed_to_a_group_that_there_is_not(command: str, envfs: CommandLine, key: str) -> None:
    answer = envfs(command.replace("KEY", key))
    assert answer.code == 4
    assert "there is no Unix group 'no-such-group'" in answer.err
    assert len(envfs("key list --json").json["keys"]) == 1


@pytest.mark.parametrize("who", ["a:b", "@", "a*", "", "$x"])
def test_nobody_is_a_wrong_argument(who: str, envfs: CommandLine) -> None:
    answer = envfs("key create --admin", who)
    assert answer.code == 2
    assert "is nobody" in answer.err
    assert envfs("key list --json").json == {"keys": []}
