"""What a process that holds keys does for their sake, as far as Linux and CPython allow. See docs/THREAT_MODEL.md.

prctl(2) PR_SET_DUMPABLE 0: no core dump, no ptrace and no /proc/PID/mem for processes of the same user. RLIMIT_CORE
0: no core even where a handler in /proc/sys/kernel/core_pattern ignores the former. mlockall(2): nothing that was in
memory reaches the swap; only where the limit cannot make a later allocation fail, which means with CAP_IPC_LOCK or an
unlimited RLIMIT_MEMLOCK.
"""

from __future__ import annotations

import ctypes
import resource
import struct
from dataclasses import dataclass

_PR_SET_DUMPABLE = 4  # <linux/prctl.h>
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4  # <asm-generic/mman.h>
_CAP_IPC_LOCK, _CAP_SYS_RESOURCE = 14, 24  # <linux/capability.h>
_CAPABILITY_VERSION_3 = 0x20080522


@dataclass(frozen=True, slots=True)
class Protection:
    """What was reached. `descriptors` is the soft RLIMIT_NOFILE now in force."""

    undumpable: bool
    memory_locked: bool
    descriptors: int


def protect_process() -> Protection:
    """Apply all of it to this process; what the system refuses is left out and reported, never an error."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    undumpable = libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
    return Protection(undumpable, _lock_memory(libc), _raise_descriptor_limit())


def heed_quotas() -> bool:
    """Give up CAP_SYS_RESOURCE, with which the quotas of users do not hold for what root writes into their files.

    For this thread and those that it starts: to be called before there are others, and after the limits were raised.
    Whether the process is without it now.
    """
    return give_up_capability(_CAP_SYS_RESOURCE)


def give_up_capability(number: int) -> bool:
    """Whether this thread is without it now, and what it starts."""
    if not _has_capability(number):
        return True
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    sets = ctypes.create_string_buffer(
        24
    )  # effective, permitted, inheritable of capabilities 0 to 31, then of the rest
    if libc.capget(header, sets) != 0:
        return False
    words = list(struct.unpack("=6I", sets.raw))
    first = number // 32 * 3
    for position in (first, first + 1):
        words[position] &= ~(1 << number % 32)
    return bool(libc.capset(header, struct.pack("=6I", *words)) == 0)


def _lock_memory(libc: ctypes.CDLL) -> bool:
    unlimited = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY
    if not unlimited and not _has_capability(_CAP_IPC_LOCK):
        return False
    # ONFAULT: pages are locked as they are touched, so the process does not grow to all that its libraries map.
    return bool(libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0)


def _has_capability(number: int) -> bool:
    with open("/proc/self/status", encoding="utf-8", errors="replace") as status:  # noqa: PTH123
        for line in status:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> number & 1)
    return False


def _raise_descriptor_limit() -> int:
    """Every open file and every busy inode of a mount holds a descriptor: take as many as we may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
