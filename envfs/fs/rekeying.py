"""Rekeying one file: a new DEK, under which its content is sealed anew, where it stands and while it is used.

Everything of a file happens in pieces, each an ordinary overwrite, and requests are served between two of them. The
header holds the previous key until the last block is done (FORMAT.md section 2.4), so that nothing is lost wherever
this ends. See docs/ARCHITECTURE.md, "New keys for old files".
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from envfs.errors import ConfigError, FormatError, IntegrityError
from envfs.format.context import decode_labels
from envfs.format.file_keys import block_codec, seal_previous
from envfs.format.geometry import HEADER_SIZE
from envfs.format.header import dek_context, header_key, parse_header_area
from envfs.fs.attributes import close_handle
from envfs.fs.opening import SERVICE
from envfs.fs.rewrapping import Outcome
from envfs.kms.model import RequestFacts

if TYPE_CHECKING:
    from envfs.crypto.secret import Secret
    from envfs.format.header import Slot
    from envfs.fs.content import Content
    from envfs.fs.nodes import Node
    from envfs.fs.opening import Caller
    from envfs.fs.state import VolumeState
    from envfs.fs.tree import Tree
    from envfs.fs.walking import Asker, Entry
    from envfs.kms.model import Principal

    Ask = Callable[[Callable[[], None]], Awaitable[None]]

log = logging.getLogger("envfs.fs")

_PIECE = 1 << 16  # plain bytes, or one block if that is larger; whatever waits, waits for one of them at most


class Rekeying:
    """Rekeys files in the name of `principal`. `to_key`: the ARN of the key of the new DEKs; None: the files' own.

    `ask` makes a call that may have to wait for a foreign KMS.
    """

    def __init__(
        self,
        state: VolumeState,
        tree: Tree,
        asker: Asker,
        caller: Caller,
        principal: Principal,
        to_key: str | None,
        ask: Ask,
    ) -> None:
        self._state = state
        self._tree = tree
        self._asker = asker
        self._caller = caller
        self._principal = principal
        self._to_key = to_key
        self._ask = ask
        self._linked: set[tuple[int, int]] = set()  # files with several names that are done

    async def one(self, entry: Entry, give_way: Callable[[int], Awaitable[None]]) -> Outcome:
        """Rekey one file; one that was left unfinished is finished. `give_way(bytes)` after each piece.

        KmsError where the KMS refuses, PermissionError where the Unix modes do, IntegrityError for damage: then the
        file stays as it is, or unfinished if there are blocks that nobody can read. OSError of the lower directory.
        """
        try:
            node, found = self._tree.lookup(entry.parent.node_id, entry.name)
        except FileNotFoundError:
            return Outcome.GONE
        if not node.is_regular:
            return Outcome.GONE
        if not self._asker.owns(found):
            raise PermissionError(1, "it belongs to somebody else")
        identity = found.st_dev, found.st_ino
        if identity in self._linked:
            return Outcome.CURRENT
        if node.content is None and self._has_no_header(node):
            return Outcome.EMPTY
        node.lookups += 1
        try:
            outcome = await self._open_and_rekey(node, give_way)
        finally:
            self._state.nodes.forget(node.node_id, 1)
        if found.st_nlink > 1:
            self._linked.add(identity)
        return outcome

    def _has_no_header(self, node: Node) -> bool:
        fd = self._state.opener.open_for_writing(node)
        try:
            return os.fstat(fd).st_size <= HEADER_SIZE and parse_header_area(os.pread(fd, HEADER_SIZE, 0)).is_absent
        finally:
            os.close(fd)

    async def _open_and_rekey(self, node: Node, give_way: Callable[[int], Awaitable[None]]) -> Outcome:
        if node in self._state.rekeyed:
            raise ConfigError(f"{node.path()} is being rekeyed already", hint="wait until that is done")
        self._state.rekeyed.add(node)
        try:
            content = await self._opened(node)
            try:
                if not content.slot.previous:
                    await self._ask(lambda: self._begin(node, content))
                await self._seal(node, content, give_way)
            finally:
                close_handle(self._state, node, content)
        finally:
            self._state.rekeyed.discard(node)
        return Outcome.DONE

    async def _opened(self, node: Node) -> Content:
        """Open for writing, with a handle of ours."""

        def opened() -> None:
            self._state.opener.open(node, self._caller, write=True).handles += 1

        await self._ask(opened)
        content = node.content
        assert content is not None  # it has a handle
        if self._state.options.writeback:
            content.hold_mtime()
        return content

    def _begin(self, node: Node, content: Content) -> None:
        """From here on the file has the new DEK."""
        slot, state = content.slot, self._state
        context = dek_context(state.volume.volume_id, slot.file_id, decode_labels(slot.labels))
        facts = RequestFacts(via_service=SERVICE, path=node.path(), access="write")
        old = self._file_key(state.engine.decrypt(self._principal, slot.blob, context, facts))
        with old:
            key_arn = self._to_key or state.engine.key_arn_of_blob(slot.blob)
            made = state.engine.generate_data_key(self._principal, key_arn, context, facts)
            with self._file_key(made.plaintext) as file_key:
                previous = seal_previous(file_key, slot.file_id, content.codec.generation, old)
                fresh = _with_new_key(slot, made.blob, previous)
                key, codec = header_key(file_key, slot.file_id), block_codec(file_key, fresh, state.opener.geometry)
        content.begin_rekey(fresh, key, codec)
        state.key_changed(node)
        self._remember(node, content)

    async def _seal(self, node: Node, content: Content, give_way: Callable[[int], Awaitable[None]]) -> None:
        geometry = content.geometry
        step = max(1, _PIECE // geometry.block_size)
        damaged: list[int] = []
        index = 0
        while index < geometry.block_count(content.size):
            offset = index * geometry.block_size
            length = min(step * geometry.block_size, content.size - offset)
            protection = content.protection
            if protection is not None and protection.concerns(offset, length):
                await protection.reserve(offset, length)
            damaged += content.reseal(index, index + step)
            index += step
            await give_way(length)
        if damaged:
            raise IntegrityError(f"{len(damaged)} blocks are damaged, the first of them is {damaged[0]}")
        if not self._state.never_blocks:
            content.prepare_sync()
            fd = os.dup(content.fd)
            try:
                await trio.to_thread.run_sync(os.fdatasync, fd)
            except OSError as error:
                content.failed_syncs.append(error.errno or errno.EIO)
                raise
            finally:
                os.close(fd)
        content.end_rekey()
        self._remember(node, content)

    def _file_key(self, dek: Secret) -> Secret:
        return self._state.keys.file_key(dek, is_bound=self._state.volume.is_bound)

    def _remember(self, node: Node, content: Content) -> None:
        self._state.opener.renewed(content.slot.file_id, content.slot.sequence)
        node.sequence = content.slot.sequence


def _with_new_key(slot: Slot, blob: bytes, previous: bytes) -> Slot:
    try:
        return replace(slot, blob=blob, previous=previous, sealed_blocks=0)
    except FormatError as error:
        raise ConfigError(
            f"its header has no room for two keys: {error.message}", hint="fewer or shorter labels: envfs dir label"
        ) from None
