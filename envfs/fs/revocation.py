"""Open files of whoever is not allowed any more: noticed, drained, and from then on refused.

    notice   the KMS's store has changed, a user's groups have, or a moment has come at which a policy says otherwise
    decide   each open handle as if it were opened now; no record, except for those that lose
    drain    in a thread, the kernel writes what was written before, drops the pages and unmaps memory maps
    refuse   READ and WRITE of the handle; and, because pages that others bring in are there for everybody who has the
             file open, read(2) and write(2) as such: the kernel has to ask for attributes before each (`Guard`)

What others read through the page cache while a lost handle is open is dropped again as soon as it was read; see
docs/THREAT_MODEL.md for what that leaves.
"""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from envfs.errors import AccessDenied, EnvfsError, IntegrityError
from envfs.errors import Internal as KmsInternal
from envfs.foreign.waiting import ForeignWait
from envfs.format.context import decode_labels
from envfs.format.header import dek_context, volume_context
from envfs.fs.errno_table import errno_of
from envfs.fs.handles import Guard, Handle, Opened
from envfs.kms.foreign.exchange import Pending
from envfs.kms.model import Principal, RequestFacts
from envfs.kms.operations.standing import Use

if TYPE_CHECKING:
    from envfs.fs.kernel_cache import KernelCache
    from envfs.fs.nodes import Node
    from envfs.fs.state import VolumeState

log = logging.getLogger("envfs.fs")

SERVICE: Final = "envfs"
# Seconds between two looks; a change takes effect on open files after so long at most, and what follows takes.
INTERVAL: Final = 0.2
# After so many handles other requests get their turn.
_AT_ONCE: Final = 64
# After so many decided ones, what they lose is taken away.
_PORTION: Final = 2048
# Threads that wait for the kernel, and how many files make it worth to use another one.
_THREADS: Final = 4
_WORTH_A_THREAD: Final = 128
# The kernel is made to ask for so many files at once: others may be more urgent.
_BAR_AT_ONCE: Final = 32
# Seconds: what others read beside a lost handle stays in the page cache for about so long.
_SWEEP_PAUSE: Final = 0.002
# Seconds until a foreign KMS is asked again that has not answered.
_RESTORE_PAUSE: Final = 1.0
# Seconds after which a drain goes on without waiting: a lower filesystem that hangs must not keep the rest.
_DRAIN_TIMEOUT: Final = 30.0

_ACTIONS: Final[dict[str, tuple[str, ...]]] = {
    "read": ("kms:Decrypt",),
    "write": ("kms:Decrypt", "kms:GenerateDataKey"),
    "create": ("kms:GenerateDataKey",),
}


