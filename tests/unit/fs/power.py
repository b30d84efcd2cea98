"""What a lower directory may hold after the power has failed, at any moment of what was recorded.

`Recording` notes every system call that changes the lower directory, and every sync. `Recording.make` makes of it what
a filesystem with a metadata journal and ordered data (ext4, xfs) may have on the disk if the power fails then:

- changes of names, truncations and modes are on the disk up to some moment, in their order; any fsync(2) commits all
  that came before it, and an fdatasync(2) of a file whose size has changed;
- each page of a file's content is on the disk in the version of its last sync, or in any later one, each on its own;
- the size that a write has given a file is on the disk, or that of an earlier write since its last sync. It never gets
  there before the pages that it adds;
- sync_file_range(2) brings pages to the disk; the size that they add is journalled like a name.
"""

from __future__ import annotations

import ctypes
import os
import random
import stat as stat_module
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from envfs.fs import lower

PAGE = 4096
_EXCHANGE = 2


@dataclass
class Inode:
    """`base` is its content at the beginning; then what was written (moment, offset, data) and cut (moment, size)."""

    kind: int
    mode: int
    base: bytes = b""
    target: bytes = b""
    names: dict[bytes, int] = field(default_factory=dict)
    changes: list[tuple[int, int, bytes | None]] = field(default_factory=list)
    synced: list[int] = field(default_factory=list)
    through: list[tuple[int, int, int]] = field(default_factory=list)  # moment, first page, end
    size_on_disk: int = -1  # as of its last sync


@dataclass(frozen=True)
class Loss:
    """A power failure at `moment`: names as of `names`; each draw of `choose(least, most)` says how much else is."""

    moment: int
    names: int
    choose: Callable[[int, int], int]
    label: str


