"""`-o idle=10m`: unmounting what nobody uses any more.

A mount is idle when no file or directory in it is open and the kernel has asked nothing for that long. Whether a
process still stands in it (its working directory, say) the kernel alone knows, and says so by refusing to unmount:
then the time begins anew.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol

import trio

from envfs.errors import EnvfsError
from envfs.service import unmount

if TYPE_CHECKING:
    from collections.abc import Sized

log = logging.getLogger(__name__)

# How often it is looked at, in parts of the time: it ends at most so much later than it should.
_PARTS: Final = 4
_LONGEST_PAUSE: Final = 60.0


class Served(Protocol):
    """What is to be known of a filesystem."""

    @property
    def requests(self) -> int: ...

    @property
    def handles(self) -> Sized: ...

    @property
    def listings(self) -> Sized: ...


async def unmount_when_idle(filesystem: Served, mountpoint: str, seconds: float) -> None:
    """Return when the mount is gone, because it was idle for `seconds`."""
    seen, since = filesystem.requests, trio.current_time()
    while True:
        await trio.sleep(min(seconds / _PARTS, _LONGEST_PAUSE))
        now = trio.current_time()
        if filesystem.requests != seen or filesystem.handles or filesystem.listings:
            seen, since = filesystem.requests, now
        elif now - since >= seconds:
            try:
                await trio.to_thread.run_sync(lambda: unmount.detach(mountpoint, lazy=False), abandon_on_cancel=True)
            except (EnvfsError, OSError) as error:
                log.info("idle, and not unmounted: %s", error)
                seen, since = filesystem.requests, trio.current_time()
            else:
                log.info("idle for %g seconds: unmounted", seconds)
                return
