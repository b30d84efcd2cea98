"""Symlinks: targets of any length, and the link files of long ones."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from envfs.errors import EnvfsError, FormatError, IntegrityError
from envfs.fs.lower import RENAME_EXCHANGE
from tests.unit.fs.lab import Lab, Session, lower_names

# Text of 4,095 characters holds 3,071 bytes of payload, 64 of which are not the target.
LONGEST_DIRECT = 3007
LENGTHS = [1, 2, 3, 100, LONGEST_DIRECT - 1, LONGEST_DIRECT, LONGEST_DIRECT + 1, 4000, 4095]


def target_of(length: int) -> bytes:
    return bytes(random.Random(length).choices(b"abcdefghijklmnop/.", k=length))


def other_character(text: str, index: int) -> str:
    return text[:index] + ("B" if text[index] != "B" else "C") + text[index + 1 :]


def link_files(directory: os.PathLike[str]) -> list[str]:
    return [name for name in os.listdir(directory) if name.startswith("envfs.link.")]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_target_comes_back(lab: Lab, length: int) -> None:
    fs = lab.mount()
    target = target_of(length)
    fs.symlink(b"l", target)
    for _ in range(2):
        assert fs.readlink(b"l") == target
        assert fs.size(b"l") == length
        fs = lab.mount()
    assert len(link_files(lab.lower)) == (length > LONGEST_DIRECT)
    fs.unlink(b"l")
    assert link_files(lab.lower) == []


@pytest.mark.parametrize("target", [b".", b"..", b"/", b"/etc/passwd", b"../../..", b"\xff\xfe", b"a\nb", b"envfs.dir"])
def test_any_target_is_a_target(lab: Lab, target: bytes) -> None:
    lab.mount().symlink(b"l", target)
    assert lab.mount().readlink(b"l") == target


@pytest.mark.parametrize("length", [10, 4095])
@pytest.mark.parametrize("new", [b"m", b"d/m", b"d/" + b"n" * 255])
def test_renaming(lab: Lab, length: int, new: bytes) -> None:
    fs = lab.mount()
    fs.mkdir(b"d")
    fs.symlink(b"l", target_of(length))
    node = fs.node(b"l")
    fs.rename(b"l", new)
    assert fs.node(new) is node
    for _ in range(2):
        assert fs.readlink(new) == target_of(length)
        assert fs.size(new) == length
        files = len(link_files(lab.lower)), len(link_files(fs.lower(b"d")))
        assert sum(files) == (length == 4095)
        fs = lab.mount()
    fs.rename(new, b"back")
    fs = lab.mount()
    assert fs.readlink(b"back") == target_of(length)
    fs.unlink(b"back")
    assert link_files(lab.lower) == link_files(fs.lower(b"d")) == []


@pytest.mark.parametrize("length", [10, 4095])
@pytest.mark.parametrize("replaced", [10, 4095])
def test_replacing(lab: Lab, length: int, replaced: int) -> None:
    fs = lab.mount()
    fs.symlink(b"l", target_of(length))
    fs.symlink(b"m", b"x" * replaced)
    fs.rename(b"l", b"m")
    fs = lab.mount()
    assert fs.readlink(b"m") == target_of(length)
    assert len(link_files(lab.lower)) == (length == 4095)


@pytest.mark.parametrize("lengths", [(10, 20), (10, 4095), (4094, 4095)])
@pytest.mark.parametrize("second", [b"m", b"d/m"])
def test_exchanging(lab: Lab, lengths: tuple[int, int], second: bytes) -> None:
    fs = lab.mount()
    fs.mkdir(b"d")
    fs.symlink(b"l", target_of(lengths[0]))
    fs.symlink(second, target_of(lengths[1]))
    for expected in ((lengths[1], lengths[0]), lengths):
        fs.rename(b"l", second, RENAME_EXCHANGE)
        fs = lab.mount()
        assert (fs.readlink(b"l"), fs.readlink(second)) == (target_of(expected[0]), target_of(expected[1]))
        found = len(link_files(lab.lower)) + len(link_files(fs.lower(b"d")))
        assert found == sum(length > LONGEST_DIRECT for length in lengths)


@pytest.mark.parametrize("second", [b"m", b"d/m"])
@pytest.mark.parametrize("gone", [b"l", b"second"])
@pytest.mark.parametrize("how", ["unlink", "rename over", "rename away"])
def test_a_symlink_with_a_long_target_has_several_names(lab: Lab, second: bytes, gone: bytes, how: str) -> None:
    fs = lab.mount()
    for name in (b"d", b"e"):
        fs.mkdir(name)
    fs.symlink(b"l", target_of(4095))
    fs.link(b"l", second)
    fs.link(second, b"d/third")
    fs = lab.mount()
    names = {b"l", second, b"d/third"}
    assert {fs.readlink(name) for name in names} == {target_of(4095)}
    gone = second if gone == b"second" else gone
    names.remove(gone)
    if how == "unlink":
        fs.unlink(gone)
    elif how == "rename over":
        fs.write(b"file", b"1")
        fs.rename(b"file", gone)
    else:
        fs.rename(gone, b"e/n")
        names.add(b"e/n")
    for _ in range(2):
        assert {fs.readlink(name) for name in names} == {target_of(4095)}
        assert {fs.size(name) for name in names} == {4095}
        fs = lab.mount()
    for name in names:
        fs.unlink(name)
    assert not link_files(lab.lower) + link_files(fs.lower(b"d")) + link_files(fs.lower(b"e"))


def test_a_symlink_with_a_long_target_of_which_only_another_name_is_known(lab: Lab) -> None:
    """The kernel is told to look again, and finds the other name."""
    fs = lab.mount()
    fs.symlink(b"l", target_of(4095))
    fs.link(b"l", b"m")
    node = fs.node(b"m")
    fs.unlink(b"m")
    with pytest.raises(OSError, match="Stale"):
        fs.fs.tree.readlink(node)
    assert fs.node(b"l") is node
    assert fs.readlink(b"l") == target_of(4095)


def test_a_symlink_of_which_only_another_name_is_known(lab: Lab) -> None:
    fs = lab.mount()
    fs.symlink(b"l", b"target")
    fs.link(b"l", b"m")
    node = fs.node(b"m")
    fs.unlink(b"m")
    assert fs.fs.tree.readlink(node) == b"target"
    assert fs.fs.tree.plain_size(node, fs.fs.tree.stat(node)) == 6
    fs.fs.mover.link(node, 1, b"n")
    node.lookups += 1
    fs = lab.mount()
    assert fs.readlink(b"l") == fs.readlink(b"n") == b"target"


# Damage


def damage(lab: Lab, target: bytes, how: Callable[[str], str]) -> Session:
    """A volume with a symlink `l` whose lower text was changed by `how`, and another one `ok`."""
    fs = lab.mount()
    fs.symlink(b"l", target)
    fs.symlink(b"ok", b"untouched")
    lower = fs.lower(b"l")
    lab.unmount()
    text = os.readlink(lower)
    os.unlink(lower)
    os.symlink(how(text), lower)
    return lab.mount()


@pytest.mark.parametrize(
    "how",
    [
        lambda text: other_character(text, 0),
        lambda text: other_character(text, 22),
        lambda text: other_character(text, 40),
        lambda text: other_character(text, 66),
        lambda text: other_character(text, 90),
        lambda text: text[:80],
        lambda text: text[:3],
        lambda text: text + "=",
        lambda text: "/etc/passwd",
        lambda text: "envfs.link." + "0" * 32,
        lambda text: "envfs.link." + "x" * 32,
        lambda text: "../../../../../../../etc/passwd",
    ],
)
def test_a_damaged_symlink_is_an_error_and_can_be_removed(lab: Lab, how: Callable[[str], str]) -> None:
    fs = damage(lab, b"target", how)
    with pytest.raises(EnvfsError) as refused:
        fs.readlink(b"l")
    assert isinstance(refused.value, IntegrityError | FormatError)
    assert fs.size(b"l") >= 0
    assert fs.names() == [b"l", b"ok"]
    assert fs.readlink(b"ok") == b"untouched"
    fs.unlink(b"l")
    assert lab.mount().names() == [b"ok"]


def test_a_link_file_is_bound_to_its_symlink(lab: Lab) -> None:
    fs = lab.mount()
    fs.symlink(b"a", target_of(4095))
    fs.symlink(b"b", target_of(4094))
    lower = fs.lower(b"a")
    lab.unmount()
    mine = lab.lower / os.readlink(lower)
    others = next(lab.lower / name for name in link_files(lab.lower) if name != mine.name)
    kept = mine.read_bytes()
    for content in (others.read_bytes(), kept[:-1], kept[:-1] + bytes([kept[-1] ^ 1]), b"", bytes(10_000)):
        mine.write_bytes(content)
        fs = lab.mount()
        with pytest.raises((EnvfsError, OSError)):
            fs.readlink(b"a")
        assert fs.readlink(b"b") == target_of(4094)
    mine.unlink()
    fs = lab.mount()
    with pytest.raises(IntegrityError, match="lost its link file"):
        fs.readlink(b"a")
    assert fs.size(b"a") == 0
    fs.unlink(b"a")
    assert b"envfs.link." + b"0" not in lower_names(lab.lower)
    assert lab.mount().names() == [b"b"]


def test_a_link_file_that_leads_elsewhere_is_not_followed(lab: Lab) -> None:
    fs = lab.mount()
    fs.symlink(b"a", target_of(4095))
    lower = fs.lower(b"a")
    lab.unmount()
    link_file = lab.lower / os.readlink(lower)
    aside = lab.lower / "aside"
    os.rename(link_file, aside)
    os.symlink(aside, link_file)
    fs = lab.mount()
    with pytest.raises(OSError, match="symbolic links"):
        fs.readlink(b"a")
