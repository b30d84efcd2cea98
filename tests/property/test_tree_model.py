"""The directory tree against a tree in memory: random creations, moves, links and removals, with remounts in between.

The model knows what POSIX says about names and nothing of encryption. Both must agree on what succeeds, on the errno of
what does not, and on everything that stands there afterwards.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envfs.fs.lower import RENAME_EXCHANGE, RENAME_NOREPLACE
from tests.unit.fs.lab import Lab, Session

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = settings.default.max_examples if settings.default else 100
# Long ones have a name file, and few names make them meet often.
NAMES = [b"a", b"b", b"c", b"l" * 200, "ü".encode() * 127, b"-"]
TARGETS = [b"x", b"../y", b"t" * 3007, b"t" * 3008, b"t" * 4095]


@dataclass(eq=False)
class Thing:
    """A file with `content`, a symlink with a target as `content`, a FIFO, or a directory with `entries`."""

    kind: int
    content: bytes = b""
    entries: dict[bytes, Thing] = field(default_factory=dict)

    @property
    def is_directory(self) -> bool:
        return self.kind == stat.S_IFDIR


class Model:
    """What names do, after POSIX and rename(2)."""

    def __init__(self) -> None:
        self.root = Thing(stat.S_IFDIR)

    def find(self, path: bytes) -> Thing:
        thing = self.root
        for name in path.split(b"/") if path else ():
            if not thing.is_directory:
                raise refuse(errno.ENOTDIR)
            if name not in thing.entries:
                raise refuse(errno.ENOENT)
            thing = thing.entries[name]
        return thing

    def directories(self) -> list[bytes]:
        """The paths of all directories, each with what a name is put behind."""
        return [b"", *self._below(b"", self.root)]

    def _below(self, start: bytes, thing: Thing) -> Iterator[bytes]:
        for name, entry in thing.entries.items():
            if entry.is_directory:
                yield start + name + b"/"
                yield from self._below(start + name + b"/", entry)

    def paths(self) -> list[bytes]:
        """The paths of everything there is."""
        places = ((b"", self.root), *((place, self.find(place.rstrip(b"/"))) for place in self._below(b"", self.root)))
        return [place + name for place, thing in places for name in thing.entries]

    def parent(self, path: bytes) -> tuple[Thing, bytes]:
        directory, _, name = path.rpartition(b"/")
        parent = self.find(directory)
        if not parent.is_directory:
            raise refuse(errno.ENOTDIR)
        return parent, name

    def make(self, path: bytes, thing: Thing) -> None:
        parent, name = self.parent(path)
        if name in parent.entries:
            raise refuse(errno.EEXIST)
        parent.entries[name] = thing

    def unlink(self, path: bytes) -> None:
        parent, name = self.parent(path)
        if self.find(path).is_directory:
            raise refuse(errno.EISDIR)
        del parent.entries[name]

    def rmdir(self, path: bytes) -> None:
        parent, name = self.parent(path)
        thing = self.find(path)
        if not thing.is_directory:
            raise refuse(errno.ENOTDIR)
        if thing.entries:
            raise refuse(errno.ENOTEMPTY)
        del parent.entries[name]

    def link(self, old: bytes, new: bytes) -> None:
        thing = self.find(old)
        parent, name = self.parent(new)
        if thing.is_directory:
            raise refuse(errno.EPERM)
        if name in parent.entries:
            raise refuse(errno.EEXIST)
        parent.entries[name] = thing

    def rename(self, old: bytes, new: bytes, flags: int) -> None:
        source = self.find(old)
        old_parent, old_name = self.parent(old)
        new_parent, new_name = self.parent(new)
        target = new_parent.entries.get(new_name)
        if flags & RENAME_EXCHANGE:
            if target is None:
                raise refuse(errno.ENOENT)
            old_parent.entries[old_name], new_parent.entries[new_name] = target, source
            return
        if target is not None:
            if flags & RENAME_NOREPLACE:
                raise refuse(errno.EEXIST)
            if target is source:
                return
            if target.is_directory and not source.is_directory:
                raise refuse(errno.EISDIR)
            if source.is_directory and not target.is_directory:
                raise refuse(errno.ENOTDIR)
            if target.entries:
                raise refuse(errno.ENOTEMPTY)
        del old_parent.entries[old_name]
        new_parent.entries[new_name] = source


def refuse(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def kernel_forbids(old: bytes, new: bytes, flags: int) -> bool:
    """What never reaches a filesystem: a directory below itself, the same name, an ancestor as target."""
    old_below_new, new_below_old = is_below(old, new), is_below(new, old)
    return new_below_old or (old_below_new and (flags & RENAME_EXCHANGE != 0 or old != new))


def drop(_result: object) -> None:
    """Only whether it succeeded is compared."""


def is_below(path: bytes, top: bytes) -> bool:
    return (path + b"/").startswith(top + b"/")


FLAGS = st.sampled_from([0, 0, 0, RENAME_EXCHANGE, RENAME_NOREPLACE])
NOTHING: st.SearchStrategy[object] = st.none()
# Each step with what it takes beside the paths.
STEPS: dict[str, tuple[int, st.SearchStrategy[object]]] = {
    "create": (1, st.binary(max_size=20)),
    "mkdir": (1, NOTHING),
    "symlink": (1, st.sampled_from(TARGETS)),
    "mknod": (1, NOTHING),
    "unlink": (1, NOTHING),
    "rmdir": (1, NOTHING),
    "link": (2, NOTHING),
    "rename": (2, FLAGS),
    "write": (1, st.binary(max_size=20)),
    "forget": (1, NOTHING),
    "list": (1, NOTHING),
    "remount": (0, NOTHING),
}
MOSTLY = st.sampled_from([True, True, True, True, True, True, True, False])
OF_EXISTING = {"unlink", "rmdir", "link", "rename", "write", "forget", "list"}
OFTEN = [*STEPS, "mkdir", "create", "rename", "rename", "rename", "rename"]


class Both:
    """Does each step to the filesystem and to the model, and compares."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.fs: Session = lab.mount()
        self.model = Model()

    def same(self, on_fs: Callable[[], object], on_model: Callable[[], object]) -> None:
        outcomes = []
        for step in (on_fs, on_model):
            try:
                outcomes.append(("done", step()))
            except OSError as error:
                outcomes.append(("refused", error.errno))
        assert outcomes[0] == outcomes[1]

    def create(self, path: bytes, content: bytes) -> None:
        def on_fs() -> None:
            with self.fs.created(path) as opened:
                opened.write(0, content)

        self.same(on_fs, lambda: self.model.make(path, Thing(stat.S_IFREG, content)))

    def mkdir(self, path: bytes) -> None:
        self.same(lambda: drop(self.fs.mkdir(path)), lambda: self.model.make(path, Thing(stat.S_IFDIR)))

    def symlink(self, path: bytes, target: bytes) -> None:
        made = Thing(stat.S_IFLNK, target)
        self.same(lambda: drop(self.fs.symlink(path, target)), lambda: self.model.make(path, made))

    def mknod(self, path: bytes) -> None:
        made = Thing(stat.S_IFIFO)
        self.same(lambda: drop(self.fs.mknod(path, stat.S_IFIFO | 0o600)), lambda: self.model.make(path, made))

    def unlink(self, path: bytes) -> None:
        if not self._is_directory(path):  # the kernel answers for those
            self.same(lambda: self.fs.unlink(path), lambda: self.model.unlink(path))

    def rmdir(self, path: bytes) -> None:
        self.same(lambda: self.fs.rmdir(path), lambda: self.model.rmdir(path))

    def link(self, old: bytes, new: bytes) -> None:
        self.same(lambda: self.fs.link(old, new), lambda: self.model.link(old, new))

    def rename(self, old: bytes, new: bytes, flags: int) -> None:
        if not kernel_forbids(old, new, flags):
            self.same(lambda: self.fs.rename(old, new, flags), lambda: self.model.rename(old, new, flags))

    def write(self, path: bytes, data: bytes) -> None:
        thing = self._find(path)
        if thing is not None and thing.kind == stat.S_IFREG:
            self.fs.write(path, data, len(thing.content))
            thing.content += data

    def forget(self, path: bytes) -> None:
        """As the kernel drops what it has not used for long."""
        thing = self._find(path)
        if thing is not None and not thing.is_directory:
            self.fs.forget(self.fs.node(path))

    def list(self, path: bytes) -> None:
        thing = self._find(path)
        if thing is not None and thing.is_directory:
            assert self.fs.names(path) == sorted(thing.entries)

    def remount(self) -> None:
        self.fs = self.lab.mount()
        self.compare()

    def _find(self, path: bytes) -> Thing | None:
        try:
            return self.model.find(path)
        except OSError:
            return None

    def _is_directory(self, path: bytes) -> bool:
        thing = self._find(path)
        return thing is not None and thing.is_directory

    def compare(self) -> None:
        inodes: dict[int, Thing] = {}
        self._compare(b"", self.model.root, inodes)

    def _compare(self, path: bytes, thing: Thing, inodes: dict[int, Thing]) -> None:
        found = self.fs.stat(path)
        assert stat.S_IFMT(found.st_mode) == thing.kind
        assert inodes.setdefault(self.fs.node(path).node_id, thing) is thing
        if thing.kind == stat.S_IFREG:
            assert self.fs.read(path) == thing.content
            assert self.fs.size(path) == len(thing.content)
        elif thing.kind == stat.S_IFLNK:
            assert self.fs.readlink(path) == thing.content
            assert self.fs.size(path) == len(thing.content)
        elif thing.is_directory:
            assert self.fs.names(path) == sorted(thing.entries)
            for name, entry in thing.entries.items():
                self._compare(path + b"/" + name if path else name, entry, inodes)

    def clear(self) -> None:
        """Remove everything; then nothing but the volume's own files may be left below."""
        self._clear(b"", self.model.root)
        self.lab.unmount()
        left = set(os.listdir(self.lab.lower)) - {
            "envfs.dir",
            "envfs.volume",
            "envfs.volume.backup",
            "envfs.undo",
            "envfs.journal",
        }
        # A refused operation may leave the name file it began with, and a link file: they mean nothing.
        assert not {name for name in left if not name.startswith(("envfs.name.", "envfs.link."))}
        for name in left:
            (self.lab.lower / name).unlink()

    def _clear(self, path: bytes, thing: Thing) -> None:
        for name, entry in thing.entries.items():
            full = path + b"/" + name if path else name
            if entry.is_directory:
                self._clear(full, entry)
                self.fs.rmdir(full)
            else:
                self.fs.unlink(full)


