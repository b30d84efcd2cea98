"""Opening and creating files: the one place where the filesystem asks the KMS for a DEK.

An open asks in the name of the caller and leaves an audit record, also when the file is open already for somebody
else. The plaintext DEK lives for the length of these functions; the content keeps the two keys derived from it.
"""

from __future__ import annotations

import os
import secrets
import stat as stat_module
from typing import TYPE_CHECKING, Protocol

from envfs.crypto.secret import Secret
from envfs.errors import IntegrityError
from envfs.format.block import BlockCodec
from envfs.format.context import decode_labels, encode_context
from envfs.format.geometry import HEADER_SIZE, Geometry
from envfs.format.header import (
    HeaderArea,
    ParsedSlot,
    Slot,
    content_key,
    dek_context,
    header_key,
    parse_header_area,
    verify_slot,
)
from envfs.format.place import ANYWHERE, Kind, PlaceKey, Where
from envfs.format.volume import VolumeFile
from envfs.fs.content import Buffers, Content
from envfs.fs.directories import Directories
from envfs.fs.lower import OPEN_READ, OPEN_WRITE
from envfs.fs.nodes import Node, NodeTable
from envfs.fs.raised_mode import open_writable
from envfs.fs.undo import Undo
from envfs.kms.model import Principal, RequestFacts

if TYPE_CHECKING:
    from envfs.access.resolver import Resolver
    from envfs.kms.engine import Engine

SERVICE = "envfs"
_WRITE_ACTIONS = ("kms:GenerateDataKey",)


class Caller(Protocol):
    """Who made a request, as the kernel tells it. pyfuse3's RequestContext is one."""

    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def pid(self) -> int: ...


