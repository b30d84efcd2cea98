"""What a mount counts: requests by kind, failures by errno, and what each user opened, read and wrote.

Counting costs a few additions for each request; nothing here is ever summed up but when somebody asks.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

# More than that share one line, so that memory stays bounded whatever uids a host has.
MOST_USERS: Final = 4096
OTHERS: Final = -1


class UserCounters:
    """Of one uid. `denied`: opens that the KMS refused. What the kernel answers from its cache nobody counts; what it
    writes back is counted for one of those who have the file open for writing.
    """

    __slots__ = ("denied", "opens", "read_bytes", "reads", "writes", "written_bytes")

    def __init__(self) -> None:
        self.opens = 0
        self.denied = 0
        self.reads = 0
        self.read_bytes = 0
        self.writes = 0
        self.written_bytes = 0

    def values(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__}


class Counters:
    """Of one mount. `operations`: requests by the name of their kind, but for reads and writes, which users have."""

    def __init__(self) -> None:
        self.operations: defaultdict[str, int] = defaultdict(int)
        self.failures: defaultdict[int, int] = defaultdict(int)
        self.users: dict[int, UserCounters] = {}

    def of(self, uid: int) -> UserCounters:
        """The counters of a user."""
        found = self.users.get(uid)
        if found is None:
            if len(self.users) >= MOST_USERS:
                uid = OTHERS
            found = self.users.setdefault(uid, UserCounters())
        return found

    @property
    def requests(self) -> int:
        """All requests until now."""
        users = sum(user.reads + user.writes for user in self.users.values())
        return sum(self.operations.values()) + users

    def values(self) -> dict[str, dict[str, int] | dict[int, int] | dict[int, dict[str, int]]]:
        """All of it, as numbers; operations with reads and writes."""
        operations = dict(self.operations)
        operations["read"] = sum(user.reads for user in self.users.values())
        operations["write"] = sum(user.writes for user in self.users.values())
        users = {uid: user.values() for uid, user in self.users.items()}
        return {"operations": operations, "failures": dict(self.failures), "users": users}
