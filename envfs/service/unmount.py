"""`envfs umount`: unmount, and wait until the daemon has ended, so that a script can go on."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from envfs.service import mountinfo
from envfs.service.client import Connection
from envfs.service.errors import MountError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8  # <sys/mount.h>
_SHOWN = 3


def unmount(path: str | os.PathLike[str], *, lazy: bool = False, timeout: float = 60) -> None:
    """Unmount the envfs at `path`; dead mounts too. `timeout` (seconds) is how long its daemon may take to end.

    `lazy` detaches a mount that is in use: it disappears now and ends with its last user, which is not waited for.
    Raises MountError: not mounted, not ours, in use, the daemon does not end.
    """
    entry = mountinfo.at_mountpoint(path)
    if entry is None:
        raise MountError(f"{path} is not mounted", hint="envfs status lists what is")
    if entry.fstype != mountinfo.FILESYSTEM_TYPE:
        raise MountError(f"{path} is a mount of type {entry.fstype}, not of envfs", hint="envfs status lists what is")
    daemon = _daemon_of(entry)
    try:
        detach(entry.mountpoint, lazy=lazy)
        if daemon is not None and not lazy and not _ended(daemon, timeout):
            raise MountError(
                f"{entry.mountpoint} is unmounted, but its daemon has not ended within {timeout:g} seconds",
                hint="its log is in the directory log/ of ENVFS_HOME",
            )
    finally:
        if daemon is not None:
            os.close(daemon)


def detach(mountpoint: str, *, lazy: bool) -> None:
    """The system call alone: umount2(2) for root, fusermount3(1) for everybody else. Blocks while pages are written."""
    if os.geteuid() == 0:
        _umount2(mountpoint, _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0))
        return
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", mountpoint]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MountError("fusermount3 is not installed", hint="install the package fuse3") from None
    if done.returncode != 0:
        said = done.stderr.strip().removeprefix("fusermount3: ")
        if "busy" in said.lower():
            raise _in_use(mountpoint)
        raise MountError(f"cannot unmount {mountpoint}: {said}")


def detach_after_writing(mountpoint: str) -> None:
    """For a daemon that ends by itself, in a thread of its own: unmount; if somebody uses the mount, at least write
    back.

    Unmounting writes the kernel's dirty pages back, which the daemon's loop must still serve meanwhile. Raises
    MountError if the mount is in use; what was written to it then has reached the daemon all the same.
    """
    try:
        detach(mountpoint, lazy=False)
    except MountError:
        descriptor = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            ctypes.CDLL(None).syncfs(descriptor)
        finally:
            os.close(descriptor)
        raise


def _umount2(mountpoint: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(mountpoint), flags) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EBUSY:
        raise _in_use(mountpoint)
    raise OSError(number, os.strerror(number), mountpoint)


def _daemon_of(entry: mountinfo.MountEntry) -> int | None:
    """A pidfd of the mount's daemon; None if there is none (a dead mount)."""
    try:
        with Connection(entry) as connection:
            return os.pidfd_open(connection.pid)
    except (MountError, ProcessLookupError):
        return None


def _ended(pidfd: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)  # pidfd_open(2): readable when the process has ended
    return bool(poll.poll(timeout * 1000))


def _in_use(mountpoint: str) -> MountError:
    users = list(_users(mountpoint))
    named = ", ".join(users[:_SHOWN]) + (f" and {len(users) - _SHOWN} more" if len(users) > _SHOWN else "")
    return MountError(
        f"{mountpoint} is in use" + (f" by {named}" if named else ""),
        hint="end what uses it, or detach it with --lazy: it then ends with its last user",
    )


def _users(mountpoint: str) -> Iterator[str]:
    """Processes that have something below the mountpoint open, as far as the caller may look: "bash (pid 7)"."""
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and any(_below(target, mountpoint) for target in _open_paths(process)):
            try:
                name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
            except OSError:
                continue
            yield f"{name} (pid {process.name})"


def _open_paths(process: Path) -> Iterator[str]:
    """What the links cwd, root, exe and fd/* of a process name; readlink(2) of these asks no filesystem."""
    links = [process / "cwd", process / "root", process / "exe"]
    try:
        links += (process / "fd").iterdir()
    except OSError:
        pass
    for link in links:
        try:
            yield str(link.readlink())
        except OSError:
            continue


def _below(target: str, mountpoint: str) -> bool:
    return target == mountpoint or target.startswith(mountpoint.rstrip("/") + "/")
