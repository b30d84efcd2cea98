"""Checkpoints: what an attacker can hide from whoever keeps one elsewhere. The durable mode."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from envfs.errors import AccessDenied, IntegrityError, Internal, Validation
from envfs.kms.audit.query import Question
from envfs.kms.audit.trail import DURABLE_MARK
from envfs.kms.schema import AUDIT_CHAINS
from tests.unit.kms.kit import ALICE, OWNER, audit_records, make_kms, open_kms

if TYPE_CHECKING:
    from pathlib import Path

    from envfs.kms.audit.verify import Verification
    from envfs.kms.engine import Engine
    from tests.unit.kms.kit import Clock


def check(home: Path, checkpoint: str | None) -> Verification:
    with open_kms(home) as engine:
        return engine.check_audit(OWNER, checkpoint=checkpoint)


@pytest.fixture
def checkpoint(home: Path, engine: Engine) -> str:
    """Taken after two records and itself not among them; a third comes after. The KMS is closed then."""
    engine.create_key(OWNER)
    engine.create_key(OWNER)
    text = engine.checkpoint_audit(OWNER)
    engine.create_key(OWNER)
    engine.close()
    return text


def chain_of(home: Path) -> Path:
    (path,) = (home / "audit").iterdir()
    return path


def test_what_goes_on_from_a_checkpoint_is_intact_and_is_all_that_is_read(home: Path, checkpoint: str) -> None:
    found = check(home, checkpoint)
    assert found.problems == ()
    assert found.records == 2, "CheckpointAudit itself, and one more key"


def test_a_later_checkpoint_follows_on_an_earlier_one(home: Path, checkpoint: str) -> None:
    with open_kms(home) as engine:
        later = engine.checkpoint_audit(OWNER)
        shown = json.loads(later)
        (head,) = shown["chains"].values()
        (before,) = json.loads(checkpoint)["chains"].values()
        assert head["sequence"] > before["sequence"]
        assert engine.check_audit(OWNER, checkpoint=later).is_intact
        assert engine.check_audit(OWNER, checkpoint=checkpoint).is_intact


def test_a_whole_kms_that_was_put_back_is_noticed(home: Path, engine: Engine, tmp_path: Path) -> None:
    """Store and trail of the copy agree: without the checkpoint there is nothing to find."""
    engine.create_key(OWNER)
    engine.close()
    copy = tmp_path / "copy"
    shutil.copytree(home, copy)
    with open_kms(home) as again:
        again.create_key(OWNER)
        checkpoint = again.checkpoint_audit(OWNER)
    shutil.rmtree(home)
    copy.rename(home)
    assert check(home, None).is_intact
    assert any("the checkpoint" in problem for problem in check(home, checkpoint).problems)


def test_an_end_that_was_cut_off_together_with_its_anchor_is_noticed(home: Path, engine: Engine) -> None:
    engine.create_key(OWNER)
    engine.close()
    database, chain = (home / "kms.db").read_bytes(), chain_of(home).read_bytes()
    with open_kms(home) as again:
        again.create_key(OWNER)
        checkpoint = again.checkpoint_audit(OWNER)
    (home / "kms.db").write_bytes(database)
    for log in ("kms.db-wal", "kms.db-shm"):
        (home / log).unlink(missing_ok=True)
    chain_of(home).write_bytes(chain)
    problems = check(home, checkpoint).problems
    assert any("records were cut off" in problem for problem in problems)
    assert any("was put back" in problem for problem in problems)


def test_a_record_after_the_checkpoint_that_was_changed_is_noticed(home: Path, checkpoint: str) -> None:
    chain = chain_of(home)
    raw = chain.read_bytes()
    at = raw.rindex(b'"eventName":"CreateKey"')
    chain.write_bytes(raw[:at] + raw[at:].replace(b"CreateKey", b"CreateKex", 1))
    assert not check(home, checkpoint).is_intact


def test_a_chain_that_the_kms_does_not_know_any_more_is_noticed(home: Path, checkpoint: str, tmp_path: Path) -> None:
    """The same key file, another trail: as if somebody had begun anew."""
    with open_kms(home) as engine:
        engine._recorder.close()
        with engine._store.transaction() as transaction:
            transaction.delete(AUDIT_CHAINS, bytes.fromhex(chain_of(home).stem))
    chain_of(home).unlink()
    assert any("of which the checkpoint speaks" in problem for problem in check(home, checkpoint).problems)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", "x", '{"version": 1}', '{"version": 1, "kms": 5, "chains": {}, "mac": ""}', "[" * 100_000],
)
def test_what_is_no_checkpoint_is_refused(text: str, engine: Engine) -> None:
    with pytest.raises(Validation):
        engine.check_audit(OWNER, checkpoint=text)


def test_a_checkpoint_that_was_changed_is_refused(home: Path, checkpoint: str) -> None:
    shown = json.loads(checkpoint)
    changed = [
        {**shown, "chains": {}},
        {**shown, "generation": 0},
        {**shown, "mac": "00" * 32},
        {name: value for name, value in shown.items() if name != "mac"},
    ]
    for one in changed:
        with pytest.raises(Validation):
            check(home, json.dumps(one))
    assert check(home, json.dumps(dict(reversed(shown.items())))).is_intact, "the order of its members says nothing"


def test_a_checkpoint_of_another_kms_is_refused(checkpoint: str, tmp_path: Path) -> None:
    with open_kms(make_kms(tmp_path / "other")) as other, pytest.raises(Validation, match="another KMS"):
        other.check_audit(OWNER, checkpoint=checkpoint)


def test_none_is_taken_of_a_trail_that_was_cut(home: Path, engine: Engine) -> None:
    engine.create_key(OWNER)
    engine.close()
    os.truncate(chain_of(home), 10)
    with open_kms(home) as again, pytest.raises(IntegrityError, match="not what was anchored"):
        again.checkpoint_audit(OWNER)


def test_checkpoints_and_the_durable_mode_take_permissions(engine: Engine) -> None:
    with pytest.raises(AccessDenied, match="envfs:CheckpointAudit"):
        engine.checkpoint_audit(ALICE)
    with pytest.raises(AccessDenied, match="envfs:SetAuditDurability"):
        engine.set_audit_durability(ALICE, on=True)
    assert not engine.audit_is_durable()


def test_in_the_durable_mode_a_record_is_synced_before_the_key_is_there(
    home: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    really = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        really(descriptor)
        synced.append(len(audit_records(home)))

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    engine.create_key(OWNER)
    synced.clear()
    engine.create_key(OWNER)
    assert synced == [], "it is off"
    engine.set_audit_durability(OWNER, on=True)
    assert (home / DURABLE_MARK).exists()
    records = len(audit_records(home))
    engine.create_key(OWNER)
    assert synced == [records + 1]
    with open_kms(home) as other:
        other.create_key(OWNER)
        assert synced[-1] == len(audit_records(home)), "another process is in that mode, too"
    engine.set_audit_durability(OWNER, on=False)
    synced.clear()
    engine.create_key(OWNER)
    assert synced == []


def test_a_record_that_does_not_reach_the_disk_releases_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.set_audit_durability(OWNER, on=True)

    def fdatasync(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with pytest.raises(Internal, match="the audit record cannot be written"):
        engine.create_key(OWNER)


def test_a_process_that_runs_follows_when_it_anchors(home: Path, engine: Engine, clock: Clock) -> None:
    engine.create_key(OWNER)
    (home / DURABLE_MARK).touch()
    engine.maintain()
    sink = engine._recorder._sink
    assert vars(sink)["_is_durable"] is True


def test_a_path_means_all_below_it(engine: Engine) -> None:
    records = [{"envfs": {"path": path}} for path in ("/a", "/a/b", "/ab", "/a\nb", "/[a]/x", "/A")]
    records.append({})

    def found(pattern: str) -> list[str]:
        question = Question(path=pattern)
        return [one["envfs"]["path"] for one in records if question.matches(one)]

    assert found("/a") == ["/a", "/a/b"]
    assert found("/a/") == ["/a", "/a/b"]
    assert found("/a?b") == ["/a/b", "/a\nb"]
    assert found("/[a]") == ["/[a]/x"], "only * and ? stand for others"
    assert found("*") == ["/a", "/a/b", "/ab", "/a\nb", "/[a]/x", "/A"]


def test_a_volume_is_asked_for_by_its_context(engine: Engine) -> None:
    question = Question(volume_id="00" * 16)
    assert question.matches({"requestParameters": {"encryptionContext": {"envfs:volume": "00" * 16}}})
    assert not question.matches({"requestParameters": {"encryptionContext": {"envfs:volume": "01" * 16}}})
    assert not question.matches({"requestParameters": None})
    assert not question.matches({"requestParameters": {"encryptionContext": "HIDDEN"}})
