"""Open file handles: who opened them and how, and what that is worth now."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from envfs.fs.content import Content
    from envfs.fs.counters import UserCounters
    from envfs.fs.nodes import Node
    from envfs.kms.model import Access, Principal


class Opened(NamedTuple):
    """An open(2), as it was decided. `path` is the one that the file had then; `may_write`: O_WRONLY or O_RDWR."""

    uid: int
    gid: int
    pid: int
    access: Access
    path: str
    may_write: bool
    direct: bool = False  # reads and writes go past the page cache


class Handle:
    """One open(2) of a regular file. Whoever opened it decides what it may do, whoever uses it.

    `lost` is the errno that it has for reads and writes since its opener is not allowed any more (0: he is);
    `draining`: what was written before is still on its way. `guard` is the node's. `used`: what its user is counted by.
    `failed_syncs`: how many of the content's were before it, or an fsync(2) through it has told of.
    """

    __slots__ = ("content", "draining", "failed_syncs", "guard", "lost", "node", "opened", "principal", "used")

    def __init__(self, node: Node, content: Content, used: UserCounters, opened: Opened | None = None) -> None:
        self.node = node
        self.used = used
        self.content = content
        self.opened = opened  # None: none of a user's
        self.principal: Principal | None = None  # as it was when it was decided last
        self.lost = 0
        self.draining = False
        self.failed_syncs = len(content.failed_syncs)
        self.guard: Guard | None = None

    @property
    def may_write(self) -> bool:
        return self.opened is not None and self.opened.may_write

    @property
    def is_direct(self) -> bool:
        return self.opened is not None and self.opened.direct


class Guard:
    """A node on which a handle is open that was lost: all its handles, and who must not read or write there."""

    __slots__ = ("barred", "handles", "node")

    def __init__(self, node: Node, handles: set[Handle]) -> None:
        self.node = node
        self.handles = handles
        self.barred: frozenset[int] = frozenset()  # uids with nothing but lost handles
        node.guard = self
        for handle in handles:
            handle.guard = self
        self.settle()

    def settle(self) -> bool:
        """After any of the handles has changed. False if none of them is lost: then there is nothing to guard."""
        lost = {handle.opened.uid for handle in self.handles if handle.lost and handle.opened}
        live = {handle.opened.uid for handle in self.handles if not handle.lost and handle.opened}
        self.barred = frozenset(lost - live)
        if lost:
            return True
        self.node.guard = None
        for handle in self.handles:
            handle.guard = None
        return False

    def add(self, handle: Handle) -> None:
        handle.guard = self
        self.handles.add(handle)
        self.settle()

    def remove(self, handle: Handle) -> None:
        self.handles.discard(handle)
        self.settle()

    @property
    def has_cached_writer(self) -> bool:
        """Whether somebody who may has it open for writing through the page cache."""
        return any(handle.may_write and not (handle.lost or handle.is_direct) for handle in self.handles)

    @property
    def has_others(self) -> bool:
        """Whether somebody has it open who may."""
        return any(not handle.lost for handle in self.handles)

    def check_read(self, handle: Handle) -> bool:
        """OSError if the handle is lost; else whether what is read gets into the page cache, and must go again."""
        if handle.lost:
            raise OSError(handle.lost, os.strerror(handle.lost))
        return not handle.is_direct

    def check_write(self, handle: Handle, *, writeback: bool) -> None:
        """OSError unless what is written was allowed when it was.

        With write-back the kernel writes dirty pages through any handle that may write. So a lost one is taken for
        another's if there is one whose pages they may be; those of its own users were kept from writing.
        """
        if handle.lost and not handle.draining and not (writeback and self.has_cached_writer):
            raise OSError(handle.lost, os.strerror(handle.lost))

    def check_caller(self, uid: int) -> None:
        """OSError for who has the node open and has lost it: the kernel asks before each read(2) and write(2)."""
        if uid in self.barred:
            lost = next((handle.lost for handle in self.handles if handle.opened and handle.opened.uid == uid), 0)
            number = lost or errno.EACCES
            raise OSError(number, os.strerror(number))
