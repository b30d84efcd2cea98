"""One mounted volume, put together; and what an administrator may ask of it."""

from __future__ import annotations

import errno
import logging
import os
import resource
import stat as stat_module
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from envfs.access import unix_modes
from envfs.errors import ConfigError
from envfs.format.context import decode_labels
from envfs.format.geometry import HEADER_SIZE
from envfs.format.header import HeaderArea, dek_context, parse_header_area
from envfs.format.place import Kind
from envfs.format.volume import VolumeFile
from envfs.format.volume_keys import VolumeKeys
from envfs.fs import lower, raised_mode, recovery
from envfs.fs.alarms import Alarms
from envfs.fs.attributes import close_handle
from envfs.fs.belonging import Belonging
from envfs.fs.content import Content
from envfs.fs.counters import Counters
from envfs.fs.directories import Directories
from envfs.fs.durability import Unsynced
from envfs.fs.handles import Handle, Opened
from envfs.fs.listing import Listing
from envfs.fs.locking import Lock
from envfs.fs.moving import Mover
from envfs.fs.nodes import Node, NodeTable
from envfs.fs.opening import Opener
from envfs.fs.patience import Patience
from envfs.fs.promises import Promises
from envfs.fs.revocation import Revocation
from envfs.fs.state import FsOptions, VolumeState
from envfs.fs.symlinks import Symlinks
from envfs.fs.tree import Tree
from envfs.fs.undo import Undo, recover
from envfs.fs.xattrs import Xattrs

if TYPE_CHECKING:
    from envfs.access.resolver import Resolver
    from envfs.kms.engine import Engine

__all__ = ["Filesystem", "FsOptions", "Handle"]


log = logging.getLogger("envfs.fs")


class Scope(NamedTuple):
    """A directory (its path in the volume), and the key and labels of new files in it."""

    path: str
    key_arn: str
    labels: dict[str, str]


