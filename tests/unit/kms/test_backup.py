"""Backups: consistent while others write, whole or refused, and nothing half-made when they are restored."""

from __future__ import annotations

import io
import json
import os
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envfs.crypto.secret import Secret
from envfs.errors import AccessDenied, ConfigError, EnvfsError, FormatError, IntegrityError, UnsupportedVersion
from envfs.kms import restore as restore_module
from envfs.kms.backup_format import CHUNK, BackupReader, BackupWriter, Header, read_header
from envfs.kms.engine import Engine
from envfs.kms.restore import Restored, check_backup, restore_backup
from envfs.kms.rootkey import (
    KEY_FILE_NAME,
    Argon2Cost,
    KeyFileUnlock,
    PassphraseUnlock,
    RecoveryUnlock,
    passphrase_parameters,
    seal_slot,
    typed_unlock,
)
from tests.integration.kms.killing import killed_at_every_line
from tests.reference import kms as reference
from tests.unit.kms.kit import ALICE, CONTEXT, OWNER, People, audit_records, make_kms, open_kms

FAST = Argon2Cost(memory_kib=64, iterations=1, lanes=1)
SEED = Secret(bytes(range(20)))
STORE_ID = b"s" * 16


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_kms(tmp_path / "kms")


def take(home: Path, *, with_key_file: bool = False) -> bytes:
    out = io.BytesIO()
    with open_kms(home) as engine:
        engine.backup(OWNER, out, with_key_file=with_key_file)
    return out.getvalue()


def restore(raw: bytes, target: Path, key_file: Path) -> Restored:
    return restore_backup(io.BytesIO(raw), target, lambda *_: KeyFileUnlock(key_file))


