"""What must reach the disk before an fsync may say so.

A file that was synced is lost all the same if the directory files above it, or its name file, are not on disk: their
content gives its name a meaning. So these are remembered when they are written and synced first. Lower filesystems
order metadata among themselves, not with the content of other files.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from envfs.format.names import DIRECTORY_FILE
from envfs.fs.lower import OPEN_READ, proc_path, syncfs

# From so many on, one syncfs(2) is cheaper than opening them all.
_TOO_MANY = 64


class Remembered:
    """A descriptor, closed with the last reference: a thread may be syncing it when it is forgotten."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


class Unsynced:
    """Lower files that were written and not yet synced, by their descriptors.

    They are remembered until a sync of them has ended well: one that begins meanwhile must not say that they are on
    disk because another one is about to see to it.
    """

    def __init__(self, root_fd: int, *, needed: bool) -> None:
        self._root_fd = root_fd
        self._needed = needed
        # What was written when only a sync of everything would do, counted, and how much of it was synced.
        self._written = self._synced = 0
        self._files: list[Remembered] = []

    def add(self, dir_fd: int, name: bytes) -> None:
        """The lower file `name` was written, and something else depends on it. Never fails: that has happened."""
        if not self._needed:
            return
        if self._written > self._synced:
            self._written += 1
            return
        try:
            self._files.append(Remembered(os.open(name, OPEN_READ, dir_fd=dir_fd)))
        except OSError:  # an ordinary user's own file that he may not read, or no descriptors left
            self._sync_everything()
        if len(self._files) > _TOO_MANY:
            self._sync_everything()

    def _sync_everything(self) -> None:
        self._files.clear()
        self._written += 1

    def add_directory(self, dir_fd: int) -> None:
        """The directory file of a new directory was written."""
        self.add(dir_fd, DIRECTORY_FILE)

    def paths(self) -> list[str]:
        """The lower files that are remembered one by one."""
        return [os.readlink(proc_path(file.fd)) for file in self._files]

    def take(self) -> Callable[[], None] | None:
        """The work to be done before a sync, for a thread; None if there is nothing."""
        if self._written > self._synced:
            count = self._written
            return lambda: self._sync_all_up_to(count)
        if self._files:
            files = tuple(self._files)
            return lambda: self._sync(files)
        return None

    # In a thread. Each change of what is shared is one operation, which no other thread can interrupt.

    def _sync_all_up_to(self, count: int) -> None:
        syncfs(self._root_fd)
        self._synced = count

    def _sync(self, files: tuple[Remembered, ...]) -> None:
        for file in files:
            os.fsync(file.fd)
        for file in files:
            with contextlib.suppress(ValueError):  # another thread was faster
                self._files.remove(file)

    def close(self) -> None:
        """Close what is still open."""
        self._files.clear()
