"""Locking and unlocking a mount.

    lock      root and the mount's owner
    unlock    the same; the descriptor is the reading end of a pipe with the KMS's root key in it, 32 bytes

Whoever opens the KMS opens it in his own process, by whatever slot he can: the daemon need not know how.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from envfs.crypto.kdf import KEY_SIZE
from envfs.crypto.secret import Secret
from envfs.errors import AccessDenied, ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envfs.access.peer import Peer
    from envfs.service.locking import MountLock
    from envfs.service.mount_context import MountContext, Operation
    from envfs.service.reporting import LongOperation, Reporter


def operations(context: MountContext) -> dict[str, Operation]:
    """The operations of this topic, by name."""
    mount_lock = context.mount_lock
    if mount_lock is None:
        return {}
    topic = _Locking(mount_lock)
    return {"lock": topic.lock, "unlock": topic.unlock}


class _Locking:
    def __init__(self, mount_lock: MountLock) -> None:
        self._lock = mount_lock

    def lock(self, peer: Peer, _request: Mapping[str, Any], _descriptor: int | None) -> LongOperation:
        _check(peer)

        async def work(_: Reporter) -> dict[str, Any]:
            await self._lock.lock()
            return {}

        return work

    def unlock(self, peer: Peer, _request: Mapping[str, Any], descriptor: int | None) -> LongOperation:
        _check(peer)
        if descriptor is None:
            raise ConfigError("the request needs the root key, in a pipe")
        os.set_blocking(descriptor, False)
        raw = bytearray(KEY_SIZE)
        try:
            count = os.readv(descriptor, [raw])
        except OSError:
            count = 0
        root_key = Secret.adopt(raw)
        if count != KEY_SIZE:
            root_key.wipe()
            raise ConfigError("the root key is not in the pipe")

        async def work(_: Reporter) -> dict[str, Any]:
            await self._lock.unlock(root_key)
            return {}

        return work


def _check(peer: Peer) -> None:
    if peer.uid not in (0, os.geteuid()):
        raise AccessDenied("only root and the mount's owner may lock and unlock it", hint="ask them")