def files_of(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*")) if directory.exists() else []


def test_what_was_encrypted_before_is_read_after(home: Path, tmp_path: Path) -> None:
    with open_kms(home) as engine:
        arn = engine.create_key(OWNER).arn
        data_key = engine.generate_data_key(OWNER, arn, CONTEXT)
    raw = take(home)
    assert b"SQLite" not in raw
    assert arn.encode() not in raw
    restored = restore(raw, tmp_path / "new", home / KEY_FILE_NAME)
    assert not restored.audit_durable
    assert restored.needs_key_file
    assert files_of(tmp_path / "new") == [
        "audit",
        *[f"audit/{path.name}" for path in (home / "audit").iterdir()],
        "kms.db",
    ]
    (home / KEY_FILE_NAME).rename(tmp_path / "new" / KEY_FILE_NAME)
    with open_kms(tmp_path / "new") as engine:
        assert engine.decrypt(OWNER, data_key.blob, CONTEXT) == data_key.plaintext
        assert engine.check_store(OWNER) == []
        assert engine.check_audit(OWNER).problems == ()
    events = [one["eventName"] for one in audit_records(tmp_path / "new")]
    assert events[events.index("BackupKms") :][:2] == ["BackupKms", "RestoreKms"]


def test_what_others_change_while_it_is_written_is_all_in_it_or_not_at_all(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.BytesIO()
    with open_kms(home) as engine, open_kms(home) as other:
        before = other.create_key(OWNER).arn
        snapshot = engine._database.snapshot

        def and_then_others_go_on() -> tuple[bytes, int]:
            taken = snapshot()
            other.describe_key(OWNER, before)  # its record belongs to the state that was taken
            for _ in range(3):
                other.create_key(OWNER)
            with open_kms(home) as third:
                third.create_key(OWNER)
            return taken

        monkeypatch.setattr(engine._database, "snapshot", and_then_others_go_on)
        engine.backup(OWNER, out)
    restored = restore(out.getvalue(), tmp_path / "new", home / KEY_FILE_NAME)
    assert len(list((tmp_path / "new" / "audit").iterdir())) == restored.chains == 2
    events = [one["eventName"] for one in audit_records(tmp_path / "new")]
    assert events.count("DescribeKey") == 1
    assert events.count("CreateKey") <= 2  # the record of a change is written before it is committed


def test_only_the_owner_takes_backups(home: Path) -> None:
    out = io.BytesIO()
    with open_kms(home) as engine, pytest.raises(AccessDenied):
        engine.backup(ALICE, out)
    assert out.getvalue() == b""


def test_an_existing_kms_and_the_log_of_another_one_stay(home: Path, tmp_path: Path) -> None:
    raw, key_file = take(home), home / KEY_FILE_NAME
    before = files_of(home)
    with pytest.raises(ConfigError, match="there is a KMS"):
        restore(raw, home, key_file)
    assert files_of(home) == before
    (tmp_path / "other").mkdir(mode=0o700)
    (tmp_path / "other" / "kms.db-wal").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"kms\.db-wal"):
        restore(raw, tmp_path / "other", key_file)


def test_a_trail_that_is_there_is_put_aside(home: Path, tmp_path: Path) -> None:
    raw = take(home)
    (home / "kms.db").unlink()
    old = {path.name: path.read_bytes() for path in (home / "audit").iterdir()}
    restored = restore(raw, home, home / KEY_FILE_NAME)
    assert restored.aside == home / "audit.before-restore.1"
    assert {path.name: path.read_bytes() for path in restored.aside.iterdir()} == old
    open_kms(home).close()


def test_a_key_file_is_in_it_only_if_it_was_asked_for_and_replaces_none(home: Path, tmp_path: Path) -> None:
    with open_kms(home) as engine:
        engine.add_root_slot(OWNER, RecoveryUnlock(SEED), b"")
    raw = take(home, with_key_file=True)
    target = tmp_path / "new"
    restore_backup(io.BytesIO(raw), target, lambda *_: RecoveryUnlock(SEED))
    assert (target / KEY_FILE_NAME).read_bytes() == (home / KEY_FILE_NAME).read_bytes()
    assert (target / KEY_FILE_NAME).stat().st_mode & 0o777 == 0o400
    other = make_kms(tmp_path / "third")
    (other / "kms.db").unlink()
    mine = (other / KEY_FILE_NAME).read_bytes()
    with pytest.raises(ConfigError, match="another key file"):
        restore_backup(io.BytesIO(raw), other, lambda *_: RecoveryUnlock(SEED))
    assert (other / KEY_FILE_NAME).read_bytes() == mine
    assert not (other / "kms.db").exists()


def test_a_passphrase_of_the_backup_alone(home: Path, tmp_path: Path) -> None:
    out = io.BytesIO()
    unlock = PassphraseUnlock(Secret(b"for the vault"))
    with open_kms(home) as engine:
        summary = engine.backup(OWNER, out, extra=(unlock, passphrase_parameters(FAST)))
        assert len(engine.root_slots(OWNER)) == 1
    assert len(summary.slots) == 2
    by_key_file = restore(out.getvalue(), tmp_path / "first", home / KEY_FILE_NAME)
    assert by_key_file.added_slot is None
    with pytest.raises(ConfigError):
        Engine.open(tmp_path / "first", unlock)
    # With the key file lost, what opened the backup is all that there is.
    restored = restore_backup(io.BytesIO(out.getvalue()), tmp_path / "new", lambda *_: unlock)
    with Engine.open(tmp_path / "new", unlock) as engine:
        assert restored.added_slot == engine.opened_by
        assert len(engine.root_slots(OWNER)) == 2
        assert engine.verify_everything()[2] == []
    assert check_backup(io.BytesIO(out.getvalue()), lambda *_: unlock).added_slot is None


def test_a_check_brings_no_key_file_to_a_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    really = restore_module._write

    def write(path: Path, *rest: Any) -> None:
        written.append(path.name)
        really(path, *rest)

    monkeypatch.setattr(restore_module, "_write", write)
    check_backup(io.BytesIO(take(home, with_key_file=True)), lambda *_: KeyFileUnlock(home / KEY_FILE_NAME))
    assert "kms.db" in written
    assert KEY_FILE_NAME not in written


@pytest.fixture
def long(home: Path) -> bytes:
    """A backup of several chunks."""
    with open_kms(home) as engine:
        for _ in range(40):
            engine.create_key(OWNER, description="x" * 4000)
    raw = take(home)
    assert len(raw) > 4 * CHUNK
    return raw


def refused(raw: bytes, home: Path, target: Path) -> EnvfsError:
    with pytest.raises(EnvfsError) as caught:
        restore(raw, target, home / KEY_FILE_NAME)
    assert not target.exists()
    with pytest.raises(type(caught.value)):
        check_backup(io.BytesIO(raw), lambda *_: KeyFileUnlock(home / KEY_FILE_NAME))
    return caught.value


def test_cut_flipped_extended_and_reordered_backups_are_refused_and_leave_nothing(
    long: bytes, home: Path, tmp_path: Path
) -> None:
    file = io.BytesIO(long)
    read_header(file)
    start, step = file.tell(), CHUNK + 16
    edges = [*range(start, len(long), step), len(long)]
    pieces = [long[one:other] for one, other in pairwise(edges)]
    target = tmp_path / "new"
    for cut in (0, 1, 7, 30, start - 1, *edges[:-1], edges[1] + 1, len(long) - 1):
        assert isinstance(refused(long[:cut], home, target), FormatError | IntegrityError)
    for place in (60, start - 1, start, edges[1] - 1, edges[2] + 5, len(long) - 1):
        assert isinstance(refused(flipped(long, place), home, target), ConfigError | IntegrityError | FormatError)
    for extended in (b"\0", pieces[-1], bytes(CHUNK + 16)):
        assert isinstance(refused(long + extended, home, target), IntegrityError)
    head = long[:start]
    for order in ([1, 0, *range(2, len(pieces))], [0, 0, *range(1, len(pieces))], [0, *range(2, len(pieces))], [-1]):
        assert isinstance(refused(head + b"".join(pieces[one] for one in order), home, target), IntegrityError)
    restore(long, target, home / KEY_FILE_NAME)


def flipped(raw: bytes, place: int) -> bytes:
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]


