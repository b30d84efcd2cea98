"""Extended attributes: sealed, and bound to their object."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from envfs.errors import EnvfsError
from tests.unit.fs.lab import Lab, Session

ACL = b"system.posix_acl_access"


def get(fs: Session, path: bytes, name: bytes) -> bytes:
    return fs.fs.xattrs.get(fs.node(path), name)


def put(fs: Session, path: bytes, name: bytes, value: bytes) -> None:
    fs.fs.xattrs.set(fs.node(path), name, value)


def names(fs: Session, path: bytes) -> list[bytes]:
    return sorted(fs.fs.xattrs.names(fs.node(path)))


def has_none(fs: Session, path: bytes, name: bytes) -> None:
    with pytest.raises(OSError, match="No data") as refused:
        get(fs, path, name)
    assert refused.value.errno == errno.ENODATA


@pytest.mark.parametrize("path", [b"file", b"dir", b""])
@pytest.mark.parametrize("value", [b"", b"v", bytes(range(256)), b"x" * 1500])
def test_a_value_comes_back(lab: Lab, path: bytes, value: bytes) -> None:
    fs = lab.mount()
    fs.write(b"file", b"1")
    fs.mkdir(b"dir")
    put(fs, path, b"user.comment", value)
    put(fs, path, b"user.other", b"o")
    for _ in range(2):
        assert get(fs, path, b"user.comment") == value
        assert names(fs, path) == [b"user.comment", b"user.other"]
        has_none(fs, path, b"user.nothing")
        fs = lab.mount()
    fs.fs.xattrs.remove(fs.node(path), b"user.comment")
    assert names(lab.mount(), path) == [b"user.other"]


def test_nothing_is_in_clear_below(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"file", b"1")
    put(fs, b"file", b"user.comment", b"plain value")
    (name,) = os.listxattr(fs.lower(b"file"))
    assert name.startswith("user.envfs.")
    assert b"plain" not in os.getxattr(fs.lower(b"file"), name)


def test_a_value_can_be_replaced_and_removed(fs: Session) -> None:
    fs.write(b"file", b"1")
    put(fs, b"file", b"user.a", b"1")
    put(fs, b"file", b"user.a", b"2")
    assert get(fs, b"file", b"user.a") == b"2"
    fs.fs.xattrs.remove(fs.node(b"file"), b"user.a")
    has_none(fs, b"file", b"user.a")
    with pytest.raises(OSError, match="No data") as refused:
        fs.fs.xattrs.remove(fs.node(b"file"), b"user.a")
    assert refused.value.errno == errno.ENODATA


def test_what_was_asked_for_before_it_was_set_is_there_afterwards(fs: Session) -> None:
    """ "There are none" is remembered, until there are."""
    fs.write(b"file", b"1")
    has_none(fs, b"file", b"security.capability")
    assert fs.node(b"file").no_xattrs
    put(fs, b"file", b"user.a", b"1")
    assert get(fs, b"file", b"user.a") == b"1"


def test_they_follow_the_file(lab: Lab) -> None:
    fs = lab.mount()
    fs.mkdir(b"d")
    fs.write(b"file", b"1")
    put(fs, b"file", b"user.a", b"1")
    put(fs, b"d", b"user.d", b"2")
    fs.rename(b"file", b"d/moved")
    fs.link(b"d/moved", b"again")
    fs.rename(b"d", b"e")
    fs = lab.mount()
    assert get(fs, b"e/moved", b"user.a") == get(fs, b"again", b"user.a") == b"1"
    assert get(fs, b"e", b"user.d") == b"2"


def test_they_outlive_truncation_and_rewriting(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"file", b"1" * 9000)
    put(fs, b"file", b"user.a", b"1")
    fs.truncate(b"file", 0)
    fs.write(b"file", b"2")
    assert get(lab.mount(), b"file", b"user.a") == b"1"


def test_a_file_that_is_open_and_empty_can_have_them(lab: Lab) -> None:
    fs = lab.mount()
    with fs.created(b"file") as content:
        put(fs, b"file", b"user.a", b"1")
        content.write(0, b"x")
    fs = lab.mount()
    assert get(fs, b"file", b"user.a") == b"1"
    assert fs.read(b"file") == b"x"


def test_an_unlinked_file_keeps_them(fs: Session) -> None:
    fs.write(b"file", b"1")
    put(fs, b"file", b"user.a", b"1")
    node = fs.node(b"file")
    fs.unlink(b"file")
    assert fs.fs.xattrs.get(node, b"user.a") == b"1"
    fs.fs.xattrs.set(node, b"user.a", b"2")
    assert fs.fs.xattrs.names(node) == [b"user.a"]
    assert fs.fs.xattrs.get(node, b"user.a") == b"2"


@pytest.mark.parametrize("kind", ["symlink", "pipe"])
def test_what_cannot_have_them(fs: Session, kind: str) -> None:
    if kind == "symlink":
        fs.symlink(b"x", b"target")
    else:
        fs.mknod(b"x", stat.S_IFIFO | 0o600)
    has_none(fs, b"x", b"user.a")
    assert names(fs, b"x") == []
    with pytest.raises(PermissionError):
        put(fs, b"x", b"user.a", b"1")
    with pytest.raises(PermissionError):
        fs.fs.xattrs.remove(fs.node(b"x"), b"user.a")


def test_acls_are_refused_without_the_option(fs: Session) -> None:
    fs.write(b"file", b"1")
    for attempt in (
        lambda: get(fs, b"file", ACL),
        lambda: put(fs, b"file", ACL, b"x"),
        lambda: fs.fs.xattrs.remove(fs.node(b"file"), ACL),
    ):
        with pytest.raises(OSError, match="not supported") as refused:
            attempt()
        assert refused.value.errno == errno.EOPNOTSUPP
    assert names(fs, b"file") == []


def test_acls_go_through_with_the_option(lab: Lab) -> None:
    fs = lab.mount(acl=True)
    fs.write(b"file", b"1")
    # Version 2; owner rw, user 1234 r, group r, mask r, others none: each tag, permissions, id, little-endian.
    entries = [(1, 6, 0xFFFFFFFF), (2, 4, 1234), (4, 4, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)]
    acl = (2).to_bytes(4, "little")
    for tag, permissions, who in entries:
        acl += tag.to_bytes(2, "little") + permissions.to_bytes(2, "little") + who.to_bytes(4, "little")
    put(fs, b"file", ACL, acl)
    put(fs, b"file", b"user.a", b"1")
    assert get(fs, b"file", ACL) == acl
    assert names(fs, b"file") == [ACL, b"user.a"]
    assert os.getxattr(fs.lower(b"file"), ACL.decode()) == acl
    fs.fs.xattrs.remove(fs.node(b"file"), ACL)
    assert names(fs, b"file") == [b"user.a"]


# Attributes that were changed below


def test_a_damaged_value_is_an_error_and_the_others_are_not(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"file", b"1")
    put(fs, b"file", b"user.a", b"first")
    (name,) = os.listxattr(fs.lower(b"file"))
    put(fs, b"file", b"user.b", b"second")
    sealed = os.getxattr(fs.lower(b"file"), name)
    for damaged in (sealed[:-1], sealed[:-1] + bytes([sealed[-1] ^ 1]), b"", bytes(40)):
        os.setxattr(fs.lower(b"file"), name, damaged)
        with pytest.raises(EnvfsError):
            get(fs, b"file", b"user.a")
        assert get(fs, b"file", b"user.b") == b"second"
        assert names(fs, b"file") == [b"user.a", b"user.b"]


def test_one_cannot_be_moved_to_another_name_or_file(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"file", b"1")
    fs.write(b"other", b"2")
    put(fs, b"file", b"user.a", b"first")
    (a,) = os.listxattr(fs.lower(b"file"))
    put(fs, b"file", b"user.b", b"second")
    (b,) = set(os.listxattr(fs.lower(b"file"))) - {a}
    value = os.getxattr(fs.lower(b"file"), a)
    os.setxattr(fs.lower(b"file"), b, value)
    os.setxattr(fs.lower(b"other"), a, value)
    with pytest.raises(EnvfsError):
        get(fs, b"file", b"user.b")
    assert get(fs, b"file", b"user.a") == b"first"
    has_none(fs, b"other", b"user.a")
    assert names(fs, b"other") == []


def test_foreign_attributes_are_not_shown(fs: Session) -> None:
    fs.write(b"file", b"1")
    os.setxattr(fs.lower(b"file"), "user.foreign", b"x")
    os.setxattr(fs.lower(b"file"), "user.envfs.AAAA", b"x")
    assert names(fs, b"file") == []
    has_none(fs, b"file", b"user.foreign")
    has_none(fs, b"file", b"user.envfs.AAAA")


def test_selinux_labels_are_not_kept(fs: Session) -> None:
    fs.write(b"f", b"x")
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is checked
        fs.fs.xattrs.set(fs.node(b"f"), b"security.selinux", b"unconfined_u:object_r:user_home_t:s0")
    assert caught.value.errno == errno.EOPNOTSUPP
    assert fs.fs.xattrs.names(fs.node(b"f")) == []


LONG_NAMES = [b"user." + b"n" * 163, b"user." + b"n" * 250, b"user." + b"m" * 250]


@pytest.mark.parametrize("path", [b"file", b"dir"])
def test_names_of_up_to_255_bytes(lab: Lab, path: bytes) -> None:
    fs = lab.mount()
    fs.write(b"file", b"1")
    fs.mkdir(b"dir")
    put(fs, path, b"user.short", b"s")
    for number, name in enumerate(LONG_NAMES):
        put(fs, path, name, b"%d" % number)
    for _ in range(2):
        assert names(fs, path) == sorted([b"user.short", *LONG_NAMES])
        assert [get(fs, path, name) for name in LONG_NAMES] == [b"0", b"1", b"2"]
        fs = lab.mount()
    put(fs, path, LONG_NAMES[1], b"another")
    fs.fs.xattrs.remove(fs.node(path), LONG_NAMES[0])
    assert get(fs, path, LONG_NAMES[1]) == b"another"
    assert names(fs, path) == sorted([b"user.short", *LONG_NAMES[1:]])
    with pytest.raises(OSError, match="range") as refused:
        put(fs, path, b"user." + b"n" * 251, b"")
    assert refused.value.errno == errno.ERANGE


def test_the_value_of_a_long_name_is_not_another_ones(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"file", b"1")
    for number, name in enumerate(LONG_NAMES[1:]):
        put(fs, b"file", name, b"%d" % number)
    lower = fs.lower(b"file")
    first, second = os.listxattr(lower)
    os.setxattr(lower, first, os.getxattr(lower, second))
    fs = lab.mount()
    assert len(names(fs, b"file")) == 1
    answers: list[bytes | None] = []
    for name in LONG_NAMES[1:]:
        try:
            answers.append(get(fs, b"file", name))
        except EnvfsError:
            answers.append(None)
    assert None in answers
    assert set(answers) < {None, b"0", b"1"}


def test_more_attributes_than_can_be_listed_are_there_all_the_same(fs: Session) -> None:
    """On tmpfs: listxattr(2) takes 64 KiB of names, and there the lower filesystem keeps more."""
    fs.write(b"a", b"x" * 10_000)
    node = fs.node(b"a")
    for number in range(2000):
        try:
            fs.fs.xattrs.set(node, b"user.%d" % number, b"%d" % number)
        except OSError:  # this lower filesystem keeps no more
            break
    last = number - 1
    assert fs.fs.xattrs.get(node, b"user.%d" % last) == b"%d" % last
    fs.truncate(b"a", 0)
    assert fs.fs.xattrs.get(node, b"user.0") == b"0"