class Revocation:
    """Watches the open handles of one mount. Everything but what the kernel is told runs in the event loop."""

    def __init__(self, state: VolumeState, handles: dict[int, Handle]) -> None:
        self._state = state
        self._engine = state.engine
        self._handles = handles
        self._opened: list[Handle] = []  # since the last look
        self._wake = trio.Event()
        self._cache: KernelCache | None = None
        self._changes = -1
        self._looked = 0.0  # the KMS's clock at the last look
        self._until = math.inf  # when a decision may become another one by itself
        self.is_paused = False  # nothing can be decided while the mount is locked
        self._failed = False  # whether something could not be decided
        self._limiter: trio.CapacityLimiter | None = None
        self._to_sweep: set[Node] = set()
        self._sweep_wake = trio.Event()
        self._guards: set[Guard] = set()
        self._losses: list[tuple[Use, EnvfsError]] = []  # of which there is no record yet
        self._to_bar: dict[Node, None] = {}
        self._bar_later: list[Node] = []  # after everything that is urgent
        self._bar_wake = trio.Event()
        self._to_restore: dict[Handle, None] = {}  # whose keys a foreign KMS has to be asked for
        self._restore_wake = trio.Event()

    # Handles come and go

    def opened(self, handle: Handle) -> None:
        """A new handle; it was allowed a moment ago."""
        self._opened.append(handle)
        if handle.node.guard is not None:
            handle.node.guard.add(handle)
            self._bar(handle.node)
        if not self._wake.is_set():
            self._wake.set()

    def closed(self, handle: Handle) -> None:
        """The last close of a handle."""
        guard = handle.guard
        if guard is not None:
            guard.remove(handle)
            if guard.node.guard is None:
                self._guards.discard(guard)

    def wants_direct(self, node: Node, uid: int) -> bool:
        """Whether a new handle has to go past the page cache.

        While a lost handle is open, so that nothing new comes in that it could see; but not beside a writer who uses
        the page cache, whose dirty pages would be missed. And, with `isolate`, if the page cache is another user's.
        """
        content = node.content
        if content is not None and content.direct_handles:
            return True  # else a direct handle's WRITE could not be told from the kernel's
        if node.guard is not None and not node.guard.has_cached_writer:
            return True
        return content is not None and content.cached_by not in {-1, uid} and self._state.options.isolate

    # What requests ask

    def check_read(self, handle: Handle) -> None:
        """For a handle with a guard."""
        assert handle.guard is not None
        if handle.guard.check_read(handle):
            self.sweep(handle.node)

    def check_write(self, handle: Handle) -> None:
        """For a handle with a guard. What is refused must not stay in the page cache, where others would read it."""
        assert handle.guard is not None
        try:
            handle.guard.check_write(handle, writeback=self._state.options.writeback)
        except OSError:
            self.sweep(handle.node)
            raise

    def wrote(self, handle: Handle) -> None:
        """After a write that went past the page cache: what somebody else read meanwhile through it may be older."""
        content = handle.content
        if handle.is_direct and content.handles > content.direct_handles:
            self.sweep(handle.node)

    def check_caller(self, node: Node, uid: int, pid: int) -> None:
        """A question for the attributes of a node with a guard: whoever lost it is refused, if he is still."""
        assert node.guard is not None
        if self._cache is not None and self._cache.is_ours(pid):
            return
        guard = node.guard
        if uid in guard.barred:
            # He may have been allowed again since the last look: an open of his must not wait for the next one.
            for handle in list(guard.handles):
                if handle.lost and handle.opened is not None and handle.opened.uid == uid:
                    self._decide(handle)
            guard.check_caller(uid)

    def sweep(self, node: Node) -> None:
        """Have the kernel drop the pages of a node soon."""
        self._to_sweep.add(node)
        if not self._sweep_wake.is_set():
            self._sweep_wake.set()

    def _bar(self, node: Node) -> None:
        """Have the kernel ask before each read and write of a node soon: others bring pages of it in."""
        self._to_bar[node] = None
        if not self._bar_wake.is_set():
            self._bar_wake.set()

    # Watching

    async def watch(self, cache: KernelCache) -> None:
        """Until it is cancelled."""
        self._cache = cache
        self._limiter = trio.CapacityLimiter(_THREADS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sweep_for_ever)
            nursery.start_soon(self._bar_for_ever)
            nursery.start_soon(self._restore_for_ever)
            while True:
                if not self._handles:
                    await self._wake.wait()
                    self._wake = trio.Event()
                try:
                    await self.look()
                except Exception:  # a defect here must not take the mount down
                    log.exception("open files could not be looked at; it is tried again")
                    self._failed = True
                await trio.sleep(INTERVAL)

    async def look(self) -> None:
        """Decide anew whatever may be decided otherwise than the last time."""
        if self.is_paused:
            return
        opened, self._opened = self._opened, []
        due = await self._affected(opened)
        for start in range(0, len(due), _PORTION):  # so that the first of many need not wait for the decisions on all
            await self._revoke(await self._decide_all(due[start : start + _PORTION]))
        await self._record_losses()
        later, self._bar_later = self._bar_later, []
        for node in later:
            self._bar(node)
        for guard in self._guards:
            if guard.has_cached_writer:
                self.sweep(guard.node)  # what they write stands in pages, too

    async def _affected(self, opened: list[Handle]) -> list[Handle]:
        """The handles that have to be decided. Those that were `opened` since the last look for the first time."""
        try:
            changes, now = self._engine.changes, self._engine.now
        except EnvfsError as error:
            self._report_failure(error)
            return list(self._handles.values()) if isinstance(error, IntegrityError) else []
        clock_went_back = now < self._looked - 1
        everything = changes != self._changes or now >= self._until or clock_went_back or self._failed
        self._changes, self._looked = changes, now
        if everything:
            self._until, self._failed = math.inf, False
            return list(self._handles.values())
        moved = await self._changed_users()
        return [*opened, *(one for one in self._handles.values() if one.opened and one.opened.uid in moved)]

    async def _changed_users(self) -> set[int]:
        """The uids of open handles whose name or groups are others than when they were decided."""
        known: dict[int, Principal] = {}
        for handle in list(self._handles.values()):
            if handle.principal is not None:
                known.setdefault(handle.principal.uid, handle.principal)
        moved = set()
        for number, (uid, before) in enumerate(known.items()):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await trio.lowlevel.checkpoint()
            try:
                now = self._state.resolver.resolve(uid, before.gid, before.pid)
            except EnvfsError:
                moved.add(uid)
                continue
            if (now.arn, now.group_arns) != (before.arn, before.group_arns):
                moved.add(uid)
        return moved

    async def _decide_all(self, handles: Iterable[Handle]) -> list[Handle]:
        """Those that are lost now, and were not."""
        lost = []
        for number, handle in enumerate(handles):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await trio.lowlevel.checkpoint()
            if self._decide(handle) and handle.lost:
                lost.append(handle)
        if lost:
            log.info("taken away: %d open handles, of %s among others", len(lost), lost[0].node.path())
        return lost

    def _decide(self, handle: Handle) -> bool:
        """Decide one handle; whether it was allowed and is not, or the other way round."""
        opened = handle.opened
        if opened is None or handle.content.fd < 0:
            return False
        try:
            use = self._use(handle, opened)
            error, until = self._engine.still_allowed(use)
            self._until = min(self._until, until)
            if isinstance(error, KmsInternal):
                raise error
        except AccessDenied as stranger:  # nobody whom a policy could speak of; the resolver has recorded it
            error, use = stranger, None
        except EnvfsError as problem:
            self._report_failure(problem)
            if not isinstance(problem, IntegrityError):
                return False  # a store that is busy: decided again at the next look
            error, use = problem, None
        return self._set_lost(handle, use, error)

    def _set_lost(self, handle: Handle, use: Use | None, error: EnvfsError | None) -> bool:
        before = handle.lost
        if error is None and before and handle.content.is_locked and not self._takes_back(handle):
            return False  # allowed, and yet there is no key to read it with
        handle.lost = 0 if error is None else (errno_of(error) or errno.EACCES)
        if bool(before) == bool(handle.lost):
            return False
        node = handle.node
        if not handle.content.keyed:
            self._settle_reader(handle, use)
        if error is None:
            log.debug("%s is allowed again to whom it was taken from", node.path())
            handle.draining = False
            if handle.guard is not None and not handle.guard.settle():
                self._guards.discard(handle.guard)
            return True
        handle.draining = True
        log.debug("an open handle of %s was lost: %s", node.path(), error)
        if use is not None:
            self._losses.append((use, error))
        return True

    def _settle_reader(self, handle: Handle, use: Use | None) -> None:
        """Who writes the first byte of a file waits for those who read it already and may not see it: for nobody who
        has lost it, since he reads nothing any more.
        """
        readers, opened = handle.content.readers, handle.opened
        if opened is None:
            return
        if not handle.lost:
            if use is not None:
                readers[opened.uid] = use.principal, use.facts
        elif not any(
            one.node is handle.node and one.opened is not None and one.opened.uid == opened.uid and not one.lost
            for one in self._handles.values()
        ):
            readers.pop(opened.uid, None)

    async def _record_losses(self) -> None:
        """Only now: nobody should read on while records are written."""
        losses, self._losses = self._losses, []
        for number, (use, error) in enumerate(losses):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await trio.lowlevel.checkpoint()
            try:
                self._engine.record_revocation(use, error)
            except EnvfsError as problem:
                log.warning("the loss of an open file could not be recorded: %s", problem)

    def _report_failure(self, error: EnvfsError) -> None:
        if not self._failed:
            log.error("it could not be decided who may keep files open: %s", error)
        self._failed = True

    def _use(self, handle: Handle, opened: Opened) -> Use:
        """What the handle would ask the KMS for if it were opened now. AccessDenied if its opener is nobody."""
        principal = self._state.resolver.resolve(opened.uid, opened.gid, opened.pid)
        handle.principal = principal
        volume_id, content = self._state.volume.volume_id, handle.content
        facts = RequestFacts(via_service=SERVICE, path=opened.path, access=opened.access)
        if content.keyed:
            slot = content.slot
            context = dek_context(volume_id, slot.file_id, decode_labels(slot.labels))
            return Use(principal, _ACTIONS[opened.access], slot.blob, context, facts)
        directories, parent = self._state.directories, handle.node.parent
        if parent is None:
            raise AccessDenied(f"{handle.node.path()} has neither a key nor a directory")
        context = directories.effective_labels(parent) | volume_context(volume_id)
        return Use(principal, _ACTIONS[opened.access], directories.effective_key(parent), context, facts)

    def look_at(self, node: Node) -> None:
        """At the next look: its handles are decided by another key."""
        self._opened += [handle for handle in self._handles.values() if handle.node is node]

    def look_at_everything(self) -> None:
        """At the next look."""
        self._failed = True

    # After a lock

    def restore(self, handle: Handle) -> None:
        """The keys of the handle's content, which were wiped, if its opener may still have them; else it is lost.

        `guard_lost` has to follow. Raises Pending.
        """
        if handle.opened is None:
            return
        use = None
        try:
            use = self._use(handle, handle.opened)
            self._state.opener.restore(handle.content, use.principal, use.facts)
        except EnvfsError as error:
            self.lose(handle, error, use)

    def lose(self, handle: Handle, error: EnvfsError, use: Use | None = None) -> None:
        """There is no key for a handle after a lock; `guard_lost` has to follow."""
        self._set_lost(handle, use, error)
        handle.draining = False  # the lock has written everything

    def guard_lost(self) -> None:
        """Whatever `restore` has found lost is refused from now on."""
        lost = {handle.node for handle in self._handles.values() if handle.lost and handle.guard is None}
        for node in self._guard(lost) if lost else ():
            self._bar(node)

    def _takes_back(self, handle: Handle) -> bool:
        """Whether there is a key for the handle again. What has to be asked of a foreign KMS is, and comes later."""
        try:
            self._take_back(handle)
        except Pending:
            self._to_restore[handle] = None
            if not self._restore_wake.is_set():
                self._restore_wake.set()
            return False
        except EnvfsError as error:
            log.debug("no key for %s yet: %s", handle.node.path(), error)
            return False
        return True

    def _take_back(self, handle: Handle) -> None:
        content, opened = handle.content, handle.opened
        if opened is None or content.fd < 0 or not content.is_locked:
            return
        use = self._use(handle, opened)
        self._state.opener.restore(content, use.principal, use.facts)

    async def _restore_for_ever(self) -> None:
        """Asks foreign KMSs for the keys of handles that have none since a lock, until they have them."""
        foreign = ForeignWait()
        while True:
            if not self._to_restore:
                self._restore_wake = trio.Event()
                await self._restore_wake.wait()
            handle = next(iter(self._to_restore))
            del self._to_restore[handle]
            if self.is_paused:
                continue  # another unlock looks at everything
            again = partial(self._take_back, handle)
            try:
                again()
            except Pending as pending:
                uid = -1 if handle.opened is None else handle.opened.uid
                try:
                    await foreign.complete(self._engine, uid, again, pending)
                except EnvfsError as error:
                    log.info("no key for %s yet: %s", handle.node.path(), error)
                    await trio.sleep(_RESTORE_PAUSE)
            except EnvfsError as error:
                log.info("no key for %s: %s", handle.node.path(), error)
            self.look_at_everything()

    # Taking away

    async def _revoke(self, lost: list[Handle]) -> None:
        """What these handles brought into the kernel goes; what was written through them before is written."""
        nodes = self._guard({handle.node for handle in lost})
        if not nodes:
            return
        ids = [node.node_id for node in nodes]
        await self._drop(ids)
        for handle in lost:
            handle.draining = False
        for node in nodes:
            if node.guard is not None and node.guard.has_others:
                self._bar(node)  # others bring pages in
            else:
                self._bar_later.append(node)

    def _guard(self, nodes: set[Node]) -> list[Node]:
        by_node: dict[Node, set[Handle]] = {node: set() for node in nodes}
        for handle in self._handles.values():
            if handle.node in by_node:
                by_node[handle.node].add(handle)
        for node, handles in by_node.items():
            if node.guard is None and handles:
                guard = Guard(node, handles)
                if guard.settle():
                    self._guards.add(guard)
            elif node.guard is not None:
                node.guard.settle()
        return [node for node in nodes if node.guard is not None]

    async def _drop(self, ids: list[int]) -> None:
        """In some threads at once: each waits for requests that are answered here."""
        cache, limiter = self._cache, self._limiter
        if cache is None or limiter is None:
            return

        async def work(some: list[int]) -> None:
            await trio.to_thread.run_sync(cache.drop, some, abandon_on_cancel=True, limiter=limiter)

        done = False
        with trio.move_on_after(_DRAIN_TIMEOUT):
            async with trio.open_nursery() as nursery:
                for some in _parts(ids):
                    nursery.start_soon(work, some)
            done = True
        if not done:
            log.error("the kernel did not let go of the pages of revoked files within %g s", _DRAIN_TIMEOUT)

    async def _bar_for_ever(self) -> None:
        """Has the kernel learn that attributes of guarded nodes hold for no time, a portion of them at once."""
        assert self._cache is not None
        while True:
            if not self._to_bar:
                self._bar_wake = trio.Event()
                await self._bar_wake.wait()
            some = list(self._to_bar)[:_BAR_AT_ONCE]
            for node in some:
                del self._to_bar[node]
            ids = [node.node_id for node in some if node.guard is not None]
            try:
                left = set(await trio.to_thread.run_sync(self._cache.expire, ids, abandon_on_cancel=True))
            except OSError as error:
                log.warning("the kernel cannot be made to ask before reads: %s", error)
                continue
            open_still = [node for node in some if node.guard is not None and node.node_id in left]
            if open_still:
                log.warning("the kernel does not ask before reads of %d files taken from somebody", len(open_still))

    async def _sweep_for_ever(self) -> None:
        """Drops pages that have come into the page cache beside a lost handle."""
        assert self._cache is not None
        while True:
            await self._sweep_wake.wait()
            self._sweep_wake = trio.Event()
            nodes, self._to_sweep = self._to_sweep, set()
            ids = [node.node_id for node in nodes if node.guard is not None or node.content is not None]
            await trio.to_thread.run_sync(self._cache.drop, ids, abandon_on_cancel=True)
            await trio.sleep(_SWEEP_PAUSE)


def _parts(ids: list[int]) -> Iterator[list[int]]:
    count = min(_THREADS, -(-len(ids) // _WORTH_A_THREAD))
    for number in range(count):
        yield ids[number::count]
