"""A whole volume, written with the package's code and read with the reference reader's."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from envfs.crypto.aead import Suite
from envfs.crypto.secret import Secret
from envfs.format.place import ROOT, Kind
from envfs.kms.bootstrap import init_kms
from envfs.kms.engine import Engine
from envfs.kms.model import Principal
from envfs.kms.rootkey import Argon2Cost, KeyFileUnlock, PassphraseUnlock
from tests.conftest import NOT_HERE
from tests.reference import read_volume
from tests.reference.builder import Builder

CHEAP = Argon2Cost(memory_kib=64, iterations=1, lanes=1)
LONG_NAME = b"n" * 255
CONTENT = bytes(index * 11 & 0xFF for index in range(200_000))


def owner_of(engine: Engine) -> Principal:
    uid = engine.owner_uid
    return Principal(uid, 0, os.getpid(), "owner", engine.account.user_arn("owner"), frozenset(), is_account_root=True)


def make_builder(lower: Path, engine: Engine, suite: Suite = Suite.AES_256_GCM, block_log2: int = 12) -> Builder:
    owner = owner_of(engine)
    return Builder(lower, engine, owner, engine.create_key(owner).arn, suite, block_log2)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    init_kms(home)
    return home


@pytest.fixture
def engine(home: Path) -> Iterator[Engine]:
    with Engine.open(home, KeyFileUnlock(home / "root.key")) as engine:
        yield engine


@pytest.fixture
def builder(tmp_path: Path, engine: Engine) -> Builder:
    return make_builder(tmp_path / "lower", engine)


def read(tmp_path: Path, *options: str) -> tuple[int, Path]:
    out = tmp_path / "out"
    arguments = ["--home", str(tmp_path / "home"), *options, str(tmp_path / "lower"), str(out)]
    return read_volume.main(arguments), out


@pytest.mark.parametrize("block_log2", [12, 14, 16])
@pytest.mark.parametrize("suite", list(Suite))
def test_files_of_every_size(tmp_path: Path, engine: Engine, suite: Suite, block_log2: int) -> None:
    builder = make_builder(tmp_path / "lower", engine, suite, block_log2)
    block = 1 << block_log2
    sizes = [0, 1, 100, block - 1, block, block + 1, 3 * block, len(CONTENT)]
    for size in sizes:
        builder.file(builder.root, f"{size} bytes".encode(), CONTENT[:size], rewritten=size % 2 == 0)
    status, out = read(tmp_path)
    assert status == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {f"{n} bytes": CONTENT[:n] for n in sizes}


def test_a_tree(tmp_path: Path, builder: Builder) -> None:
    inner = builder.mkdir(builder.root, "dir \xff ü".encode(), {"project": "apollo"}, builder.key_arn)
    innermost = builder.mkdir(inner, LONG_NAME, {"tier": "gold", "project": "gemini"})
    builder.file(inner, b"labelled", b"1")
    builder.file(innermost, LONG_NAME, b"2")
    builder.file(innermost, b"x" * 176, b"3")
    builder.file(innermost, b"x" * 175, b"4")
    status, out = read(tmp_path)
    assert status == 0
    below = out / "dir \xff ü"
    assert (below / "labelled").read_bytes() == b"1"
    names = {path.name: path.read_bytes() for path in (below / LONG_NAME.decode()).iterdir()}
    assert names == {LONG_NAME.decode(): b"2", "x" * 176: b"3", "x" * 175: b"4"}


def test_symlinks(tmp_path: Path, builder: Builder) -> None:
    targets = {
        b"short": b"../x",
        b"absolute": b"/\xff",
        b"dangling": b"nowhere",
        b"3007": b"a" * 3007,
        b"3008": b"b" * 3008,
    }
    targets[LONG_NAME] = b"c/" * 2047
    for name, target in targets.items():
        builder.symlink(builder.root, name, target)
    status, out = read(tmp_path)
    assert status == 0
    assert {name: os.readlink(os.fsencode(out) + b"/" + name) for name in targets} == targets


def test_holes(tmp_path: Path, builder: Builder) -> None:
    plain = CONTENT[:4096] + bytes(3 * 4096) + CONTENT[:100]
    builder.file(builder.root, b"middle", plain, holes=(1, 4))
    builder.file(builder.root, b"end", bytes(4096 + 17), holes=(0, 2))
    builder.file(builder.root, b"all but written", bytes(2 * 4096), holes=(0, 1))
    status, out = read(tmp_path)
    assert status == 0
    assert (out / "middle").read_bytes() == plain
    assert (out / "end").read_bytes() == bytes(4096 + 17)
    assert (out / "all but written").read_bytes() == bytes(2 * 4096)


def test_extended_attributes(tmp_path: Path, builder: Builder) -> None:
    try:
        os.setxattr(builder.root.lower, "user.envfs.probe", b"")
    except OSError:
        pytest.skip(f"{NOT_HERE}{tmp_path} takes no extended attributes")
    attributes = {b"user.comment": b"value", b"user.empty": b"", b"user.binary": bytes(range(256))}
    path = builder.file(builder.root, b"file", b"1", xattrs=attributes)
    os.setxattr(path, "user.foreign", b"not ours")
    folder = builder.mkdir(builder.root, b"dir")
    builder.xattr(folder.lower, folder.id, b"user.comment", b"of a directory")
    status, out = read(tmp_path)
    assert status == 0
    found = {name.encode(): os.getxattr(out / "file", name) for name in os.listxattr(out / "file")}
    assert found == attributes
    assert os.getxattr(out / "dir", "user.comment") == b"of a directory"


def test_modes_and_times_are_the_lower_ones(tmp_path: Path, builder: Builder) -> None:
    path = builder.file(builder.root, b"file", b"1")
    path.chmod(0o640)
    os.utime(path, ns=(1, 2_000_000_001))
    status, out = read(tmp_path)
    found = (out / "file").stat()
    assert status == 0
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o640, 2_000_000_001)


def test_what_a_crash_may_leave(tmp_path: Path, builder: Builder) -> None:
    """A file without header, one in the middle of a rename, a torn rest, leavings under temporary names."""
    empty, _ = builder.place(builder.root, b"being created")
    empty.write_bytes(b"")
    reserved, _ = builder.place(builder.root, b"being created, place written")
    reserved.write_bytes(builder.keys.place.pack(Kind.FILE, bytes(16), ROOT) + bytes(200))
    torn = builder.file(builder.root, b"torn", CONTENT[:5000])
    with torn.open("ab") as file:
        file.write(b"x")
    torn_after_block = builder.file(builder.root, b"torn after a block", CONTENT[:8192])
    with torn_after_block.open("ab") as file:
        file.write(b"x" * 28)
    (builder.root.lower / "envfs.tmp.1234").write_bytes(b"whatever")
    (builder.root.lower / "envfs.name.orphan").write_bytes(b"whatever")
    status, out = read(tmp_path)
    assert (out / "being created").read_bytes() == b""
    assert (out / "being created, place written").read_bytes() == b""
    assert (out / "torn after a block").read_bytes() == CONTENT[:8192]
    assert len(list(out.iterdir())) == 4
    assert status == 1, "a torn short block is damage"


def test_hard_links_may_be_anywhere(tmp_path: Path, builder: Builder) -> None:
    first = builder.file(builder.root, b"first", b"linked", anywhere=True)
    second, _ = builder.place(builder.root, b"second")
    second.hardlink_to(first)
    status, out = read(tmp_path)
    assert status == 0
    assert (out / "first").read_bytes() == (out / "second").read_bytes() == b"linked"


def test_foreign_names_are_not_part_of_the_volume(
    tmp_path: Path, builder: Builder, capsys: pytest.CaptureFixture[str]
) -> None:
    (builder.root.lower / "lost+found").mkdir()
    builder.file(builder.root, b"file", b"1")
    status, out = read(tmp_path)
    assert status == 0
    assert [path.name for path in out.iterdir()] == ["file"]
    assert "lost+found: not part of the volume" in capsys.readouterr().err


def problems(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The failures on standard error, without the paths."""
    return [line.split(": ", 1)[1] for line in capsys.readouterr().err.splitlines()]


