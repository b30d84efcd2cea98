"""Names of more than 175 bytes: their name files, in every operation and after a crash."""

from __future__ import annotations

import os

import pytest

from envfs.fs.lower import RENAME_EXCHANGE
from tests.unit.fs.lab import Lab, Session, lower_names

LONGEST_SHORT = b"s" * 175
SHORTEST_LONG = b"l" * 176
LONG = b"n" * 255
OTHER = "ü".encode() * 127 + b"."


def name_files(directory: os.PathLike[str]) -> int:
    return sum(name.startswith("envfs.name.") for name in os.listdir(directory))


def long_entries(directory: os.PathLike[str]) -> int:
    return sum(name.startswith("envfs.long.") for name in os.listdir(directory))


def content_at(fs: Session, path: bytes, kind: str) -> bytes:
    if kind == "symlink":
        return fs.readlink(path)
    return fs.read(path if kind == "file" else path + b"/in")


def tidy(lab: Lab, *directories: os.PathLike[str]) -> bool:
    """Whether every long entry has its name file, and no name file is left over."""
    found = [lab.lower, *directories]
    return all(
        {name[len("envfs.name.") :] for name in os.listdir(path) if name.startswith("envfs.name.")}
        == {name[len("envfs.long.") :] for name in os.listdir(path) if name.startswith("envfs.long.")}
        for path in found
    )


def test_where_long_names_begin(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(LONGEST_SHORT, b"1")
    assert name_files(lab.lower) == 0
    fs.write(SHORTEST_LONG, b"2")
    assert name_files(lab.lower) == 1
    fs = lab.mount()
    assert fs.names() == [SHORTEST_LONG, LONGEST_SHORT]
    assert (fs.read(LONGEST_SHORT), fs.read(SHORTEST_LONG)) == (b"1", b"2")


@pytest.mark.parametrize("name", [SHORTEST_LONG, LONG, OTHER])
def test_everything_that_can_have_a_long_name(lab: Lab, name: bytes) -> None:
    fs = lab.mount()
    fs.mkdir(name)
    fs.write(name + b"/" + name, b"inside")
    fs.symlink(name + b"/L" + name[1:], name)
    fs = lab.mount()
    assert fs.names() == [name]
    assert fs.read(name + b"/" + name) == b"inside"
    assert fs.readlink(name + b"/L" + name[1:]) == name
    lower = fs.lower(name)
    assert tidy(lab, lower)
    fs.unlink(name + b"/" + name)
    fs.unlink(name + b"/L" + name[1:])
    assert lower_names(lower) == {b"envfs.dir"}
    fs.rmdir(name)
    assert lower_names(lab.lower) == {b"envfs.dir", b"envfs.volume", b"envfs.volume.backup"} | _undo(lab)


def _undo(lab: Lab) -> set[bytes]:
    return {b"envfs.undo"} & lower_names(lab.lower)


@pytest.mark.parametrize("old", [b"short", LONG])
@pytest.mark.parametrize("new", [b"other", OTHER])
@pytest.mark.parametrize("directory", [b"", b"d/"])
@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
def test_renaming_between_short_and_long(
    lab: Lab, old: bytes, new: bytes, directory: bytes, replaces: bool, kind: str
) -> None:
    fs = lab.mount()
    fs.mkdir(b"d")

    def make(path: bytes, content: bytes) -> None:
        if kind == "file":
            fs.write(path, content)
        elif kind == "directory":
            fs.mkdir(path)
            if path == old:
                fs.write(path + b"/in", content)
        else:
            fs.symlink(path, content)

    make(old, b"content")
    if replaces:
        make(directory + new, b"replaced")
    fs.rename(old, directory + new)
    for _ in range(2):
        assert content_at(fs, directory + new, kind) == b"content"
        assert not fs.exists(old)
        assert fs.names(directory.rstrip(b"/")) == sorted([new] + ([b"d"] if not directory else []))
        assert tidy(lab, fs.lower(b"d"))
        fs = lab.mount()


@pytest.mark.parametrize(("first", "second"), [(LONG, b"short"), (LONG, OTHER), (b"d/" + LONG, OTHER)])
def test_exchanging_long_names(lab: Lab, first: bytes, second: bytes) -> None:
    fs = lab.mount()
    fs.mkdir(b"d")
    fs.write(first, b"1")
    fs.write(second, b"2")
    fs.rename(first, second, RENAME_EXCHANGE)
    fs = lab.mount()
    assert (fs.read(first), fs.read(second)) == (b"2", b"1")
    assert tidy(lab, fs.lower(b"d"))


def test_links_with_long_names(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"a", b"1")
    fs.link(b"a", LONG)
    fs.link(LONG, OTHER)
    fs.unlink(b"a")
    fs.unlink(LONG)
    fs = lab.mount()
    assert fs.names() == [OTHER]
    assert fs.read(OTHER) == b"1"
    assert tidy(lab)


def test_a_name_file_that_a_crash_left_means_nothing_and_is_used_again(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(LONG, b"1")
    lower = fs.lower(LONG)
    lab.unmount()
    os.unlink(lower)  # the crash came before the file, or after its removal
    fs = lab.mount()
    assert fs.names() == []
    assert not fs.exists(LONG)
    fs.write(LONG, b"2")
    assert lab.mount().read(LONG) == b"2"
    assert tidy(lab)


def test_a_half_written_name_file_is_replaced(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(LONG, b"1")
    lower = fs.lower(LONG)
    lab.unmount()
    os.unlink(lower)
    name_file = lower.with_name(lower.name.replace("envfs.long.", "envfs.name."))
    name_file.write_bytes(name_file.read_bytes()[:100])
    fs = lab.mount()
    fs.write(LONG, b"2")
    fs = lab.mount()
    assert fs.names() == [LONG]


@pytest.mark.parametrize("damage", ["lost", "cut", "flipped", "another's"])
def test_a_damaged_name_file_hides_its_entry_and_nothing_else(
    lab: Lab, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    fs = lab.mount()
    fs.write(LONG, b"1")
    fs.write(OTHER, b"2")
    fs.write(b"short", b"3")
    lower, other = fs.lower(LONG), fs.lower(OTHER)
    lab.unmount()
    name_file = lower.with_name(lower.name.replace("envfs.long.", "envfs.name."))
    raw = name_file.read_bytes()
    if damage == "lost":
        name_file.unlink()
    else:
        others = other.with_name(other.name.replace("envfs.long.", "envfs.name.")).read_bytes()
        name_file.write_bytes({"cut": raw[:-1], "flipped": raw[:-1] + b"!", "another's": others}[damage])
    fs = lab.mount()
    assert fs.names() == sorted([OTHER, b"short"])
    assert lower.name in caplog.text
    assert fs.read(LONG) == b"1"  # whoever knows the name finds it
    assert fs.read(OTHER) == b"2"


def test_a_refused_creation_leaves_at_most_a_name_file(fs: Session, lab: Lab) -> None:
    fs.write(LONG, b"1")
    with pytest.raises(FileExistsError), fs.created(LONG):
        pass
    assert fs.read(LONG) == b"1"
    assert tidy(lab)
    assert long_entries(lab.lower) == 1