def test_chunks_of_another_backup_of_the_same_kms_do_not_fit(long: bytes, home: Path, tmp_path: Path) -> None:
    other = take(home)
    file = io.BytesIO(long)
    read_header(file)
    start = file.tell()
    mixed = long[: start + CHUNK + 16] + other[start + CHUNK + 16 :]
    assert isinstance(refused(mixed, home, tmp_path / "new"), IntegrityError)
    assert isinstance(refused(other[:start] + long[start:], home, tmp_path / "new"), IntegrityError)


def test_what_is_no_backup_and_another_version(home: Path, tmp_path: Path) -> None:
    raw = take(home)
    assert type(refused(b"SQLite format 3\0" * 10, home, tmp_path / "new")) is FormatError
    assert type(refused(raw[:8] + b"\2" + raw[9:], home, tmp_path / "new")) is UnsupportedVersion
    assert type(refused(raw[:9] + b"\x1e" + raw[10:], home, tmp_path / "new")) is FormatError
    huge = raw[:60] + struct.pack(">16sQB", bytes(16), 0, 7) + b"keyfile" + struct.pack(">I", 1 << 30)
    assert type(refused(huge, home, tmp_path / "new")) is FormatError


def test_the_wrong_key_says_so(home: Path, tmp_path: Path) -> None:
    other = make_kms(tmp_path / "other")
    with pytest.raises(ConfigError, match="not the root key file"):
        restore(take(home), tmp_path / "new", other / KEY_FILE_NAME)
    assert not (tmp_path / "new").exists()


def made_up(root_key: Secret, entries: list[tuple[str, bytes]]) -> io.BytesIO:
    """A backup as one could make it who has the root key."""
    out = io.BytesIO()
    slot = seal_slot(root_key, STORE_ID, RecoveryUnlock(SEED), b"", 0)
    writer = BackupWriter(out, root_key, Header.new(STORE_ID, [slot]))
    for name, content in entries:
        writer.add(name, len(content), [content])
    writer.close()
    return io.BytesIO(out.getvalue())


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["kms.db"],
        ["manifest.json"],
        ["manifest.json", "manifest.json"],
        ["manifest.json", "../kms.db"],
        ["manifest.json", "kms.db", "audit/../../x.jsonl"],
        ["manifest.json", "kms.db", "kms.db-wal"],
        ["manifest.json", "kms.db", f"audit/{'0' * 32}.jsonl", f"audit/{'0' * 32}.jsonl"],
        ["manifest.json", "kms.db", "root.key", f"audit/{'0' * 32}.jsonl"],
    ],
    ids=str,
)
def test_entries_that_should_not_be_there(names: list[str], tmp_path: Path) -> None:
    manifest = b'{"created": 1, "generation": 1, "store_id": "%s"}' % STORE_ID.hex().encode()
    entries = [(name, manifest if name == "manifest.json" else bytes(32)) for name in names]
    with pytest.raises(FormatError):
        restore_backup(made_up(Secret.random(), entries), tmp_path / "a" / "new", lambda *_: RecoveryUnlock(SEED))
    assert files_of(tmp_path / "a") == []


@pytest.mark.parametrize("size", [0, 1, CHUNK - 30, CHUNK - 13, CHUNK - 12, CHUNK, 3 * CHUNK, 3 * CHUNK + 1])
def test_entries_of_every_size_come_back(size: int) -> None:
    root_key, content = Secret.random(), os.urandom(size)
    file = made_up(root_key, [("a", content), ("b", b"")])
    header = read_header(file)
    assert [(name, b"".join(body)) for name, _, body in BackupReader(file, root_key, header).entries()] == [
        ("a", content),
        ("b", b""),
    ]


