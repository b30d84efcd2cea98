"""Directory files: inheritance of keys and labels, and what a wrong one shuts off."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from envfs.errors import EnvfsError, IntegrityError
from envfs.format.blob import Blob
from envfs.format.context import decode_labels
from envfs.format.directory import DirectoryFile
from envfs.format.names import DIRECTORY_FILE
from tests.unit.fs.lab import Lab, Session, flip, lower_names, slots_of

if TYPE_CHECKING:
    from pathlib import Path


def set_key(fs: Session, path: bytes, key_arn: str) -> None:
    fs.fs.set_directory_key(fs.node(path).node_id, key_arn)


def key_of(fs: Session, path: bytes) -> str:
    slot = slots_of(fs.lower(path))[0]
    return fs.lab.engine.account.key_arn(Blob.parse(slot.blob).key_id)


def set_labels(fs: Session, path: bytes, labels: dict[str, str]) -> None:
    """As a later release will: rewrite the directory file with labels."""
    lower = fs.lower(path) / os.fsdecode(DIRECTORY_FILE)
    keys = fs.fs.state.keys
    parsed, place = DirectoryFile.parse(keys.directory, lower.read_bytes())
    lower.write_bytes(replace(parsed, labels=labels).serialise(keys.directory, place))


# Keys


def test_new_files_get_the_key_of_the_nearest_directory(lab: Lab) -> None:
    one, two = lab.engine.create_key(lab.me).arn, lab.engine.create_key(lab.me).arn
    fs = lab.mount()
    for path in (b"a", b"a/b", b"a/b/c", b"a/b/c/d"):
        fs.mkdir(path)
    set_key(fs, b"a/b", one)
    set_key(fs, b"a/b/c/d", two)
    volume_key = fs.fs.state.volume.key_arn
    expected = {b"x": volume_key, b"a/x": volume_key, b"a/b/x": one, b"a/b/c/x": one, b"a/b/c/d/x": two}
    for _ in range(2):
        for path, key in expected.items():
            fs.write(path, b"1")
            assert key_of(fs, path) == key
            fs.unlink(path)
        assert fs.fs.describe_directory(fs.node(b"a/b/c").node_id)["key"] == one
        assert fs.fs.describe_directory(fs.node(b"a/b/c").node_id)["own_key"] is None
        fs = lab.mount()
    set_key(fs, b"a/b", "")
    fs.write(b"a/b/c/x", b"1")
    assert key_of(fs, b"a/b/c/x") == volume_key


def test_existing_files_keep_their_key_wherever_they_go(lab: Lab) -> None:
    key = lab.engine.create_key(lab.me).arn
    fs = lab.mount()
    fs.mkdir(b"d")
    fs.write(b"d/old", b"1")
    before = key_of(fs, b"d/old")
    set_key(fs, b"d", key)
    assert key_of(fs, b"d/old") == before
    fs.write(b"d/new", b"2")
    fs.rename(b"d/new", b"moved")
    assert key_of(fs, b"moved") == key
    fs.truncate(b"moved", 0)
    fs.write(b"moved", b"3")
    assert key_of(fs, b"moved") == key
    fs = lab.mount()
    assert fs.read(b"d/old") + fs.read(b"moved") == b"13"


def test_a_key_set_on_the_root_is_everybodys(lab: Lab) -> None:
    key = lab.engine.create_key(lab.me).arn
    fs = lab.mount()
    fs.mkdir(b"d")
    set_key(fs, b"", key)
    fs.write(b"d/x", b"1")
    assert key_of(fs, b"d/x") == key


def test_setting_a_key_keeps_place_and_times_and_leaves_nothing_behind(lab: Lab) -> None:
    key = lab.engine.create_key(lab.me).arn
    fs = lab.mount()
    fs.mkdir(b"d")
    fs.mkdir(b"e")
    fs.rename(b"d", b"e/d")
    before = fs.stat(b"e/d").st_mtime_ns
    set_key(fs, b"e/d", key)
    assert fs.stat(b"e/d").st_mtime_ns == before
    assert lower_names(fs.lower(b"e/d")) == {DIRECTORY_FILE}
    fs = lab.mount()
    fs.write(b"e/d/x", b"1")
    assert key_of(fs, b"e/d/x") == key


# Labels


def test_labels_are_inherited_and_stand_in_the_header(lab: Lab) -> None:
    fs = lab.mount()
    for path in (b"a", b"a/b", b"a/b/c"):
        fs.mkdir(path)
    set_labels(fs, b"a", {"team": "red", "level": "low"})
    set_labels(fs, b"a/b", {"level": "high"})
    fs = lab.mount()
    fs.write(b"x", b"0")
    fs.write(b"a/x", b"1")
    fs.write(b"a/b/c/x", b"2")
    assert decode_labels(slots_of(fs.lower(b"x"))[0].labels) == {}
    assert decode_labels(slots_of(fs.lower(b"a/x"))[0].labels) == {"team": "red", "level": "low"}
    assert decode_labels(slots_of(fs.lower(b"a/b/c/x"))[0].labels) == {"team": "red", "level": "high"}
    fs.rename(b"a/b/c/x", b"moved")
    fs = lab.mount()
    assert fs.read(b"moved") == b"2"  # under the labels it was made with
    assert fs.fs.describe_directory(fs.node(b"a/b/c").node_id)["labels"] == {"team": "red", "level": "high"}


# Damage


@pytest.fixture
def two(lab: Lab) -> Session:
    """Two directories with a file each, and a file in the root."""
    fs = lab.mount()
    for name in (b"one", b"two"):
        fs.mkdir(name)
        fs.mkdir(name + b"/sub")
        fs.write(name + b"/file", name)
        fs.write(name + b"/sub/file", name)
    fs.write(b"file", b"root")
    return fs


def shut(fs: Session, path: bytes) -> None:
    """Nothing in the directory can be reached, and it is still there to be looked at."""
    node = fs.node(path)
    for attempt in (
        lambda: fs.names(path),
        lambda: fs.fs.tree.lookup(node.node_id, b"file"),
        lambda: fs.write(path + b"/new", b"x"),
        lambda: fs.mkdir(path + b"/newdir"),
        lambda: fs.unlink(path + b"/file"),
        lambda: fs.fs.xattrs.set(node, b"user.a", b"1"),
        lambda: fs.rename(path, b"elsewhere"),
    ):
        with pytest.raises((EnvfsError, OSError)) as refused:
            attempt()
        assert not isinstance(refused.value, FileNotFoundError)
    assert fs.stat(path).st_ino == node.lower_ino


def others_are_fine(fs: Session, *but: bytes) -> None:
    for name in {b"one", b"two"} - set(but):
        assert fs.read(name + b"/file") == fs.read(name + b"/sub/file") == name
    assert fs.read(b"file") == b"root"


@pytest.mark.parametrize("offset", [0, 5, 7, 10, 30, 60, 100, 128, 132, 135, 140, 152, 154, 156, -32, -1])
def test_a_damaged_directory_file_shuts_the_directory(two: Session, lab: Lab, offset: int) -> None:
    path = two.lower(b"one") / "envfs.dir"
    lab.unmount()
    flip(path, offset if offset >= 0 else path.stat().st_size + offset)
    fs = lab.mount()
    if 56 <= offset < 104:
        # The previous place of a directory that was never moved: whatever stands there leads nowhere.
        assert fs.read(b"one/file") == b"one"
    else:
        shut(fs, b"one")
    others_are_fine(fs, b"one")


@pytest.mark.parametrize("how", ["lost", "empty", "cut", "longer", "huge", "directory", "fifo", "symlink"])
def test_what_is_no_directory_file_shuts_the_directory(two: Session, lab: Lab, how: str) -> None:
    path = two.lower(b"one") / "envfs.dir"
    good = two.lower(b"two") / "envfs.dir"
    lab.unmount()
    replace_file(path, good, how)
    fs = lab.mount()
    shut(fs, b"one")
    others_are_fine(fs, b"one")


def replace_file(path: Path, good: Path, how: str) -> None:
    raw = path.read_bytes()
    path.unlink()
    if how in {"empty", "cut", "longer", "huge"}:
        path.write_bytes({"empty": b"", "cut": raw[:-1], "longer": raw + b"\0", "huge": raw + bytes(1 << 20)}[how])
    elif how == "directory":
        path.mkdir()
    elif how == "fifo":
        os.mkfifo(path)  # opening it must not wait for a writer
    elif how == "symlink":
        path.symlink_to(good)


def test_swapped_directory_files_shut_both(two: Session, lab: Lab) -> None:
    one, other = two.lower(b"one") / "envfs.dir", two.lower(b"two") / "envfs.dir"
    lab.unmount()
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    fs = lab.mount()
    shut(fs, b"one")
    shut(fs, b"two")
    assert fs.read(b"file") == b"root"


def test_swapped_directories_shut_both(two: Session, lab: Lab) -> None:
    one, other = two.lower(b"one"), two.lower(b"two")
    lab.unmount()
    os.rename(one, lab.lower / "aside")
    os.rename(other, one)
    os.rename(lab.lower / "aside", other)
    fs = lab.mount()
    shut(fs, b"one")
    shut(fs, b"two")
    assert fs.read(b"file") == b"root"


def test_a_directory_moved_into_another_is_shut(two: Session, lab: Lab) -> None:
    """Its name does not even decrypt there; under a name that does, its place is wrong."""
    source, target = two.lower(b"one/sub"), two.lower(b"two/sub")
    two.unlink(b"two/sub/file")
    two.rmdir(b"two/sub")
    lab.unmount()
    os.rename(source, target)
    fs = lab.mount()
    shut(fs, b"two/sub")
    assert fs.names(b"one") == [b"file"]
    assert fs.read(b"two/file") == b"two"


def test_a_copied_directory_is_shut_and_the_original_is_not(two: Session, lab: Lab) -> None:
    source, target = two.lower(b"one"), two.lower(b"two")
    lab.unmount()
    for name in os.listdir(target):
        if not (target / name).is_dir():
            (target / name).unlink()
    for name in os.listdir(source):
        if not (source / name).is_dir():
            (target / name).write_bytes((source / name).read_bytes())
    fs = lab.mount()
    shut(fs, b"two")
    others_are_fine(fs, b"two")


def test_the_root_must_be_the_one_that_the_volume_file_names(two: Session, lab: Lab) -> None:
    foreign = two.lower(b"one") / "envfs.dir"
    lab.unmount()
    (lab.lower / "envfs.dir").write_bytes(foreign.read_bytes())
    with pytest.raises(IntegrityError):
        lab.mount()


def test_a_root_without_its_directory_file_is_not_mounted(two: Session, lab: Lab) -> None:
    lab.unmount()
    (lab.lower / "envfs.dir").unlink()
    with pytest.raises(IntegrityError, match="lost its directory file"):
        lab.mount()


def test_another_volumes_directory_is_shut(two: Session, lab: Lab, tmp_path: Path) -> None:
    foreign = Lab(tmp_path)
    try:
        other = foreign.mount()
        other.mkdir(b"one")
        raw = (other.lower(b"one") / "envfs.dir").read_bytes()
    finally:
        foreign.close()
    path = two.lower(b"one") / "envfs.dir"
    lab.unmount()
    path.write_bytes(raw)
    fs = lab.mount()
    shut(fs, b"one")
    others_are_fine(fs, b"one")


@pytest.mark.parametrize("how", ["remove", "replace"])
def test_a_damaged_directory_without_entries_can_be_disposed_of(lab: Lab, how: str) -> None:
    fs = lab.mount()
    fs.mkdir(b"bad")
    fs.mkdir(b"good")
    fs.write(b"good/file", b"1")
    path = fs.lower(b"bad") / "envfs.dir"
    lab.unmount()
    flip(path, 140)
    fs = lab.mount()
    shut(fs, b"bad")
    if how == "remove":
        fs.rmdir(b"bad")
        assert fs.names() == [b"good"]
    else:
        fs.rename(b"good", b"bad")
        assert lab.mount().read(b"bad/file") == b"1"
