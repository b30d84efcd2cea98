"""Inodes that the kernel knows, and where they stand in the lower directory.

The id that FUSE uses for an inode is also what users see as st_ino, so it is the lower inode number wherever that is
unambiguous. A number that means something else already (the lower directory spans filesystems, or a number was
reused) gets an id from a range of its own.

A node is found by its parent's descriptor and its lower name, never by a path, so a rename of a directory above
changes nothing here. A node whose name has gone is held by a descriptor (`pin`): so its inode number cannot be
reused while the kernel still knows it.
"""

from __future__ import annotations

import errno
import logging
import os
import stat as stat_module
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from envfs.errors import IntegrityError
from envfs.fs.lower import OPEN_DIRECTORY, OPEN_PATH, Kind
from envfs.fs.patience import Patience

if TYPE_CHECKING:
    from envfs.fs.content import Content
    from envfs.fs.directories import Directory
    from envfs.fs.handles import Guard

log = logging.getLogger("envfs.fs")

ROOT_ID = 1
_OWN_RANGE = 1 << 63
# Seconds; the kernel leaves dirty pages alone for longer (5 s to the next flush, 30 s until they are old).
FRESH = 4.0


class Node:
    """One inode. `pin` is an O_PATH descriptor that holds it while it has no name that we know, or -1.

    `parent` and `full_name` stay what they were when it loses its name: that is where its place says that it belongs.
    """

    __slots__ = (
        "content",
        "directory",
        "directory_fd",
        "full_name",
        "guard",
        "is_directory",
        "is_regular",
        "is_symlink",
        "kind",
        "located",
        "lookups",
        "lower_dev",
        "lower_ino",
        "lower_name",
        "made",
        "name",
        "no_xattrs",
        "node_id",
        "object_id",
        "parent",
        "pin",
        "placed",
        "sequence",
        "size",
    )

    def __init__(self, node_id: int, found: os.stat_result) -> None:
        self.node_id = node_id
        self.lower_ino = found.st_ino
        self.lower_dev = found.st_dev
        self.kind = kind = found.st_mode & 0o170000  # S_IFMT
        self.is_directory = kind == stat_module.S_IFDIR
        self.is_regular = kind == stat_module.S_IFREG
        self.is_symlink = kind == stat_module.S_IFLNK
        self.lookups = 0
        self.parent: Node | None = None
        self.name = b""
        self.lower_name = b""
        self.full_name = b""
        self.located = False  # whether parent and lower_name say where it stands now
        self.placed = False  # whether a file or symlink was found to belong there, by its place
        self.pin = -1
        self.object_id: bytes | None = None  # file id, once a header was read: tells a file that was exchanged
        self.sequence = 0  # of its newest header that we know: an older one has been put back by somebody
        self.size: int | None = None  # of a regular file that is not open: what the kernel takes it to be
        self.made = 0.0  # time.monotonic() when a regular file was created, until it is synced
        self.content: Content | None = None
        self.directory: Directory | None = None
        self.directory_fd = -1
        self.no_xattrs = False
        self.guard: Guard | None = None  # while somebody has it open who is not allowed any more

    @property
    def is_retired(self) -> bool:
        """Whether it stands for nothing in the lower directory any more; see `NodeTable.retire`."""
        return self.lower_ino < 0

    def is_fresh(self) -> bool:
        """Whether it is so new that nothing of it is on the disk, and nobody was told so; to be asked of a file."""
        return self.made > 0 and time.monotonic() - self.made < FRESH

    def path(self) -> str:
        """The plain path below the mountpoint, for logs, audit and policies; never used to reach the file."""
        parts: list[bytes] = []
        node: Node | None = self
        while node is not None and node.node_id != ROOT_ID:
            parts.append(node.name)
            node = node.parent
        parts.append(b"")
        return b"/".join(reversed(parts)).decode("utf-8", "surrogateescape") or "/"

    def lower_path(self) -> bytes:
        """The path below the lower directory as it is now; empty if the node has lost its name."""
        parts: list[bytes] = []
        node = self
        while node.parent is not None:
            if not node.located:
                return b""
            parts.append(node.lower_name)
            node = node.parent
        return b"/".join(reversed(parts))


def is_moved(node: Node, parent: Node, full_name: bytes) -> bool:
    """Whether a known directory is found where it was not left: renames go through us, and it has one name only.

    Its id and its children are known to belong where it was, and their place says nothing of where *it* stands.
    """
    return node.is_directory and _is_elsewhere(node, parent, full_name)


def _is_elsewhere(node: Node, parent: Node, full_name: bytes) -> bool:
    """Whether (parent, full name) is not where a known node stands, or stood last."""
    return node.parent is not None and (node.full_name != full_name or not _is_same(node.parent, parent))


def _is_same(one: Node, other: Node) -> bool:
    return one is other or (one.lower_ino, one.lower_dev) == (other.lower_ino, other.lower_dev)


