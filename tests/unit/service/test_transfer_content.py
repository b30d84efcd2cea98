"""Copying content with its holes, and what is found when DST does not give back what was written."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envfs.service.errors import MountError
from envfs.service.transfer import attributes, entries
from envfs.service.transfer.content import CHUNK, SourceChanged, _not_zero, copy, digest_of
from envfs.service.transfer.report import Outcome, Wishes
from envfs.service.transfer.tree import TreeCopy
from tests.conftest import NOT_HERE

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


def nothing(_: int) -> None:
    pass


def sparse_file(path: Path, size: int, pieces: dict[int, bytes]) -> bytes:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, piece in pieces.items():
            file.seek(offset)
            file.write(piece)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("size", "pieces"),
    [
        (0, {}),
        (1, {0: b"x"}),
        (3 * MIB, {}),
        (5 * MIB + 7, {0: b"a", 2 * MIB - 1: b"bb", 5 * MIB: b"c"}),
        (9 * MIB, {8 * MIB: b"x" * MIB}),
        (4 * MIB, {0: bytes(MIB), MIB: b"y"}),
        (2 * MIB + 1, {0: b"z" * (2 * MIB + 1)}),
    ],
)
@pytest.mark.parametrize("tells_holes", [True, False])
def test_content_and_holes_arrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, pieces: dict[int, bytes], tells_holes: bool
) -> None:
    if not tells_holes:  # as in a mount, which knows no SEEK_HOLE
        monkeypatch.setattr("envfs.service.transfer.content._tells_holes", lambda _fd, _size: False)
    content = sparse_file(tmp_path / "from", size, pieces)
    advanced: list[int] = []
    with (tmp_path / "from").open("rb") as source, (tmp_path / "to").open("w+b") as target:
        status = os.fstat(source.fileno())
        digest = copy(source.fileno(), target.fileno(), status, advanced.append)
        assert digest == digest_of(target.fileno(), size, nothing)
    assert (tmp_path / "to").read_bytes() == content
    assert sum(advanced) == size
    assert (tmp_path / "to").stat().st_blocks <= status.st_blocks + 8 * len(pieces)


@given(st.lists(st.sampled_from([b"\0", b"\1"]), max_size=6), st.integers(0, 4096))
@settings(max_examples=60)
def test_what_is_not_zero_is_copied(pieces: list[bytes], rest: int) -> None:
    chunk = b"".join(piece * 4096 for piece in pieces) + bytes([7]) * rest
    target = bytearray(len(chunk))
    for start, end in _not_zero(chunk, 100):
        target[start - 100 : end - 100] = chunk[start - 100 : end - 100]
    assert target == chunk


def test_a_digest_tells_zeros_from_data_and_order(tmp_path: Path) -> None:
    digests = set()
    contents = [b"", b"\0", b"\0\0", b"Z1", b"D1:\0", bytes(CHUNK) + b"a", b"a" + bytes(CHUNK), bytes(CHUNK + 1)]
    for content in contents:
        (tmp_path / "f").write_bytes(content)
        with (tmp_path / "f").open("rb") as file:
            digests.add(digest_of(file.fileno(), len(content), nothing))
    assert len(digests) == len(contents)


def test_a_file_that_got_shorter_is_no_whole_one(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"short")
    with (tmp_path / "f").open("rb") as file, pytest.raises(SourceChanged):
        digest_of(file.fileno(), 6, nothing)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[int, int]:
    for name in ("source", "target"):
        (tmp_path / name).mkdir()
    (tmp_path / "source" / "f").write_bytes(b"what was written" * 1000)
    return (
        os.open(tmp_path / "source", os.O_RDONLY | os.O_DIRECTORY),
        os.open(tmp_path / "target", os.O_RDONLY | os.O_DIRECTORY),
    )


@pytest.mark.parametrize("how", ["a byte", "shorter", "another file", "a symlink"])
def test_what_reads_back_otherwise_never_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: tuple[int, int], how: str
) -> None:
    source, target = pair
    really = attributes.read

    def spoil(fd: int, status: os.stat_result) -> attributes.Attributes:
        """Between the writing and the reading."""
        (part,) = (tmp_path / "target").iterdir()
        with part.open("r+b") as file:
            if how == "a byte":
                file.seek(12345)
                file.write(b"!")
            elif how == "shorter":
                file.truncate(999)
        if how.startswith("a") and how != "a byte":
            part.rename(tmp_path / "elsewhere")
            if how == "a symlink":
                part.symlink_to(tmp_path / "elsewhere")
            else:
                part.write_bytes(b"what was written" * 1000)
        return really(fd, status)

    monkeypatch.setattr(attributes, "read", spoil)
    with pytest.raises((entries.Different, OSError)):
        entries.put(source, target, b"f", os.stat("f", dir_fd=source), nothing, replace=False)
    assert os.listdir(target) == []
    os.close(source)
    os.close(target)


def test_a_name_that_was_taken_meanwhile_is_not_overwritten(tmp_path: Path, pair: tuple[int, int]) -> None:
    source, target = pair
    status = os.stat("f", dir_fd=source)
    (tmp_path / "target" / "f").write_bytes(b"somebody else's")
    with pytest.raises(entries.Taken):
        entries.put(source, target, b"f", status, nothing, replace=False)
    assert (tmp_path / "target" / "f").read_bytes() == b"somebody else's"
    assert os.listdir(target) == ["f"]
    entries.put(source, target, b"f", status, nothing, replace=True)
    assert (tmp_path / "target" / "f").read_bytes() == b"what was written" * 1000
    os.close(source)
    os.close(target)


def test_no_mode_gets_wider_than_it_was() -> None:
    for mode, lost, expected in (
        (0o6755, [], 0o6755),
        (0o6755, ["owner"], 0o755),
        (0o4770, ["group"], 0o700),
        (0o664, ["group"], 0o644),
        (0o1757, ["owner", "group"], 0o1757),
    ):
        assert attributes._mode(mode, lost) == expected


def file_with_acl(path: Path) -> Path:
    """user::rw-, a user: rw-, group::---, mask::rw-, other::---: the mode shows 0660, and the group may nothing."""
    path.write_bytes(b"secret")
    entries_of_it = [(1, 6, 0xFFFFFFFF), (2, 6, 12345), (4, 0, 0xFFFFFFFF), (16, 6, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)]
    raw = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries_of_it)
    try:
        os.setxattr(path, attributes.ACL, raw)
    except OSError:
        pytest.skip(f"{NOT_HERE}{path.parent} takes no ACLs")
    assert path.stat().st_mode & 0o777 == 0o660
    return path


def give_attributes(source: Path, target: Path) -> list[str]:
    target.write_bytes(b"secret")
    target.chmod(0o600)
    with source.open("rb") as file, target.open("rb") as other:
        return attributes.apply(other.fileno(), attributes.read(file.fileno(), os.fstat(file.fileno())))


def test_the_group_may_at_no_moment_what_an_acl_keeps_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = file_with_acl(tmp_path / "source"), tmp_path / "target"
    modes = []
    chmod = os.chmod

    def watched(what: int | Path, mode: int, **options: bool) -> None:
        chmod(what, mode, **options)
        modes.append((os.stat(what).st_mode & 0o070, attributes.ACL in os.listxattr(what)))

    monkeypatch.setattr(os, "chmod", watched)
    assert give_attributes(source, target) == []
    assert not [bits for bits, has_acl in modes if bits and not has_acl]
    assert os.getxattr(target, attributes.ACL) == os.getxattr(source, attributes.ACL)
    assert target.stat().st_mode & 0o777 == 0o660


def test_an_acl_says_nothing_of_another_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its entry of the owning group would open the file to whichever group it has now."""
    source, target = file_with_acl(tmp_path / "source"), tmp_path / "target"

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "not the owner")

    os.chown(source, -1, 54321)
    monkeypatch.setattr(os, "chown", refused)
    assert give_attributes(source, target) == ["group", attributes.ACL]
    assert attributes.ACL not in os.listxattr(target)
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_name_that_has_got_another_file_meanwhile_is_no_link_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"both")
    (source / "b").hardlink_to(source / "a")
    copy_of = TreeCopy(source, tmp_path / "target", Wishes(jobs=1), nothing, eio_is_damage=False)
    link_all = copy_of._link_all

    def later(*roots: int) -> None:
        (source / "new").write_bytes(b"another")
        (source / "new").rename(source / "b")
        link_all(*roots)

    monkeypatch.setattr(copy_of, "_link_all", later)
    report = copy_of.run()
    assert not report.is_complete
    assert report.entries[Outcome.CHANGED] == 1
    assert sorted(os.listdir(tmp_path / "target")) == ["a"]
    again = TreeCopy(source, tmp_path / "target", Wishes(jobs=1), nothing, eio_is_damage=False).run()
    assert again.is_complete
    assert (tmp_path / "target" / "b").read_bytes() == b"another"


def test_nothing_is_copied_where_it_would_not_be_encrypted(tmp_path: Path) -> None:
    """The mount has gone between the look at it and the copy (-o idle); the mountpoint is still there."""
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "f").write_bytes(b"secret")
    for target in (tmp_path / "new", source.parent / "old"):
        if target.name == "old":
            (target / "sub").mkdir(parents=True)
        wishes = Wishes(jobs=1, device=os.stat("/dev").st_dev)
        with pytest.raises(MountError, match="any more"):
            TreeCopy(source, target, wishes, nothing, eio_is_damage=False).run()
    assert not (tmp_path / "new").exists()
    assert os.listdir(tmp_path / "old" / "sub") == []
