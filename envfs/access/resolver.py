"""Callers by uid → principals of the KMS, with their groups from the user database (getpwuid(3), getgrouplist(3))."""

from __future__ import annotations

import grp
import os
import pwd
import time
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from envfs.errors import AccessDenied
from envfs.kms.arn import Account, is_principal_name
from envfs.kms.model import Principal

# Sources other than the two files (LDAP, sssd) do not tell when they change: so long may an answer of theirs be old.
MAX_AGE: Final = 1.0
_FILES: Final = ("/etc/passwd", "/etc/group")
_MAX_CACHED: Final = 10_000

_Version = tuple[tuple[int, int, int], ...]


class PinnedUsers(Protocol):
    """What the resolver asks of the KMS."""

    @property
    def account(self) -> Account: ...

    @property
    def owner_uid(self) -> int:
        """The uid of the account root."""

    def confirm_pin(self, uid: int, name: str) -> bool:
        """Whether the two belong together; the first time they are seen, they are pinned to each other."""

    def is_pinned_otherwise(self, uid: int, name: str) -> bool:
        """Whether one of the two is pinned to something else. Pins nobody."""

    def record_stranger(self, uid: int, gid: int, pid: int, error: AccessDenied) -> None:
        """Records that somebody called of whom no policy can speak."""


class UserDatabase(Protocol):
    """The host's users and groups."""

    def name_of(self, uid: int) -> tuple[str, int] | None:
        """The user's name and primary gid; None for an unknown uid."""

    def groups_of(self, name: str, gid: int) -> list[str]:
        """The names of the groups that the user is in."""

    def version(self) -> _Version:
        """Something that changes when the database's files do."""


class HostUserDatabase:
    """What the Name Service Switch of this host says."""

    def name_of(self, uid: int) -> tuple[str, int] | None:
        try:
            entry = pwd.getpwuid(uid)
        except (KeyError, OverflowError):
            return None
        return entry.pw_name, entry.pw_gid

    def groups_of(self, name: str, gid: int) -> list[str]:
        names = []
        for one in os.getgrouplist(name, gid):
            try:
                names.append(grp.getgrgid(one).gr_name)
            except KeyError:
                continue  # a gid without a name cannot be named in a policy
        return names

    def version(self) -> _Version:
        return tuple(_file_version(path) for path in _FILES)


class _Known(NamedTuple):
    name: str
    arn: str
    group_arns: frozenset[str]
    expires: float


class Resolver:
    """Answers from a cache that is dropped when /etc/passwd or /etc/group change, and after a second in any case.

    A uid without a name, and a name that the KMS knows with another uid, are nobody: AccessDenied. Used from one thread
    at a time.
    """

    def __init__(
        self,
        users: PinnedUsers,
        database: UserDatabase | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._users = users
        self._database = database or HostUserDatabase()
        self._clock = clock
        self._account = users.account
        self._owner_uid = users.owner_uid
        self._cache: dict[int, _Known] = {}
        self._strangers: dict[int, float] = {}  # uid → when a call of his was recorded last
        self._version: _Version = ()

    def resolve(self, uid: int, gid: int, pid: int) -> Principal:
        """The principal behind a process of `uid` and `gid`. AccessDenied if there is none."""
        now = self._clock()
        version = self._database.version()
        if version != self._version:
            self._cache.clear()
            self._version = version
        known = self._cache.get(uid)
        if known is None or known.expires <= now:
            try:
                known = self._look_up(uid, now)
            except AccessDenied as error:
                self._record_stranger(uid, gid, pid, now, error)
                raise
        return Principal(uid, gid, pid, known.name, known.arn, known.group_arns, uid == self._owner_uid)

    def inspect(self, uid: int) -> Principal:
        """The principal that a user would be, were he to come: for who asks about others. Pins and records nothing.
        AccessDenied if he would be nobody.
        """
        known = self._known(uid, self._clock(), lambda name: not self._users.is_pinned_otherwise(uid, name))
        entry = self._database.name_of(uid)
        gid = -1 if entry is None else entry[1]
        return Principal(uid, gid, 0, known.name, known.arn, known.group_arns, uid == self._owner_uid)

    def _record_stranger(self, uid: int, gid: int, pid: int, now: float, error: AccessDenied) -> None:
        """Once a second for each, so that nobody fills the trail with calls that cost him nothing."""
        last = self._strangers.get(uid)
        if last is not None and now - last < MAX_AGE:
            return
        if len(self._strangers) >= _MAX_CACHED:
            self._strangers.clear()
        self._strangers[uid] = now
        self._users.record_stranger(uid, gid, pid, error)

    def _look_up(self, uid: int, now: float) -> _Known:
        self._cache.pop(uid, None)
        known = self._known(uid, now, lambda name: self._users.confirm_pin(uid, name))
        if len(self._cache) >= _MAX_CACHED:
            self._cache.clear()
        self._cache[uid] = known
        return known

    def _known(self, uid: int, now: float, is_pinned: Callable[[str], bool]) -> _Known:
        entry = self._database.name_of(uid)
        if entry is None:
            raise AccessDenied(
                f"uid {uid} has no name, so no policy can speak of it", hint="give the user a name in /etc/passwd"
            )
        name, primary_gid = entry
        if not is_principal_name(name):
            raise AccessDenied(f"uid {uid} is called {name!r}, which cannot stand in a policy")
        if not is_pinned(name):
            raise AccessDenied(
                f"the KMS knows the user {name!r} with another uid than {uid}, or the uid with another name",
                hint="if it is the same person, the owner of the KMS has to unpin the user",
            )
        account = self._account
        groups = self._database.groups_of(name, primary_gid)
        arns = frozenset(account.group_arn(group) for group in groups if is_principal_name(group))
        return _Known(name, account.user_arn(name), arns, now + MAX_AGE)


def _file_version(path: str) -> tuple[int, int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116 - twice for each open of a file; pathlib costs as much again
    except OSError:
        return (0, 0, 0)
    return (status.st_mtime_ns, status.st_ino, status.st_size)
