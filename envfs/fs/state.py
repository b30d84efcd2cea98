"""What the parts of a mounted volume share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from envfs.format.place import Where
from envfs.format.volume import VolumeFile
from envfs.format.volume_keys import VolumeKeys
from envfs.fs.alarms import Alarms
from envfs.fs.directories import Directories
from envfs.fs.durability import Unsynced
from envfs.fs.journal import Journal
from envfs.fs.nodes import Node, NodeTable
from envfs.fs.opening import Caller, Opener
from envfs.fs.promises import Promises

if TYPE_CHECKING:
    from envfs.access.resolver import Resolver
    from envfs.kms.engine import Engine


@dataclass(frozen=True, slots=True)
class FsOptions:
    """How a mount behaves. `poll`: look for requests for a moment before sleeping (None: if there are two cores)."""

    noxattr: bool = False
    read_only: bool = False
    acl: bool = False
    poll: bool | None = None
    writeback: bool = True
    allow_other: bool = False
    # Each file's pages are one user's; whoever else opens it goes past the page cache. Without write-back.
    isolate: bool = False
    # Whether what may be on the disk goes to the journal before it is written over.
    journal: bool = True
    # Nobody else writes the lower directory, so what the kernel knows stays true; seconds.
    entry_timeout: float = 86400.0


@dataclass(slots=True)
class VolumeState:
    """One mounted volume: nodes, keys and the parts that work on them."""

    volume: VolumeFile
    keys: VolumeKeys
    options: FsOptions
    nodes: NodeTable
    directories: Directories
    opener: Opener
    promises: Promises
    engine: Engine
    resolver: Resolver
    unsynced: Unsynced
    alarms: Alarms
    never_blocks: bool
    uid: int
    gid: int
    journal: Journal | None = None
    key_changed: Callable[[Node], None] = lambda _: None  # an open file is under another key now
    rekeyed: set[Node] = field(default_factory=set)  # those that get a new DEK just now

    def name_gone(self, found: os.stat_result, node: Node | None) -> None:
        """A name of a file was removed. `found`: what the file was before; `node`: if we know it."""
        if node is not None:
            self.promises.gone(node)
        if self.journal is not None and found.st_nlink == 1:
            self.journal.gone(found.st_ino)

    def directory_fd(self, node: Node) -> int:
        return self.nodes.directory_fd(node)

    def where(self, parent: Node, full_name: bytes) -> Where:
        """The place of the name `full_name` in a directory."""
        return Where(self.directories.load(parent).directory_id, full_name)

    def is_own(self, caller: Caller) -> bool:
        """Whether what the daemon creates belongs to the caller without a chown."""
        return (caller.uid == self.uid and caller.gid == self.gid) or self.uid != 0

    def owner_for(self, caller: Caller, dir_fd: int) -> tuple[int, int]:
        """Owner and group of something new in a directory; the group -1 where the directory hands down its own."""
        inherits = os.fstat(dir_fd).st_mode & 0o2000
        return caller.uid, -1 if inherits else caller.gid
