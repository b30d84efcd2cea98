"""What a mount answers on its control socket, and to whom.

| operation     | who may ask                                                                                     |
|---------------|-------------------------------------------------------------------------------------------------|
| `status`      | everybody who reaches the socket; the counters only root and the mount's owner                  |
| `file-show`   | whoever could open the path (he sends its descriptor)                                           |
| `dir-show`    | the same                                                                                        |
| `dir-set-key` | the directory's Unix owner and root, if the KMS lets them describe the key or encrypt under it |
| `explain`     | everybody about himself; root and the KMS's owner about everybody                               |
| `metrics`     | root and the mount's owner                                                                      |

Others are added in modules of their own, `requests_<topic>`, each with a function `operations(context)`. An operation
is called in the trio thread and must not block; it returns its result, or a `LongOperation` that makes it and tells how
far it is.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from envfs.access.peer import Peer
from envfs.errors import AccessDenied, ConfigError, KeyUnavailable
from envfs.format.header import volume_context
from envfs.service import requests_access, requests_keys, requests_lock, requests_metrics
from envfs.service.keys import check_labels_fit, usable_key
from envfs.service.mount_context import MountContext, MountFacts, Operation, text_field

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from envfs.access.resolver import Resolver
    from envfs.format.volume import VolumeFile
    from envfs.fs.filesystem import Filesystem
    from envfs.kms.engine import Engine
    from envfs.service.locking import MountLock
    from envfs.service.reporting import LongOperation

__all__ = ["MountFacts", "Requests"]

#: The topics with modules of their own: each takes the context of the mount and returns its operations by name.
_TOPICS: tuple[Callable[[MountContext], dict[str, Operation]], ...] = (
    requests_access.operations,
    requests_keys.operations,
    requests_lock.operations,
    requests_metrics.operations,
)
_WHILE_LOCKED = frozenset({"status", "metrics", "lock", "unlock"})


class Requests:
    """Answers the requests of one mount. `handle` is the handler of `envfs.service.control.ControlServer`."""

    def __init__(
        self,
        facts: MountFacts,
        volume: VolumeFile,
        filesystem: Filesystem,
        engine: Engine,
        resolver: Resolver,
        mount_lock: MountLock | None = None,
    ) -> None:
        context = MountContext(facts, volume, filesystem, engine, resolver, mount_lock)
        self._context = context
        self._facts = facts
        self._volume = volume
        self._filesystem = filesystem
        self._engine = engine
        self._resolver = resolver
        self._inode = context.inode
        self._operations: dict[str, Operation] = {
            "status": self._status,
            "file-show": self._file_show,
            "dir-show": self._dir_show,
            "dir-set-key": self._dir_set_key,
        }
        for topic in _TOPICS:
            self._operations |= topic(context)

    def handle(self, peer: Peer, request: Mapping[str, Any], descriptor: int | None) -> dict[str, Any] | LongOperation:
        """The result of one request; raises EnvfsError or OSError where there is none."""
        operation = self._operations.get(request["op"])
        if operation is None:
            raise ConfigError(
                f"the daemon knows no operation {request['op']!r}",
                hint="it is of another release than this command: mount again",
            )
        lock = self._context.mount_lock
        if lock is not None and lock.is_locked and request["op"] not in _WHILE_LOCKED:
            mountpoint = self._facts.mountpoint
            raise KeyUnavailable(f"{mountpoint} is locked", hint=f"envfs unlock {mountpoint}")
        return operation(peer, request, descriptor)

    def _status(self, peer: Peer, _request: Mapping[str, Any], _descriptor: int | None) -> dict[str, Any]:
        facts, volume = self._facts, self._volume
        status: dict[str, Any] = {
            "mountpoint": facts.mountpoint,
            "lower": os.fspath(facts.lower),
            "pid": os.getpid(),
            "uid": os.geteuid(),
            "uptime_seconds": round(time.time() - facts.started, 1),
            "options": list(facts.options),
            "volume_id": volume.volume_id.hex(),
            "kms_id": volume.kms_id.hex(),
            "kms_home": os.fspath(facts.home),
            "key": volume.key_arn,
            "suite": volume.suite.label,
            "block_size": volume.block_size,
            "locked": self._context.mount_lock is not None and self._context.mount_lock.is_locked,
            "log": None if facts.log is None else os.fspath(facts.log),
        }
        if peer.uid in (0, os.geteuid()):
            status["counters"] = self._filesystem.stats()
        return status

    def _file_show(self, _peer: Peer, _request: Mapping[str, Any], descriptor: int | None) -> dict[str, Any]:
        return self._filesystem.describe_file(self._inode(descriptor))

    def _dir_show(self, _peer: Peer, _request: Mapping[str, Any], descriptor: int | None) -> dict[str, Any]:
        return self._filesystem.describe_directory(self._inode(descriptor))

    def _dir_set_key(self, peer: Peer, request: Mapping[str, Any], descriptor: int | None) -> dict[str, Any]:
        self._context.require_writable()
        inode = self._inode(descriptor)
        owner = self._filesystem.owner(inode)
        if peer.uid not in (0, owner):
            raise AccessDenied(
                "only the directory's owner and root may choose its key",
                hint="ask them, or make a directory of your own",
            )
        principal = self._resolver.resolve(peer.uid, peer.gid, peer.pid)
        _, labels, path = self._filesystem.directory_key(inode)
        context = {**labels, **volume_context(self._volume.volume_id)}
        key_arn = usable_key(self._engine, principal, text_field(request, "key"), context, path)
        check_labels_fit(self._engine, key_arn, labels)
        self._filesystem.set_directory_key(inode, key_arn)
        return self._filesystem.describe_directory(inode)
