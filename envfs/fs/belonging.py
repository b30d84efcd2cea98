"""Whether a file or symlink that the kernel knows by one name belongs at another one, too.

The kernel opens inodes, not names: once it has been told that a name means an inode, an open by that name looks like
an open by any other. So before a known inode is given a second name, the place in it must say that it belongs there.
For hard links it says "anywhere"; what somebody has moved or linked in the lower directory stays where it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from envfs.errors import EnvfsError
from envfs.format.geometry import HEADER_SIZE
from envfs.format.header import peek_file_id
from envfs.format.place import PLACE_SIZE, Kind, Where
from envfs.format.volume_keys import VolumeKeys
from envfs.fs.directories import Directories
from envfs.fs.lower import OPEN_READ
from envfs.fs.nodes import Belongs, Node, NodeTable
from envfs.fs.symlinks import Symlinks


class Belonging:
    """Reads places, for `NodeTable.adopt`."""

    def __init__(self, nodes: NodeTable, directories: Directories, keys: VolumeKeys, symlinks: Symlinks) -> None:
        self._nodes = nodes
        self._directories = directories
        self._place_key = keys.place
        self._symlinks = symlinks

    def __call__(self, node: Node, parent: Node, lower_name: bytes) -> Belongs:
        """For what is found at `lower_name` in `parent`: whether (directory, full cipher name) is a place of it."""
        check = self._symlink(parent, lower_name) if node.is_symlink else self._file(node, parent, lower_name)

        def belongs(directory: Node, full_name: bytes) -> bool:
            try:
                return check(Where(self._directories.load(directory).directory_id, full_name))
            except EnvfsError:
                return False

        return belongs

    def _symlink(self, parent: Node, lower_name: bytes) -> Callable[[Where], bool]:
        dir_fd = self._nodes.directory_fd(parent)
        return lambda where: bool(self._symlinks.target(dir_fd, lower_name, where))

    def _file(self, node: Node, parent: Node, lower_name: bytes) -> Callable[[Where], bool]:
        content = node.content
        if content is not None and content.keyed:
            place, file_id = content.place, content.slot.file_id
        else:
            try:
                fd = os.open(lower_name, OPEN_READ, dir_fd=self._nodes.directory_fd(parent))
            except PermissionError:
                return lambda _where: False  # an ordinary user has locked himself out
            self._nodes.check_same(node, fd)
            try:
                raw = os.pread(fd, HEADER_SIZE, 0)
            finally:
                os.close(fd)
            known = peek_file_id(raw)
            if known is None:
                return lambda _where: False  # a file without header has no place: one name is all that it can have
            place, file_id = raw[:PLACE_SIZE], known
        return lambda where: self._place_key.check(place, Kind.FILE, file_id, where)
