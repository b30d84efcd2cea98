"""Opening a file's header for writing although its mode forbids it.

An ordinary user's daemon cannot open his file of mode 0444 for writing, though he may rename or link it by right. So
the mode is raised for the moment of the open. Were the daemon killed in that moment, the mode would stay raised:
therefore what it was stands in `envfs.mode` in the root of the lower directory first, and the next mount puts it
back.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat as stat_module
from collections.abc import Iterator

from envfs.format.names import RESERVED_PREFIX
from envfs.fs import lower
from envfs.fs.lower import OPEN_PATH, OPEN_WRITE
from envfs.fs.state import VolumeState

log = logging.getLogger("envfs.fs")

RECORD = RESERVED_PREFIX + b"mode"
_OWNER_READ_WRITE = 0o600
_LARGEST_RECORD = 1024


def open_for_header(state: VolumeState, dir_fd: int, lower_name: bytes, found: os.stat_result) -> int:
    """A descriptor of the lower file that can read and write its header."""
    try:
        return os.open(lower_name, OPEN_WRITE, dir_fd=dir_fd)
    except PermissionError:
        if found.st_uid != state.uid or found.st_mode & _OWNER_READ_WRITE == _OWNER_READ_WRITE:
            raise
    with _raised(state, dir_fd, lower_name, found):
        return os.open(lower_name, OPEN_WRITE, dir_fd=dir_fd)


@contextlib.contextmanager
def _raised(state: VolumeState, dir_fd: int, lower_name: bytes, found: os.stat_result) -> Iterator[None]:
    root_fd = state.directory_fd(state.nodes.root)
    mode = stat_module.S_IMODE(found.st_mode)
    path = os.path.realpath(lower.proc_path(dir_fd)).encode(errors="surrogateescape")
    below = os.path.relpath(path, os.path.realpath(lower.proc_path(root_fd)).encode(errors="surrogateescape"))
    record = {"path": os.fsdecode(os.path.join(below, lower_name)), "inode": found.st_ino, "mode": mode}
    fd = os.open(lower_name, OPEN_PATH, dir_fd=dir_fd)
    try:
        if os.fstat(fd).st_ino != found.st_ino:
            raise PermissionError
        lower.replace_file(root_fd, RECORD, json.dumps(record).encode())
        os.chmod(lower.proc_path(fd), mode | _OWNER_READ_WRITE)
        try:
            yield
        finally:
            os.chmod(lower.proc_path(fd), mode)
            lower.unlink_if_there(root_fd, RECORD)
    finally:
        os.close(fd)


def restore(root_fd: int) -> None:
    """At mount: put back a mode that a killed daemon left raised. A record that fits nothing is dropped."""
    try:
        record = json.loads(lower.read_small_file(root_fd, RECORD, _LARGEST_RECORD))
        parts = os.fsencode(record["path"]).split(b"/")
        _restore(root_fd, parts, int(record["inode"]), int(record["mode"]))
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("the record of a raised mode could not be used: %s", error)
    lower.unlink_if_there(root_fd, RECORD)


def _restore(root_fd: int, parts: list[bytes], inode: int, mode: int) -> None:
    """Walk down without following a symlink or leaving the lower directory; change only what the record means."""
    if b".." in parts or not parts:
        raise ValueError("a path that leads out of the lower directory")
    with contextlib.ExitStack() as stack:
        fd = root_fd
        for part in parts[:-1]:
            if part != b".":
                fd = os.open(part, lower.OPEN_DIRECTORY, dir_fd=fd)
                stack.callback(os.close, fd)
        fd = os.open(parts[-1], OPEN_PATH, dir_fd=fd)
        stack.callback(os.close, fd)
        found = os.fstat(fd)
        if found.st_ino == inode and stat_module.S_ISREG(found.st_mode) and mode & ~0o777 == 0:
            # Only ever takes rights away: the record is not authenticated.
            os.chmod(lower.proc_path(fd), stat_module.S_IMODE(found.st_mode) & (mode | ~_OWNER_READ_WRITE))
