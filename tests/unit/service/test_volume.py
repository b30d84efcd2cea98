"""Making and opening volumes, with a real KMS."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from envfs.crypto.aead import Suite
from envfs.errors import ConfigError, FormatError, IntegrityError
from envfs.format.directory import DirectoryFile
from envfs.format.place import ROOT, Kind
from envfs.format.volume import VolumeFile
from envfs.kms.bootstrap import init_kms
from envfs.kms.engine import Engine
from envfs.kms.rootkey import KeyFileUnlock
from envfs.service import volume

if TYPE_CHECKING:
    from collections.abc import Iterator

ARN = "arn:envfs:kms:local:000000000000:key/00000000-0000-0000-0000-000000000000"
NAMES = ["envfs.dir", "envfs.volume", "envfs.volume.backup"]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    init_kms(tmp_path / "kms")
    with Engine.open(tmp_path / "kms", KeyFileUnlock(tmp_path / "kms/root.key")) as opened:
        yield opened


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    return tmp_path / "lower"


def make(lower: Path, engine: Engine, **changed: object) -> VolumeFile:
    settings: dict[str, object] = {
        "key_arn": ARN,
        "suite": Suite.CHACHA20_POLY1305,
        "block_size": 65536,
        "now": 1_700_000_000,
    }
    return volume.make_volume(lower, engine, **(settings | changed))  # type: ignore[arg-type]


def test_what_was_made_is_what_is_opened(lower: Path, engine: Engine) -> None:
    made = make(lower, engine)
    opened = volume.open_volume(lower, engine)
    assert opened.file == made
    assert (made.suite, made.block_size, made.created) == (Suite.CHACHA20_POLY1305, 65536, 1_700_000_000)
    assert (made.key_arn, made.kms_id) == (ARN, engine.store_id)
    raw = (lower / "envfs.dir").read_bytes()
    root, place = DirectoryFile.parse(opened.keys.directory, raw)
    assert root.directory_id == made.root_id
    assert opened.keys.place.check(place, Kind.DIRECTORY, made.root_id, ROOT)


def test_nothing_else_is_made_and_only_the_owner_reads_it(lower: Path, engine: Engine) -> None:
    make(lower, engine)
    assert sorted(os.listdir(lower)) == NAMES
    assert {stat.S_IMODE((lower / name).stat().st_mode) for name in NAMES} == {0o600}
    assert (lower / "envfs.volume").read_bytes() == (lower / "envfs.volume.backup").read_bytes()


def test_two_volumes_share_nothing(tmp_path: Path, engine: Engine) -> None:
    one, two = make(tmp_path / "one", engine), make(tmp_path / "two", engine)
    assert one.volume_id != two.volume_id
    assert one.root_id != two.root_id
    assert one.blob != two.blob


def test_an_empty_directory_and_a_new_filesystem_will_do(tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "empty").mkdir()
    make(tmp_path / "empty", engine)
    (tmp_path / "fresh/lost+found").mkdir(parents=True)
    make(tmp_path / "fresh", engine)
    assert sorted(os.listdir(tmp_path / "fresh")) == [*NAMES, "lost+found"]


@pytest.mark.parametrize("size", [0, 1, 512, 2048, 4095, 12288, 131072, -4096])
def test_no_other_block_sizes(size: int, lower: Path, engine: Engine) -> None:
    with pytest.raises(ConfigError) as raised:
        make(lower, engine, block_size=size)
    assert "4096, 8192, 16384, 32768, 65536" in raised.value.hint
    assert not lower.exists()


def test_a_volume_is_never_made_over_anything(lower: Path, engine: Engine, tmp_path: Path) -> None:
    make(lower, engine)
    before = (lower / "envfs.volume").read_bytes()
    with pytest.raises(ConfigError, match="is an envfs volume already"):
        make(lower, engine)
    assert (lower / "envfs.volume").read_bytes() == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        make(tmp_path / "full", engine)
    with pytest.raises(ConfigError, match="is not a directory"):
        make(tmp_path / "full/file", engine)
    with pytest.raises(ConfigError, match="does not exist"):
        make(tmp_path / "absent/lower", engine)
    assert os.listdir(tmp_path / "full") == ["file"]


def test_a_volume_that_lost_its_volume_file_is_not_taken_for_an_empty_directory(lower: Path, engine: Engine) -> None:
    make(lower, engine)
    (lower / "cipher-name-of-a-users-file").write_bytes(b"precious")
    (lower / "envfs.volume").unlink()
    with pytest.raises(ConfigError, match=r"volume file of .* is missing") as raised:
        make(lower, engine)
    assert "envfs.volume.backup" in raised.value.hint
    assert (lower / "cipher-name-of-a-users-file").read_bytes() == b"precious"


class Crash(BaseException):
    """The process ends here: no handler of ours runs any more (it is no Exception), and nothing is taken back."""


@pytest.mark.parametrize("step", range(12))
def test_a_crash_at_any_step_leaves_no_volume_and_a_directory_to_start_again_in(
    step: int, lower: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system calls that write are counted; at number `step` the process is gone, cleaning up included."""
    if crash_at(step, lower, engine, monkeypatch):
        assert not (lower / "envfs.volume").exists()
        with pytest.raises(ConfigError):
            volume.open_volume(lower, engine)
    else:
        assert step >= 9, "this many steps are needed before the volume file has its name"
        (lower / "envfs.volume").unlink()
    make(lower, engine)
    assert sorted(os.listdir(lower)) == NAMES
    volume.open_volume(lower, engine)


