"""What must reach the disk before an fsync may say so.

A file that was synced is lost all the same if the directory files above it, or its name file, are not on disk: their
content gives its name a meaning. So these are remembered when they are written and synced first. Lower filesystems
order metadata among themselves, not with the content of other files.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from envfs.format.names import DIRECTORY_FILE
from envfs.fs.lower import OPEN_READ, syncfs

# From so many on, one syncfs(2) is cheaper than opening them all.
_TOO_MANY = 64


class Unsynced:
    """Descriptors of lower files that were written and not yet synced, by what they are."""

    def __init__(self, root_fd: int, *, needed: bool) -> None:
        self._root_fd = root_fd
        self._needed = needed
        self._all = False
        self._fds: list[int] = []

    def add(self, dir_fd: int, name: bytes) -> None:
        """The lower file `name` was written, and something else depends on it. Never fails: that has happened."""
        if not self._needed or self._all:
            return
        try:
            self._fds.append(os.open(name, OPEN_READ, dir_fd=dir_fd))
        except OSError:  # an ordinary user's own file that he may not read, or no descriptors left
            self._sync_all()
        if len(self._fds) > _TOO_MANY:
            self._sync_all()

    def _sync_all(self) -> None:
        self._forget()
        self._all = True

    def add_directory(self, dir_fd: int) -> None:
        """The directory file of a new directory was written."""
        self.add(dir_fd, DIRECTORY_FILE)

    def take(self) -> Callable[[], None] | None:
        """The work to be done before the next sync, for a thread; None if there is nothing."""
        if self._all:
            self._all = False
            return lambda: syncfs(self._root_fd)
        if not self._fds:
            return None
        fds, self._fds = self._fds, []
        return lambda: _sync(fds)

    def _forget(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def close(self) -> None:
        """Close what is still open."""
        self._forget()


def _sync(fds: list[int]) -> None:
    try:
        for fd in fds:
            os.fsync(fd)
    finally:
        for fd in fds:
            os.close(fd)
