"""Owner, mode, extended attributes and times of one entry, from SRC to DST, and what of it is lost."""

from __future__ import annotations

import errno
import os
import stat as stat_module
from dataclasses import dataclass
from typing import Final

from envfs.fs.lower import proc_path

ACL: Final = "system.posix_acl_access"
# Labels are what the policy of the machine says where a file is, not what it was elsewhere.
_OF_THE_MACHINE: Final = frozenset(("security.selinux",))


@dataclass(frozen=True, slots=True)
class Attributes:
    """What an entry of SRC has beside its content."""

    status: os.stat_result
    xattrs: dict[str, bytes]


def read(fd: int, status: os.stat_result) -> Attributes:
    """Of a regular file or directory, by its descriptor. Others have no attributes that could be set."""
    xattrs: dict[str, bytes] = {}
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EPERM, errno.EACCES}:
            raise
        names = []
    for name in names:
        if name in _OF_THE_MACHINE:
            continue
        try:
            xattrs[name] = os.getxattr(fd, name)
        except OSError as error:
            if error.errno != errno.ENODATA:  # it has gone meanwhile
                raise
    return Attributes(status, xattrs)


def apply(fd: int, wanted: Attributes, *, is_path: bool = False) -> list[str]:
    """Gives what is behind `fd` what is wanted, the times last. `is_path`: it was opened with O_PATH.

    What could not be kept, in words. The mode is never wider than in SRC: where the group is another, or an ACL is
    lost, whose mask the group bits are, the group gets no more than others.
    """
    status = wanted.status
    kind = stat_module.S_IFMT(status.st_mode)
    # A descriptor with O_PATH takes no fchown(2); its name in /proc is the very inode, also of a symlink.
    target = proc_path(fd) if is_path else fd
    present = os.fstat(fd)
    lost = _set_owner(target, status, present)
    if kind != stat_module.S_IFLNK:
        xattrs = wanted.xattrs
        if "group" in lost and ACL in xattrs:  # what it grants to the owning group would be another's
            xattrs = {name: value for name, value in xattrs.items() if name != ACL}
            lost.append(ACL)
        mode = _mode(stat_module.S_IMODE(status.st_mode), lost)
        if ACL in wanted.xattrs:  # before it is there, and if it is lost, the group bits are no mask but permissions
            mode = _narrow(mode)
        if mode & 0o7000 or stat_module.S_IMODE(present.st_mode) != mode:
            os.chmod(target, mode)  # after chown(2), which takes set-uid bits away
        lost += _set_xattrs(target, xattrs)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    return lost


def _set_owner(target: int | str, wanted: os.stat_result, present: os.stat_result) -> list[str]:
    if (present.st_uid, present.st_gid) == (wanted.st_uid, wanted.st_gid):
        return []
    try:
        os.chown(target, wanted.st_uid, wanted.st_gid)
    except OSError as error:
        _must_be_refusal(error)
    else:
        return []
    lost = []
    found = os.stat(target)
    if found.st_uid != wanted.st_uid:
        lost.append("owner")
    if found.st_gid != wanted.st_gid:
        try:
            os.chown(target, -1, wanted.st_gid)
        except OSError as error:
            _must_be_refusal(error)
            lost.append("group")
    return lost


def _must_be_refusal(error: OSError) -> None:
    if error.errno not in {errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP}:
        raise error


def _mode(mode: int, lost: list[str]) -> int:
    if lost:  # who would run it with whose rights is another matter now
        mode &= ~(stat_module.S_ISUID | stat_module.S_ISGID)
    return _narrow(mode) if "group" in lost else mode


def _narrow(mode: int) -> int:
    """The group may no more than others."""
    return mode & (~0o070 | (mode & 0o007) << 3)


def _set_xattrs(target: int | str, wanted: dict[str, bytes]) -> list[str]:
    lost = []
    for name, value in wanted.items():
        try:
            os.setxattr(target, name, value)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise
            lost.append(name)
    return lost
