"""Putting aside what cannot be mended: out of the mount's sight, in the lower directory, and never deleted.

Each thing goes to a directory of its own, `envfs.lost+found/<number>/`, under its lower name, with its name file or
link file if it has one; a line of `envfs.lost+found/index.jsonl` says where it was. The line is written before the
thing is moved, so a crash between the two leaves a line too much and nothing that nobody knows of.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat as stat_module
import time

from envfs.format.names import LONG_PREFIX, name_file_for
from envfs.fs import lower
from envfs.fsck.directory import ASIDE
from envfs.fsck.findings import Finding, Outcome

_INDEX = b"index.jsonl"


class Aside:
    """The place for things put aside; made when the first one comes."""

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd

    def put(self, dir_fd: int, name: bytes, finding: Finding) -> None:
        """Moves the entry `name` of a directory. OSError if that fails; then it is where it was."""
        with contextlib.ExitStack() as stack:
            aside_fd = self._open(self._root_fd, ASIDE)
            stack.callback(os.close, aside_fd)
            number = secrets.token_hex(8).encode()
            self._note(aside_fd, number, finding)
            own_fd = self._open(aside_fd, number)
            stack.callback(os.close, own_fd)
            if name.startswith(LONG_PREFIX):
                with contextlib.suppress(FileNotFoundError):
                    beside = name_file_for(name)
                    os.link(beside, beside, src_dir_fd=dir_fd, dst_dir_fd=own_fd, follow_symlinks=False)
            lower.rename(dir_fd, name, own_fd, name, lower.RENAME_NOREPLACE)
            if name.startswith(LONG_PREFIX):
                lower.unlink_if_there(dir_fd, name_file_for(name))
            os.fsync(own_fd)
            os.fsync(dir_fd)
        finding.outcome = Outcome.PUT_ASIDE
        finding.detail += f"; put aside as {os.fsdecode(ASIDE)}/{number.decode()}/"

    @staticmethod
    def _open(parent_fd: int, name: bytes) -> int:
        """Made, or our own: what a stranger has made he could empty, or fill with links to other files."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent_fd)
        fd = os.open(name, lower.OPEN_DIRECTORY, dir_fd=parent_fd)
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            os.close(fd)
            raise OSError(errno.EPERM, f"{os.fsdecode(name)} is not a directory of yours alone")
        return fd

    def _note(self, aside_fd: int, number: bytes, finding: Finding) -> None:
        """Lower paths only: what names mean is not for everybody who can read the lower directory."""
        line = json.dumps(
            {"number": number.decode(), "lower": finding.lower, "problem": finding.problem, "time": int(time.time())}
        )
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(_INDEX, flags, 0o600, dir_fd=aside_fd)
        try:
            found = os.fstat(fd)
            if not stat_module.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid != os.geteuid():
                raise OSError(errno.EPERM, f"{os.fsdecode(_INDEX)} is not a file of yours alone")
            os.write(fd, line.encode("ascii") + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
