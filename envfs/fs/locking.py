"""Locking a mount: no key stays in memory, the kernel holds nothing of it, and every request is refused.

    draining   requests are refused but for what the kernel writes back; it writes everything, and drops pages,
               attributes and names. What headers promise is synced and written.
    locked     keys are overwritten; ENOKEY for everything but closing
    open       again: the volume's keys are there anew, and the keys of open files, each asked for in the name of
               somebody who has it open and is still allowed. Handles go on.

A lock that fails half-way (a full disk, say) locks all the same: what could not be written is logged.
"""

from __future__ import annotations

import enum
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from envfs.crypto.scrub import scrub_freed_memory
from envfs.errors import EnvfsError
from envfs.foreign.waiting import ForeignWait
from envfs.fs.lower import syncfs
from envfs.kms.foreign.exchange import Pending

if TYPE_CHECKING:
    from envfs.format.volume_keys import VolumeKeys
    from envfs.fs.content import Content
    from envfs.fs.handles import Handle
    from envfs.fs.kernel_cache import KernelCache
    from envfs.fs.revocation import Revocation
    from envfs.fs.state import VolumeState

log = logging.getLogger("envfs.fs")

# After so many files other tasks get their turn.
_AT_ONCE = 32
_MOMENT = 0.005  # seconds


class Phase(enum.Enum):
    """What a mount answers."""

    OPEN = "open"
    DRAINING = "draining"
    LOCKED = "locked"


class Lock:
    """Of one mount."""

    def __init__(self, state: VolumeState, handles: dict[int, Handle], revocation: Revocation) -> None:
        self._state = state
        self._handles = handles
        self._revocation = revocation
        self._one_at_a_time = trio.Lock()
        self.phase = Phase.OPEN
        self.on_phase: Callable[[Phase], None] = lambda _: None
        self.cache: KernelCache | None = None

    async def lock(self, release: Callable[[], None], forget: Callable[[], None]) -> None:
        """Returns when no key is left. `release` (for a thread) and `forget` let go of the keys that others hold."""
        async with self._one_at_a_time:
            if self.phase is Phase.LOCKED:
                return
            await self._drain()
            while self._state.rekeyed:  # noqa: ASYNC110 - each ends with the piece that it is at
                await trio.sleep(_MOMENT)
            await self._keep_promises()
            self._enter(Phase.LOCKED)
            await trio.to_thread.run_sync(release)
            self._forget()
            forget()
            # What requests under way in threads still held is free by now, or so soon that nobody reads it.
            await trio.to_thread.run_sync(scrub_freed_memory)
            log.info("locked: no key is in memory")

    async def unlock(self, open_volume: Callable[[], VolumeKeys]) -> None:
        """`open_volume` gives the volume's keys. Raises what it raises; then the mount stays locked."""
        async with self._one_at_a_time:
            if self.phase is Phase.OPEN:
                return
            try:
                self._state.keys.adopt(open_volume())
                await self._restore_contents()
            except BaseException:
                self._forget()  # locked it stays, and so without keys
                raise
            self._enter(Phase.OPEN)
            self._revocation.look_at_everything()
            log.info("unlocked")

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._revocation.is_paused = phase is not Phase.OPEN
        self.on_phase(phase)

    async def _drain(self) -> None:
        """The kernel writes what is dirty, and forgets everything. No write(2) comes through from then on."""
        cache = self.cache
        if cache is None:
            self._enter(Phase.DRAINING)
            return
        # Opened before anything is refused, and closed again at once: it would be in the way of an unmount.
        root = await trio.to_thread.run_sync(cache.open_root)
        self._enter(Phase.DRAINING)
        # Only now, when nothing new gets into the kernel.
        nodes = list(self._state.nodes.by_id.values())
        names = [(node.parent.node_id, node.name) for node in nodes if node.parent is not None and node.located]
        ids = [node.node_id for node in nodes]

        def work() -> None:
            try:
                syncfs(root)
            except OSError as error:
                log.warning("not everything could be written before the lock: %s", error)
            finally:
                os.close(root)
            cache.drop(ids)
            for parent, name in names:
                cache.drop_name(parent, name)
            cache.drop_all_names()

        await trio.to_thread.run_sync(work)

    async def _keep_promises(self) -> None:
        """Header keys go: what headers have to say is written now, after the content has reached the disk."""
        state = self._state
        try:
            await state.promises.keep()
            root = os.dup(state.nodes.root.directory_fd)
            try:
                await trio.to_thread.run_sync(syncfs, root)
            finally:
                os.close(root)
        except (OSError, EnvfsError) as error:
            log.warning("what was written could not be synced before the lock: %s", error)
        for number, content in enumerate(self._contents()):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await trio.lowlevel.checkpoint()
            if content.keyed and content.writable:
                try:
                    content.record_length()
                except (OSError, EnvfsError) as error:
                    log.warning("the header of %s keeps an older length bound: %s", content.node.path(), error)

    def _contents(self) -> list[Content]:
        found = {id(handle.content): handle.content for handle in self._handles.values()}
        return [content for content in found.values() if content.fd >= 0]

    def _forget(self) -> None:
        for content in self._contents():
            if not content.is_locked:
                content.forget_keys()
            for buffer in (content.buffers.plain, content.buffers.cipher):
                buffer[:] = bytes(len(buffer))
        self._state.promises.forget_keys()
        self._state.keys.forget()

    async def _restore_contents(self) -> None:
        """For each open file, in the name of the first of those who have it open that may."""
        foreign = ForeignWait()
        for number, handle in enumerate(list(self._handles.values())):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await trio.lowlevel.checkpoint()
            if handle.content.is_locked and handle.content.fd >= 0:
                await self._restore(handle, foreign)
        self._revocation.guard_lost()

    async def _restore(self, handle: Handle, foreign: ForeignWait) -> None:
        """Where the CMK lies in a foreign KMS, this waits for it, for a bounded time."""

        def again() -> None:
            self._revocation.restore(handle)

        try:
            again()
        except Pending as pending:
            uid = handle.opened.uid if handle.opened is not None else 0
            try:
                await foreign.complete(self._state.engine, uid, again, pending)
            except EnvfsError as error:  # one file must not keep the mount locked
                self._revocation.lose(handle, error)
