"""Opening and creating files: the one place where the filesystem asks the KMS for a DEK.

An open asks in the name of the caller and leaves an audit record, also when the file is open already for somebody
else. The plaintext DEK lives for the length of these functions; the content keeps the two keys derived from it.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import stat as stat_module
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from envfs.crypto.secret import Secret
from envfs.errors import AccessDenied, IntegrityError, InvalidCiphertext, KmsError, NotFound
from envfs.format.block import BlockCodec, generation_of
from envfs.format.context import decode_labels, encode_context
from envfs.format.file_keys import block_codec
from envfs.format.geometry import HEADER_SIZE, Geometry
from envfs.format.header import (
    HeaderArea,
    ParsedSlot,
    Slot,
    dek_context,
    header_key,
    parse_header_area,
    verify_slot,
    volume_context,
)
from envfs.format.place import ANYWHERE, Kind, Where
from envfs.format.volume import VolumeFile
from envfs.format.volume_keys import VolumeKeys
from envfs.fs.content import Buffers, Content
from envfs.fs.directories import Directories
from envfs.fs.lower import OPEN_READ, OPEN_WRITE
from envfs.fs.nodes import Node, NodeTable
from envfs.fs.raised_mode import open_writable
from envfs.fs.undo import Undo
from envfs.kms.foreign.exchange import Pending
from envfs.kms.model import Principal, RequestFacts

if TYPE_CHECKING:
    from envfs.access.resolver import Resolver
    from envfs.kms.engine import Engine

log = logging.getLogger("envfs.fs")

SERVICE = "envfs"
_MOST_RENEWED = 200_000  # files; some 40 MB
_READ_ACTION = "kms:Decrypt"
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
        keys: VolumeKeys,
        undo: Undo,
        engine: Engine,
        resolver: Resolver,
        *,
        ordered: bool,
    ) -> None:
        self._nodes = nodes
        self._directories = directories
        self._volume = volume
        self._keys = keys
        self._place_key = keys.place
        self._undo = undo
        self._ordered = ordered
        self._engine = engine
        self._resolver = resolver
        self._renewed: dict[bytes, int] = {}  # file id → number of the header that it got with its new key
        self.geometry = Geometry(1 << volume.block_log2)
        self.alarm: Callable[[str, str], None] = nodes.alarm
        self._buffers = Buffers(self.geometry)

    # Existing files

    def open(self, node: Node, caller: Caller, *, write: bool) -> Content:
        """The content of a regular file for a caller who may read it, or read and write it.

        Raises AccessDenied, Disabled and the other KmsErrors of the decision; IntegrityError for a damaged header, a
        wrong place, or a file that was cut; OSError of the lower directory.
        """
        if node.is_retired:  # another node stands for what is there now: two contents of one file would destroy it
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        principal = self._resolver.resolve(caller.uid, caller.gid, caller.pid)
        facts = RequestFacts(via_service=SERVICE, path=node.path(), access="write" if write else "read")
        content = node.content
        if content is None:
            return self._open_lower(node, principal, facts, write=write)
        self._nodes.patience.lacks = False  # the KMS is to be asked once
        fresh = None
        if content.keyed:
            if not node.placed:
                self.check_place(node, content.place, content.slot.file_id)
            dek = self._unwrap(principal, content.slot, facts)
            if content.is_locked:  # nobody of those who have it open may have its keys again
                self.take_back(content, dek)
            dek.wipe()
        elif write:
            fresh = self._key_for(node, content, principal, facts)
        else:
            self._admit_reader(node, content, principal, facts)
        if write and not content.writable:
            content.make_writable(self.open_for_writing(node) if node.pin < 0 and node.located else _reopen(content.fd))
        if fresh is not None:
            content.take_key(fresh)
            node.object_id, node.placed = fresh.slot.file_id, True
        return content

    def _open_lower(self, node: Node, principal: Principal, facts: RequestFacts, *, write: bool) -> Content:
        fd = self.open_for_writing(node) if write else self._nodes.open(node, OPEN_READ)
        try:
            found = os.fstat(fd)
            if not stat_module.S_ISREG(found.st_mode):
                raise IntegrityError(f"{node.path()} is no regular file any more")
            area = parse_header_area(self._nodes.patience.read_header(fd))
            if area.is_absent:
                content = self._open_empty(node, fd, found, principal, facts, write=write)
            else:
                content = self._open_with_header(node, fd, found, area, principal, facts, write=write)
        except BaseException:
            os.close(fd)
            raise
        node.content = content
        return content

    def open_for_writing(self, node: Node) -> int:
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
            content = self._new_content(node, fd, principal, facts, found)
            self._check_unchanged(node, None, 0)
            node.object_id, node.placed = content.slot.file_id, True
            return content
        content = self._keyless_content(node, fd)
        self._admit_reader(node, content, principal, facts)
        self._check_unchanged(node, None, 0)
        return content

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
            ordered=self._ordered,
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

    def _admit_reader(self, node: Node, content: Content, principal: Principal, facts: RequestFacts) -> None:
        """Whether somebody may have a file open that has no DEK yet: as if it had one of its directory's key.

        He will read what others write into it, through this handle or out of the page cache. Raises AccessDenied.
        """
        parent = self._parent(node)
        context = self._directories.effective_labels(parent) | volume_context(self._volume.volume_id)
        key_arn = self._directories.effective_key(parent)
        decision = self._engine.explain(principal, _READ_ACTION, key_arn, context, facts)
        if not decision.allowed:
            raise AccessDenied(f"{principal.arn} may not read what will be written to {node.path()}: {decision.text}")
        content.readers[principal.uid] = principal, facts

    def _key_for(self, node: Node, content: Content, principal: Principal, facts: RequestFacts) -> Content:
        """A writer comes to a file without header that readers have open: the keys that their content gets.

        Each of them must be allowed to read under the key that it is in the end, or the writer has to wait.
        """
        fresh = self._new_content(node, content.fd, principal, facts, os.fstat(content.fd))
        for reader, his_facts in content.readers.values():
            try:
                self._unwrap(reader, fresh.slot, his_facts).wipe()
            except KmsError as error:
                log.warning("%s is open for a reader who may not see it: %s", node.path(), error)
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY)) from None
        return fresh

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
        parsed, slot_key, file_key = self._first_authentic(node, area, principal, facts)
        slot = parsed.slot
        try:
            if slot.block_log2 != self._volume.block_log2:
                raise IntegrityError(f"{node.path()} has another block size than its volume")
            codec = self._codec(file_key, slot)
        finally:
            file_key.wipe()
        size = self.geometry.plain_size(found.st_size)
        if size < slot.length_bound:
            raise IntegrityError(f"{node.path()} was cut: {size} bytes are left of at least {slot.length_bound}")
        self.check_newest(slot.file_id, slot.sequence)
        self._check_unchanged(node, slot.file_id, size, slot.sequence)
        node.object_id = slot.file_id
        return Content(
            node,
            fd,
            undo=self._undo,
            ordered=self._ordered,
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

    def _check_unchanged(self, node: Node, file_id: bytes | None, size: int, sequence: int = 0) -> None:
        """What the kernel holds of the file, its size and pages, must be of what is there now.

        Otherwise somebody has put another state in its place: OSError(ESTALE) makes the kernel look it up again.
        """
        is_older = file_id is not None and node.object_id == file_id and sequence < node.sequence
        if node.object_id in {None, file_id} and node.size in {None, size} and not is_older:
            return
        self._nodes.retire(node)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def renewed(self, file_id: bytes, sequence: int) -> None:
        """A file got a new DEK or blob in this mount: no header with a lower number is in force from now on."""
        if len(self._renewed) >= _MOST_RENEWED and file_id not in self._renewed:
            del self._renewed[next(iter(self._renewed))]
        self._renewed[file_id] = sequence

    def check_newest(self, file_id: bytes, sequence: int) -> None:
        """IntegrityError for a header from before what `renewed` told."""
        if sequence < self._renewed.get(file_id, 0):
            raise IntegrityError("an older header was put back in place of the one that was written")

    def check_place(self, node: Node, place: bytes, file_id: bytes) -> None:
        """Also for a file that has lost its name: it belongs where it had it."""
        if not self._place_key.check(place, Kind.FILE, file_id, self._directories.where(node)):
            raise IntegrityError(f"{node.path()} does not belong where it stands: it was moved, swapped or copied")
        node.placed = True

    def _first_authentic(
        self, node: Node, area: HeaderArea, principal: Principal, facts: RequestFacts
    ) -> tuple[ParsedSlot, bytes, Secret]:
        """The newest slot whose MAC is right under the DEK in it, with its header key and the file key."""
        denied: KmsError | None = None
        for parsed in area.slots:
            try:
                file_key = self._file_key(self._unwrap(principal, parsed.slot, facts))
            except (AccessDenied, NotFound) as error:
                # A damaged blob may name a key that does not exist; the one in the other slot is asked for on its own.
                if all(other.slot.blob == parsed.slot.blob for other in area.slots):
                    raise
                denied = denied or error
                continue
            except InvalidCiphertext:
                self._tell_bad_slot(node, parsed)
                continue
            slot_key = header_key(file_key, parsed.slot.file_id)
            if verify_slot(parsed.raw, slot_key):
                return parsed, slot_key, file_key
            file_key.wipe()
            self._tell_bad_slot(node, parsed)
        if denied is not None:
            raise denied
        raise IntegrityError(f"no header slot of {node.path()} is authentic")

    def _tell_bad_slot(self, node: Node, parsed: ParsedSlot) -> None:
        """The other slot may be sound: then nothing fails, and somebody should know."""
        problem = f"header slot {parsed.position} of {node.path()} is damaged"
        log.warning("%s", problem)
        self.alarm("open", problem)

    def _unwrap(self, principal: Principal, slot: Slot, facts: RequestFacts) -> Secret:
        """The DEK, as the KMS decides."""
        context = dek_context(self._volume.volume_id, slot.file_id, decode_labels(slot.labels))
        also = _WRITE_ACTIONS if facts.access == "write" else ()
        try:
            return self._engine.decrypt(principal, slot.blob, context, facts, also=also)
        except AccessDenied:
            if self._engine.has_key_of(slot.blob):
                raise
            raise NotFound("the file's key does not exist: it was deleted, or is of another KMS") from None

    def restore(self, content: Content, principal: Principal, facts: RequestFacts) -> None:
        """The keys of an open content that were wiped from memory, unwrapped anew for somebody who has it open.

        Raises as `open` does.
        """
        if not content.keyed:
            content.is_locked = False  # there was nothing but a placeholder
            return
        self.take_back(content, self._unwrap(principal, content.slot, facts))

    def take_back(self, content: Content, dek: Secret) -> None:
        """The keys of a content that were wiped from memory, out of its DEK, which is wiped."""
        with self._file_key(dek) as file_key:
            codec = self._codec(file_key, content.slot)
            if codec.generation != generation_of(content.sealed):  # the header could not be written before
                codec.advance(generation_of(content.sealed))
            content.take_back_keys(header_key(file_key, content.slot.file_id), codec)

    def _file_key(self, dek: Secret) -> Secret:
        return self._keys.file_key(dek, is_bound=self._volume.is_bound)

    def _codec(self, file_key: Secret, slot: Slot) -> BlockCodec:
        return block_codec(file_key, slot, self.geometry)

    # New files

    def authorise_creation(self, parent: Node, name: bytes, caller: Caller) -> tuple[Principal, RequestFacts]:
        """Who creates what, in the terms of the KMS; the uid must have a name."""
        path = parent.path().rstrip("/") + "/" + name.decode("utf-8", "surrogateescape")
        principal = self._resolver.resolve(caller.uid, caller.gid, caller.pid)
        return principal, RequestFacts(via_service=SERVICE, path=path, access="create")

    def prepare(self, parent: Node, where: Where, principal: Principal, facts: RequestFacts) -> Prepared:
        """A DEK for a new file in `parent`, before anything is created. Raises as `open` does."""
        labels = self._directories.effective_labels(parent)
        file_id = self._engine.recall() or secrets.token_bytes(16)
        context = dek_context(self._volume.volume_id, file_id, labels)
        key_arn = self._directories.effective_key(parent)
        try:
            data_key = self._engine.generate_data_key(principal, key_arn, context, facts)
        except Pending as pending:
            pending.kept = file_id  # the answer will be one for this context
            raise
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
        with self._file_key(data_key.plaintext) as file_key:
            slot_key = header_key(file_key, file_id)
            codec = self._codec(file_key, slot)
        place = self._place_key.pack(Kind.FILE, file_id, where, None)
        return Prepared(slot, slot_key, codec, place)

    def content_of(self, node: Node, prepared: Prepared, fd: int) -> Content:
        """The content of a file that was just created; its header is not on disk yet."""
        return Content(
            node,
            fd,
            undo=self._undo,
            ordered=self._ordered,
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
        where = self._directories.where(node) if found.st_nlink == 1 else ANYWHERE
        return self.content_of(node, self.prepare(self._parent(node), where, principal, facts), fd)

    @staticmethod
    def _parent(node: Node) -> Node:
        if node.parent is None:
            raise IntegrityError(f"{node.path()} has no name any more and no header")
        return node.parent


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