class Filesystem:
    """The volume in `lower_path`, ready to be served. Raises OSError, IntegrityError."""

    def __init__(
        self,
        lower_path: Path,
        volume: VolumeFile,
        keys: VolumeKeys,
        engine: Engine,
        resolver: Resolver,
        options: FsOptions,
    ) -> None:
        root_fd = os.open(lower_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        nodes = NodeTable(root_fd, most_descriptors=max(16, min(4096, most_files // 4)))
        kind = lower.kind_of(root_fd)
        never_blocks = kind is lower.Kind.MEMORY
        nodes.patience = Patience(kind)
        directories = Directories(nodes, keys, volume, in_memory=never_blocks)
        self._undo = undo = Undo(
            root_fd, keys.undo, has_journal=options.journal and not (never_blocks or options.read_only)
        )
        self._alarms = Alarms(partial(engine.record_integrity_failure, volume.volume_id))
        nodes.alarm = self._alarms.tell
        opener = Opener(nodes, directories, volume, keys, undo, engine, resolver, ordered=not never_blocks)
        self.state = VolumeState(
            volume=volume,
            keys=keys,
            options=options,
            nodes=nodes,
            directories=directories,
            opener=opener,
            promises=Promises(nodes, opener.open_for_writing, at_once=never_blocks),
            engine=engine,
            resolver=resolver,
            unsynced=Unsynced(root_fd, needed=not never_blocks),
            alarms=self._alarms,
            never_blocks=never_blocks,
            uid=os.geteuid(),
            gid=os.getegid(),
            journal=undo.journal,
        )
        symlinks = Symlinks(keys.symlinks, self.state.unsynced)
        self.tree = Tree(self.state, symlinks)
        nodes.belonging = Belonging(nodes, directories, keys, symlinks)
        self.mover = Mover(self.state, self.tree, symlinks)
        self.xattrs = Xattrs(self.state)
        self.handles: dict[int, Handle] = {}
        self.revocation = Revocation(self.state, self.handles)
        self.state.key_changed = self.revocation.look_at
        self.lock = Lock(self.state, self.handles, self.revocation)
        self.listings: dict[int, Listing] = {}
        self._next_handle = 1
        self.counters = Counters()
        try:
            directories.load(nodes.root)
            if not options.read_only:
                raised_mode.restore(root_fd)
                recover(root_fd, keys.undo)
                recovery.recover(root_fd, keys.undo, volume.block_log2, undo.boot_id)
            else:
                recovery.tell_what_waits(root_fd, keys.undo, volume.block_log2)
        except BaseException:
            self.close()
            raise

    @property
    def requests(self) -> int:
        """How many requests there were."""
        return self.counters.requests

    def add_handle(self, node: Node, content: Content, opened: Opened | None = None) -> int:
        """A new file handle on a content. `opened` None: for nobody whose access could be taken away."""
        content.handles += 1
        if content.writable and self.state.options.writeback:
            content.hold_mtime()
        used = self.counters.of(self.state.uid if opened is None else opened.uid)
        used.opens += 1
        number = self._next_handle
        self._next_handle += 1
        handle = self.handles[number] = Handle(node, content, used, opened)
        if opened is not None:
            if opened.direct:
                content.direct_handles += 1
            else:
                content.cached_by = opened.uid
            self.revocation.opened(handle)
        return number

    def release(self, number: int) -> None:
        """The last close of a file handle."""
        handle = self.handles.pop(number)
        if handle.is_direct:
            handle.content.direct_handles -= 1
        if handle.guard is not None:
            self.revocation.closed(handle)
        handle.opened = None
        close_handle(self.state, handle.node, handle.content)

    def add_listing(self, node: Node) -> int:
        """A new directory handle. The directory must be authentic before anything in it is shown."""
        self.state.directories.load(node)
        number = self._next_handle
        self._next_handle += 1
        self.listings[number] = Listing(self.state, node)
        return number

    def sync_work(self) -> Callable[[], None] | None:
        """What must be synced before anything else may be said to be; for a thread."""
        return self.state.unsynced.take()

    def close(self) -> None:
        """Close every handle, writing what headers promise, and every descriptor."""
        for number in list(self.handles):
            try:
                self.release(number)
            except OSError:
                log.exception("a header could not be written")  # of one file; the others are to be closed all the same
        try:
            self.state.promises.keep_now()
        except OSError:
            log.exception("what was written could not be synced; the headers keep older length bounds")
        self._undo.close()
        self.state.unsynced.close()
        self.state.nodes.close()

    # For the control socket and the command line

    def stats(self) -> dict[str, int]:
        """Counters of this mount."""
        contents = {id(handle.content) for handle in self.handles.values()}
        return {
            "nodes": len(self.state.nodes),
            "file_handles": len(self.handles),
            "open_files": len(contents),
            "directory_handles": len(self.listings),
            "length_bounds_to_raise": len(self.state.promises),
            "requests": self.requests,
        }

    def _header_area(self, node: Node) -> tuple[HeaderArea, os.stat_result]:
        fd = self.state.nodes.open(node, lower.OPEN_READ)
        try:
            return parse_header_area(os.pread(fd, HEADER_SIZE, 0)), os.fstat(fd)
        finally:
            os.close(fd)

    def _regular(self, node_id: int) -> Node:
        node = self.tree.node(node_id)
        if not node.is_regular:
            raise ConfigError(f"{node.path()} is no regular file", hint="only regular files have a key of their own")
        return node

    def describe_file(self, node_id: int) -> dict[str, Any]:
        """What the header in force says of a regular file, without its DEK. Sizes in bytes."""
        node = self._regular(node_id)
        content = node.content
        if content is not None and content.keyed and content.position < 0:
            content.write_first_header()
        area, found = self._header_area(node)
        result: dict[str, Any] = {
            "path": node.path(),
            "plain_size": self.tree.plain_size(node, found),
            "cipher_size": found.st_size,
            "has_header": not area.is_absent,
        }
        if area.is_absent:
            return result
        slot = area.slots[0].slot
        located = node.located and self.state.keys.place.check(
            area.place_raw, Kind.FILE, slot.file_id, self.state.directories.where(node)
        )
        return result | {
            "key": self.state.engine.key_arn_of_blob(slot.blob),
            **slot.facts(),
            "at_its_place": located,
        }

    def describe_directory(self, node_id: int) -> dict[str, Any]:
        """Key and labels that new files in a directory get, and which of them are its own."""
        node = self._directory(node_id)
        directory = self.state.directories.load(node)
        return {
            "path": node.path(),
            "directory_id": directory.directory_id.hex(),
            "own_key": directory.key_arn or None,
            "key": self.state.directories.effective_key(node),
            "own_labels": dict(directory.labels),
            "labels": self.state.directories.effective_labels(node),
        }

    def parents_key(self, node_id: int) -> tuple[str, dict[str, str]] | None:
        """Key and labels of the directory above a directory; None for the root."""
        parent = self._directory(node_id).parent
        directories = self.state.directories
        return None if parent is None else (directories.effective_key(parent), directories.effective_labels(parent))

    def is_directory(self, node_id: int) -> bool:
        return self.tree.node(node_id).is_directory

    def scope_directory(self, node_id: int) -> Scope | None:
        """Of the directories above a file (or the directory itself), the nearest whose key or labels set it apart."""
        node = self.tree.node(node_id)
        at = node if node.is_directory else node.parent
        directories = self.state.directories
        while at is not None:
            found = directories.effective_key(at), directories.effective_labels(at)
            above = at.parent
            if above is None or found != (directories.effective_key(above), directories.effective_labels(above)):
                return Scope(at.path(), *found)
            at = above
        return None

    def unix_inodes(self, node_id: int) -> list[unix_modes.Inode]:
        """What the kernel looks at on the way from the mount's root to a node: the root first, the node last."""
        nodes: list[Node] = []
        at: Node | None = self.tree.node(node_id)
        while at is not None:
            nodes.append(at)
            at = at.parent
        return [self._unix_inode(node) for node in reversed(nodes)]

    def _unix_inode(self, node: Node) -> unix_modes.Inode:
        found = self.tree.stat(node)
        acl = None
        if self.state.options.acl:
            try:
                acl = self.xattrs.get(node, unix_modes.ACL_XATTR.encode())
            except OSError:
                pass  # it has none
        return unix_modes.Inode(node.path(), stat_module.S_IMODE(found.st_mode), found.st_uid, found.st_gid, acl)

    def _directory(self, node_id: int) -> Node:
        node = self.tree.node(node_id)
        if not node.is_directory:
            raise ConfigError(f"{node.path()} is no directory", hint="name a directory below the mountpoint")
        return node

    def set_directory_key(self, node_id: int, key_arn: str) -> None:
        """New files below the directory get the CMK `key_arn`. Existing files keep theirs."""
        if self.state.options.read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        self.state.directories.set_key(self._directory(node_id), key_arn)

    def set_directory_labels(self, node_id: int, labels: dict[str, str]) -> None:
        """New files below the directory get these labels beside inherited ones. Existing files keep theirs."""
        if self.state.options.read_only:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        self.state.directories.set_labels(self._directory(node_id), labels)

    def owner(self, node_id: int) -> int:
        """The uid that a node belongs to."""
        return self.tree.stat(self.tree.node(node_id)).st_uid

    def dek_request(self, node_id: int) -> tuple[bytes, dict[str, str], str]:
        """What an open of the file would ask the KMS to decrypt: (blob, encryption context, path)."""
        node = self._regular(node_id)
        content = node.content
        if content is not None and content.keyed and content.position < 0:
            content.write_first_header()
        area, _ = self._header_area(node)
        if area.is_absent:
            raise ConfigError(f"{node.path()} is empty and has no key yet", hint="ask for --access create instead")
        slot = area.slots[0].slot
        context = dek_context(self.state.volume.volume_id, slot.file_id, decode_labels(slot.labels))
        return slot.blob, context, node.path()

    def directory_key(self, node_id: int) -> tuple[str, dict[str, str], str]:
        """What creating a file in the directory would need: (key ARN, labels, path)."""
        node = self._directory(node_id)
        directories = self.state.directories
        return directories.effective_key(node), directories.effective_labels(node), node.path()
