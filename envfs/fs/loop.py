"""Serving a mount: from pyfuse3.init to the last unmount."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

import pyfuse3
import trio

from envfs.foreign.waiting import MOST
from envfs.fs.filesystem import Filesystem, FsOptions
from envfs.fs.kernel_cache import KernelCache
from envfs.fs.operations import Operations
from envfs.fs.waiting import replaced_trio

# One task serves; others come in while it waits for a thread, or for a foreign KMS: more than may wait for those, so
# that as many again may wait for the lower filesystem.
_MOST_TASKS = MOST + 64


def stop() -> None:
    """End `serve`; from within trio."""
    pyfuse3.terminate()


async def serve(
    filesystem: Filesystem,
    mountpoint: str,
    *,
    fuse_options: set[str],
    options: FsOptions,
    on_ready: Callable[[], None],
) -> None:
    """Mount `filesystem` and serve it until it is unmounted or `stop` is called; then unmount.

    The caller closes the filesystem. `on_ready` is called when the kernel has accepted the mount. Raises RuntimeError
    if mounting fails.
    """
    looks = len(os.sched_getaffinity(0)) > 1 if options.poll is None else options.poll
    pyfuse3.init(Operations(filesystem, on_ready), mountpoint, fuse_options)
    try:
        async with replaced_trio(looks=looks), trio.open_nursery() as nursery:
            nursery.start_soon(filesystem.state.promises.keep_for_ever)
            cache = filesystem.lock.cache = KernelCache(mountpoint)
            nursery.start_soon(filesystem.revocation.watch, cache)
            # Those of the mount, and some for what does not come out of a request.
            trio.to_thread.current_default_thread_limiter().total_tokens = _MOST_TASKS + 8
            await pyfuse3.main(1, _MOST_TASKS)
            nursery.cancel_scope.cancel()
    finally:
        with contextlib.suppress(RuntimeError):
            pyfuse3.close(unmount=True)