class Recording:
    """What happens to one lower directory while `recorded` is in force."""

    def __init__(self, top: Path) -> None:
        self._top = os.stat(top).st_ino
        self.inodes: dict[int, Inode] = {}
        self.names: list[tuple[int, Callable[[dict[int, dict[bytes, int]]], None]]] = []
        self.syncs: list[int] = []
        self.moment = 0
        self.numbers: dict[int, int] = {}  # of what `make` made: inode number → the one that it had when recorded
        self._load(top)

    def _load(self, path: Path) -> int:
        found = os.lstat(path)
        inode = self.inodes[found.st_ino] = Inode(stat_module.S_IFMT(found.st_mode), stat_module.S_IMODE(found.st_mode))
        if stat_module.S_ISDIR(found.st_mode):
            for entry in os.scandir(path):
                inode.names[os.fsencode(entry.name)] = self._load(path / entry.name)
        elif stat_module.S_ISLNK(found.st_mode):
            inode.target = os.fsencode(os.readlink(path))
        elif stat_module.S_ISREG(found.st_mode):
            inode.base = path.read_bytes()
            inode.size_on_disk = len(inode.base)
        return found.st_ino

    # Recording

    def _tick(self) -> int:
        self.moment += 1
        return self.moment

    def _inode(self, fd: int) -> Inode | None:
        return self.inodes.get(os.fstat(fd).st_ino)

    def wrote(self, fd: int, offset: int, data: bytes) -> None:
        inode = self._inode(fd)
        if inode is not None:
            inode.changes.append((self._tick(), offset, data))

    def cut(self, fd: int, size: int) -> None:
        inode = self._inode(fd)
        if inode is not None:
            inode.changes.append((self._tick(), size, None))

    def synced(self, fd: int, *, content_alone: bool) -> None:
        """`content_alone`: fdatasync(2), which commits nothing where the file's size is as it was."""
        inode = self._inode(fd)
        moment = self._tick()
        size = os.fstat(fd).st_size
        if inode is None or not content_alone or inode.size_on_disk != size:
            self.syncs.append(moment)
        if inode is not None:
            inode.synced.append(moment)
            inode.size_on_disk = size

    def synced_all(self) -> None:
        moment = self._tick()
        self.syncs.append(moment)
        for inode in self.inodes.values():
            inode.synced.append(moment)

    def wrote_through(self, fd: int, offset: int, length: int) -> None:
        inode = self._inode(fd)
        if inode is not None:
            inode.through.append((self._tick(), offset // PAGE, -(-(offset + length) // PAGE)))

    def appeared(self, directory: int, name: bytes) -> None:
        """Something new, or a further name, stands at `name` of a directory descriptor."""
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        parent, number = os.fstat(directory).st_ino, found.st_ino
        if number not in self.inodes:
            inode = Inode(stat_module.S_IFMT(found.st_mode), stat_module.S_IMODE(found.st_mode))
            if stat_module.S_ISLNK(found.st_mode):
                inode.target = os.fsencode(os.readlink(name, dir_fd=directory))
            self.inodes[number] = inode

        def apply(tree: dict[int, dict[bytes, int]]) -> None:
            tree[parent][name] = number
            tree.setdefault(number, {})

        self.names.append((self._tick(), apply))

    def went(self, directory: int, name: bytes) -> None:
        parent = os.fstat(directory).st_ino
        self.names.append((self._tick(), lambda tree: tree[parent].__delitem__(name)))

    def renamed(self, old_fd: int, old: bytes, new_fd: int, new: bytes, flags: int = 0) -> None:
        one, other = os.fstat(old_fd).st_ino, os.fstat(new_fd).st_ino

        def apply(tree: dict[int, dict[bytes, int]]) -> None:
            moved = tree[one].pop(old)
            if flags & _EXCHANGE:
                tree[one][old] = tree[other][new]
            tree[other][new] = moved

        self.names.append((self._tick(), apply))

    # Replaying

    def losses(self, rng: random.Random, first: int, count: int) -> Iterator[Loss]:
        """Power failures at every moment from `first` on: the extreme ones, and `count` at random each.

        `count` 0: at each moment two of these four in turn, for the hurried.
        """
        for moment in range(first, self.moment + 1):
            least = max((at for at in self.syncs if at <= moment), default=0)
            if count or moment % 2:
                yield Loss(moment, moment, lambda low, _high: low, "names alone")
                yield Loss(moment, least, lambda _low, high: high, "content alone")
            if count or not moment % 2:
                yield Loss(moment, moment, lambda _low, high: high, "everything")
            for number in range(count or 1 - moment % 2):
                yield Loss(moment, rng.randint(least, moment), rng.randint, f"random {number}")

    def make(self, loss: Loss, target: Path) -> None:
        """The lower directory after a loss, at `target`."""
        tree = {number: dict(inode.names) for number, inode in self.inodes.items()}
        for moment, apply in self.names:
            if moment <= loss.names:
                apply(tree)
        self._make(tree, self._top, target, loss, {})

    def _make(
        self, tree: dict[int, dict[bytes, int]], number: int, path: Path, loss: Loss, made: dict[int, Path]
    ) -> None:
        inode = self.inodes[number]
        if number in made:
            os.link(made[number], path, follow_symlinks=False)
            return
        made[number] = path
        if inode.kind == stat_module.S_IFDIR:
            path.mkdir(mode=0o700)
            for name, inner in tree[number].items():
                self._make(tree, inner, path / os.fsdecode(name), loss, made)
        elif inode.kind == stat_module.S_IFLNK:
            os.symlink(inode.target, os.fsencode(path))
        else:
            path.write_bytes(_Disk(inode, loss).content())
        self.numbers[os.lstat(path).st_ino] = number


class _Disk:
    """What is left of one file's content."""

    def __init__(self, inode: Inode, loss: Loss) -> None:
        self._inode = inode
        self._loss = loss
        self._synced = max((at for at in inode.synced if at <= loss.moment), default=0)
        # A truncation that is not there hides everything that came after it.
        hidden = [at for at, _, data in inode.changes if data is None and loss.names < at <= loss.moment]
        self._end = min(hidden, default=loss.moment + 1) - 1
        self.size_as_of = loss.choose(min(self._synced, self._end), self._end)
        self._old_pages = self._known_size()
        self._chosen: dict[int, int] = {}

    def _known_size(self) -> int:
        """Up to where pages are written in place; those behind come before the size that they add."""
        size = len(self._inode.base)
        for at, offset, data in self._inode.changes:
            if data is not None and at <= min(self._synced, self._end):
                size = max(size, offset + len(data))
            elif data is None and at <= self._loss.names:
                size = min(size, offset) if at > self._synced else offset
        return size

    def page_as_of(self, page: int) -> int:
        if page not in self._chosen:
            through = [at for at, a, b in self._inode.through if a <= page < b and at <= self._loss.moment]
            least = max([self._synced, *through])
            if page * PAGE >= self._old_pages:
                least = max(least, self.size_as_of)
            self._chosen[page] = self._loss.choose(min(least, self._end), self._end)
        return self._chosen[page]

    def content(self) -> bytes:
        raw, size, in_memory = bytearray(self._inode.base), len(self._inode.base), len(self._inode.base)
        for at, offset, data in self._in_order():
            if at > self._end:
                break
            if data is None:
                if at <= self._loss.names:
                    del raw[offset:]
                    size = offset
                in_memory = offset
                continue
            if not data:  # written through
                size = max(size, min(in_memory, offset)) if at <= self._loss.names else size
                continue
            in_memory = max(in_memory, offset + len(data))
            raw.extend(bytes(max(0, offset + len(data) - len(raw))))
            self._write(raw, at, offset, data)
            if at <= self.size_as_of:
                size = max(size, offset + len(data))
        raw.extend(bytes(max(0, size - len(raw))))
        return bytes(raw[:size])

    def _in_order(self) -> list[tuple[int, int, bytes | None]]:
        """The changes, and as one without data what sync_file_range(2) does to the size."""
        through: list[tuple[int, int, bytes | None]] = [(at, b * PAGE, b"") for at, _, b in self._inode.through]
        return sorted(self._inode.changes + through, key=lambda change: change[0])

    def _write(self, raw: bytearray, at: int, offset: int, data: bytes) -> None:
        for page in range(offset // PAGE, -(-(offset + len(data)) // PAGE)):
            if at <= self.page_as_of(page):
                a, b = max(offset, page * PAGE), min(offset + len(data), (page + 1) * PAGE)
                raw[a:b] = data[a - offset : b - offset]


class _Libc:
    """The system calls that `envfs.fs.lower` makes by itself, noted where they change something."""

    def __init__(self, real: Any, recording: Recording) -> None:
        self._real, self._recording = real, recording

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def syncfs(self, fd: int) -> int:
        result = int(self._real.syncfs(fd))
        self._recording.synced_all()
        return result

    def sync_file_range(self, fd: int, offset: ctypes.c_int64, length: ctypes.c_int64, flags: ctypes.c_uint) -> int:
        result = int(self._real.sync_file_range(fd, offset, length, flags))
        self._recording.wrote_through(fd, offset.value, length.value)
        return result

    def renameat2(
        self, old_fd: int, old: ctypes.c_char_p, new_fd: int, new: ctypes.c_char_p, flags: ctypes.c_uint
    ) -> int:
        result = int(self._real.renameat2(old_fd, old, new_fd, new, flags))
        if result == 0:
            self._recording.renamed(old_fd, old.value or b"", new_fd, new.value or b"", flags.value)
        return result


@contextmanager
def recorded(recording: Recording) -> Iterator[None]:
    """Notes what this process does to the lower directory."""
    with pytest.MonkeyPatch.context() as patch:
        for name, call in (_content_calls(recording) | _name_calls(recording)).items():
            patch.setattr(os, name, call)
        patch.setattr(lower, "_libc", _Libc(lower._libc, recording))
        yield


def _content_calls(recording: Recording) -> dict[str, Callable[..., Any]]:
    real = {name: getattr(os, name) for name in ("pwrite", "pwritev", "ftruncate", "fsync", "fdatasync")}

    def pwrite(fd: int, data: Any, offset: int) -> int:
        written = int(real["pwrite"](fd, data, offset))
        recording.wrote(fd, offset, bytes(data)[:written])
        return written

    def pwritev(fd: int, parts: list[Any], offset: int) -> int:
        written = int(real["pwritev"](fd, parts, offset))
        recording.wrote(fd, offset, b"".join(bytes(part) for part in parts)[:written])
        return written

    def ftruncate(fd: int, size: int) -> None:
        real["ftruncate"](fd, size)
        recording.cut(fd, size)

    def sync(name: str) -> Callable[[int], None]:
        def call(fd: int) -> None:
            real[name](fd)
            recording.synced(fd, content_alone=name == "fdatasync")

        return call

    return {
        "pwrite": pwrite, "pwritev": pwritev, "ftruncate": ftruncate,
        "fsync": sync("fsync"), "fdatasync": sync("fdatasync"),
    }  # fmt: skip


def _name_calls(recording: Recording) -> dict[str, Callable[..., Any]]:
    names = ("open", "mkdir", "mknod", "symlink", "link", "unlink", "rmdir", "rename")
    real = {name: getattr(os, name) for name in names}

    def make(name: str) -> Callable[..., Any]:
        def call(path: bytes, *rest: Any, dir_fd: int | None = None, **more: Any) -> Any:
            result = real[name](path, *rest, dir_fd=dir_fd, **more)
            is_new = name != "open" or (rest[0] & os.O_CREAT and rest[0] & os.O_EXCL)
            if is_new and dir_fd is not None:
                recording.appeared(dir_fd, path)
            return result

        return call

    def symlink(text: bytes, path: bytes, *, dir_fd: int) -> None:
        real["symlink"](text, path, dir_fd=dir_fd)
        recording.appeared(dir_fd, path)

    def link(old: bytes, new: bytes, *, dst_dir_fd: int, **more: Any) -> None:
        real["link"](old, new, dst_dir_fd=dst_dir_fd, **more)
        recording.appeared(dst_dir_fd, new)

    def remove(name: str) -> Callable[..., None]:
        def call(path: bytes, *, dir_fd: int) -> None:
            real[name](path, dir_fd=dir_fd)
            recording.went(dir_fd, path)

        return call

    def rename(old: bytes, new: bytes, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        real["rename"](old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        recording.renamed(src_dir_fd, old, dst_dir_fd, new)

    return {
        "open": make("open"), "mkdir": make("mkdir"), "mknod": make("mknod"), "symlink": symlink, "link": link,
        "unlink": remove("unlink"), "rmdir": remove("rmdir"), "rename": rename,
    }  # fmt: skip
