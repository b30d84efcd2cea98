"""Renames and hard links: the object's authenticated place is written before its name changes.

The order of a rename: name file of the new name, place {current: new, previous: old}, rename(2), removal of the old
name file. A crash anywhere leaves the object readable at its old or its new name. Where an empty directory is
replaced by another, the two are exchanged first, so that the target exists at every moment; a crash then leaves the
empty one at the old name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat as stat_module
from typing import NamedTuple

from envfs.errors import EnvfsError, IntegrityError
from envfs.format.geometry import HEADER_SIZE
from envfs.format.header import peek_file_id
from envfs.format.names import CipherName
from envfs.format.place import ANYWHERE, PLACE_SIZE, Kind, Where
from envfs.fs import lower
from envfs.fs.names_on_disk import has_entries, remove_name_file, write_name_file
from envfs.fs.nodes import Node, is_moved
from envfs.fs.raised_mode import open_writable
from envfs.fs.state import VolumeState
from envfs.fs.symlinks import Symlinks
from envfs.fs.tree import Tree


class _Entry(NamedTuple):
    """One existing name and what stands there."""

    parent: Node
    dir_fd: int
    name: bytes
    cipher: CipherName
    where: Where
    found: os.stat_result
    node: Node | None


class Mover:
    """rename(2) and link(2) of one volume."""

    def __init__(self, state: VolumeState, tree: Tree, symlinks: Symlinks) -> None:
        self._state = state
        self._tree = tree
        self._symlinks = symlinks

    def rename(self, old_id: int, old_name: bytes, new_id: int, new_name: bytes, flags: int) -> None:
        """renameat2(2) with RENAME_NOREPLACE or RENAME_EXCHANGE; other flags are EINVAL."""
        if flags & ~(lower.RENAME_NOREPLACE | lower.RENAME_EXCHANGE):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        source = self._entry(old_id, old_name)
        if source is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        target = self._entry(new_id, new_name)
        if flags & lower.RENAME_EXCHANGE:
            self._exchange(source, target)
            return
        if target is not None and flags & lower.RENAME_NOREPLACE:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        if target is not None and (target.found.st_ino, target.found.st_dev) == (
            source.found.st_ino,
            source.found.st_dev,
        ):
            return  # rename(2): two links to the same file, nothing happens
        parent = self._tree.node(new_id)
        cipher = self._tree.cipher_name(parent, new_name)
        self._move(source, target, parent, new_name, cipher)

    def _entry(self, parent_id: int, name: bytes) -> _Entry | None:
        parent = self._tree.node(parent_id)
        cipher = self._tree.cipher_name(parent, name)
        dir_fd = self._state.directory_fd(parent)
        try:
            found = os.stat(cipher.lower, dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        where = self._state.where(parent, cipher.full)
        node = self._state.nodes.find(found)
        if node is not None and is_moved(node, parent, cipher.full):
            # What the kernel knows by this name is another: ESTALE makes it look again, and find the place wrong.
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return _Entry(parent, dir_fd, name, cipher, where, found, node)

    def _move(self, source: _Entry, target: _Entry | None, parent: Node, name: bytes, cipher: CipherName) -> None:
        state = self._state
        dir_fd = state.directory_fd(parent)
        replaces_directory = self._check_target(source, target)
        write_name_file(dir_fd, cipher, state.unsynced)
        link_file = self._record_place(source, state.where(parent, cipher.full), dir_fd)
        target_link_file = None
        if target is not None:
            if target.node is not None:
                state.nodes.pin(target.node, dir_fd, cipher.lower)
            if stat_module.S_ISLNK(target.found.st_mode):
                target_link_file = self._symlinks.link_file(dir_fd, cipher.lower, target.found.st_size)
        if replaces_directory and target is not None:
            self._replace_directory(source, target)
        else:
            os.rename(source.cipher.lower, cipher.lower, src_dir_fd=source.dir_fd, dst_dir_fd=dir_fd)
        if target is not None and target.node is not None:
            state.nodes.unlocate(target.node, parent, cipher.lower)
        if target is not None:
            state.name_gone(target.found, target.node)
        self._relocate(source, parent, name, cipher)
        self._remember(source)
        remove_name_file(source.dir_fd, source.cipher.lower)
        if target is not None and target_link_file is not None:
            self._symlinks.remove_link_file(dir_fd, target_link_file, target.found)
        if link_file is not None and source.dir_fd != dir_fd:
            self._symlinks.remove_link_file(source.dir_fd, link_file, source.found)

    def _check_target(self, source: _Entry, target: _Entry | None) -> bool:
        """POSIX's rules for an existing target; whether it is an empty directory that the source replaces."""
        if target is None:
            return False
        source_is_directory = stat_module.S_ISDIR(source.found.st_mode)
        if not stat_module.S_ISDIR(target.found.st_mode):
            if source_is_directory:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            return False
        if not source_is_directory:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        fd = self._tree.open_directory(target.parent, target.dir_fd, target.cipher.lower)
        try:
            if has_entries(fd):
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        finally:
            os.close(fd)
        return True

    def _replace_directory(self, source: _Entry, target: _Entry) -> None:
        """The empty directory stands at the old name for a moment, where it must not seem to be moved by a stranger."""
        fd = self._tree.open_directory(target.parent, target.dir_fd, target.cipher.lower)
        try:
            if target.node is not None:
                with contextlib.suppress(EnvfsError, OSError):  # one that is damaged may be replaced all the same
                    self._state.directories.move(target.node, source.where)
            names = source.cipher.lower, target.cipher.lower
            lower.rename(source.dir_fd, names[0], target.dir_fd, names[1], lower.RENAME_EXCHANGE)
            self._tree.discard_directory(source.dir_fd, names[0], fd)
        finally:
            os.close(fd)

    def _relocate(self, entry: _Entry, parent: Node, name: bytes, cipher: CipherName) -> None:
        node = entry.node
        if node is None:
            return
        node.parent, node.name, node.lower_name, node.full_name = parent, name, cipher.lower, cipher.full
        node.located = True

    def _remember(self, entry: _Entry) -> None:
        """The place that was written into what has moved must be on disk before a sync says that the move is."""
        node = entry.node
        if node is None or node.parent is None:
            return
        if node.is_directory:
            self._state.unsynced.add_directory(self._state.directory_fd(node))
        elif node.is_regular:
            self._state.unsynced.add(self._state.directory_fd(node.parent), node.lower_name)

    def _exchange(self, first: _Entry, second: _Entry | None) -> None:
        if second is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        first_link_file = self._record_place(first, second.where, second.dir_fd)
        second_link_file = self._record_place(second, first.where, first.dir_fd)
        lower.rename(first.dir_fd, first.cipher.lower, second.dir_fd, second.cipher.lower, lower.RENAME_EXCHANGE)
        self._relocate(first, second.parent, second.name, second.cipher)
        self._relocate(second, first.parent, first.name, first.cipher)
        self._remember(first)
        self._remember(second)
        if first.dir_fd != second.dir_fd:
            if first_link_file is not None:
                self._symlinks.remove_link_file(first.dir_fd, first_link_file, first.found)
            if second_link_file is not None:
                self._symlinks.remove_link_file(second.dir_fd, second_link_file, second.found)

    # Places

    def _record_place(self, entry: _Entry, new: Where, new_dir_fd: int) -> bytes | None:
        """Write that the object is about to move to `new`. For a symlink with a link file, that file's name."""
        mode = entry.found.st_mode
        if stat_module.S_ISREG(mode):
            self._record_file(entry, new)
        elif stat_module.S_ISDIR(mode):
            if entry.node is None:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            self._state.directories.move(entry.node, new)
        elif stat_module.S_ISLNK(mode):
            return self._record_symlink(entry, new, new_dir_fd)
        return None

    def _record_symlink(self, entry: _Entry, new: Where, new_dir_fd: int) -> bytes | None:
        fresh, link_file = self._symlinks.retag(entry.dir_fd, entry.cipher.lower, entry.where, new, new_dir_fd)
        if fresh is not None and entry.node is not None:
            self._state.nodes.replace_inode(entry.node, fresh)
        return link_file

    def _record_file(self, entry: _Entry, new: Where) -> None:
        """Check that a file is where it belongs, then record where it goes."""
        content = entry.node.content if entry.node is not None else None
        place_key = self._state.keys.place
        if content is not None and content.keyed and content.writable and content.position < 0:
            content.write_place(self._moved_place(entry, content.place, content.slot.file_id, new))
            return
        root_fd = self._state.nodes.root.directory_fd
        fd = open_writable(root_fd, entry.parent.lower_path(), entry.dir_fd, entry.cipher.lower)
        try:
            raw = os.pread(fd, HEADER_SIZE, 0)
            file_id = peek_file_id(raw)
            if file_id is None:
                return  # an empty file has no place yet
            place = self._moved_place(entry, raw[:PLACE_SIZE], file_id, new)
            if entry.found.st_nlink > 1 and new != ANYWHERE:
                if place_key.is_anywhere(raw[:PLACE_SIZE], Kind.FILE, file_id):
                    return
                raise IntegrityError(f"{entry.parent.path()}: a file that never got a second link has one")
            if not self._state.never_blocks and place_key.is_anywhere(raw[:PLACE_SIZE], Kind.FILE, file_id):
                os.fsync(fd)  # that its other names have gone must be on the disk before it belongs to one alone
            lower.write_all(fd, place, 0)
            if entry.found.st_mode & 0o6000:  # which a write by anybody but root takes away
                os.fchmod(fd, stat_module.S_IMODE(entry.found.st_mode))
            os.utime(fd, ns=(entry.found.st_atime_ns, entry.found.st_mtime_ns))
            if not self._state.never_blocks and not _is_unwritten(entry.node, fd):
                lower.write_through(fd, PLACE_SIZE)
        finally:
            os.close(fd)
        if content is not None:
            content.place = place

    def _moved_place(self, entry: _Entry, place: bytes, file_id: bytes, new: Where) -> bytes:
        moved = self._state.keys.place.moved(place, Kind.FILE, file_id, entry.where, new)
        if moved is None:
            raise IntegrityError(f"{entry.parent.path()}: a file that was moved, swapped or copied is not renamed")
        return moved

    # Links

    def link(self, node: Node, new_parent_id: int, new_name: bytes) -> os.stat_result:
        """A further name for a file. From the first one on its place is "anywhere"."""
        state = self._state
        if node.is_directory:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        source = self._source_of_link(node)
        parent = self._tree.node(new_parent_id)
        cipher = self._tree.cipher_name(parent, new_name)
        dir_fd = state.directory_fd(parent)
        if lower.exists(dir_fd, cipher.lower):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        if source is None:
            held = node.content.fd if node.content is not None else node.pin
            write_name_file(dir_fd, cipher, state.unsynced)
            os.link(lower.proc_path(held), cipher.lower, dst_dir_fd=dir_fd, follow_symlinks=True)
        else:
            old_name = source.cipher.lower
            write_name_file(dir_fd, cipher, state.unsynced)
            if source.found.st_nlink == 1:
                self._record_place(source, ANYWHERE, dir_fd)
            elif node.is_symlink and dir_fd != source.dir_fd:
                link_file = self._symlinks.link_file(source.dir_fd, old_name, source.found.st_size)
                if link_file is not None:
                    self._symlinks.copy_link_file(source.dir_fd, link_file, dir_fd)
            os.link(old_name, cipher.lower, src_dir_fd=source.dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
        if node.is_regular:
            state.unsynced.add(dir_fd, cipher.lower)
        found = os.stat(cipher.lower, dir_fd=dir_fd, follow_symlinks=False)
        state.nodes.locate(node, parent, new_name, cipher.lower, cipher.full)
        return found

    def _source_of_link(self, node: Node) -> _Entry | None:
        """The name that the node is known by; None if it lost that one and has others, so that it is "anywhere"."""
        if node.parent is None or not node.located:
            if not self._state.nodes.stat(node).st_nlink:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            return None
        source = self._entry(node.parent.node_id, node.name)
        if source is None or source.node is not node:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return source


def _is_unwritten(node: Node | None, fd: int) -> bool:
    """Whether nothing of a file is on the disk, so that what is written there some day has its place of now."""
    return node is not None and node.is_fresh() and lower.is_only_in_memory(fd, 0, PLACE_SIZE) is not False
