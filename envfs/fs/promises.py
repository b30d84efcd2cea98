"""Length bounds that are still to be raised, because nothing says yet that the content is on the disk.

The bound in a header is a promise: the file has at least so many bytes. A lower filesystem may write a header back
before the end of the file that it speaks of; were the power to fail in between, a file that nobody has touched would
look as if it had been cut. So what is closed without an fsync keeps its old bound at first. Now and then everything
that waits is synced, all of it at once and beside other requests, and then the bounds are raised. An fsync raises them
by itself, and an unmount does not end before they are.

In memory nothing survives a power failure: there the last close raises the bound.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from envfs.errors import EnvfsError
from envfs.fs.lower import syncfs
from envfs.fs.nodes import Node, NodeTable

if TYPE_CHECKING:
    from envfs.fs.content import Content

log = logging.getLogger("envfs.fs")

# Seconds; as long as the kernel leaves dirty pages alone (vm.dirty_expire_centisecs), so that little is left to sync.
PERIOD = 30.0
# From so many files on, one syncfs(2) is cheaper than a sync of each.
_TOO_MANY = 64
# After so many headers other requests get their turn.
_AT_ONCE = 32


class Promises:
    """The files whose last close has left a bound to be raised. `open_for_writing`: a descriptor of a node's file."""

    def __init__(self, nodes: NodeTable, open_for_writing: Callable[[Node], int], *, at_once: bool) -> None:
        self._nodes = nodes
        self._open_for_writing = open_for_writing
        self._at_once = at_once
        self._waiting: dict[Node, Content] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def waiting(self, node: Node) -> Content | None:
        """The content of a file that is closed and whose header will be written once more, by `record_length_by`."""
        return self._waiting.get(node)

    def closing(self, node: Node, content: Content) -> bool:
        """The last handle on a content that may write is being closed. Whether its header key is still needed."""
        before = self._waiting.pop(node, None)
        try:
            if self._at_once or not content.promises_too_little():
                content.record_length()
                return False
            content.put_time_back()
            if not node.located:  # it goes away with the last descriptor
                return False
            self._waiting[node] = content
            node.lookups += 1  # the kernel may forget it meanwhile; we must still find it
            return True
        finally:
            if before is not None:
                self._nodes.forget(node.node_id, 1)

    def gone(self, node: Node) -> None:
        """A name of the node has gone. If it was the one that it is known by, nothing is promised any more."""
        if not node.located and node in self._waiting:
            self._waiting.pop(node).forget_header_key()
            self._nodes.forget(node.node_id, 1)

    def forget_keys(self) -> None:
        """No header key stays in memory: what waits still keeps the bound that it has."""
        waiting, self._waiting = self._waiting, {}
        for node, content in waiting.items():
            content.forget_header_key()
            self._nodes.forget(node.node_id, 1)

    async def keep_for_ever(self) -> None:
        """Raises bounds from time to time, until it is cancelled."""
        while True:
            await trio.sleep(PERIOD)
            if self._waiting:
                try:
                    await self.keep()
                except OSError:
                    log.exception("what was written could not be synced; it is tried again")

    async def keep(self) -> None:
        """Syncs what waits now, beside other requests, and raises its bounds."""
        batch = dict(self._waiting)
        await trio.to_thread.run_sync(self._sync_work(batch))
        for number, (node, content) in enumerate(batch.items()):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await trio.lowlevel.checkpoint()
            self._raise(node, content)

    def keep_now(self) -> None:
        """The same at the end of a mount, for everything, while nothing else happens."""
        if self._waiting:
            batch = dict(self._waiting)
            self._sync_work(batch)()
            for node, content in batch.items():
                self._raise(node, content)

    def _sync_work(self, batch: dict[Node, Content]) -> Callable[[], None]:
        """For a thread: no node is looked at in it."""
        if len(batch) > _TOO_MANY:
            root = os.dup(self._nodes.root.directory_fd)
            return lambda: _sync_all(root)
        fds = []
        for node in batch:
            with contextlib.suppress(OSError, EnvfsError):  # `_raise` says what is wrong with it
                fds.append(self._open_for_writing(node))
        return lambda: _sync(fds)

    def _raise(self, node: Node, content: Content) -> None:
        if self._waiting.get(node) is not content or node.content is not None:
            return  # it is open again, or was: its own last close sees to it
        del self._waiting[node]
        try:
            if node.located and not node.is_retired:
                self._write(node, content)
        except (OSError, EnvfsError) as error:
            log.warning("the header of %s keeps an older length bound: %s", node.path(), error)
        finally:
            content.forget_header_key()
            self._nodes.forget(node.node_id, 1)

    def _write(self, node: Node, content: Content) -> None:
        fd = self._open_for_writing(node)
        try:
            content.record_length_by(fd)
            node.sequence = content.slot.sequence
        finally:
            os.close(fd)


def _sync(fds: list[int]) -> None:
    try:
        for fd in fds:
            os.fdatasync(fd)
    finally:
        for fd in fds:
            os.close(fd)


def _sync_all(root: int) -> None:
    try:
        syncfs(root)
    finally:
        os.close(root)
