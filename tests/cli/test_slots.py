"""`envfs kms slot`, `change-passphrase`, `backup` and `restore` on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from envfs.cli import kms_passphrase
from envfs.kms import bootstrap
from envfs.kms.rootkey import Argon2Cost

if TYPE_CHECKING:
    import pytest

    from tests.cli.conftest import CommandLine


def slots(envfs: CommandLine, *more: str) -> dict[str, str]:
    """Kind → id; each kind is there once in these tests."""
    found = envfs("kms slot list --json", *more).json["slots"]
    return {one["kind"]: one["slot_id"] for one in found}


def test_a_key_file_comes_and_goes(envfs: CommandLine, home: Path, tmp_path: Path) -> None:
    envfs("kms init --recovery-key-file recovery")
    assert (tmp_path / "recovery").stat().st_mode & 0o777 == 0o400
    first = slots(envfs)
    assert set(first) == {"keyfile", "recovery"}
    assert envfs("kms slot add keyfile usb.key").code == 0
    listed = envfs("kms slot list").out
    assert str(tmp_path / "usb.key") in listed
    (home / "root.key").unlink()
    assert envfs("key list").code == 0
    answer = envfs("kms slot remove", first["keyfile"][:8])
    assert answer.code == 0
    assert "root.key opens this KMS no more" in answer.out
    only = slots(envfs)
    refused = envfs("kms slot remove", only["keyfile"])
    assert refused.code == 3
    assert "--yes" in refused.err
    assert envfs("kms slot remove --yes", only["keyfile"]).code == 0
    assert envfs("key list").code == 3
    assert envfs("key list --passphrase-file recovery").code == 0
    last = envfs("kms slot remove --passphrase-file recovery", only["recovery"])
    assert last.code == 4
    assert "last root-key slot" in last.err
    assert envfs("kms slot remove --passphrase-file recovery abc").code == 3
    assert envfs("kms slot remove --passphrase-file recovery ffffffff").code == 4


def test_no_recovery_key_where_nobody_would_see_it(envfs: CommandLine) -> None:
    answer = envfs("kms init")
    assert "No recovery key was made" in answer.err
    assert "Recovery key" not in answer.out
    assert set(slots(envfs)) == {"keyfile"}


def test_a_recovery_key_file_is_not_overwritten_and_gone_if_nothing_is_made(
    envfs: CommandLine, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "there").write_text("x")
    assert envfs("kms init --recovery-key-file there").code == 3
    assert not home.exists()
    envfs("kms init --no-recovery-key")
    assert envfs("kms init --recovery-key-file new").code == 3
    assert not (tmp_path / "new").exists()
    assert envfs("kms slot add recovery --recovery-key-file new").code == 0
    assert envfs("kms whoami --passphrase-file new").code == 0


def test_a_passphrase_is_changed_and_the_old_one_opens_nothing(
    envfs: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheap = Argon2Cost(memory_kib=64, iterations=1, lanes=1)
    for module in (bootstrap, kms_passphrase):
        monkeypatch.setattr(module, "Argon2Cost", lambda: cheap)
    for name in ("old", "new", "third"):
        (tmp_path / name).write_text(f"the {name} passphrase")
    envfs("kms init --root-key passphrase --passphrase-file old --recovery-key-file recovery")
    assert envfs("kms change-passphrase --passphrase-file old --new-passphrase-file new").code == 0
    assert envfs("key list --passphrase-file old").code == 3
    assert envfs("key list --passphrase-file new").code == 0
    # The new one is forgotten: the recovery key gives another one.
    assert envfs("kms change-passphrase --passphrase-file recovery --new-passphrase-file third").code == 0
    assert envfs("key list --passphrase-file third").code == 0
    assert set(slots(envfs, "--passphrase-file", "third")) == {"passphrase", "recovery"}


def test_there_is_no_passphrase_to_change(envfs: CommandLine) -> None:
    envfs("kms init --recovery-key-file recovery")
    answer = envfs("kms change-passphrase --passphrase-file recovery --new-passphrase-file recovery")
    assert answer.code == 3
    assert "slot add passphrase" in answer.err


def test_a_backup_is_checked_and_restored(envfs: CommandLine, home: Path, tmp_path: Path) -> None:
    envfs("kms init --recovery-key-file recovery")
    envfs("key create --alias payroll")
    answer = envfs("kms backup kms.backup --json").json
    assert answer["opens_by"] == ["keyfile", "recovery"]
    assert (tmp_path / "kms.backup").stat().st_mode & 0o777 == 0o600
    assert envfs("kms backup kms.backup").code == 3
    assert envfs("kms restore --check kms.backup --passphrase-file recovery --json").json["opened_by"] == "recovery"
    assert envfs("kms restore kms.backup").code == 3
    home.rename(tmp_path / "lost")
    assert envfs("kms restore kms.backup").code == 3
    assert not home.exists()
    answer = envfs("kms restore kms.backup --key-file", str(tmp_path / "lost" / "root.key"))
    assert answer.code == 0
    assert "What changed since" in answer.out
    assert "alias/payroll" in envfs("key list").out
    assert envfs("kms verify").code == 0
    raw = bytearray((tmp_path / "kms.backup").read_bytes())
    raw[-1] ^= 1
    Path("broken").write_bytes(raw)
    assert envfs("kms restore --check broken").code == 5
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_backup_that_only_this_host_opens_says_so(envfs: CommandLine) -> None:
    envfs("kms init --no-recovery-key")
    assert "make a recovery key" in envfs("kms backup kms.backup").err


def test_the_runbook_of_a_lost_root_key(envfs: CommandLine, home: Path, tmp_path: Path) -> None:
    """docs/OPERATIONS.md, step by step."""
    envfs("kms init --recovery-key-file recovery")
    envfs("key create --alias payroll")
    lost = slots(envfs)["keyfile"]
    envfs("kms backup before.backup")
    (home / "root.key").rename(tmp_path / "found by a thief")
    refused = envfs("key list")
    assert refused.code == 3
    assert "root.key is missing" in refused.err
    assert "--passphrase-file" in refused.err
    assert slots(envfs, "--passphrase-file", "recovery")
    assert envfs("kms slot add keyfile --passphrase-file recovery", str(home / "root.key")).code == 0
    removed = envfs("kms slot remove", lost)
    assert removed.out.startswith(f"The key file that was {home}/root.key before opens"), "nobody destroys the new one"
    old = slots(envfs)["recovery"]
    assert envfs("kms slot add recovery --recovery-key-file recovery.new").code == 0
    assert envfs("kms slot remove", old).code == 0
    assert envfs("kms verify").code == 0
    assert "alias/payroll" in envfs("key list").out
    assert envfs("key list --passphrase-file recovery").code == 3
    assert envfs("key list --passphrase-file recovery.new").code == 0
    assert envfs("kms backup after.backup").code == 0
    assert envfs("kms restore --check after.backup --passphrase-file recovery").code == 3
    assert envfs("kms restore --check before.backup --passphrase-file recovery").code == 0


def test_the_runbook_of_a_restore(envfs: CommandLine, home: Path, tmp_path: Path) -> None:
    """docs/OPERATIONS.md, where only the database is damaged."""
    envfs("kms init --recovery-key-file recovery")
    envfs("key create --alias payroll")
    envfs("kms backup kms.backup")
    envfs("key disable alias/payroll")
    database = bytearray((home / "kms.db").read_bytes())
    database[100:] = bytes(len(database) - 100)
    (home / "kms.db").write_bytes(database)
    assert envfs("kms verify").code == 5
    assert envfs("kms restore kms.backup").code == 3
    (home / "kms.db").rename(home / "kms.db.damaged")
    for path in (home / "kms.db-wal", home / "kms.db-shm"):
        path.unlink(missing_ok=True)
    assert envfs("kms restore --check kms.backup").code == 0
    answer = envfs("kms restore kms.backup")
    assert answer.code == 0
    assert f"{home}/audit.before-restore.1" in answer.err
    assert envfs("kms verify").code == 0
    # As it was then: what was disabled since is to be disabled again.
    assert envfs("key show alias/payroll --json").json["state"] == "Enabled"
    assert '"RestoreKms"' in envfs("audit query --event RestoreKms --json").out
