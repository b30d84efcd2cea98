"""Extended attributes: sealed, and bound to their file or directory.

The kernel asks for `security.capability` before every write(2) of a mount that has attributes, so the answer "there
are none" is remembered with the node.
"""

from __future__ import annotations

import errno
import os

from envfs.errors import FormatError
from envfs.format.geometry import HEADER_SIZE
from envfs.format.header import parse_header_area
from envfs.format.xattr import LONG_PREFIX, LOWER_PREFIX, PASSED_THROUGH
from envfs.fs.lower import OPEN_PATH, OPEN_READ, proc_path
from envfs.fs.nodes import Node
from envfs.fs.raised_mode import open_readable
from envfs.fs.state import VolumeState

# Labels are the mount's, not a file's, as SELinux has it for FUSE. A plain "not supported" spares `ls -l` a question
# for each file.
SELINUX = b"security.selinux"
# What listxattr(2) says of a file with more attributes than it can name in 64 KiB.
TOO_MANY = frozenset({errno.E2BIG, errno.ERANGE})


class Xattrs:
    """getxattr(2), setxattr(2), listxattr(2) and removexattr(2) of one volume."""

    def __init__(self, state: VolumeState) -> None:
        self._state = state
        self._cipher = state.keys.xattrs

    def get(self, node: Node, name: bytes) -> bytes:
        """The plain value. Raises OSError(ENODATA) if there is none, IntegrityError for a damaged one."""
        if name in PASSED_THROUGH:
            return self._get_acl(node, name)
        if node.no_xattrs or not (node.is_regular or node.is_directory):
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        fd = self._open(node)
        try:
            path = proc_path(fd)
            if not self._sealed_names(path):
                node.no_xattrs = True
                raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
            object_id = self._object_id(node)
            sealed = os.getxattr(path, self._lower_name(object_id, name))
        finally:
            os.close(fd)
        return self._cipher.open(object_id, name, sealed)

    def set(self, node: Node, name: bytes, value: bytes) -> None:
        """Store a value. What only the lower filesystem can keep or enforce is refused with EOPNOTSUPP."""
        if name in PASSED_THROUGH:
            self._set_acl(node, name, value)
            return
        if name == SELINUX:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        self._check_can_have(node)
        object_id = self._object_id(node)
        sealed = self._cipher.seal(object_id, name, value)
        fd = self._open(node)
        try:
            os.setxattr(proc_path(fd), self._lower_name(object_id, name), sealed)
        finally:
            os.close(fd)
        node.no_xattrs = False

    def names(self, node: Node) -> list[bytes]:
        """The plain names of all attributes."""
        if not (node.is_regular or node.is_directory):
            return []
        fd = self._open(node)
        try:
            path = proc_path(fd)
            found = [os.fsencode(lower_name) for lower_name in os.listxattr(path)]
            plain = [name for name in found if name in PASSED_THROUGH] if self._state.options.acl else []
            if any(name.startswith(LOWER_PREFIX) for name in found):
                object_id = self._object_id(node)
                opened = (self._plain_name(path, object_id, name) for name in found)
                plain += [name for name in opened if name is not None]
        finally:
            os.close(fd)
        return plain

    def remove(self, node: Node, name: bytes) -> None:
        """Remove an attribute. Raises OSError(ENODATA) if there is none."""
        if name in PASSED_THROUGH:
            self._check_acl()
            lower_name = name
        else:
            self._check_can_have(node)
            lower_name = self._lower_name(self._object_id(node), name)
        fd = self._open(node)
        try:
            os.removexattr(proc_path(fd), lower_name)
        finally:
            os.close(fd)

    def _sealed_names(self, path: str) -> bool:
        """Whether the lower file has attributes of ours at all."""
        try:
            return any(os.fsencode(name).startswith(LOWER_PREFIX) for name in os.listxattr(path))
        except OSError as error:
            if error.errno in {errno.EOPNOTSUPP, errno.EPERM, errno.EACCES}:
                return False
            if error.errno in TOO_MANY:
                return True
            raise

    def _check_can_have(self, node: Node) -> None:
        if not (node.is_regular or node.is_directory):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def _object_id(self, node: Node) -> bytes:
        """File id or directory id. A file that has no header yet gets it, if it is open for writing."""
        if node.is_directory:
            return self._state.directories.load(node).directory_id
        content = node.content
        if content is not None and content.keyed:
            if content.position < 0:
                content.write_first_header()
            if not node.placed:
                self._state.opener.check_place(node, content.place, content.slot.file_id)
            return content.slot.file_id
        if node.placed and node.object_id is not None:
            return node.object_id  # it was read from the header of this inode, which was at its place
        fd = self._open_readable(node)
        try:
            area = parse_header_area(os.pread(fd, HEADER_SIZE, 0))
        finally:
            os.close(fd)
        if area.file_id is None:
            raise OSError(errno.EOPNOTSUPP, "the file has no header yet: write to it first")
        # Or the attributes of a file that modes protect could be read where its ciphertext was moved to.
        self._state.opener.check_place(node, area.place_raw, area.file_id)
        return area.file_id

    def _open_readable(self, node: Node) -> int:
        """A descriptor that reads the header, even of a file that its owner may write and not read."""
        state = self._state
        if node.pin >= 0 or node.parent is None or not node.located or state.options.read_only:
            return state.nodes.open(node, OPEN_READ)
        parent = node.parent
        root_fd = state.nodes.root.directory_fd
        fd = open_readable(root_fd, parent.lower_path(), state.directory_fd(parent), node.lower_name)
        state.nodes.check_same(node, fd)
        return fd

    def _lower_name(self, object_id: bytes, name: bytes) -> bytes:
        try:
            return self._cipher.name(object_id, name)
        except FormatError:
            raise OSError(errno.ERANGE, os.strerror(errno.ERANGE)) from None

    def _plain_name(self, path: str, object_id: bytes, lower_name: bytes) -> bytes | None:
        """The name of a lower attribute; None if it is none of ours, or has just gone."""
        if not lower_name.startswith(LONG_PREFIX):
            return self._cipher.open_name(object_id, lower_name)
        try:
            return self._cipher.open_long_name(object_id, lower_name, os.getxattr(path, lower_name))
        except OSError as error:
            if error.errno in {errno.ENODATA, errno.EACCES}:
                return None  # whoever may not read the file may not read this name, either
            raise

    def _open(self, node: Node) -> int:
        """A descriptor of the node, to be closed; its /proc path is what the attribute calls can use."""
        if node.content is not None:
            return os.dup(node.content.fd)
        if node.pin >= 0:
            return os.dup(node.pin)
        if node.is_directory:
            return os.dup(self._state.directory_fd(node))
        return self._state.nodes.open(node, OPEN_PATH)

    # POSIX ACLs: kept by the lower filesystem, enforced by the kernel, only if the mount was made with `acl`.

    def _check_acl(self) -> None:
        if not self._state.options.acl:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def _get_acl(self, node: Node, name: bytes) -> bytes:
        self._check_acl()
        fd = self._open(node)
        try:
            return os.getxattr(proc_path(fd), name)
        finally:
            os.close(fd)

    def _set_acl(self, node: Node, name: bytes, value: bytes) -> None:
        self._check_acl()
        fd = self._open(node)
        try:
            os.setxattr(proc_path(fd), name, value)
        finally:
            os.close(fd)
