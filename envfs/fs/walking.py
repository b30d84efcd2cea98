"""Walking a mounted tree from within, file by file, beside requests.

What the walk finds is not made known to the kernel: only directories get a node, held while the walk is in them. Names
come sorted by their ciphertext, so that a walk that was cut off can go on where it was.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import trio

from envfs.errors import EnvfsError
from envfs.format.names import LONG_PREFIX, RESERVED_PREFIX, check_name_file, name_file_for
from envfs.fs import lower
from envfs.fs.nodes import Node

if TYPE_CHECKING:
    from envfs.fs.state import VolumeState
    from envfs.fs.tree import Tree

log = logging.getLogger("envfs.fs")

_LARGEST_NAME_FILE = 4096


class Entry(NamedTuple):
    """A name of what seems to be a regular file. `path` is the plain one, for people and records."""

    parent: Node
    name: bytes
    lower_name: bytes
    full_name: bytes
    path: str


@dataclass(frozen=True, slots=True)
class Asker:
    """On whose behalf files are changed, as the Unix modes see him. `is_master`: root, or the mount's owner."""

    uid: int
    gids: Collection[int]
    is_master: bool

    def may_list(self, found: os.stat_result) -> bool:
        """Whether he may list a directory and enter it, by its mode."""
        if self.is_master:
            return True
        if found.st_uid == self.uid:
            return found.st_mode & 0o500 == 0o500
        shift = 3 if found.st_gid in self.gids else 0
        return found.st_mode >> shift & 0o5 == 0o5

    def owns(self, found: os.stat_result) -> bool:
        """Whether he may have a file's header changed."""
        return self.is_master or found.st_uid == self.uid


Problem = Callable[[str, Exception], Awaitable[None]]


class Walk:
    """The regular files at and below a node. `problem(path, error)` hears of what cannot be looked at."""

    def __init__(self, state: VolumeState, tree: Tree, asker: Asker, problem: Problem) -> None:
        self._state = state
        self._tree = tree
        self._asker = asker
        self._problem = problem

    async def files(self, start: Node, after: tuple[bytes, ...] = ()) -> AsyncGenerator[Entry]:
        """All of them, those of a directory before and after its subdirectories as the names come.

        `after`: lower names from `start` down to a file; what comes before it and itself is left out.
        """
        if not start.is_directory:
            if start.is_regular and start.parent is not None and start.located:
                yield Entry(start.parent, start.name, start.lower_name, start.full_name, start.path())
            return
        stack: list[tuple[Node, Iterator[tuple[bytes, bool]], tuple[bytes, ...]]] = []
        try:
            await self._enter(stack, start, after)
            while stack:
                directory, names, rest = stack[-1]
                step = next(names, None)
                if step is None:
                    stack.pop()
                    self._state.nodes.forget(directory.node_id, 1)
                    continue
                lower_name, is_directory = step
                entry = await self._entry(directory, lower_name)
                if entry is None:
                    continue
                if not is_directory:
                    yield entry
                    continue
                try:
                    node, _ = self._tree.lookup(directory.node_id, entry.name)
                except (OSError, EnvfsError) as error:
                    if not isinstance(error, FileNotFoundError):
                        await self._problem(entry.path, error)
                    continue
                if node.is_directory:
                    await self._enter(stack, node, rest[1:] if rest and rest[0] == lower_name else ())
        finally:
            for directory, _, _ in stack:
                self._state.nodes.forget(directory.node_id, 1)

    async def _enter(
        self,
        stack: list[tuple[Node, Iterator[tuple[bytes, bool]], tuple[bytes, ...]]],
        node: Node,
        after: tuple[bytes, ...],
    ) -> None:
        node.lookups += 1
        try:
            self._state.directories.load(node)
            if not self._asker.may_list(self._tree.stat(node)):
                raise PermissionError(13, "you may not list it")
            # A descriptor of its own: one that is shared has one position for all who read through it.
            fd = os.open(b".", lower.OPEN_DIRECTORY, dir_fd=self._state.nodes.directory_fd(node))
            try:
                names = await trio.to_thread.run_sync(_sorted_names, fd)
            finally:
                os.close(fd)
        except (OSError, EnvfsError) as error:
            path = node.path()
            self._state.nodes.forget(node.node_id, 1)
            if not isinstance(error, FileNotFoundError):
                await self._problem(path, error)
            return
        except BaseException:
            self._state.nodes.forget(node.node_id, 1)
            raise
        if after:
            # A directory that the cursor leads through is entered again; a file that it names is done.
            names = [step for step in names if step[0] > after[0] or (step[0] == after[0] and len(after) > 1)]
        stack.append((node, iter(names), after))

    async def _entry(self, directory: Node, lower_name: bytes) -> Entry | None:
        full = lower_name
        try:
            if lower_name.startswith(LONG_PREFIX):
                dir_fd = self._state.nodes.directory_fd(directory)
                raw = lower.read_small_file(dir_fd, name_file_for(lower_name), _LARGEST_NAME_FILE)
                full = check_name_file(lower_name, raw)
            name = self._state.keys.names.decrypt(self._state.directories.load(directory).directory_id, full)
        except (EnvfsError, OSError) as error:
            log.warning("left out of %s: %r is no name of this directory (%s)", directory.path(), lower_name, error)
            return None
        above = directory.path()
        path = f"{above if above != '/' else ''}/{name.decode('utf-8', 'surrogateescape')}"
        return Entry(directory, name, lower_name, full, path)


def _sorted_names(fd: int) -> list[tuple[bytes, bool]]:
    """In a thread: the lower names of regular files and directories, and which are directories."""
    with os.scandir(fd) as entries:
        return sorted(
            (os.fsencode(entry.name), entry.is_dir(follow_symlinks=False))
            for entry in entries
            if _is_ours(entry.name) and (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False))
        )


def _is_ours(name: str) -> bool:
    raw = os.fsencode(name)
    return not raw.startswith(RESERVED_PREFIX) or raw.startswith(LONG_PREFIX)


def count_below(fd: int, stop: Callable[[], bool]) -> tuple[int, int]:
    """In a thread: how many regular files there are below a lower directory, and their bytes, for an estimate.

    Stops early when `stop` says so, and leaves out what it cannot look at.
    """
    files = size = 0
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                if stop():
                    break
                if not _is_ours(entry.name):
                    continue
                if entry.is_file(follow_symlinks=False):
                    files += 1
                    size += entry.stat(follow_symlinks=False).st_size
                elif entry.is_dir(follow_symlinks=False):
                    inner = os.open(entry.name, lower.OPEN_DIRECTORY, dir_fd=fd)
                    try:
                        below = count_below(inner, stop)
                    finally:
                        os.close(inner)
                    files, size = files + below[0], size + below[1]
    except (OSError, RecursionError):
        pass
    return files, size
