"""What root may set for a mount beside the mount: read-ahead and the number of background requests.

The kernel reads ahead 128 KiB, so a sequential reader waits for eight requests where one of 1 MiB would do; and it
has at most 12 requests under way that nobody waits for. Both are in sysfs under the mount's device number, which
comes from mountinfo: a stat(2) of the mountpoint would be a request to the caller itself.
"""

from __future__ import annotations

import logging
from pathlib import Path

READ_AHEAD_KIB = 1024
MAX_BACKGROUND = 64

_log = logging.getLogger(__name__)


def tune_mount(device: str) -> None:
    """Raise both for the mount with this device number, as far as the system lets us."""
    minor = device.partition(":")[2]
    _set(Path(f"/sys/class/bdi/{device}/read_ahead_kb"), READ_AHEAD_KIB)
    _set(Path(f"/sys/fs/fuse/connections/{minor}/congestion_threshold"), MAX_BACKGROUND * 3 // 4)
    _set(Path(f"/sys/fs/fuse/connections/{minor}/max_background"), MAX_BACKGROUND)


def _set(path: Path, value: int) -> None:
    try:
        path.write_text(f"{value}\n", encoding="utf-8")
    except OSError as error:  # in a container sysfs is read-only, fusectl not mounted; the mount is slower, no more
        _log.debug("%s could not be set: %s", path, error)