class Opener:
    """Turns a node and a caller into a content, or refuses."""

    def __init__(
        self,
        nodes: NodeTable,
        directories: Directories,
        volume: VolumeFile,
        place_key: PlaceKey,
        undo: Undo,
        engine: Engine,
        resolver: Resolver,
    ) -> None:
        self._nodes = nodes
        self._directories = directories
        self._volume = volume
        self._place_key = place_key
        self._undo = undo
        self._engine = engine
        self._resolver = resolver
        self.geometry = Geometry(1 << volume.block_log2)
        self._buffers = Buffers(self.geometry)

    # Existing files

    def open(self, node: Node, caller: Caller, *, write: bool) -> Content:
        """The content of a regular file for a caller who may read it, or read and write it.

        Raises AccessDenied, Disabled and the other KmsErrors of the decision; IntegrityError for a damaged header, a
        wrong place, or a file that was cut; OSError of the lower directory.
        """
        principal = self._resolver.resolve(caller.uid, caller.gid, caller.pid)
        facts = RequestFacts(via_service=SERVICE, path=node.path(), access="write" if write else "read")
        content = node.content
        if content is None:
            return self._open_lower(node, principal, facts, write=write)
        if not content.keyed:
            if write:
                self._give_key(node, content, principal, facts)
        else:
            if not node.placed:
                self.check_place(node, content.place, content.slot.file_id)
            self._decrypt(principal, content.slot, facts).wipe()
        if write and not content.writable:
            content.make_writable(
                self._open_for_writing(node) if node.pin < 0 and node.located else _reopen(content.fd)
            )
        return content

    def _open_lower(self, node: Node, principal: Principal, facts: RequestFacts, *, write: bool) -> Content:
        fd = self._open_for_writing(node) if write else self._nodes.open(node, OPEN_READ)
        try:
            found = os.fstat(fd)
            if not stat_module.S_ISREG(found.st_mode):
                raise IntegrityError(f"{node.path()} is no regular file any more")
            area = parse_header_area(os.pread(fd, HEADER_SIZE, 0))
            if area.is_absent:
                content = self._open_empty(node, fd, found, principal, facts, write=write)
            else:
                content = self._open_with_header(node, fd, found, area, principal, facts, write=write)
        except BaseException:
            os.close(fd)
            raise
        node.content = content
        return content

    def _open_for_writing(self, node: Node) -> int:
        """A descriptor that also reads: sealing a part of a block takes reading the rest."""
        try:
            return self._nodes.open(node, OPEN_WRITE)
        except PermissionError:
            if node.parent is None or not node.located:
                raise
        # The kernel has allowed it: an ordinary user's own file that may be written and not read.
        dir_fd = self._nodes.directory_fd(node.parent)
        fd = open_writable(self._nodes.root.directory_fd, node.parent.lower_path(), dir_fd, node.lower_name)
        self._nodes.check_same(node, fd)
        return fd

    def _open_empty(
        self, node: Node, fd: int, found: os.stat_result, principal: Principal, facts: RequestFacts, *, write: bool
    ) -> Content:
        """A file without a header: nothing to decrypt for a reader, a new DEK for a writer."""
        if found.st_size > HEADER_SIZE:
            raise IntegrityError(f"{node.path()} has blocks but no header")
        if write:
            return self._new_content(node, fd, principal, facts, found)
        return self._keyless_content(node, fd)

    def _keyless_content(self, node: Node, fd: int) -> Content:
        slot = Slot(
            suite=self._volume.suite,
            block_log2=self._volume.block_log2,
            sequence=1,
            file_id=bytes(16),
            length_bound=0,
            sealed_blocks=0,
            hole_start=0,
            hole_end=0,
            blob=b"\0",
        )
        codec = BlockCodec(self._volume.suite, secrets.token_bytes(32), slot.file_id, self.geometry)
        return Content(
            node,
            fd,
            undo=self._undo,
            writable=False,
            geometry=self.geometry,
            buffers=self._buffers,
            slot=slot,
            position=-1,
            header_key=b"",
            keyed=False,
            codec=codec,
            size=0,
            place=b"",
        )

    def _give_key(self, node: Node, content: Content, principal: Principal, facts: RequestFacts) -> None:
        """A writer comes to a file without header that a reader has open: the shared content gets its keys."""
        fresh = self._new_content(node, content.fd, principal, facts, os.fstat(content.fd))
        content.slot, content.header_key, content.codec = fresh.slot, fresh.header_key, fresh.codec
        content.place, content.keyed = fresh.place, True

    def _open_with_header(
        self,
        node: Node,
        fd: int,
        found: os.stat_result,
        area: HeaderArea,
        principal: Principal,
        facts: RequestFacts,
        *,
        write: bool,
    ) -> Content:
        self.check_place(node, area.place_raw, area.slots[0].slot.file_id)
        parsed, slot_key, dek = self._first_authentic(node, area, principal, facts)
        slot = parsed.slot
        try:
            if slot.block_log2 != self._volume.block_log2:
                raise IntegrityError(f"{node.path()} has another block size than its volume")
            codec = self._codec(dek, slot)
        finally:
            dek.wipe()
        size = self.geometry.plain_size(found.st_size)
        if size < slot.length_bound:
            raise IntegrityError(f"{node.path()} was cut: {size} bytes are left of at least {slot.length_bound}")
        node.object_id = slot.file_id
        return Content(
            node,
            fd,
            undo=self._undo,
            writable=write,
            geometry=self.geometry,
            buffers=self._buffers,
            slot=slot,
            position=parsed.position,
            header_key=slot_key,
            codec=codec,
            size=size,
            place=area.place_raw,
        )

    def check_place(self, node: Node, place: bytes, file_id: bytes) -> None:
        """Also for a file that has lost its name: it belongs where it had it."""
        if not self._place_key.check(place, Kind.FILE, file_id, self._directories.where(node)):
            raise IntegrityError(f"{node.path()} does not belong where it stands: it was moved, swapped or copied")
        node.placed = True

    def _first_authentic(
        self, node: Node, area: HeaderArea, principal: Principal, facts: RequestFacts
    ) -> tuple[ParsedSlot, bytes, Secret]:
        """The newest slot whose MAC is right under the DEK in it, with its header key and that DEK."""
        for parsed in area.slots:
            dek = self._decrypt(principal, parsed.slot, facts)
            slot_key = header_key(dek, parsed.slot.file_id)
            if verify_slot(parsed.raw, slot_key):
                return parsed, slot_key, dek
            dek.wipe()
        raise IntegrityError(f"no header slot of {node.path()} is authentic")

    def _decrypt(self, principal: Principal, slot: Slot, facts: RequestFacts) -> Secret:
        context = dek_context(self._volume.volume_id, slot.file_id, decode_labels(slot.labels))
        also = _WRITE_ACTIONS if facts.access == "write" else ()
        return self._engine.decrypt(principal, slot.blob, context, facts, also=also)

    def _codec(self, dek: Secret, slot: Slot) -> BlockCodec:
        return BlockCodec(slot.suite, content_key(dek, slot.file_id, slot.suite), slot.file_id, self.geometry)

    # New files

    def authorise_creation(self, parent: Node, name: bytes, caller: Caller) -> tuple[Principal, RequestFacts]:
        """Who creates what, in the terms of the KMS; the uid must have a name."""
        path = parent.path().rstrip("/") + "/" + name.decode("utf-8", "surrogateescape")
        principal = self._resolver.resolve(caller.uid, caller.gid, caller.pid)
        return principal, RequestFacts(via_service=SERVICE, path=path, access="create")

    def prepare(self, parent: Node, where: Where, principal: Principal, facts: RequestFacts) -> Prepared:
        """A DEK for a new file in `parent`, before anything is created. Raises as `open` does."""
        labels = self._directories.effective_labels(parent)
        file_id = secrets.token_bytes(16)
        context = dek_context(self._volume.volume_id, file_id, labels)
        key_arn = self._directories.effective_key(parent)
        data_key = self._engine.generate_data_key(principal, key_arn, context, facts)
        slot = Slot(
            suite=self._volume.suite,
            block_log2=self._volume.block_log2,
            sequence=1,
            file_id=file_id,
            length_bound=0,
            sealed_blocks=0,
            hole_start=0,
            hole_end=0,
            blob=data_key.blob,
            labels=encode_context(labels),
        )
        try:
            slot_key = header_key(data_key.plaintext, file_id)
            codec = self._codec(data_key.plaintext, slot)
        finally:
            data_key.plaintext.wipe()
        place = self._place_key.pack(Kind.FILE, file_id, where, None)
        return Prepared(slot, slot_key, codec, place)

    def content_of(self, node: Node, prepared: Prepared, fd: int) -> Content:
        """The content of a file that was just created; its header is not on disk yet."""
        return Content(
            node,
            fd,
            undo=self._undo,
            writable=True,
            geometry=self.geometry,
            buffers=self._buffers,
            slot=prepared.slot,
            position=-1,
            header_key=prepared.header_key,
            codec=prepared.codec,
            size=0,
            place=prepared.place,
        )

    def _new_content(
        self, node: Node, fd: int, principal: Principal, facts: RequestFacts, found: os.stat_result
    ) -> Content:
        parent = node.parent
        if parent is None:
            raise IntegrityError(f"{node.path()} has no name any more and no header")
        where = self._directories.where(node) if found.st_nlink == 1 else ANYWHERE
        prepared = self.prepare(parent, where, principal, facts)
        node.object_id = prepared.slot.file_id
        return self.content_of(node, prepared, fd)


class Prepared:
    """What a new file needs: its first header and the keys derived from its DEK."""

    __slots__ = ("codec", "header_key", "place", "slot")

    def __init__(self, slot: Slot, header_key: bytes, codec: BlockCodec, place: bytes) -> None:
        self.slot = slot
        self.header_key = header_key
        self.codec = codec
        self.place = place


def _reopen(fd: int) -> int:
    """A writable descriptor of a file that has no name any more."""
    return os.open(f"/proc/self/fd/{fd}", (OPEN_WRITE & ~os.O_NOFOLLOW))