@pytest.fixture(scope="module", params=["memory", "disk"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """On tmpfs, and where what is written has to be remembered for the next sync; inode numbers are reused by both."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix="envfs-test-", dir=memory) as base,
        tempfile.TemporaryDirectory(prefix="envfs-test-", dir="/var/tmp") as disk,
    ):
        lab = Lab(Path(base), lower=Path(disk, "lower") if request.param == "disk" else None)
        yield lab
        lab.close()


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_the_tree_is_what_a_tree_in_memory_is(lab: Lab, data: st.DataObject) -> None:
    both = Both(lab)
    try:
        for _ in range(data.draw(st.integers(5, 40))):
            name = data.draw(st.sampled_from(OFTEN))
            count, more = STEPS[name]
            # Under any name in a directory that there is; what is taken away or moved is mostly there.
            free = [place + entry for place in both.model.directories() for entry in NAMES]
            taken = both.model.paths() if name in OF_EXISTING else []
            paths = [data.draw(st.sampled_from(free)) for _ in range(count)]
            mostly: bool = data.draw(MOSTLY)
            if taken and mostly:
                paths[0] = data.draw(st.sampled_from(taken))
            argument = data.draw(more)
            getattr(both, name)(*paths, *(() if argument is None else (argument,)))
        both.compare()
        both.remount()
        both.clear()
    except BaseException:
        lab.unmount()
        _reset(lab)
        raise


def _reset(lab: Lab) -> None:
    """After a failure: an empty volume again, for the shorter example that hypothesis tries next."""
    for directory, directories, names in os.walk(lab.lower, topdown=False):
        for name in names:
            if directory != str(lab.lower) or name not in {"envfs.dir", "envfs.volume", "envfs.volume.backup"}:
                os.unlink(os.path.join(directory, name))
        for name in directories:
            path = os.path.join(directory, name)
            if os.path.islink(path):
                os.unlink(path)
            else:
                os.rmdir(path)
