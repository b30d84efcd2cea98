"""A volume with a real KMS behind it, and the filesystem layer on top, driven without a mount.

`Lab` holds what survives an unmount; `Lab.mount()` makes a `Filesystem` over it. `Session` asks that one for what the
kernel would ask it: names are looked up before they are used, and what was looked up is forgotten in the end.
"""

from __future__ import annotations

import os
import stat as stat_module
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from envfs.access.resolver import Resolver
from envfs.crypto.aead import Suite
from envfs.format.geometry import Geometry
from envfs.format.header import SLOT_OFFSETS, SLOT_SIZE, Slot
from envfs.fs.attributes import Change, change_attributes
from envfs.fs.filesystem import Filesystem
from envfs.fs.state import FsOptions
from envfs.kms.bootstrap import init_kms
from envfs.kms.engine import Engine
from envfs.kms.model import Principal
from envfs.kms.rootkey import KeyFileUnlock
from envfs.service.volume import make_volume, open_volume

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from envfs.fs.content import Content
    from envfs.fs.nodes import Node

ROOT_ID = 1


@dataclass(frozen=True)
class Person:
    """Who makes a request."""

    uid: int
    gid: int
    pid: int


def myself() -> Person:
    return Person(os.getuid(), os.getgid(), os.getpid())


class Lab:
    """A KMS, a volume in `lower`, and at most one mounted filesystem."""

    def __init__(
        self,
        base: Path,
        *,
        block_size: int = 4096,
        suite: Suite = Suite.AES_256_GCM,
        lower: Path | None = None,
    ) -> None:
        self.home = base / "kms"
        self.lower = lower or base / "lower"
        init_kms(self.home)
        self._open_engine()
        self.me: Principal = self.resolver.resolve(*_ids(myself()))
        self.session: Session | None = None
        self.make_volume(block_size, suite)

    def make_volume(self, block_size: int, suite: Suite = Suite.AES_256_GCM) -> None:
        """A volume in `lower`."""
        make_volume(
            self.lower,
            self.engine,
            key_arn=self.engine.service_managed_key("alias/envfs/volume"),
            suite=suite,
            block_size=block_size,
            now=1_700_000_000,
        )
        self.geometry = Geometry(block_size)

    def _open_engine(self) -> None:
        self.engine = Engine.open(self.home, KeyFileUnlock(self.home / "root.key"))
        self.resolver = Resolver(self.engine)

    def reopen_engine(self) -> None:
        """For a process of its own: an engine is not carried over a fork."""
        self._open_engine()

    def mount(self, **options: bool) -> Session:
        """A new `Filesystem`, after the last one was closed: what it knows, it knows from the lower directory."""
        self.unmount()
        opened = open_volume(self.lower, self.engine)
        filesystem = Filesystem(
            self.lower, opened.file, opened.keys, self.engine, self.resolver, replace(FsOptions(), **options)
        )
        self.session = Session(self, filesystem)
        return self.session

    def unmount(self) -> None:
        if self.session is not None:
            self.session.fs.close()
            self.session = None

    def close(self) -> None:
        self.unmount()
        self.engine.close()


def _ids(person: Person) -> tuple[int, int, int]:
    return person.uid, person.gid, person.pid