Belongs: TypeAlias = "Callable[[Node, bytes], bool]"


def _no_alarm(_request: str, _problem: str) -> None:
    pass


def _nowhere(_node: Node, _parent: Node, _lower_name: bytes) -> Belongs:
    return lambda _directory, _full_name: False


class NodeTable:
    """All nodes that the kernel holds, by node id, and directory descriptors with a bound on their number."""

    def __init__(self, root_fd: int, *, most_descriptors: int) -> None:
        found = os.fstat(root_fd)
        self.root = Node(ROOT_ID, found)
        self.root.directory_fd = root_fd
        self._root_dev = found.st_dev
        self.belonging: Callable[[Node, Node, bytes], Belongs] = _nowhere  # see `envfs.fs.belonging`
        self.alarm: Callable[[str, str], None] = _no_alarm
        self.patience = Patience(Kind.MEMORY)
        self.by_id: dict[int, Node] = {ROOT_ID: self.root}
        self._moved: dict[tuple[int, int], Node] = {}  # nodes whose id is not their lower inode number
        self._next_own = _OWN_RANGE
        self.most_directories = most_descriptors
        self.open_directories: deque[Node] = deque()

    def __len__(self) -> int:
        return len(self.by_id)

    def find(self, found: os.stat_result) -> Node | None:
        """The node of a lower inode, if the kernel knows it."""
        node = self.by_id.get(found.st_ino)
        if node is not None and node.lower_ino == found.st_ino and node.lower_dev == found.st_dev:
            return node
        return self._moved.get((found.st_dev, found.st_ino)) if self._moved else None

    def adopt(self, parent: Node, name: bytes, lower_name: bytes, full_name: bytes, found: os.stat_result) -> Node:
        """The node of what was found at `name` in `parent`: the known one, now standing there, or a new one."""
        node = self.find(found)
        if node is not None and not self._may_stand(node, parent, lower_name, full_name, found):
            self.retire(node)
            node = None
        if node is None:
            node = self._create(found)
        return self.locate(node, parent, name, lower_name, full_name)

    def _may_stand(self, node: Node, parent: Node, lower_name: bytes, full_name: bytes, found: os.stat_result) -> bool:
        """Whether what is found at a name can be the known node; if not, what the kernel knows of that is void.

        Raises IntegrityError if it is the node, and does not belong at this name.
        """
        if node.kind != found.st_mode & 0o170000:
            return False
        if node.parent is None or not _is_elsewhere(node, parent, full_name):
            return True
        if node.is_directory:
            return False
        if node.is_regular or node.is_symlink:
            belongs = self.belonging(node, parent, lower_name)
            if not node.placed and not belongs(node.parent, node.full_name):
                return False
            if not belongs(parent, full_name):
                raise IntegrityError(f"{node.path()} stands at another name, too, where it does not belong")
        return True

    def adopt_new(self, parent: Node, name: bytes, lower_name: bytes, full_name: bytes, found: os.stat_result) -> Node:
        """The node of what was made a moment ago: a node that is known by its inode number stands for what has gone."""
        stale = self.find(found)
        if stale is not None:
            self.retire(stale)
        return self.locate(self._create(found), parent, name, lower_name, full_name)

    def locate(self, node: Node, parent: Node, name: bytes, lower_name: bytes, full_name: bytes) -> Node:
        """The node stands at this name now."""
        node.placed = node.placed and not _is_elsewhere(node, parent, full_name)
        node.parent, node.name, node.lower_name, node.full_name = parent, name, lower_name, full_name
        node.located = True
        if node.pin >= 0:
            os.close(node.pin)
            node.pin = -1
        return node

    def _create(self, found: os.stat_result) -> Node:
        node_id = found.st_ino
        if found.st_dev != self._root_dev or node_id in self.by_id:
            node_id = self._next_own
            self._next_own += 1
        node = Node(node_id, found)
        self.by_id[node_id] = node
        if node_id != found.st_ino:
            self._moved[found.st_dev, found.st_ino] = node
        return node

    def retire(self, node: Node) -> None:
        """The lower directory was changed behind our back: the node must not be found again.

        What the kernel holds for it, pages and names of children, must not be seen in whatever has come instead.
        """
        problem = f"{node.path()} was changed in the lower directory while mounted"
        log.error("%s", problem)
        self.alarm("lookup", problem)
        self._moved.pop((node.lower_dev, node.lower_ino), None)
        node.lower_ino = -1

    def replace_inode(self, node: Node, found: os.stat_result) -> None:
        """The node lives on as another lower inode (a symlink that was rewritten)."""
        stale = self.find(found)
        if stale is not None and stale is not node:
            self.retire(stale)
        self._moved.pop((node.lower_dev, node.lower_ino), None)
        node.lower_ino, node.lower_dev = found.st_ino, found.st_dev
        if node.node_id != found.st_ino:
            self._moved[found.st_dev, found.st_ino] = node

    def pin(self, node: Node, dir_fd: int, lower_name: bytes) -> None:
        """Hold the inode before this name of it goes away. An open content holds it by its own descriptor."""
        if node.pin < 0 and node.content is None:
            node.pin = os.open(lower_name, OPEN_PATH, dir_fd=dir_fd)

    def pin_open(self, node: Node, fd: int) -> None:
        """Hold an inode without a name beyond the closing of `fd`, for as long as the kernel knows it."""
        if not node.located and node.pin < 0 and node.lookups > 0:
            node.pin = os.open(f"/proc/self/fd/{fd}", os.O_PATH | os.O_CLOEXEC)

    def unlocate(self, node: Node, parent: Node, lower_name: bytes) -> None:
        """The name `lower_name` in `parent` is gone; if it was the one the node is known by, none is known now."""
        if node.parent is parent and node.lower_name == lower_name:
            node.located = False

    def forget(self, node_id: int, count: int) -> None:
        """FUSE FORGET: the kernel drops `count` references."""
        node = self.by_id.get(node_id)
        if node is None or node is self.root:
            return
        node.lookups -= count
        if node.lookups <= 0:
            del self.by_id[node_id]
            if self._moved:
                self._moved.pop((node.lower_dev, node.lower_ino), None)
            self._close(node)

    def _close(self, node: Node) -> None:
        if node.pin >= 0:
            os.close(node.pin)
            node.pin = -1
        if node.directory_fd >= 0:
            os.close(node.directory_fd)
            node.directory_fd = -1

    def directory_fd(self, node: Node) -> int:
        """A descriptor of a directory node, opened again if it had to be given back."""
        fd = node.directory_fd
        if fd >= 0:
            return fd
        try:
            fd = self._open_directory(node, OPEN_DIRECTORY)
        except PermissionError:
            # An ordinary user's own directory that may be searched and not read.
            fd = self._open_directory(node, OPEN_PATH | os.O_DIRECTORY)
        self.keep_directory(node, fd)
        return fd

    def _open_directory(self, node: Node, flags: int) -> int:
        if node.pin < 0:
            return self.open(node, flags)
        fd = os.open(b".", flags, dir_fd=node.pin)
        self.check_same(node, fd)
        return fd

    def reopen_directory(self, node: Node) -> None:
        """Its mode has changed: what its descriptor may do is to be found out anew."""
        if node.directory_fd >= 0 and node is not self.root:
            os.close(node.directory_fd)
            node.directory_fd = -1

    def keep_directory(self, node: Node, fd: int) -> None:
        """Take over an open descriptor of a directory node."""
        if node.directory_fd >= 0:
            os.close(node.directory_fd)
        node.directory_fd = fd
        self.open_directories.append(node)

    def trim(self) -> None:
        """Give back the oldest directory descriptors. Only between requests: within one they may be in use."""
        while len(self.open_directories) > self.most_directories * 3 // 4:
            oldest = self.open_directories.popleft()
            if oldest.directory_fd >= 0 and oldest is not self.root:
                os.close(oldest.directory_fd)
                oldest.directory_fd = -1

    def check_same(self, node: Node, fd: int) -> None:
        """Close `fd` and raise OSError(ESTALE) unless it is the node's lower inode."""
        found = os.fstat(fd)
        if found.st_ino != node.lower_ino or found.st_dev != node.lower_dev:
            os.close(fd)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def stat(self, node: Node) -> os.stat_result:
        """lstat of the lower inode, wherever it stands now. Raises OSError(ESTALE) if something else is there."""
        if node.content is not None:
            self.patience.expect_attributes(node.content.fd)
            return os.fstat(node.content.fd)
        if node.pin >= 0:
            return os.stat(node.pin)
        if node is self.root:
            return os.fstat(node.directory_fd)
        if node.parent is None or not node.located:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        dir_fd = self.directory_fd(node.parent)
        self.patience.expect_name(dir_fd, node.lower_name)
        found = os.stat(node.lower_name, dir_fd=dir_fd, follow_symlinks=False)
        if found.st_ino != node.lower_ino or found.st_dev != node.lower_dev:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return found

    def open(self, node: Node, flags: int) -> int:
        """Open the lower inode of a node itself; never what an attacker may have put in its place."""
        if node.pin >= 0:
            return os.open(f"/proc/self/fd/{node.pin}", flags & ~os.O_NOFOLLOW)
        if node.parent is None or not node.located:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        dir_fd = self.directory_fd(node.parent)
        self.patience.expect_open(dir_fd, node.lower_name, flags)
        fd = self.patience.take_fetched()
        if fd < 0:
            fd = os.open(node.lower_name, flags, dir_fd=dir_fd)
        self.check_same(node, fd)
        return fd

    def close(self) -> None:
        """Close every descriptor held by nodes."""
        for node in self.by_id.values():
            self._close(node)
        self.by_id.clear()
