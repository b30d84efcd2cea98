"""What users can do with a path, asked of its mount; what lies above the mount is looked at here."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from envfs.access.unix_modes import ACL_XATTR, EXECUTE, Inode, Login, letters, missing, remedies
from envfs.errors import ConfigError
from envfs.service import client

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_USERS = 1000
FILE_ACCESSES = ("read", "write")
DIRECTORY_ACCESSES = ("read", "write", "create")
_BATCH = 64
_SMALLEST_UID = 1000  # of people, by convention of useradd
_NOBODY = 65534


class Above(NamedTuple):
    """The directories from / to the one that the mountpoint stands in."""

    inodes: tuple[Inode, ...]

    def problem(self, login: Login) -> tuple[str, list[str]]:
        """What keeps a user from reaching the mount, and what would help; both empty if nothing does."""
        texts: list[str] = []
        helps: list[str] = []
        for inode in self.inodes:
            lacking = missing(inode, login, EXECUTE)
            if lacking:
                texts.append(f"no {letters(lacking)} on {inode.path} ({inode.mode & 0o7777:04o})")
                helps += remedies(inode, login, lacking, acls=inode.acl is not None)
        return "; ".join(texts), helps


def above(mountpoint: str) -> Above:
    """What the kernel looks at before it comes to the mount. What we may not look at ourselves is left out."""
    found = []
    for directory in reversed(Path(mountpoint).parents):
        try:
            status = directory.stat()
        except OSError:
            continue
        found.append(Inode(str(directory), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, _acl(directory)))
    return Above(tuple(found))


def check(opened: client.OpenPath, users: Sequence[str], accesses: Sequence[str]) -> list[dict[str, Any]]:
    """For each user what he can do: {"user", "uid", "access": {access: {"allowed", "kms", "unix", "text", …}}}, or
    {"user", "problem"}.
    """
    entry = opened.envfs_mount
    assert entry is not None
    around = above(entry.mountpoint)
    done: list[dict[str, Any]] = []
    while len(done) < len(users):
        batch = list(users[len(done) : len(done) + _BATCH])
        answer = client.ask(entry, "access-check", descriptor=opened.descriptor, users=batch, accesses=list(accesses))
        if not answer["done"]:
            raise ConfigError("the mount's daemon answers about nobody", hint="mount again")
        done += answer["done"]
    for one in done:
        problem, helps = around.problem(login_of(one["user"]))
        if problem:
            for outcome in one.get("access", {}).values():
                outcome["allowed"] = outcome["unix"] = False
                outcome["unix_text"] = "; ".join(filter(None, (problem, outcome["unix_text"])))
                outcome["remedies"] = helps + outcome["remedies"]
    return done


def accesses_of(opened: client.OpenPath) -> tuple[str, ...]:
    """Those that can be asked about a path."""
    mode = os.fstat(opened.descriptor).st_mode
    if stat.S_ISDIR(mode):
        return DIRECTORY_ACCESSES
    if stat.S_ISREG(mode):
        return FILE_ACCESSES
    raise ConfigError(f"{opened.path} is neither a file nor a directory")


def login_of(user: str) -> Login:
    """ConfigError if there is no such user."""
    try:
        entry = pwd.getpwnam(user)
    except (KeyError, ValueError):
        raise ConfigError(f"there is no user {user!r} here", hint="getent passwd lists them") from None
    return Login(entry.pw_name, entry.pw_uid, frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid)))


def relevant_users(opened: client.OpenPath) -> tuple[list[str], list[str]]:
    """Users whom the policies and grants of a path's key may be about, and what should be said about that choice.

    Those who are named, the members of groups that are named, and where everybody may, the people in /etc/passwd: the
    user database itself is not listed, which may be a directory of thousands.
    """
    assert opened.envfs_mount is not None
    named = client.ask(opened.envfs_mount, "access-names", descriptor=opened.descriptor)
    users, notes = set(named["users"]), []
    gids = set()
    for group in named["groups"]:
        try:
            entry = grp.getgrnam(group)
        except KeyError:
            continue
        users |= set(entry.gr_mem)
        gids.add(entry.gr_gid)
    for name, uid, gid in _local_users():
        is_person = uid == 0 or _SMALLEST_UID <= uid < _NOBODY
        if gid in gids or uid == named["owner_uid"] or (named["everybody"] and is_person):
            users.add(name)
    if named["everybody"]:
        notes.append("the key is for everybody: users who are not in /etc/passwd are told where --user names them")
    existing = sorted(name for name in users if _exists(name))
    left_out = named["left_out"] + max(0, len(existing) - MAX_USERS)
    if left_out:
        notes.append(f"{left_out} more are named than are told: --user names some")
    return existing[:MAX_USERS], notes


def members_of(group: str) -> list[str]:
    """The members of a group, as far as the group database and /etc/passwd tell."""
    try:
        entry = grp.getgrnam(group)
    except KeyError:
        return []
    primary = {name for name, _, gid in _local_users() if gid == entry.gr_gid}
    return sorted(name for name in primary | set(entry.gr_mem) if _exists(name))


def _local_users() -> Iterable[tuple[str, int, int]]:
    try:
        lines = Path("/etc/passwd").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.split(":")
        if len(fields) >= 4 and fields[2].isdecimal() and fields[3].isdecimal():
            yield fields[0], int(fields[2]), int(fields[3])


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except (KeyError, ValueError):
        return False
    return True


def _acl(directory: Path) -> bytes | None:
    try:
        return os.getxattr(directory, ACL_XATTR)
    except OSError as error:
        if error.errno not in {errno.ENODATA, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EACCES}:
            raise
        return None