class Session:
    """One mounted filesystem, by plain paths relative to its root (b"" is the root)."""

    def __init__(self, lab: Lab, fs: Filesystem) -> None:
        self.lab = lab
        self.fs = fs
        self.caller = myself()

    # Names

    def node(self, path: bytes) -> Node:
        """What stands at a path, looked up component by component."""
        node = self.fs.tree.node(ROOT_ID)
        for name in path.split(b"/") if path else ():
            node, _ = self.fs.tree.lookup(node.node_id, name)
            node.lookups += 1
        return node

    def parent(self, path: bytes) -> tuple[int, bytes]:
        directory, _, name = path.rpartition(b"/")
        return self.node(directory).node_id, name

    def forget(self, node: Node) -> None:
        self.fs.state.nodes.forget(node.node_id, node.lookups)

    def mkdir(self, path: bytes, mode: int = 0o755) -> Node:
        node, _ = self.fs.tree.mkdir(*self.parent(path), mode, self.caller)
        node.lookups += 1
        return node

    def symlink(self, path: bytes, target: bytes) -> Node:
        node, _ = self.fs.tree.symlink(*self.parent(path), target, self.caller)
        node.lookups += 1
        return node

    def mknod(self, path: bytes, mode: int) -> Node:
        node, _ = self.fs.tree.mknod(*self.parent(path), mode, 0, self.caller)
        node.lookups += 1
        return node

    def readlink(self, path: bytes) -> bytes:
        return self.fs.tree.readlink(self.node(path))

    def link(self, old: bytes, new: bytes) -> None:
        node = self.node(old)
        self.fs.mover.link(node, *self.parent(new))
        node.lookups += 1

    def rename(self, old: bytes, new: bytes, flags: int = 0) -> None:
        """As the kernel does: both names are looked up first."""
        self.node(old)
        try:
            self.node(new)
        except FileNotFoundError:
            pass
        self.fs.mover.rename(*self.parent(old), *self.parent(new), flags)

    def unlink(self, path: bytes) -> None:
        self.fs.tree.unlink(*self.parent(path))

    def rmdir(self, path: bytes) -> None:
        self.fs.tree.rmdir(*self.parent(path))

    def names(self, path: bytes = b"") -> list[bytes]:
        """The names in a directory, sorted."""
        number = self.fs.add_listing(self.node(path))
        try:
            return sorted(name for _, name, _, _ in self.fs.listings[number].read(0))
        finally:
            del self.fs.listings[number]

    def exists(self, path: bytes) -> bool:
        try:
            self.node(path)
        except FileNotFoundError:
            return False
        return True

    def stat(self, path: bytes) -> os.stat_result:
        """lstat of the lower object; `size` for st_size."""
        return self.fs.tree.stat(self.node(path))

    def size(self, path: bytes) -> int:
        node = self.node(path)
        return self.fs.tree.plain_size(node, self.fs.tree.stat(node))

    # Content

    @contextmanager
    def opened(self, path: bytes, *, write: bool = False) -> Iterator[Content]:
        """The content of an existing file while one handle is open on it."""
        node = self.node(path)
        content = self.fs.state.opener.open(node, self.caller, write=write)
        number = self.fs.add_handle(node, content)
        try:
            yield content
        finally:
            self.fs.release(number)

    @contextmanager
    def created(self, path: bytes, mode: int = 0o644) -> Iterator[Content]:
        """The content of a new file while the handle that made it is open."""
        node, _, content = self.fs.tree.create(*self.parent(path), mode, self.caller)
        node.lookups += 1
        number = self.fs.add_handle(node, content)
        try:
            yield content
        finally:
            self.fs.release(number)

    def write(self, path: bytes, data: bytes, offset: int = 0, *, mode: int = 0o644) -> None:
        """Write into a file, which is made if there is none."""
        with self.opened(path, write=True) if self.exists(path) else self.created(path, mode) as content:
            content.write(offset, data)

    def read(self, path: bytes, offset: int = 0, length: int = 1 << 40) -> bytes:
        with self.opened(path) as content:
            return read_all(content, offset, length)

    def truncate(self, path: bytes, size: int) -> None:
        self.change(path, Change(size=size))

    def change(self, path: bytes, change: Change) -> None:
        change_attributes(self.fs.state, self.node(path), change, None, self.caller)

    # The lower directory

    def lower(self, path: bytes) -> Path:
        """The lower path of something that exists."""
        node = self.node(path)
        parts: list[bytes] = []
        while node.parent is not None:
            parts.append(node.lower_name)
            node = node.parent
        return self.lab.lower.joinpath(*(os.fsdecode(part) for part in reversed(parts)))


def read_all(content: Content, offset: int = 0, length: int = 1 << 40) -> bytes:
    """As the kernel reads: at most 1 MiB a request."""
    end = min(offset + length, content.size)
    parts = []
    while offset < end:
        part = bytes(content.read(offset, min(1 << 20, end - offset)))
        assert part, "a read within the file gave nothing"
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def slots_of(lower: Path) -> list[Slot]:
    """The header slots of a lower file that parse, the newest first."""
    raw = lower.read_bytes()[:1024]
    slots = [raw[offset : offset + SLOT_SIZE] for offset in SLOT_OFFSETS]
    return sorted((Slot.parse(slot) for slot in slots if slot.strip(b"\0")), key=lambda slot: -slot.sequence)


def flip(path: Path, offset: int, bits: int = 1) -> None:
    """Damage one byte where it stands."""
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        assert byte, f"{path} has no byte {offset}"
        file.seek(offset)
        file.write(bytes([byte[0] ^ bits]))


def lower_names(directory: Path) -> set[bytes]:
    return {os.fsencode(name) for name in os.listdir(directory)}


def is_symlink(path: Path) -> bool:
    return stat_module.S_ISLNK(os.lstat(path).st_mode)
