"""Reaching a file or directory whose mode keeps the daemon out, although its owner may do to it what is to be done.

An ordinary user's daemon cannot open his file of mode 0444 for writing, though he may rename or link it by right, nor
look into his unreadable directory, though he may remove it when it is empty. So the mode is raised for the moment of
the open. Were the daemon killed in that moment, the mode would stay raised: therefore what it was stands in
`envfs.mode` in the root of the lower directory first, and the next mount puts it back.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat as stat_module
from typing import Final

from envfs.format.names import RESERVED_PREFIX
from envfs.fs import lower
from envfs.fs.lower import OPEN_DIRECTORY, OPEN_PATH, OPEN_READ, OPEN_WRITE

log = logging.getLogger("envfs.fs")

RECORD: Final = RESERVED_PREFIX + b"mode"
# A deep path is long, and JSON may make six characters of one byte.
_LARGEST_RECORD: Final = 1 << 20
# What the owner needs, to read and write a file's header, or to empty a directory.
_NEEDED: Final = {stat_module.S_IFREG: 0o600, stat_module.S_IFDIR: 0o700}


def open_writable(root_fd: int, directory: bytes, dir_fd: int, name: bytes) -> int:
    """A descriptor that reads and writes the lower file `name` in `dir_fd`, whose path from the root is `directory`."""
    return _open(root_fd, directory, dir_fd, name, OPEN_WRITE)


def open_readable(root_fd: int, directory: bytes, dir_fd: int, name: bytes) -> int:
    """A descriptor that reads the lower file `name` in `dir_fd`, whose path from the root is `directory`."""
    return _open(root_fd, directory, dir_fd, name, OPEN_READ)


def open_directory(root_fd: int, directory: bytes, dir_fd: int, name: bytes) -> int:
    """A descriptor that lists the lower directory `name` in `dir_fd`, whose path from the root is `directory`."""
    return _open(root_fd, directory, dir_fd, name, OPEN_DIRECTORY)


def _open(root_fd: int, directory: bytes, dir_fd: int, name: bytes, flags: int) -> int:
    try:
        return os.open(name, flags, dir_fd=dir_fd)
    except PermissionError:
        path_fd = os.open(name, OPEN_PATH, dir_fd=dir_fd)
        try:
            found = os.fstat(path_fd)
            needed = _NEEDED.get(stat_module.S_IFMT(found.st_mode), 0)
            if found.st_uid != os.geteuid() or found.st_mode & needed == needed:
                raise
            return _open_raised(root_fd, os.path.join(directory, name), path_fd, found, flags)
        finally:
            os.close(path_fd)


def _open_raised(root_fd: int, path: bytes, path_fd: int, found: os.stat_result, flags: int) -> int:
    mode = stat_module.S_IMODE(found.st_mode)
    record = {"path": os.fsdecode(path), "inode": found.st_ino, "mode": mode}
    lower.replace_file(root_fd, RECORD, json.dumps(record).encode())
    try:
        os.chmod(lower.proc_path(path_fd), mode | _NEEDED[stat_module.S_IFMT(found.st_mode)])
        return os.open(lower.proc_path(path_fd), flags & ~os.O_NOFOLLOW)
    finally:
        os.chmod(lower.proc_path(path_fd), mode)
        lower.unlink_if_there(root_fd, RECORD)


def restore(root_fd: int) -> None:
    """At mount: put back a mode that a killed daemon left raised. A record that fits nothing is dropped."""
    if not lower.exists(root_fd, RECORD):
        return
    try:
        record = json.loads(lower.read_small_file(root_fd, RECORD, _LARGEST_RECORD))
        parts = os.fsencode(record["path"]).split(b"/")
        _restore(root_fd, parts, int(record["inode"]), int(record["mode"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("the record of a raised mode could not be used: %s", error)
    lower.unlink_if_there(root_fd, RECORD)


def _restore(root_fd: int, parts: list[bytes], inode: int, mode: int) -> None:
    """Walk down without following a symlink or leaving the lower directory; change only what the record means."""
    if b".." in parts or b"" in parts:
        raise ValueError("a path that leads out of the lower directory")
    with contextlib.ExitStack() as stack:
        fd = root_fd
        for part in parts:
            fd = os.open(part, OPEN_PATH, dir_fd=fd)
            stack.callback(os.close, fd)
        found = os.fstat(fd)
        needed = _NEEDED.get(stat_module.S_IFMT(found.st_mode))
        if found.st_ino == inode and needed is not None:
            # Only ever takes rights of the owner away: the record is not authenticated.
            os.chmod(lower.proc_path(fd), stat_module.S_IMODE(found.st_mode) & (mode | ~needed))