def test_a_damaged_block_is_named_and_the_rest_is_read(
    tmp_path: Path, builder: Builder, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = builder.file(builder.root, b"damaged", CONTENT[:12288])
    builder.file(builder.root, b"whole", b"whole")
    with damaged.open("r+b") as file:
        file.seek(1024 + 4124 + 100)
        file.write(b"!")
    status, out = read(tmp_path)
    assert status == 1
    assert problems(capsys) == ["IntegrityError: block 1"]
    assert (out / "damaged").read_bytes() == CONTENT[:4096] + bytes(4096) + CONTENT[8192:12288]
    assert (out / "whole").read_bytes() == b"whole"


def test_swapped_and_moved_objects_are_refused(
    tmp_path: Path, builder: Builder, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (builder.file(builder.root, name, name) for name in (b"first", b"second"))
    spare = tmp_path / "spare"
    first.rename(spare)
    second.rename(first)
    spare.rename(second)
    folder = builder.mkdir(builder.root, b"folder")
    other, _ = builder.place(builder.root, b"other name")
    folder.lower.rename(other)
    builder.symlink(builder.root, b"link", b"target")
    link, _ = builder.place(builder.root, b"link")
    copied, _ = builder.place(builder.root, b"copied link")
    copied.symlink_to(link.readlink())
    status, _ = read(tmp_path)
    assert status == 1
    reasons = sorted(problems(capsys))
    assert reasons == ["IntegrityError: out of its place"] * 3 + ["IntegrityError: symlink out of its place"]


def test_a_cut_file_is_noticed(tmp_path: Path, builder: Builder, capsys: pytest.CaptureFixture[str]) -> None:
    path = builder.file(builder.root, b"file", CONTENT[:8192])
    os.truncate(path, 1024 + 4124)
    status, _ = read(tmp_path)
    assert status == 1
    assert problems(capsys) == ["IntegrityError: cut: 4096 bytes of 8192"]


def test_a_long_file_without_a_header_is_damage(
    tmp_path: Path, builder: Builder, capsys: pytest.CaptureFixture[str]
) -> None:
    path = builder.file(builder.root, b"file", CONTENT[:100])
    with path.open("r+b") as file:
        file.seek(128)
        file.write(bytes(896))
    assert read(tmp_path)[0] == 1
    assert problems(capsys) == ["IntegrityError: no authentic header"]


def test_the_backup_of_the_volume_file_counts(tmp_path: Path, builder: Builder) -> None:
    builder.file(builder.root, b"file", b"content")
    volume_file = builder.root.lower / "envfs.volume"
    volume_file.write_bytes(volume_file.read_bytes()[:-1] + b"!")
    status, out = read(tmp_path)
    assert status == 0
    assert (out / "file").read_bytes() == b"content"
    volume_file.unlink()
    shutil.rmtree(out)
    assert read(tmp_path)[0] == 0


def test_a_passphrase_opens_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, passphrase = tmp_path / "home", Secret("correct horse ü".encode())
    init_kms(home, root_key="passphrase", passphrase=passphrase, cost=CHEAP)
    with Engine.open(home, PassphraseUnlock(passphrase)) as engine:
        builder = make_builder(tmp_path / "lower", engine)
        builder.file(builder.root, b"file", b"content")
    given = tmp_path / "passphrase"
    given.write_text("correct horse ü\n")
    status, out = read(tmp_path, "--passphrase-file", str(given))
    assert status == 0
    assert (out / "file").read_bytes() == b"content"
    given.write_text("wrong")
    assert read(tmp_path, "--passphrase-file", str(given))[0] == 1
    assert "no slot of the root key" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("statement", "failure"),
    [
        ("UPDATE keys SET policy = '{}'", "IntegrityError: keys"),
        ("UPDATE keys SET state = 'Disabled'", "IntegrityError: keys"),
        ("DELETE FROM keys WHERE manager = 'CUSTOMER'", "IntegrityError: tree of keys"),
        ("DELETE FROM audit_chains", "IntegrityError: tree of audit_chains"),
        ("UPDATE audit_chains SET leaf = leaf + 1", "IntegrityError: audit_chains"),
        ("DELETE FROM tree WHERE name = 'keys' AND parent < 0", "IntegrityError: tree of keys"),
        ("UPDATE tree SET digest = zeroblob(32) WHERE name = 'backing_keys'", "IntegrityError: tree of backing_keys"),
        ("UPDATE sets SET digest = zeroblob(32) WHERE name = 'aliases'", "IntegrityError: sets"),
        ("UPDATE sets SET generation = 0", "IntegrityError: state"),
        ("UPDATE state SET generation = generation + 1", "IntegrityError: state"),
        ("UPDATE store SET owner_uid = 4242", "IntegrityError: store"),
        ("PRAGMA user_version = 1000", "UnsupportedVersion: kms.db has schema version 1000"),
        ("PRAGMA application_id = 1", "FormatError: kms.db is not the database of a KMS"),
    ],
)
def test_edits_of_the_database_are_noticed(
    tmp_path: Path, home: Path, statement: str, failure: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Engine.open(home, KeyFileUnlock(home / "root.key")) as engine:
        builder = make_builder(tmp_path / "lower", engine)
        builder.file(builder.root, b"file", b"content")
    assert read(tmp_path)[0] == 0
    with sqlite3.connect(home / "kms.db") as database:
        database.execute(statement)
    database.close()
    assert read(tmp_path)[0] == 1
    assert capsys.readouterr().err.strip() == failure


def test_a_volume_of_another_kms_is_refused(
    tmp_path: Path, builder: Builder, capsys: pytest.CaptureFixture[str]
) -> None:
    builder.file(builder.root, b"file", b"content")
    init_kms(tmp_path / "other")
    (tmp_path / "home").rename(tmp_path / "first")
    (tmp_path / "other").rename(tmp_path / "home")
    assert read(tmp_path)[0] == 1
    assert capsys.readouterr().err.strip() == "IntegrityError: a volume of another KMS"
