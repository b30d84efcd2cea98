"""What the kernel holds of a mount's files, and making it let go. Everything here blocks and belongs into a thread.

Dropping pages writes dirty ones first: those are requests that the event loop has to answer meanwhile.
"""

from __future__ import annotations

import ctypes
import logging
import os
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import pyfuse3

log = logging.getLogger("envfs.fs")

# struct file_handle of open_by_handle_at(2), with the id that FUSE has: FILEID_INO64_GEN of <linux/exportfs.h>.
_FILE_HANDLE: Final = struct.Struct("=IiIII")
_FILEID_INO64_GEN: Final = 0x81
_HANDLE_BYTES: Final = 12
# struct fuse_out_header of <linux/fuse.h>: length, FUSE_NOTIFY_INC_EPOCH in place of an error, no request.
_INC_EPOCH: Final = struct.pack("=IiQ", 16, 8, 0)
# A reply that crosses an invalidation is not believed by the kernel: then it is asked again.
_ATTEMPTS: Final = 5


class KernelCache:
    """Pages, attributes and names of one mount."""

    def __init__(self, mountpoint: str) -> None:
        self._mountpoint = mountpoint
        self._libc = ctypes.CDLL(None, use_errno=True)
        # Threads of ours whose questions are not a user's, and how many of their questions have come.
        self.asking: dict[int, int] = {}

    @staticmethod
    def drop(node_ids: Iterable[int]) -> None:
        """Pages are written where they are dirty, then gone, also from memory maps; attributes have to be asked for."""
        for node_id in node_ids:
            try:
                pyfuse3.invalidate_inode(node_id)
            except OSError:
                continue  # ENOENT: the kernel has forgotten it

    @staticmethod
    def drop_name(parent_id: int, name: bytes) -> None:
        """The name has to be looked up again."""
        try:
            pyfuse3.invalidate_entry(parent_id, name)
        except OSError:
            return

    def open_root(self) -> int:
        """A descriptor of the mount's root directory, to be closed soon: it keeps the mount from being unmounted."""
        return os.open(self._mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @staticmethod
    def drop_all_names() -> None:
        """Also those that are known not to exist: FUSE_NOTIFY_INC_EPOCH, since Linux 6.16; harmless where unknown."""
        for name in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{name}") == "/dev/fuse":
                    os.write(int(name), _INC_EPOCH)
            except OSError:
                continue  # EINVAL: an older kernel; ENOENT: the listing's own descriptor

    def expire(self, node_ids: Iterable[int]) -> list[int]:
        """Make the kernel ask for attributes before each read and write of these files, provided that the answers say
        that they hold for no time at all. What could not be done, by node id: for want of CAP_DAC_READ_SEARCH.

        In write-back mode attributes that have expired are asked for in the name of whoever reads or writes.
        """
        with self._root() as root, self._asking() as thread:
            return [node_id for node_id in node_ids if not self._expire(root, node_id, thread)]

    def _expire(self, root: int, node_id: int, thread: int) -> bool:
        fd = self._open(root, node_id)
        if fd < 0:
            return False
        try:
            for _ in range(_ATTEMPTS):
                os.fstat(fd)
                before = self.asking[thread]
                os.fstat(fd)
                if self.asking[thread] != before:  # so they had expired
                    return True
        except OSError as error:
            log.info("attributes of node %d: %s", node_id, error)
        finally:
            os.close(fd)
        return False

    def _open(self, root: int, node_id: int) -> int:
        """An O_PATH descriptor of an inode that the kernel knows, whether it has a name or not; -1 if it cannot be."""
        handle = _FILE_HANDLE.pack(_HANDLE_BYTES, _FILEID_INO64_GEN, node_id >> 32, node_id & 0xFFFFFFFF, 0)
        opened: int = self._libc.open_by_handle_at(root, ctypes.create_string_buffer(handle), os.O_PATH | os.O_CLOEXEC)
        return opened

    @contextmanager
    def _root(self) -> Iterator[int]:
        """Not kept: a descriptor would keep the mount from being unmounted."""
        fd = self.open_root()
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _asking(self) -> Iterator[int]:
        thread = threading.get_native_id()
        self.asking[thread] = 0
        try:
            yield thread
        finally:
            del self.asking[thread]

    def is_ours(self, pid: int) -> bool:
        """Whether a request comes from `expire`; it is counted. In the event loop's thread."""
        if pid not in self.asking:
            return False
        self.asking[pid] += 1
        return True
