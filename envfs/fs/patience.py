"""Waiting for a slow lower filesystem in a thread, while other requests are answered.

Handlers run in the one thread of the loop. One that only looks (`lookup`, `getattr`, `open`, `opendir`, `readdir`) is
first run without patience: where the kernel does not have at hand what it needs of the lower filesystem, it raises
`WouldWait`, before it has done anything. The work that comes with it fetches that into the kernel's caches, in a
thread, and says nothing to anybody; then the handler runs again, with patience, and finds it there. So handlers still
never interleave, and nothing that was looked at before the wait is relied on after it.

What changes something has patience from the beginning: it waits in the loop's thread.
"""

from __future__ import annotations

import contextlib
import os
import stat as stat_module
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from envfs.format.geometry import HEADER_SIZE
from envfs.format.names import DIRECTORY_FILE
from envfs.fs import lower

#: So many names of a directory are looked up ahead at once.
AHEAD: Final = 512

#: Fetches something, in a thread; may give a descriptor that the handler's second run takes over. Raises nothing.
Work = Callable[[], int | None]


class WouldWait(Exception):
    """What a handler needs is not at hand. `work` waits for it; it holds a descriptor, and must be called."""

    def __init__(self, work: Work) -> None:
        super().__init__("the lower filesystem would have to wait")
        self.work = work


class Patience:
    """Whether the handler that runs now may wait in the loop's thread."""

    def __init__(self, kind: lower.Kind) -> None:
        self.needed = kind is not lower.Kind.MEMORY
        self._is_remote = kind is lower.Kind.REMOTE
        self.lacks = False
        self.fetched: int | None = None  # a file that was opened for the handler's second run

    def expect_name(self, dir_fd: int, name: bytes) -> None:
        """Raises WouldWait if it would take waiting to say what stands at a name."""
        if self.lacks and (self._is_remote or not lower.is_at_hand(dir_fd, name)):
            raise WouldWait(_with(dir_fd, partial(_look, name)))

    def expect_attributes(self, fd: int) -> None:
        """The same for an open file."""
        if self.lacks and self._is_remote:
            raise WouldWait(_with(fd, _stat))

    def expect_listing(self, dir_fd: int) -> None:
        """Raises WouldWait, to read the names in a directory: nobody can say whether that takes waiting."""
        if self.lacks:
            raise WouldWait(_with(dir_fd, _list))

    def expect_entries(self, dir_fd: int, names: Sequence[bytes]) -> None:
        """Raises WouldWait if it would take waiting to say what stands at the first of some names, for all of them."""
        if self.lacks and names and (self._is_remote or not lower.is_at_hand(dir_fd, names[0])):
            raise WouldWait(_with(dir_fd, partial(_look_at_all, names)))

    def expect_open(self, dir_fd: int, name: bytes, flags: int) -> None:
        """Raises WouldWait if open(2) itself asks somebody else; `fetched` is the open file then."""
        if self.lacks and self._is_remote:
            raise WouldWait(_with(dir_fd, partial(_open, name, flags)))

    def take_fetched(self) -> int:
        """The file that was opened meanwhile, or -1."""
        fd, self.fetched = self.fetched, None
        return -1 if fd is None else fd

    def read_header(self, fd: int) -> bytes:
        """The first HEADER_SIZE bytes of a file; raises WouldWait if the page cache does not have them."""
        if not self.lacks:
            return os.pread(fd, HEADER_SIZE, 0)
        buffer = bytearray(HEADER_SIZE)
        with contextlib.suppress(OSError):  # BlockingIOError, or EOPNOTSUPP of a filesystem that cannot say
            count = os.preadv(fd, [buffer], 0, os.RWF_NOWAIT)
            if count in {HEADER_SIZE, os.fstat(fd).st_size}:
                return bytes(buffer[:count])
        raise WouldWait(_with(fd, _read))


def _with(fd: int, fetch: Callable[[int], int | None]) -> Work:
    """Work on a descriptor of its own. What goes wrong is found again by the handler, which knows what it means."""
    apart = os.dup(fd)

    def work() -> int | None:
        try:
            return fetch(apart)
        except OSError:
            return None
        finally:
            os.close(apart)

    return work


def _look(name: bytes, dir_fd: int) -> None:
    """As a lookup does, and the directory file that comes next."""
    found = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    if stat_module.S_ISDIR(found.st_mode):
        fd = os.open(name, lower.OPEN_DIRECTORY, dir_fd=dir_fd)
        try:
            lower.read_small_file(fd, DIRECTORY_FILE, 4096)
        finally:
            os.close(fd)


def _look_at_all(names: Sequence[bytes], dir_fd: int) -> None:
    for name in names:
        with contextlib.suppress(OSError):
            os.stat(name, dir_fd=dir_fd, follow_symlinks=False)


def _list(dir_fd: int) -> None:
    # By its path, so with a position of its own: others list by the same descriptor meanwhile.
    _look_at_all(os.listdir(lower.proc_path(dir_fd).encode())[:AHEAD], dir_fd)


def _open(name: bytes, flags: int, dir_fd: int) -> int:
    fd = os.open(name, flags, dir_fd=dir_fd)
    with contextlib.suppress(OSError):
        os.pread(fd, HEADER_SIZE, 0)
    return fd


def _stat(fd: int) -> None:
    os.fstat(fd)


def _read(fd: int) -> None:
    os.pread(fd, HEADER_SIZE, 0)
