"""The directory tree: looking up, creating and removing. Renames and links are in `moving`, listings in `listing`.

Every method runs to its end without awaiting, so no two of them ever interleave. A step that a crash may interrupt is
ordered so that the lower directory shows the old or the new state; the comment at each says which.
"""

from __future__ import annotations

import errno
import os
import stat as stat_module
import time
from collections.abc import Callable

from envfs.format.names import CipherName
from envfs.format.place import ANYWHERE
from envfs.fs import lower
from envfs.fs.attributes import close_handle
from envfs.fs.content import Content
from envfs.fs.names_on_disk import has_entries, remove_name_file, remove_own_files, write_name_file
from envfs.fs.nodes import Node
from envfs.fs.opening import Caller
from envfs.fs.raised_mode import open_directory
from envfs.fs.state import VolumeState
from envfs.fs.symlinks import Symlinks

_NAME_MAX = 255
_MOST_RECENT = 2048
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


MakeNamed = Callable[[bytes], None]


class Tree:
    """Operations on names of one volume."""

    def __init__(self, state: VolumeState, symlinks: Symlinks) -> None:
        self._state = state
        self._nodes = state.nodes
        self._encrypt = state.keys.names.encrypt
        self._symlinks = symlinks
        # The kernel looks a name up right before it creates, renames or removes it.
        self._recent: dict[tuple[bytes, bytes], CipherName] = {}

    def node(self, node_id: int) -> Node:
        """The node of an id that the kernel uses."""
        try:
            return self._nodes.by_id[node_id]
        except KeyError:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None

    def cipher_name(self, parent: Node, name: bytes) -> CipherName:
        """The name in the lower directory. Raises OSError(ENAMETOOLONG) above 255 bytes."""
        directory = parent.directory or self._state.directories.load(parent)
        key = (directory.directory_id, name)
        known = self._recent.get(key)
        if known is not None:
            return known
        if len(name) > _NAME_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        if len(self._recent) >= _MOST_RECENT:
            self._recent.clear()
        cipher = self._recent[key] = self._encrypt(directory.directory_id, name)
        return cipher

    # Looking

    def lookup(self, parent_id: int, name: bytes) -> tuple[Node, os.stat_result]:
        """What stands at `name`. Raises FileNotFoundError."""
        parent = self.node(parent_id)
        if name in {b".", b".."}:
            node = parent if name == b"." else parent.parent or parent
            return node, self._nodes.stat(node)
        cipher = self.cipher_name(parent, name)
        dir_fd = self._nodes.directory_fd(parent)
        self._nodes.patience.expect_name(dir_fd, cipher.lower)
        found = os.stat(cipher.lower, dir_fd=dir_fd, follow_symlinks=False)
        return self._nodes.adopt(parent, name, cipher.lower, cipher.full, found), found

    def stat(self, node: Node) -> os.stat_result:
        """lstat of a node's lower inode."""
        return self._nodes.stat(node)

    def plain_size(self, node: Node, found: os.stat_result) -> int:
        """st_size as users see it."""
        if node.is_regular:
            content = node.content
            if content is not None:
                return content.size
            size = self._state.opener.geometry.plain_size(found.st_size)
            if node.size is None:
                node.size = size
            return size
        if node.is_symlink:
            if node.parent is None or not node.located:
                return self._symlinks.size_without_name(found.st_size)
            dir_fd = self._nodes.directory_fd(node.parent)
            return self._symlinks.target_size(dir_fd, node.lower_name, found.st_size)
        return found.st_size

    def readlink(self, node: Node) -> bytes:
        """The plain target of a symlink."""
        if node.parent is None or not node.located:
            if node.pin < 0:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return self._symlinks.target(node.pin, b"", ANYWHERE)  # it lost the name it was known by, and has others
        where = self._state.where(node.parent, node.full_name)
        return self._symlinks.target(self._nodes.directory_fd(node.parent), node.lower_name, where)

    # Creating

    def create(self, parent_id: int, name: bytes, mode: int, caller: Caller) -> tuple[Node, os.stat_result, Content]:
        """A new regular file, open for reading and writing. The KMS is asked before anything is created."""
        state = self._state
        parent = self.node(parent_id)
        cipher = self.cipher_name(parent, name)
        principal, facts = state.opener.authorise_creation(parent, name, caller)
        prepared = state.opener.prepare(parent, state.where(parent, cipher.full), principal, facts)
        dir_fd = self._nodes.directory_fd(parent)
        # The name file first: a crash leaves one that means nothing.
        write_name_file(dir_fd, cipher, state.unsynced)
        fd = self._create_lower(dir_fd, cipher.lower, stat_module.S_IMODE(mode), caller)
        found = os.fstat(fd)
        node = self._nodes.adopt_new(parent, name, cipher.lower, cipher.full, found)
        content = state.opener.content_of(node, prepared, fd)
        node.object_id = prepared.slot.file_id
        node.content, node.placed, node.made = content, True, time.monotonic()
        return node, found, content

    def _create_lower(self, dir_fd: int, lower_name: bytes, mode: int, caller: Caller) -> int:
        if self._state.is_own(caller):
            return os.open(lower_name, _CREATE, mode, dir_fd=dir_fd)
        # For somebody else: made without a name, given away, then linked in, so that no crash leaves it root's.
        if lower.exists(dir_fd, lower_name):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        uid, gid = self._state.owner_for(caller, dir_fd)
        try:
            fd = os.open(b".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode, dir_fd=dir_fd)
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}:
                raise
            return self._create_under_temporary_name(dir_fd, lower_name, mode, uid, gid)
        try:
            os.fchown(fd, uid, gid)
            if mode & 0o6000:
                os.fchmod(fd, mode)
            os.link(lower.proc_path(fd), lower_name, dst_dir_fd=dir_fd, follow_symlinks=True)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _create_under_temporary_name(self, dir_fd: int, lower_name: bytes, mode: int, uid: int, gid: int) -> int:
        """Where the lower filesystem has no O_TMPFILE."""
        temporary = lower.temporary_name()
        fd = os.open(temporary, _CREATE, mode, dir_fd=dir_fd)
        try:
            os.fchown(fd, uid, gid)
            if mode & 0o6000:
                os.fchmod(fd, mode)
            os.rename(temporary, lower_name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        except BaseException:
            os.close(fd)
            lower.unlink_if_there(dir_fd, temporary)
            raise
        return fd

    def mkdir(self, parent_id: int, name: bytes, mode: int, caller: Caller) -> tuple[Node, os.stat_result]:
        """A new directory: made complete under a temporary name, then renamed in; a crash leaves the temporary one."""
        parent = self.node(parent_id)
        cipher = self.cipher_name(parent, name)
        dir_fd = self._nodes.directory_fd(parent)
        if lower.exists(dir_fd, cipher.lower):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        temporary = lower.temporary_name()
        os.mkdir(temporary, stat_module.S_IMODE(mode) | 0o700, dir_fd=dir_fd)
        fd = -1
        try:
            fd = os.open(temporary, lower.OPEN_DIRECTORY, dir_fd=dir_fd)
            made = self._state.directories.make(fd, self._state.where(parent, cipher.full))
            if not self._state.is_own(caller):
                os.fchown(fd, *self._state.owner_for(caller, dir_fd))
            if mode & 0o700 != 0o700:
                os.fchmod(fd, stat_module.S_IMODE(mode) | os.fstat(fd).st_mode & 0o2000)
            write_name_file(dir_fd, cipher, self._state.unsynced)
            os.rename(temporary, cipher.lower, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        except BaseException:
            if fd >= 0:
                remove_own_files(fd)
                os.close(fd)
            os.rmdir(temporary, dir_fd=dir_fd)
            raise
        found = os.fstat(fd)
        node = self._nodes.adopt_new(parent, name, cipher.lower, cipher.full, found)
        node.directory = made
        node.object_id = made.directory_id
        self._nodes.keep_directory(node, fd)
        self._state.unsynced.add_directory(fd)
        return node, found

    def symlink(self, parent_id: int, name: bytes, target: bytes, caller: Caller) -> tuple[Node, os.stat_result]:
        """A new symlink to a plain target of up to 4,095 bytes."""
        parent = self.node(parent_id)
        cipher = self.cipher_name(parent, name)
        dir_fd = self._nodes.directory_fd(parent)
        if lower.exists(dir_fd, cipher.lower):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        text = self._symlinks.new_text(dir_fd, target, self._state.where(parent, cipher.full))

        def make(made_name: bytes) -> None:
            os.symlink(text, made_name, dir_fd=dir_fd)

        return self._place_new(parent, name, cipher, caller, make)

    def mknod(self, parent_id: int, name: bytes, mode: int, device: int, caller: Caller) -> tuple[Node, os.stat_result]:
        """A FIFO, socket or device; a regular file is created and closed again."""
        if stat_module.S_ISREG(mode):
            node, _, content = self.create(parent_id, name, mode, caller)
            content.handles += 1
            try:
                content.record_length()
                return node, os.fstat(content.fd)
            finally:
                close_handle(self._state, node, content)
        parent = self.node(parent_id)
        cipher = self.cipher_name(parent, name)
        dir_fd = self._nodes.directory_fd(parent)
        if lower.exists(dir_fd, cipher.lower):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

        def make(made_name: bytes) -> None:
            os.mknod(made_name, mode, device, dir_fd=dir_fd)

        return self._place_new(parent, name, cipher, caller, make)

    def _place_new(
        self, parent: Node, name: bytes, cipher: CipherName, caller: Caller, make: MakeNamed
    ) -> tuple[Node, os.stat_result]:
        """Something without content appears under its name, owned by the caller from the first moment."""
        dir_fd = self._nodes.directory_fd(parent)
        write_name_file(dir_fd, cipher, self._state.unsynced)
        if self._state.is_own(caller):
            make(cipher.lower)
        else:
            temporary = lower.temporary_name()
            make(temporary)
            try:
                uid, gid = self._state.owner_for(caller, dir_fd)
                os.chown(temporary, uid, gid, dir_fd=dir_fd, follow_symlinks=False)
                os.rename(temporary, cipher.lower, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
            except BaseException:
                lower.unlink_if_there(dir_fd, temporary)
                raise
        found = os.stat(cipher.lower, dir_fd=dir_fd, follow_symlinks=False)
        return self._nodes.adopt_new(parent, name, cipher.lower, cipher.full, found), found

    # Removing

    def unlink(self, parent_id: int, name: bytes) -> None:
        """Remove a name. The name file and link file go after it: a crash between leaves them without meaning."""
        parent = self.node(parent_id)
        cipher = self.cipher_name(parent, name)
        dir_fd = self._nodes.directory_fd(parent)
        found = os.stat(cipher.lower, dir_fd=dir_fd, follow_symlinks=False)
        node = self._nodes.find(found)
        link_file = None
        if stat_module.S_ISLNK(found.st_mode):
            link_file = self._symlinks.link_file(dir_fd, cipher.lower, found.st_size)
        if node is not None:
            self._nodes.pin(node, dir_fd, cipher.lower)
        os.unlink(cipher.lower, dir_fd=dir_fd)
        if node is not None:
            self._nodes.unlocate(node, parent, cipher.lower)
        self._state.name_gone(found, node)
        remove_name_file(dir_fd, cipher.lower)
        if link_file is not None:
            self._symlinks.remove_link_file(dir_fd, link_file, found)

    def rmdir(self, parent_id: int, name: bytes) -> None:
        """Remove an empty directory: renamed away first, so that none is ever seen without its directory file."""
        parent = self.node(parent_id)
        cipher = self.cipher_name(parent, name)
        dir_fd = self._nodes.directory_fd(parent)
        fd = self.open_directory(parent, dir_fd, cipher.lower)
        try:
            if has_entries(fd):
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
            node = self._nodes.find(os.fstat(fd))
            if node is not None:
                self._nodes.pin(node, dir_fd, cipher.lower)
            self.discard_directory(dir_fd, cipher.lower, fd)
            if node is not None:
                self._nodes.unlocate(node, parent, cipher.lower)
        finally:
            os.close(fd)
        remove_name_file(dir_fd, cipher.lower)

    def open_directory(self, parent: Node, dir_fd: int, lower_name: bytes) -> int:
        """A descriptor that lists a directory, even one that its owner may remove and not read."""
        return open_directory(self._nodes.root.directory_fd, parent.lower_path(), dir_fd, lower_name)

    def discard_directory(self, dir_fd: int, lower_name: bytes, fd: int) -> None:
        """Make an empty lower directory disappear in one step; what is left under a temporary name is then removed."""
        temporary = lower.temporary_name()
        os.rename(lower_name, temporary, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        if os.fstat(fd).st_mode & 0o700 != 0o700:
            os.fchmod(fd, 0o700)  # an ordinary user's daemon could not empty it
        remove_own_files(fd)
        os.rmdir(temporary, dir_fd=dir_fd)
