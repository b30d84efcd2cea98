"""System calls on the lower directory that the standard library lacks, always relative to a directory descriptor.

Nothing here follows a symlink or opens by path from the root: an attacker who can write the lower directory must
not be able to lead the daemon out of it.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import fcntl
import os
import secrets
import stat as stat_module
import struct

from envfs.format.names import TEMPORARY_PREFIX

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

#: What opening a symlink, a socket or a device without a driver says: it is not the file.
SOMETHING_ELSE = frozenset((errno.ELOOP, errno.ENXIO, errno.ENODEV))
#: What says that there is no space for more: of the filesystem, or of the quota of whoever owns the file.
NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT))

# <linux/magic.h>
_IN_MEMORY = frozenset((0x01021994, 0x858458F6))  # tmpfs, ramfs
# ext, xfs, btrfs, f2fs, bcachefs, zfs, jfs, overlay
_ON_DISKS = frozenset((0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0xCA451A4E, 0x2FC12FC1, 0x3153464A, 0x794C7630))

# O_NONBLOCK: a FIFO planted in place of a file must not hang the daemon. It has no effect on regular files.
OPEN_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
OPEN_WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OPEN_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def rename(old_fd: int, old: bytes, new_fd: int, new: bytes, flags: int = 0) -> None:
    """renameat2(2); plain renameat(2) where no flag is asked for."""
    if not flags:
        os.rename(old, new, src_dir_fd=old_fd, dst_dir_fd=new_fd)
        return
    _check(_libc.renameat2(old_fd, ctypes.c_char_p(old), new_fd, ctypes.c_char_p(new), ctypes.c_uint(flags)))


def syncfs(fd: int) -> None:
    """syncfs(2): write back the whole filesystem that `fd` is on."""
    _check(_libc.syncfs(fd))


def write_through(fd: int, length: int) -> None:
    """Have the first `length` bytes of a file on the disk before what is done next, at the price of one small write.

    sync_file_range(2), not fsync(2): nothing is committed here. What comes next, a rename, becomes durable with the
    lower filesystem's journal, and its commit flushes the disk's cache, with these bytes in it.
    """
    flags = ctypes.c_uint(7)  # SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE and _WAIT_AFTER
    _check(_libc.sync_file_range(fd, ctypes.c_int64(0), ctypes.c_int64(length), flags))


_FIEMAP_IOCTL = 0xC020660B
_FIEMAP = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQ16xI12x")
_EXTENT_DELALLOC = 4


def is_only_in_memory(fd: int, offset: int, length: int) -> bool | None:
    """Whether a range of a file has no place on the disk yet, so that nothing of it can be there.

    ext4, xfs and btrfs choose the place when they write back (delayed allocation). None where the lower filesystem
    cannot say.
    """
    request = bytearray(_FIEMAP.pack(offset, length, 0, 0, 1, 0) + bytes(_EXTENT.size))
    try:
        fcntl.ioctl(fd, _FIEMAP_IOCTL, request)
    except OSError:
        return None
    if not _FIEMAP.unpack_from(request)[3]:
        return False  # a hole, or nothing to be said of it
    start, _, size, flags = _EXTENT.unpack_from(request, _FIEMAP.size)
    return bool(flags & _EXTENT_DELALLOC) and start <= offset and offset + length <= start + size


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Give back the space of a range of a file, which reads as zeros then. Does nothing where that cannot be."""
    keep_size_and_punch = ctypes.c_int(3)  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
    _libc.fallocate(fd, keep_size_and_punch, ctypes.c_int64(offset), ctypes.c_int64(length))


class _Statfs(ctypes.Structure):
    _fields_ = (("f_type", ctypes.c_long), ("rest", ctypes.c_long * 32))


class Kind(enum.Enum):
    """What a lower filesystem may have to wait for."""

    MEMORY = "nothing: reads never wait, syncs do nothing"
    DISK = "a disk, for what is not in the kernel's caches"
    REMOTE = "somebody else, for whatever is asked of it: a server, another process"


