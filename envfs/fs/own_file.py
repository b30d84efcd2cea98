"""Files of our own in the root of the lower directory, which whoever can write there may have replaced."""

from __future__ import annotations

import errno
import os
import stat as stat_module

from envfs.errors import FormatError
from envfs.fs import lower


def is_ours(found: os.stat_result) -> bool:
    """Whether it may be written to: not what a stranger has put there, a link to some file of root's, say."""
    return stat_module.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == os.geteuid()


def open_kept(root_fd: int, name: bytes) -> int:
    """The file `name` of an earlier mount, for writing; -1 if there is none that could be used."""
    try:
        fd = os.open(name, lower.OPEN_WRITE, dir_fd=root_fd)
    except OSError:
        return -1
    if is_ours(os.fstat(fd)):
        return fd
    os.close(fd)
    return -1


def open_regular(root_fd: int, name: bytes) -> int:
    """The file `name`, for reading. Raises OSError; FormatError if something else stands there, a symlink, say."""
    try:
        fd = os.open(name, lower.OPEN_READ, dir_fd=root_fd)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            raise FormatError(f"{os.fsdecode(name)} is no regular file") from None
        raise
    if stat_module.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise FormatError(f"{os.fsdecode(name)} is no regular file")


def is_without_record(root_fd: int, name: bytes, magic_size: int, offset: int) -> bool:
    """Whether zeros stand where a record would begin, as after an orderly unmount. Raises OSError."""
    try:
        fd = open_regular(root_fd, name)
    except FormatError:
        return False
    try:
        return not os.pread(fd, magic_size, offset).strip(b"\0")
    finally:
        os.close(fd)
