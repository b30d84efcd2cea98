"""The kernel's list of mounts, /proc/self/mountinfo (proc_pid_mountinfo(5)).

Everything that the life cycle has to know about a mount is read here and never by stat(2) of the mountpoint: inside the
daemon that would be a request to itself, and outside it would hang on a daemon that hangs.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

FILESYSTEM_TYPE = "fuse.envfs"
SUBTYPE = "envfs"

_FIELDS_BEFORE, _FIELDS_AFTER = 6, 3  # of the separator " - "; optional fields come on top
_MAX_LINKS = 40  # as many as Linux follows (path_resolution(7))
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One line. `device` is "major:minor", the st_dev of everything in the mount."""

    mount_id: int
    device: str
    mountpoint: str
    options: frozenset[str]
    fstype: str
    source: str
    super_options: frozenset[str]

    @property
    def owner_uid(self) -> int:
        """The uid that mounted a FUSE filesystem; 0 if the line does not say."""
        for option in self.super_options:
            if option.startswith("user_id="):
                return int(option.removeprefix("user_id="))
        return 0


def parse(text: str) -> list[MountEntry]:
    """The entries of a mountinfo text, oldest first; lines that are not understood are left out."""
    return [entry for entry in map(_parse_line, text.splitlines()) if entry is not None]


def read() -> list[MountEntry]:
    """All mounts in this process's mount namespace."""
    raw = Path("/proc/self/mountinfo").read_bytes()
    return parse(os.fsdecode(raw))


def envfs_mounts() -> list[MountEntry]:
    """The envfs mounts, oldest first."""
    return [entry for entry in read() if entry.fstype == FILESYSTEM_TYPE]


def at_mountpoint(path: str | os.PathLike[str], entries: list[MountEntry] | None = None) -> MountEntry | None:
    """The topmost mount of any type whose mountpoint is `path`, or None. Does not touch what is mounted there."""
    entries = read() if entries is None else entries
    wanted = resolve_mountpoint(path)
    return next((entry for entry in reversed(entries) if entry.mountpoint == wanted), None)


def by_mount_id(mount_id: int, entries: list[MountEntry] | None = None) -> MountEntry | None:
    """The mount with this id (the `mnt_id` of /proc/PID/fdinfo/FD), or None."""
    entries = read() if entries is None else entries
    return next((entry for entry in entries if entry.mount_id == mount_id), None)


def resolve_mountpoint(path: str | os.PathLike[str]) -> str:
    """The absolute path as the kernel names it.

    Its last component is looked at by readlink(2) alone, which never becomes a request to what is mounted there: a
    mountpoint is a directory, and so the kernel answers EINVAL itself.
    """
    absolute = os.path.abspath(os.fspath(path))  # noqa: PTH100  (Path.resolve would stat the last component)
    for _ in range(_MAX_LINKS):
        parent, name = os.path.split(absolute)
        absolute = os.path.join(os.path.realpath(parent), name) if name else parent  # noqa: PTH118
        try:
            target = str(Path(absolute).readlink())
        except OSError:
            return absolute
        absolute = os.path.normpath(os.path.join(os.path.dirname(absolute), target))  # noqa: PTH118, PTH120
    return absolute


def _parse_line(line: str) -> MountEntry | None:
    left, separator, right = line.partition(" - ")
    fields, rest = left.split(" "), right.split(" ")
    if not separator or len(fields) < _FIELDS_BEFORE or len(rest) < _FIELDS_AFTER or not fields[0].isdecimal():
        return None
    return MountEntry(
        mount_id=int(fields[0]),
        device=fields[2],
        mountpoint=_unescape(fields[4]),
        options=frozenset(fields[5].split(",")),
        fstype=rest[0],
        source=_unescape(rest[1]),
        super_options=frozenset(rest[2].split(",")),
    )


def _unescape(field: str) -> str:
    """Blanks, tabs, newlines and backslashes stand as three octal digits."""
    return _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), field)