def crash_at(step: int, lower: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the volume was not there when the process ended."""
    count = 0

    def gate(call: object) -> object:
        def counted(*arguments: object, **keywords: object) -> object:
            nonlocal count
            if count == step:
                monkeypatch.setattr(os, "unlink", lambda *_args, **_kw: None)  # a dead process unlinks nothing
                monkeypatch.setattr(Path, "rmdir", lambda _self: None)
                raise Crash
            count += 1
            return call(*arguments, **keywords)  # type: ignore[operator]

        return counted

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", gate(os.fsync))
        patched.setattr(os, "rename", gate(os.rename))
        try:
            make(lower, engine)
        except Crash:
            pass
    monkeypatch.undo()
    return not (lower / "envfs.volume").exists()


@pytest.mark.parametrize("step", range(10))
def test_a_failure_at_any_step_takes_back_what_was_made(
    step: int, lower: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0

    def failing(call: object) -> object:
        def counted(*arguments: object, **keywords: object) -> object:
            nonlocal count
            count += 1
            if count == step + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(*arguments, **keywords)  # type: ignore[operator]

        return counted

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing(os.fsync))
        patched.setattr(os, "rename", failing(os.rename))
        with pytest.raises(OSError, match="No space left"):
            make(lower, engine)
    assert not lower.exists()


def test_leavings_of_a_crash_are_cleared_away(lower: Path, engine: Engine) -> None:
    lower.mkdir()
    for name in ("envfs.tmp.0123", "envfs.dir", "envfs.volume.backup"):
        (lower / name).write_bytes(b"half")
    make(lower, engine)
    assert sorted(os.listdir(lower)) == NAMES
    volume.open_volume(lower, engine)


def test_what_can_be_said_beforehand_is_said_without_doing_anything(tmp_path: Path) -> None:
    volume.check_new_volume(tmp_path / "new")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "absent/new"):
        with pytest.raises(ConfigError):
            volume.check_new_volume(path)


def test_every_flipped_bit_of_the_volume_file_is_noticed(lower: Path, engine: Engine) -> None:
    make(lower, engine)
    raw = (lower / "envfs.volume").read_bytes()
    for position in range(len(raw)):
        changed = bytearray(raw)
        changed[position] ^= 1 << position % 8
        (lower / "envfs.volume").write_bytes(changed)
        with pytest.raises((ConfigError, IntegrityError, FormatError)):
            volume.open_volume(lower, engine)
    (lower / "envfs.volume").write_bytes(raw)
    volume.open_volume(lower, engine)


def test_another_kms_is_told_apart_from_damage(lower: Path, engine: Engine, tmp_path: Path) -> None:
    make(lower, engine)
    init_kms(tmp_path / "other")
    with (
        Engine.open(tmp_path / "other", KeyFileUnlock(tmp_path / "other/root.key")) as other,
        pytest.raises(ConfigError, match="another KMS") as raised,
    ):
        volume.open_volume(lower, other)
    assert "ENVFS_HOME" in raised.value.hint


def test_a_symlink_is_no_volume_file(lower: Path, engine: Engine) -> None:
    make(lower, engine)
    (lower / "envfs.volume").unlink()
    (lower / "envfs.volume").symlink_to("envfs.volume.backup")
    with pytest.raises(OSError, match="symbolic links"):
        volume.open_volume(lower, engine)
