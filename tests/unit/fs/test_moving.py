"""rename(2) and link(2): what stands where afterwards, and what the places say."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from envfs.errors import IntegrityError
from envfs.format.place import ANYWHERE, PLACE_SIZE, Kind, Where
from envfs.fs.attributes import Change
from envfs.fs.lower import RENAME_EXCHANGE, RENAME_NOREPLACE
from tests.unit.fs.lab import Lab, Session, read_all, slots_of

WHITEOUT = 4


def place(fs: Session, path: bytes) -> bytes:
    lower = fs.lower(path)
    return (lower / "envfs.dir" if lower.is_dir() else lower).read_bytes()[:PLACE_SIZE]


def belongs(fs: Session, raw: bytes, path: bytes, where: Where) -> bool:
    """Whether the place `raw` of what stands at `path` now allows `where`."""
    lower = fs.lower(path)
    if lower.is_dir():
        node = fs.node(path)
        object_id, kind = fs.fs.state.directories.load(node).directory_id, Kind.DIRECTORY
    else:
        object_id, kind = slots_of(lower)[0].file_id, Kind.FILE
    return fs.fs.state.keys.place.check(raw, kind, object_id, where)


def where(fs: Session, path: bytes) -> Where:
    """The place of a name, whether something stands there or not."""
    directory, _, name = path.rpartition(b"/")
    parent = fs.node(directory)
    return fs.fs.state.where(parent, fs.fs.tree.cipher_name(parent, name).full)


@pytest.fixture
def tree(lab: Lab) -> Session:
    """d/ with a file, e/ empty, f a file, l a symlink."""
    fs = lab.mount()
    fs.mkdir(b"d")
    fs.write(b"d/inner", b"inner")
    fs.mkdir(b"e")
    fs.write(b"f", b"file")
    fs.symlink(b"l", b"target")
    return fs


def everything(fs: Session, path: bytes = b"") -> dict[bytes, bytes]:
    """Every path below, with its content, its target, or what it is."""
    found: dict[bytes, bytes] = {}
    for name in fs.names(path):
        full = path + b"/" + name if path else name
        mode = fs.stat(full).st_mode
        if stat.S_ISDIR(mode):
            found[full] = b"<directory>"
            found |= everything(fs, full)
        elif stat.S_ISLNK(mode):
            found[full] = b"-> " + fs.readlink(full)
        else:
            found[full] = fs.read(full)
    return found


def is_below(path: bytes, top: bytes) -> bool:
    return (path + b"/").startswith(top + b"/")


BEFORE = {b"d": b"<directory>", b"d/inner": b"inner", b"e": b"<directory>", b"f": b"file", b"l": b"-> target"}


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"f", b"g"), (b"f", b"d/f"), (b"d/inner", b"up"), (b"d", b"moved"), (b"d", b"e/d"), (b"l", b"m"), (b"l", b"d/l")],
)
def test_what_was_renamed_stands_at_its_new_name(tree: Session, lab: Lab, old: bytes, new: bytes) -> None:
    expected = {
        new + path[len(old) :] if (path + b"/").startswith(old + b"/") else path: BEFORE[path] for path in BEFORE
    }
    node = tree.node(old)
    tree.rename(old, new)
    assert everything(tree) == expected
    assert tree.node(new) is node
    assert everything(lab.mount()) == expected


@pytest.mark.parametrize(("old", "new"), [(b"f", b"d/inner"), (b"d/inner", b"f"), (b"f", b"l"), (b"l", b"f")])
def test_a_file_takes_the_place_of_another(tree: Session, lab: Lab, old: bytes, new: bytes) -> None:
    replaced = tree.node(new)
    tree.rename(old, new)
    expected = {path: BEFORE[path] for path in BEFORE if path != old} | {new: BEFORE[old]}
    assert everything(tree) == expected
    assert tree.fs.tree.stat(replaced).st_nlink == 0
    assert everything(lab.mount()) == expected


@pytest.mark.parametrize("cold", [False, True])
def test_a_directory_takes_the_place_of_an_empty_one(tree: Session, lab: Lab, cold: bool) -> None:
    fs = lab.mount() if cold else tree
    replaced = fs.node(b"e")
    fs.rename(b"d", b"e")
    expected = {b"e": b"<directory>", b"e/inner": b"inner", b"f": b"file", b"l": b"-> target"}
    assert everything(fs) == expected
    assert fs.fs.tree.stat(replaced).st_nlink == 0
    assert not any(name.startswith("envfs.tmp") for name in os.listdir(lab.lower))
    assert everything(lab.mount()) == expected


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b"e", b"d", errno.ENOTEMPTY),
        (b"d", b"f", errno.ENOTDIR),
        (b"d", b"l", errno.ENOTDIR),
        (b"f", b"d", errno.EISDIR),
        (b"l", b"e", errno.EISDIR),
        (b"nothing", b"f", errno.ENOENT),
    ],
)
def test_what_rename_refuses(tree: Session, lab: Lab, old: bytes, new: bytes, code: int) -> None:
    with pytest.raises(OSError) as refused:  # noqa: PT011 - the errno says it
        tree.rename(old, new)
    assert refused.value.errno == code
    assert everything(tree) == BEFORE
    assert everything(lab.mount()) == BEFORE


def test_unknown_flags_are_refused(tree: Session) -> None:
    for flags in (WHITEOUT, 8, RENAME_EXCHANGE | WHITEOUT):
        with pytest.raises(OSError, match="Invalid") as refused:
            tree.rename(b"f", b"g", flags)
        assert refused.value.errno == errno.EINVAL
    assert everything(tree) == BEFORE


def test_noreplace(tree: Session) -> None:
    with pytest.raises(FileExistsError):
        tree.rename(b"f", b"d/inner", RENAME_NOREPLACE)
    assert everything(tree) == BEFORE
    tree.rename(b"f", b"d/new", RENAME_NOREPLACE)
    assert tree.read(b"d/new") == b"file"


@pytest.mark.parametrize(
    ("first", "second"),
    [(b"f", b"d/inner"), (b"d", b"e"), (b"d", b"f"), (b"l", b"f"), (b"l", b"d/inner"), (b"d", b"l")],
)
def test_exchange(tree: Session, lab: Lab, first: bytes, second: bytes) -> None:
    def swapped(path: bytes) -> bytes:
        for one, other in ((first, second), (second, first)):
            if is_below(path, one):
                return other + path[len(one) :]
        return path

    expected = {swapped(path): BEFORE[path] for path in BEFORE}
    nodes = tree.node(first), tree.node(second)
    tree.rename(first, second, RENAME_EXCHANGE)
    assert everything(tree) == expected
    assert (tree.node(second), tree.node(first)) == nodes
    fs = lab.mount()
    assert everything(fs) == expected
    fs.rename(first, second, RENAME_EXCHANGE)
    assert everything(lab.mount()) == BEFORE


def test_exchange_wants_both(tree: Session) -> None:
    for pair in ((b"f", b"nothing"), (b"nothing", b"f")):
        with pytest.raises(FileNotFoundError):
            tree.rename(*pair, RENAME_EXCHANGE)
    assert everything(tree) == BEFORE


# Places


@pytest.mark.parametrize("what", [b"f", b"d"])
def test_a_place_says_the_new_name_and_the_one_before(tree: Session, what: bytes) -> None:
    old, new, other = where(tree, what), where(tree, b"e/moved"), where(tree, b"e/third")
    tree.rename(what, b"e/moved")
    raw = place(tree, b"e/moved")
    assert belongs(tree, raw, b"e/moved", new)
    assert belongs(tree, raw, b"e/moved", old)
    assert not belongs(tree, raw, b"e/moved", other)
    tree.rename(b"e/moved", b"e/third")
    raw = place(tree, b"e/third")
    assert belongs(tree, raw, b"e/third", other)
    assert belongs(tree, raw, b"e/third", new)
    assert not belongs(tree, raw, b"e/third", old)


@pytest.mark.parametrize("what", [b"f", b"d", b"l"])
def test_a_crash_before_the_rename_itself_leaves_it_at_its_old_name(tree: Session, lab: Lab, what: bytes) -> None:
    """The place speaks of the new name already: the previous one counts."""
    lower = tree.lower(what)
    tree.rename(what, b"e/moved")
    moved = tree.lower(b"e/moved")
    lab.unmount()
    os.rename(moved, lower)  # as if rename(2) had never come
    fs = lab.mount()
    assert everything(fs) == BEFORE
    fs.rename(what, b"again")
    assert everything(lab.mount()).keys() >= {b"again"}


def test_a_rename_that_fails_below_leaves_the_file_at_its_name(tree: Session, lab: Lab) -> None:
    """The place was written, then rename(2) was refused: something came in the way meanwhile."""
    cipher = tree.fs.tree.cipher_name(tree.node(b""), b"blocked")
    source = tree.fs.mover._entry(1, b"f")
    assert source is not None
    blocked = lab.lower / os.fsdecode(cipher.lower)
    blocked.mkdir()
    with pytest.raises(IsADirectoryError):
        tree.fs.mover._move(source, None, tree.node(b""), b"blocked", cipher)
    blocked.rmdir()
    assert tree.read(b"f") == b"file"
    assert lab.mount().read(b"f") == b"file"


def test_a_file_that_is_open_and_has_no_header_yet_can_be_renamed(lab: Lab) -> None:
    fs = lab.mount()
    with fs.created(b"a") as content:
        fs.rename(b"a", b"b")
        content.write(0, b"late")
        fs.rename(b"b", b"c")
        content.write(4, b"r")
        assert read_all(content) == b"later"
    assert lab.mount().read(b"c") == b"later"


def test_an_empty_file_without_a_header_can_be_renamed(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"a", b"x")
    lower = fs.lower(b"a")
    lab.unmount()
    lower.write_bytes(b"")
    fs = lab.mount()
    fs.rename(b"a", b"b")
    assert fs.read(b"b") == b""
    fs.write(b"b", b"now")
    assert lab.mount().read(b"b") == b"now"


def test_a_rename_keeps_the_times_of_what_is_renamed(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"f", b"x")
    fs.symlink(b"l", b"x")
    fs.mkdir(b"d")
    for name in (b"f", b"l", b"d"):
        fs.change(name, Change(mtime_ns=2_000_000_002))
        fs.rename(name, name + b"2")
        assert fs.stat(name + b"2").st_mtime_ns == 2_000_000_002


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives symlinks away")
def test_a_renamed_symlink_keeps_its_owner(fs: Session) -> None:
    fs.symlink(b"l", b"x")
    fs.change(b"l", Change(uid=1234, gid=2345))
    fs.rename(b"l", b"m")
    assert (fs.stat(b"m").st_uid, fs.stat(b"m").st_gid) == (1234, 2345)


# Hard links


def test_both_names_lead_to_the_same_content(lab: Lab) -> None:
    fs = lab.mount()
    fs.mkdir(b"d")
    fs.write(b"a", b"1")
    fs.link(b"a", b"d/b")
    fs.write(b"d/b", b"2", 1)
    assert fs.read(b"a") == b"12"
    fs = lab.mount()
    assert fs.read(b"a") == fs.read(b"d/b") == b"12"
    assert fs.stat(b"a").st_nlink == 2
    assert fs.node(b"a") is fs.node(b"d/b")


def test_a_file_with_several_links_may_stand_anywhere_and_keeps_doing_so(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"a", b"1")
    fs.link(b"a", b"b")
    raw = place(fs, b"a")
    assert fs.fs.state.keys.place.is_anywhere(raw, Kind.FILE, slots_of(fs.lower(b"a"))[0].file_id)
    assert belongs(fs, raw, b"a", ANYWHERE)
    fs.rename(b"a", b"c")
    assert everything(lab.mount()) == {b"b": b"1", b"c": b"1"}


def test_a_file_with_one_link_left_gets_a_place_at_its_next_rename(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"a", b"1")
    fs.link(b"a", b"b")
    fs.unlink(b"a")
    fs.rename(b"b", b"c")
    fs.rename(b"c", b"d")  # from here on the previous place is no "anywhere" either
    raw = place(fs, b"d")
    assert belongs(fs, raw, b"d", where(fs, b"d"))
    assert not belongs(fs, raw, b"d", where(fs, b"elsewhere"))
    assert lab.mount().read(b"d") == b"1"


def test_a_link_made_below_does_not_take_the_check_of_the_place_away(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"a", b"1")
    fs.write(b"b", b"2")
    a, b = fs.lower(b"a"), fs.lower(b"b")
    lab.unmount()
    os.unlink(b)
    os.link(a, b)
    fs = lab.mount()
    assert fs.read(b"a") == b"1"
    with pytest.raises(IntegrityError):
        fs.read(b"b")
    for path in (b"a", b"b"):
        with pytest.raises(IntegrityError):
            fs.rename(path, b"c")


def test_an_empty_file_without_a_header_and_with_two_names_can_be_written(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"a", b"x")
    lower = fs.lower(b"a")
    lab.unmount()
    lower.write_bytes(b"")
    fs = lab.mount()
    fs.link(b"a", b"b")
    fs.write(b"b", b"now")
    fs = lab.mount()
    assert fs.read(b"a") == fs.read(b"b") == b"now"
    fs.rename(b"a", b"c")
    assert everything(lab.mount()) == {b"b": b"now", b"c": b"now"}


def test_an_open_file_without_a_header_can_get_a_second_name(lab: Lab) -> None:
    fs = lab.mount()
    with fs.created(b"a") as content:
        fs.link(b"a", b"b")
        content.write(0, b"both")
    fs = lab.mount()
    assert fs.read(b"a") == fs.read(b"b") == b"both"


def test_renaming_one_name_onto_another_of_the_same_file_does_nothing(lab: Lab) -> None:
    fs = lab.mount()
    fs.write(b"a", b"1")
    fs.link(b"a", b"b")
    fs.rename(b"a", b"b")
    assert fs.names() == [b"a", b"b"]
    fs.rename(b"a", b"b", RENAME_EXCHANGE)
    assert everything(lab.mount()) == {b"a": b"1", b"b": b"1"}


def test_what_link_refuses(tree: Session) -> None:
    with pytest.raises(PermissionError):
        tree.link(b"d", b"d2")
    with pytest.raises(FileExistsError):
        tree.link(b"f", b"d/inner")
    assert everything(tree) == BEFORE


def test_hard_links_of_other_things(lab: Lab) -> None:
    fs = lab.mount()
    fs.symlink(b"l", b"target")
    fs.mknod(b"p", stat.S_IFIFO | 0o600)
    fs.mkdir(b"d")
    fs.link(b"l", b"d/l2")
    fs.link(b"p", b"d/p2")
    fs = lab.mount()
    assert fs.readlink(b"l") == fs.readlink(b"d/l2") == b"target"
    assert fs.stat(b"p").st_ino == fs.stat(b"d/p2").st_ino
    fs.rename(b"l", b"d/l3")
    fs.unlink(b"d/l2")
    fs.rename(b"d/l3", b"l4")
    assert lab.mount().readlink(b"l4") == b"target"


# What was moved behind our back is not made right by a rename


def test_a_file_out_of_its_place_is_not_renamed(tree: Session, lab: Lab) -> None:
    source, target = tree.lower(b"f"), tree.lower(b"d/inner")
    lab.unmount()
    os.rename(source, target)
    fs = lab.mount()
    with pytest.raises(IntegrityError):
        fs.rename(b"d/inner", b"mine")
    with pytest.raises(IntegrityError):
        fs.link(b"d/inner", b"mine")
    fs.unlink(b"d/inner")  # but it can be removed
    assert everything(fs) == {b"d": b"<directory>", b"e": b"<directory>", b"l": b"-> target"}


def test_a_directory_out_of_its_place_is_not_renamed(tree: Session, lab: Lab) -> None:
    e, d = tree.lower(b"e"), tree.lower(b"d")
    lab.unmount()
    os.rename(e, lab.lower / "aside")
    os.rename(d, e)
    os.rename(lab.lower / "aside", d)
    fs = lab.mount()
    for name in (b"e", b"d"):
        with pytest.raises(IntegrityError):
            fs.rename(name, b"mine")
        with pytest.raises(IntegrityError):
            fs.names(name)


def test_a_symlink_out_of_its_place_is_not_renamed(tree: Session, lab: Lab) -> None:
    tree.symlink(b"d/other", b"x")
    source, target = tree.lower(b"l"), tree.lower(b"d/other")
    lab.unmount()
    os.rename(source, target)
    fs = lab.mount()
    for attempt in (lambda: fs.readlink(b"d/other"), lambda: fs.rename(b"d/other", b"mine")):
        with pytest.raises(IntegrityError):
            attempt()
