"""New keys for files that are there: what `envfs rewrap` and `envfs rekey` ask a mount's daemon for.

| operation | who may ask                                                                             |
|-----------|-----------------------------------------------------------------------------------------|
| `rewrap`  | everybody, for his own files; root and the mount's owner for all; the KMS decides each  |
| `rekey`   | the same                                                                                |
| `key-usage` | whoever may describe the key: how much of this volume hangs on it                     |

One request is about one path; everything below it is done. `progress` counts files; `item` names one that failed.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from envfs.errors import EnvfsError, KeyUnavailable
from envfs.foreign.waiting import ForeignWait
from envfs.format.header import volume_context
from envfs.fs.lower import OPEN_DIRECTORY, syncfs
from envfs.fs.rekeying import Rekeying
from envfs.fs.rewrapping import Outcome, Rewrapping
from envfs.fs.walking import Asker, Entry, Walk, count_below
from envfs.kms.foreign.exchange import Pending
from envfs.service.key_usage import count_usage
from envfs.service.keys import usable_key
from envfs.service.mount_context import text_field
from envfs.service.rekey_job import RekeyJob

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from envfs.access.peer import Peer
    from envfs.fs.nodes import Node
    from envfs.service.mount_context import MountContext, Operation
    from envfs.service.reporting import LongOperation, Reporter


def operations(context: MountContext) -> dict[str, Operation]:
    """The operations of this topic, by name."""
    keys = _Keys(context)
    return {"rewrap": keys.rewrap, "rekey": keys.rekey, "key-usage": keys.usage}


class _Locked(KeyUnavailable):
    """The mount was locked meanwhile."""


class _Keys:
    def __init__(self, context: MountContext) -> None:
        self._context = context
        self._state = context.filesystem.state
        self._tree = context.filesystem.tree
        self._foreign = ForeignWait()

    def rewrap(self, peer: Peer, request: Mapping[str, Any], descriptor: int | None) -> LongOperation:
        self._context.require_writable()
        start = self._start(descriptor)
        to_key = self._key(peer, request, start)
        principal = self._context.principal(peer)
        rewrapping = Rewrapping(self._state, self._asker(peer), principal, to_key)

        async def one(entry: Entry) -> Outcome:
            try:
                return rewrapping.one(entry)
            except Pending as pending:
                engine = self._context.engine
                return await self._foreign.complete(engine, peer.uid, lambda: rewrapping.one(entry), pending)

        async def work(reporter: Reporter) -> dict[str, Any]:
            return await self._each(reporter, peer, start, one)

        return work

    def rekey(self, peer: Peer, request: Mapping[str, Any], descriptor: int | None) -> LongOperation:
        self._context.require_writable()
        start = self._start(descriptor)
        to_key = self._key(peer, request, start)
        state, principal = self._state, self._context.principal(peer)
        ask = partial(self._ask, peer)
        rekeying = Rekeying(state, self._tree, self._asker(peer), peer, principal, to_key, ask)
        home, volume_id = self._context.facts.home, self._context.volume.volume_id
        job = RekeyJob(home, volume_id, peer.uid, start, to_key or "")
        anew = request.get("anew") is True

        async def work(reporter: Reporter) -> dict[str, Any]:
            done_bytes = 0

            async def give_way(length: int) -> None:
                nonlocal done_bytes
                done_bytes += length
                reporter.progress(bytes=done_bytes)
                await reporter.give_way()
                self._require_unlocked()

            async def one(entry: Entry) -> Outcome:
                try:
                    outcome = await rekeying.one(entry, give_way)
                except (EnvfsError, OSError):
                    job.failed()
                    raise
                job.done(start, entry.parent, entry.lower_name)
                return outcome

            after = () if anew else job.after()
            result = await self._each(reporter, peer, start, one, after)
            job.finished()
            return result | {"bytes": done_bytes, "resumed": int(bool(after))}

        return work

    def usage(self, peer: Peer, request: Mapping[str, Any], _descriptor: int | None) -> LongOperation:
        engine, volume = self._context.engine, self._context.volume
        key_arn = engine.describe_key(self._context.principal(peer), text_field(request, "key")).arn
        path = self._context.facts.lower

        async def work(reporter: Reporter) -> dict[str, Any]:
            enough = trio.Event()

            def advance(count: int) -> None:
                reporter.progress(looked_at=count)

            try:
                found = await trio.to_thread.run_sync(
                    count_usage, path, volume, key_arn, advance, enough.is_set, abandon_on_cancel=True
                )
            finally:
                enough.set()
            return found.as_dict()

        return work

    async def _ask(self, peer: Peer, call: Callable[[], None]) -> None:
        """Make a call that may have to wait for a foreign KMS."""
        try:
            call()
        except Pending as pending:
            await self._foreign.complete(self._context.engine, peer.uid, call, pending)

    async def _each(
        self,
        reporter: Reporter,
        peer: Peer,
        start: Node,
        one: Callable[[Entry], Awaitable[Outcome]],
        after: tuple[bytes, ...] = (),
    ) -> dict[str, Any]:
        """Do `one` to every file at and below `start`, and tell of it. `after`: where to go on."""
        counts = dict.fromkeys(Outcome, 0)
        failed = 0

        async def problem(path: str, error: Exception) -> None:
            nonlocal failed
            failed += 1
            await reporter.item(path=path, **_problem(error))

        def told() -> dict[str, int]:
            return {outcome.value: count for outcome, count in counts.items()} | {"failed": failed}

        start.lookups += 1
        try:
            async with trio.open_nursery() as nursery:
                enough = trio.Event()
                nursery.start_soon(self._count, reporter, start, enough)
                walk = Walk(self._state, self._tree, self._asker(peer), problem)
                try:
                    async with contextlib.aclosing(walk.files(start, after)) as files:
                        async for entry in files:
                            self._require_unlocked()
                            try:
                                counts[await one(entry)] += 1
                            except _Locked:
                                raise
                            except (EnvfsError, OSError) as error:
                                await problem(entry.path, error)
                            reporter.progress(**told())
                            await reporter.give_way()
                finally:
                    enough.set()
            if counts[Outcome.DONE] and not self._state.never_blocks:
                # Only now is what the headers held before off the disk, as far as that can be said.
                root = os.dup(self._state.nodes.root.directory_fd)
                try:
                    await trio.to_thread.run_sync(syncfs, root)
                finally:
                    os.close(root)
        finally:
            self._state.nodes.forget(start.node_id, 1)
        return told()

    def _require_unlocked(self) -> None:
        """A lock ends what is under way, with the file that it is at: its keys go."""
        lock = self._context.mount_lock
        if lock is not None and lock.is_locked:
            mountpoint = self._context.facts.mountpoint
            raise _Locked(f"{mountpoint} is locked", hint=f"envfs unlock {mountpoint}, then run this again")

    async def _count(self, reporter: Reporter, start: Node, enough: trio.Event) -> None:
        """How much there is, while the work has begun: for the estimate."""
        if not start.is_directory:
            reporter.progress(total=1)
            return
        try:
            fd = os.open(b".", OPEN_DIRECTORY, dir_fd=self._state.nodes.directory_fd(start))
        except OSError:
            return  # the walk says why
        try:
            files, size = await trio.to_thread.run_sync(count_below, fd, enough.is_set)
            reporter.progress(total=files, total_bytes=size)
        finally:
            os.close(fd)

    def _start(self, descriptor: int | None) -> Node:
        return self._tree.node(self._context.inode(descriptor))

    def _key(self, peer: Peer, request: Mapping[str, Any], start: Node) -> str | None:
        """The ARN of the key that the request names, if he may say so."""
        key = request.get("key")
        if not isinstance(key, str) or not key:
            return None
        context = volume_context(self._context.volume.volume_id)
        return usable_key(self._context.engine, self._context.principal(peer), key, context, start.path())

    def _asker(self, peer: Peer) -> Asker:
        try:
            entry = pwd.getpwuid(peer.uid)
            gids = frozenset(os.getgrouplist(entry.pw_name, peer.gid))
        except KeyError:
            gids = frozenset({peer.gid})
        return Asker(peer.uid, gids, is_master=peer.uid in {0, os.geteuid()})


def _problem(error: Exception) -> dict[str, str]:
    if isinstance(error, EnvfsError):
        return {"problem": error.message or type(error).__name__, "kind": type(error).__name__}
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return {"problem": text, "kind": "OSError"}
