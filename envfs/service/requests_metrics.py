"""What a mount tells of its work: `metrics`, for root and the mount's owner alone."""

from __future__ import annotations

import errno
import os
import pwd
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envfs.errors import AccessDenied
from envfs.fs.counters import OTHERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envfs.access.peer import Peer
    from envfs.service.mount_context import MountContext, Operation

_PAGE = os.sysconf("SC_PAGE_SIZE")


def operations(context: MountContext) -> dict[str, Operation]:
    """By the names that requests have."""

    def metrics(peer: Peer, _request: Mapping[str, Any], _descriptor: int | None) -> dict[str, Any]:
        if peer.uid not in (0, os.geteuid()):
            raise AccessDenied(
                "what a mount does is told to root and to the mount's owner", hint="ask as one of them: sudo envfs top"
            )
        return measure(context)

    return {"metrics": metrics}


def measure(context: MountContext) -> dict[str, Any]:
    """Counters since the mount began, and how large things are now. Bytes and seconds."""
    counted: Any = context.filesystem.counters.values()
    return {
        "mountpoint": context.facts.mountpoint,
        "uptime_seconds": round(time.time() - context.facts.started, 3),
        "operations": counted["operations"],
        "failures": {_errno_name(number): count for number, count in counted["failures"].items()},
        "users": {_user_name(uid): values for uid, values in counted["users"].items()},
        "sizes": context.filesystem.stats(),
        "process": _process(),
    }


def _errno_name(number: int) -> str:
    return errno.errorcode.get(number, str(number))


def _user_name(uid: int) -> str:
    if uid == OTHERS:
        return "(others)"
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def _process() -> dict[str, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {"cpu_seconds": round(used.ru_utime + used.ru_stime, 3), "resident_bytes": pages * _PAGE}