def kind_of(fd: int) -> Kind:
    """Of the filesystem of `fd`. One that is not known may be anything."""
    answer = _Statfs()
    _check(_libc.fstatfs(fd, ctypes.byref(answer)))
    magic = int(answer.f_type) & 0xFFFFFFFF
    if magic in _IN_MEMORY:
        return Kind.MEMORY
    return Kind.DISK if magic in _ON_DISKS else Kind.REMOTE


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_SYS_OPENAT2 = 437  # on every architecture
_RESOLVE_CACHED = 0x20  # Linux 5.12
_CACHED = _OpenHow(OPEN_PATH, 0, _RESOLVE_CACHED)
_libc.syscall.restype = ctypes.c_long


def is_at_hand(dir_fd: int, name: bytes) -> bool:
    """Whether the kernel knows what stands at a name, or that nothing does, without asking the filesystem.

    True as well where it cannot say: an older kernel, or openat2(2) is forbidden.
    """
    how = ctypes.byref(_CACHED)
    fd = _libc.syscall(ctypes.c_long(_SYS_OPENAT2), dir_fd, ctypes.c_char_p(name), how, ctypes.c_size_t(24))
    if fd >= 0:
        os.close(fd)
        return True
    return ctypes.get_errno() != errno.EAGAIN


def temporary_name() -> bytes:
    """A name for something that is renamed into place when it is complete."""
    return TEMPORARY_PREFIX + secrets.token_hex(8).encode()


def exists(dir_fd: int, name: bytes) -> bool:
    """Whether `name` stands in the directory, whatever it is."""
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def unlink_if_there(dir_fd: int, name: bytes) -> None:
    """unlink(2) that does not mind a missing file."""
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        pass


def read_small_file(dir_fd: int, name: bytes, limit: int) -> bytes:
    """The whole of a regular file of at most `limit` bytes.

    Raises OSError(EIO) if it is larger or no regular file: such a thing was not written by envfs.
    """
    fd = os.open(name, OPEN_READ, dir_fd=dir_fd)
    try:
        found = os.fstat(fd)
        if not stat_module.S_ISREG(found.st_mode) or found.st_size > limit:
            raise OSError(errno.EIO, f"{os.fsdecode(name)} is no regular file of at most {limit} bytes")
        return os.pread(fd, limit + 1, 0)
    finally:
        os.close(fd)


def write_whole_file(dir_fd: int, name: bytes, content: bytes, mode: int = 0o600, *, through: bool = False) -> None:
    """Write a new file whole or not at all: an error leaves none. `through`: see `write_through`."""
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=dir_fd)
    try:
        write_all(fd, content, 0)
        if through:
            write_through(fd, len(content))
    except OSError:
        os.unlink(name, dir_fd=dir_fd)
        raise
    finally:
        os.close(fd)


def write_all(fd: int, content: bytes | bytearray | memoryview, offset: int) -> None:
    """pwrite(2) until everything is written. Raises OSError, ENOSPC where the disk is full."""
    written = os.pwrite(fd, content, offset)
    if written == len(content):
        return
    rest = memoryview(content)
    while written < len(rest):
        step = os.pwrite(fd, rest[written:], offset + written)
        if step == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += step


def replace_file(dir_fd: int, name: bytes, content: bytes, mode: int = 0o600) -> None:
    """Replace a small file by a complete new one, atomically: written, synced, renamed over."""
    temporary = temporary_name()
    write_whole_file(dir_fd, temporary, content, mode)
    try:
        fd = os.open(temporary, OPEN_READ, dir_fd=dir_fd)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except OSError:
        unlink_if_there(dir_fd, temporary)
        raise


def proc_path(fd: int) -> str:
    """A path that names the very file behind a descriptor, whatever happened to its name."""
    return f"/proc/self/fd/{fd}"
