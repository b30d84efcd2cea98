"""Inodes: which lower inode a node stands for, whatever happens to its names."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from envfs.errors import IntegrityError
from tests.unit.fs.lab import Lab, Session, read_all


def test_a_node_id_is_the_lower_inode_number(fs: Session) -> None:
    fs.write(b"a", b"1")
    assert fs.node(b"a").node_id == os.lstat(fs.lower(b"a")).st_ino


def test_the_same_file_is_the_same_node_by_every_name(fs: Session) -> None:
    fs.write(b"a", b"1")
    fs.link(b"a", b"b")
    assert fs.node(b"a") is fs.node(b"b")


def test_a_node_that_is_forgotten_is_gone_and_comes_back_new(fs: Session) -> None:
    fs.write(b"a", b"1")
    node = fs.node(b"a")
    fs.forget(node)
    with pytest.raises(OSError, match="Stale") as refused:
        fs.fs.tree.node(node.node_id)
    assert refused.value.errno == errno.ESTALE
    assert fs.node(b"a") is not node


def test_forgetting_some_of_the_references_keeps_the_node(fs: Session) -> None:
    fs.write(b"a", b"1")
    node = fs.node(b"a")
    assert node.lookups >= 2
    fs.fs.state.nodes.forget(node.node_id, node.lookups - 1)
    assert fs.fs.tree.node(node.node_id) is node


def test_the_root_is_never_forgotten(fs: Session) -> None:
    root = fs.fs.tree.node(1)
    fs.fs.state.nodes.forget(1, 1000)
    assert fs.fs.tree.node(1) is root


def test_an_unlinked_file_is_held_until_it_is_forgotten(fs: Session) -> None:
    fs.write(b"a", b"1")
    node = fs.node(b"a")
    fs.unlink(b"a")
    pin = node.pin
    assert os.fstat(pin).st_ino == node.lower_ino
    assert fs.fs.tree.stat(node).st_nlink == 0
    fs.forget(node)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pin)


def test_an_inode_number_is_not_reused_while_the_kernel_knows_it(fs: Session) -> None:
    """ext4 and tmpfs give a freed number to the next file: the pin keeps it taken."""
    fs.write(b"a", b"old")
    old = fs.node(b"a")
    fs.unlink(b"a")
    for index in range(8):
        fs.write(b"new%d" % index, b"new")
        assert fs.node(b"new%d" % index) is not old
    with pytest.raises(FileNotFoundError):
        fs.node(b"a")


def test_a_number_that_something_else_got_behind_our_back_gets_an_id_of_its_own(fs: Session) -> None:
    """The lower file was replaced by one of another kind with the same inode number."""
    fs.write(b"a", b"1")
    node = fs.node(b"a")
    lower = fs.lower(b"a")
    found = os.lstat(lower)
    pretended = os.stat_result([stat.S_IFDIR | 0o755, *list(found)[1:]])
    fresh = fs.fs.state.nodes.adopt(fs.fs.tree.node(1), b"a", node.lower_name, node.full_name, pretended)
    assert fresh is not node
    assert fresh.node_id >= 1 << 63
    assert fs.fs.state.nodes.find(found) is fresh
    fresh.lookups += 1
    fs.forget(fresh)
    assert fs.fs.state.nodes.find(found) is None


def test_another_filesystem_inside_the_lower_directory_cannot_collide(fs: Session) -> None:
    fs.write(b"a", b"1")
    node = fs.node(b"a")
    found = list(os.lstat(fs.lower(b"a")))
    found[2] += 1  # st_dev
    elsewhere = fs.fs.state.nodes.adopt(fs.fs.tree.node(1), b"m", b"m", b"m", os.stat_result(found))
    assert elsewhere is not node
    assert elsewhere.node_id != node.node_id
    elsewhere.lookups += 1
    fs.forget(elsewhere)


def test_a_lower_file_that_was_exchanged_is_stale(fs: Session) -> None:
    """The kernel then looks the name up again, and finds what stands there now."""
    fs.write(b"a", b"1")
    fs.write(b"b", b"2")
    node = fs.node(b"a")
    lower = fs.lower(b"a")
    os.rename(fs.lower(b"b"), lower)
    for attempt in (
        lambda: fs.fs.tree.stat(node),
        lambda: fs.fs.state.opener.open(node, fs.caller, write=False),
        lambda: fs.fs.state.opener.open(node, fs.caller, write=True),
    ):
        with pytest.raises(OSError, match="Stale") as refused:
            attempt()
        assert refused.value.errno == errno.ESTALE
    with pytest.raises(IntegrityError), fs.opened(b"a"):
        pass


def test_a_lower_directory_that_was_exchanged_is_stale(lab: Lab) -> None:
    fs = lab.mount()
    fs.mkdir(b"a")
    fs.mkdir(b"b")
    fs = lab.mount()
    node = fs.node(b"a")
    lower = fs.lower(b"a")
    os.rename(lower, lab.lower / "aside")
    os.rename(fs.lower(b"b"), lower)
    with pytest.raises(OSError, match="Stale"):
        fs.fs.tree.lookup(node.node_id, b"x")


def test_a_directory_is_followed_when_one_above_it_is_renamed(fs: Session) -> None:
    fs.mkdir(b"a")
    fs.mkdir(b"a/b")
    fs.write(b"a/b/c", b"deep")
    node = fs.node(b"a/b/c")
    fs.rename(b"a", b"moved")
    assert node.path() == "/moved/b/c"
    assert fs.fs.tree.stat(node).st_ino == node.lower_ino
    assert fs.read(b"moved/b/c") == b"deep"


def test_a_directory_can_be_used_after_its_descriptor_was_given_back(fs: Session) -> None:
    nodes = fs.fs.state.nodes
    most = nodes.most_directories
    for index in range(most // 64 + 40):
        fs.mkdir(b"d%d" % index)
    nodes.most_directories = 16
    try:
        over = [len(nodes.open_directories) > nodes.most_directories]
        nodes.trim()
        over.append(len(nodes.open_directories) > nodes.most_directories)
        assert over == [True, False]
        assert nodes.root.directory_fd >= 0
        assert fs.node(b"d0").directory_fd == -1
        fs.write(b"d0/file", b"x")
        assert fs.read(b"d0/file") == b"x"
    finally:
        nodes.most_directories = most


def test_unlink_of_one_of_two_names_keeps_the_other_usable(fs: Session) -> None:
    fs.write(b"a", b"1")
    fs.link(b"a", b"b")
    node = fs.node(b"b")  # known by b from here on
    fs.unlink(b"b")
    assert fs.fs.tree.stat(node).st_nlink == 1
    content = fs.fs.state.opener.open(node, fs.caller, write=True)
    number = fs.fs.add_handle(node, content)
    content.write(1, b"2")
    fs.fs.release(number)
    assert fs.read(b"a") == b"12"


@pytest.mark.parametrize("is_open", [False, True])
def test_a_file_that_lost_the_name_it_was_known_by_can_be_linked_by_its_other_one(lab: Lab, is_open: bool) -> None:
    """The kernel still knows the other name and does not look it up."""
    fs = lab.mount()
    fs.write(b"a", b"1")
    fs.link(b"a", b"b")
    node = fs.node(b"b")
    number = fs.fs.add_handle(node, fs.fs.state.opener.open(node, fs.caller, write=True)) if is_open else None
    fs.unlink(b"b")
    assert fs.fs.mover.link(node, 1, b"n" * 200).st_nlink == 2
    node.lookups += 1
    if number is not None:
        fs.fs.release(number)
    assert fs.read(b"n" * 200) == fs.read(b"a") == b"1"
    fs = lab.mount()
    assert fs.read(b"n" * 200) == fs.read(b"a") == b"1"


def test_a_file_without_any_name_cannot_be_linked(fs: Session) -> None:
    fs.write(b"a", b"1")
    node = fs.node(b"a")
    fs.unlink(b"a")
    with pytest.raises(FileNotFoundError):
        fs.fs.mover.link(node, 1, b"b")


def test_an_open_file_outlives_its_name(fs: Session) -> None:
    with fs.created(b"a") as content:
        content.write(0, b"before")
        node = fs.node(b"a")
        fs.unlink(b"a")
        content.write(6, b" and after")
        assert read_all(content) == b"before and after"
        content.truncate(3)
        assert fs.fs.tree.plain_size(node, fs.fs.tree.stat(node)) == 3
    assert fs.fs.tree.stat(node).st_nlink == 0  # still held for the kernel
    fs.forget(node)
    assert fs.names() == []


def test_a_file_without_a_name_can_be_opened_again_through_its_node(fs: Session) -> None:
    """/proc/self/fd, or an open that the kernel resolved before the unlink."""
    fs.write(b"a", b"held")
    node = fs.node(b"a")
    fs.unlink(b"a")
    for write in (False, True):
        content = fs.fs.state.opener.open(node, fs.caller, write=write)
        number = fs.fs.add_handle(node, content)
        assert read_all(content) == b"held"
        fs.fs.release(number)


def test_what_was_just_made_is_never_what_had_its_inode_number_before(fs: Session) -> None:
    """Removed in the lower directory, behind our back, and the number given out again at once, as ext4 does."""
    fs.write(b"a", b"1")
    old = fs.node(b"a")
    found = fs.fs.tree.stat(old)
    new = fs.fs.state.nodes.adopt_new(fs.fs.tree.node(1), b"b", b"b", b"b", found)
    assert new is not old
    assert new.node_id != old.node_id
    with pytest.raises(OSError, match="Stale"):
        fs.fs.tree.stat(old)
