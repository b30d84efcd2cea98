"""What the operations of a mount's control socket work on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from envfs.access.peer import Peer
from envfs.errors import ConfigError
from envfs.service.errors import MountError
from envfs.service.peer import inode_in_mount
from envfs.service.reporting import LongOperation

if TYPE_CHECKING:
    from pathlib import Path

    from envfs.access.resolver import Resolver
    from envfs.format.volume import VolumeFile
    from envfs.fs.filesystem import Filesystem
    from envfs.kms.engine import Engine
    from envfs.kms.model import Principal
    from envfs.service.locking import MountLock

Operation = Callable[[Peer, Mapping[str, Any], int | None], dict[str, Any] | LongOperation]
"""(who asks, the request's members, the descriptor that came with it) → the result, or what makes it."""


@dataclass(frozen=True, slots=True)
class MountFacts:
    """What does not change while a mount lives. `options` are in the words of `-o`."""

    device: str
    mountpoint: str
    lower: Path
    home: Path
    options: tuple[str, ...]
    started: float
    log: Path | None


@dataclass(frozen=True, slots=True)
class MountContext:
    """One running mount, for the modules that answer requests about it."""

    facts: MountFacts
    volume: VolumeFile
    filesystem: Filesystem
    engine: Engine
    resolver: Resolver
    mount_lock: MountLock | None = None

    def inode(self, descriptor: int | None) -> int:
        """The inode number of the path whose descriptor the client has sent; it must lie in this mount."""
        if descriptor is None:
            raise ConfigError("the request needs the descriptor of a path")
        return inode_in_mount(descriptor, self.facts.device)

    def principal(self, peer: Peer) -> Principal:
        """Who asks, as the KMS knows him."""
        return self.resolver.resolve(peer.uid, peer.gid, peer.pid)

    def require_writable(self) -> None:
        """MountError on a read-only mount."""
        if "ro" in self.facts.options:
            raise MountError(f"{self.facts.mountpoint} is mounted read-only", hint="mount it without -o ro first")


def text_field(request: Mapping[str, Any], name: str) -> str:
    """A member that must be a text and not empty."""
    value = request.get(name)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"the request lacks {name!r}")
    return value
