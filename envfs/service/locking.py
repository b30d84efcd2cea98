"""Locking a running mount, and unlocking it: every key leaves the process, those of the KMS that it serves included."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from envfs.errors import ConfigError, EnvfsError
from envfs.fs.locking import Phase
from envfs.service.volume import open_volume

if TYPE_CHECKING:
    from pathlib import Path

    from envfs.api.server import Server
    from envfs.crypto.secret import Secret
    from envfs.format.volume_keys import VolumeKeys
    from envfs.fs.filesystem import Filesystem
    from envfs.kms.engine import Engine

_log = logging.getLogger(__name__)


class MountLock:
    """Of one mount of the volume in `lower`."""

    def __init__(self, filesystem: Filesystem, engine: Engine, server: Server, lower: Path) -> None:
        self._filesystem = filesystem
        self._engine = engine
        self._server = server
        self._lower = lower

    @property
    def is_locked(self) -> bool:
        return self._filesystem.lock.phase is not Phase.OPEN

    async def lock(self) -> None:
        """Returns when no key is left; nobody who goes away meanwhile leaves it half done."""
        with trio.CancelScope(shield=True):
            await self._filesystem.lock.lock(self._server.release, self._engine.lock)

    async def unlock(self, root_key: Secret) -> None:
        """With the root key of the KMS, which is taken over or wiped. Raises what opening KMS and volume raises."""
        if not self.is_locked:
            root_key.wipe()
            return

        def open_again() -> VolumeKeys:
            self._engine.unlock(root_key)
            try:
                return self._opened_volume()
            except BaseException:
                self._engine.lock()
                raise

        with trio.CancelScope(shield=True):
            try:
                await self._filesystem.lock.unlock(open_again)
            except BaseException:
                if not self._engine.is_locked:  # it stays locked, and so without keys
                    self._engine.lock()
                raise

    def _opened_volume(self) -> VolumeKeys:
        opened = open_volume(self._lower, self._engine)
        if opened.file.volume_id != self._filesystem.state.volume.volume_id:
            raise ConfigError(
                f"another volume stands at {self._lower} now than the one that is mounted",
                hint="put the mounted one back there, or unmount",
            )
        return opened.keys

    async def lock_quietly(self) -> None:
        """On a signal, where nobody hears of a failure."""
        try:
            await self.lock()
        except (EnvfsError, OSError):
            _log.exception("the mount could not be locked")