def test_nothing_deleted_is_in_a_backup(home: Path, tmp_path: Path) -> None:
    with open_kms(home) as engine:
        slot = engine.add_root_slot(OWNER, RecoveryUnlock(SEED), b"")
        engine.create_key(OWNER)
        engine.remove_root_slot(OWNER, slot.slot_id)  # and not erased: it still stands in the files
        assert any(slot.wrapped in path.read_bytes() for path in home.glob("kms.db*"))
        assert slot.wrapped not in engine._database.snapshot()[0]


def test_a_kill_while_it_is_restored_leaves_no_kms_or_all_of_it(home: Path, tmp_path: Path) -> None:
    with open_kms(home) as engine:
        arn = engine.create_key(OWNER).arn
    raw, target, key_file = take(home), tmp_path / "new", home / KEY_FILE_NAME
    target.mkdir(mode=0o700)
    (target / KEY_FILE_NAME).write_bytes(key_file.read_bytes())
    (target / KEY_FILE_NAME).chmod(0o400)
    kills = 0
    for _ in killed_at_every_line(lambda: restore(raw, target, key_file), "envfs.kms.restore", step=7):
        kills += 1
        if not (target / "kms.db").exists():
            continue
        with open_kms(target, people=People()) as engine:
            assert engine.verify_everything()[2] == []
            assert engine.describe_key(OWNER, arn).arn == arn
        (target / "kms.db").rename(tmp_path / f"kms.db.{kills}")
        for path in target.glob("kms.db-*"):
            path.unlink()
    assert kills > 10
    with open_kms(target) as engine:
        assert engine.verify_everything()[2] == []
    assert not list(target.glob(".restore-*"))


GOLDEN = Path(__file__).parents[2] / "golden" / "backup-1"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


@pytest.mark.parametrize("opened_by", ["recovery_key", "passphrase", "backup_passphrase", "key_file"])
def test_a_backup_of_the_first_release_is_restored_for_ever(opened_by: str, tmp_path: Path) -> None:
    target, key_file = tmp_path / "kms", tmp_path / "root.key"
    key_file.write_bytes(bytes.fromhex(EXPECTED["key_file"]))
    key_file.chmod(0o400)
    way = KeyFileUnlock(key_file) if opened_by == "key_file" else typed_unlock(Secret(EXPECTED[opened_by].encode()))
    with (GOLDEN / "kms.backup").open("rb") as file:
        restore_backup(file, target, lambda *_: way, key_file=Secret(key_file.read_bytes()))
    with open_kms(target) as engine:
        plaintext = engine.decrypt(ALICE, bytes.fromhex(EXPECTED["blob"]), CONTEXT)
        assert bytes(plaintext.expose()).hex() == EXPECTED["plaintext"]
        assert engine.describe_key(OWNER, "alias/pay").arn == EXPECTED["key"]


def test_the_reference_reader_reads_it_too() -> None:
    raw = (GOLDEN / "kms.backup").read_bytes()
    seed = reference.read_recovery_key(EXPECTED["recovery_key"])
    found: list[bytes] = []
    file = io.BytesIO(raw)
    header = read_header(file)
    for slot in header.slots:
        if slot.kind == "recovery":
            given = (header.store_id, slot.slot_id, slot.kind, slot.parameters, slot.wrapped, seed)
            found.append(reference.open_root_slot(*given))
    (root_key,) = found
    store_id, slots, entries = reference.read_backup(raw, root_key)
    assert store_id == header.store_id
    assert [slot[1] for slot in slots].count("passphrase") == 2
    assert [name.split("/")[0] for name, _ in entries] == ["manifest.json", "kms.db", "audit"]


@given(st.data())
def test_whatever_is_made_of_a_backup_is_refused_in_order(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from([SHORT[:60], SHORT[: len(SHORT) // 2], SHORT])))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw += data.draw(st.binary(max_size=20))
    file = io.BytesIO(bytes(raw))
    try:
        header = read_header(file)
        entries = [(name, b"".join(body)) for name, _, body in BackupReader(file, SHORT_KEY, header).entries()]
    except (FormatError, IntegrityError):
        return
    assert bytes(raw) == SHORT
    assert entries == [("a", b"content")]


SHORT_KEY = Secret(bytes(range(32)))
SHORT = made_up(SHORT_KEY, [("a", b"content")]).getvalue()
