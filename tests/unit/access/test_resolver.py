from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass, field

import pytest

from envfs.access.resolver import HostUserDatabase, Resolver
from envfs.errors import AccessDenied
from envfs.kms.arn import Account

ACCOUNT = Account("envfs", "local", "000000000000")


@dataclass
class Database:
    """Users and groups that a test can change; counts how often it is asked."""

    users: dict[int, tuple[str, int]] = field(default_factory=lambda: {1001: ("alice", 100), 1002: ("bob", 100)})
    groups: dict[str, list[str]] = field(default_factory=lambda: {"alice": ["users", "finance"], "bob": ["users"]})
    changes: int = 0
    asked: int = 0

    def name_of(self, uid: int) -> tuple[str, int] | None:
        self.asked += 1
        return self.users.get(uid)

    def groups_of(self, name: str, gid: int) -> list[str]:
        return self.groups.get(name, [])

    def version(self) -> tuple[tuple[int, int, int], ...]:
        return ((self.changes, 0, 0),)


@dataclass
class Pins:
    account: Account = ACCOUNT
    owner_uid: int = 1001
    pinned: dict[int, str] = field(default_factory=dict)

    def confirm_pin(self, uid: int, name: str) -> bool:
        if uid not in self.pinned and name not in self.pinned.values():
            self.pinned[uid] = name
        return self.pinned.get(uid) == name

    def is_pinned_otherwise(self, uid: int, name: str) -> bool:
        if uid in self.pinned:
            return self.pinned[uid] != name
        return name in self.pinned.values()

    strangers: list[tuple[int, int, int]] = field(default_factory=list)

    def record_stranger(self, uid: int, gid: int, pid: int, error: AccessDenied) -> None:
        assert error.message
        self.strangers.append((uid, gid, pid))


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def pins() -> Pins:
    return Pins()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def resolver(database: Database, pins: Pins, clock: Clock) -> Resolver:
    return Resolver(pins, database, clock)


def test_a_user_with_groups(resolver: Resolver) -> None:
    alice = resolver.resolve(1001, 7, 42)
    assert (alice.uid, alice.gid, alice.pid, alice.name) == (1001, 7, 42, "alice")
    assert alice.arn == "arn:envfs:iam::000000000000:user/alice"
    assert alice.group_arns == {ACCOUNT.group_arn("users"), ACCOUNT.group_arn("finance")}
    assert alice.is_account_root
    assert not resolver.resolve(1002, 7, 42).is_account_root


def test_an_unknown_uid_is_nobody(resolver: Resolver, pins: Pins) -> None:
    with pytest.raises(AccessDenied, match="uid 4711 has no name"):
        resolver.resolve(4711, 0, 1)
    assert pins.pinned == {}


@pytest.mark.parametrize("name", ["", "a b", "a/b", "*", "a:b", "\udcff"])
def test_a_name_that_no_policy_can_hold_is_nobody(
    resolver: Resolver, database: Database, pins: Pins, name: str
) -> None:
    database.users[1001] = (name, 100)
    with pytest.raises(AccessDenied):
        resolver.resolve(1001, 0, 1)
    assert pins.pinned == {}


def test_strangers_are_recorded_once_a_second_each(resolver: Resolver, pins: Pins, clock: Clock) -> None:
    for uid in (4711, 4711, 4712):
        with pytest.raises(AccessDenied):
            resolver.resolve(uid, 5, 6)
    assert pins.strangers == [(4711, 5, 6), (4712, 5, 6)]
    clock.now = 1.5
    with pytest.raises(AccessDenied):
        resolver.resolve(4711, 5, 7)
    assert pins.strangers[2:] == [(4711, 5, 7)]


def test_groups_that_no_policy_can_hold_are_left_out(resolver: Resolver, database: Database) -> None:
    database.groups["alice"] = ["users", "a b", "*"]
    assert resolver.resolve(1001, 0, 1).group_arns == {ACCOUNT.group_arn("users")}


def test_a_name_that_moved_to_another_uid_is_nobody(resolver: Resolver, database: Database) -> None:
    resolver.resolve(1001, 0, 1)
    database.users = {2001: ("alice", 100)}
    database.changes += 1
    with pytest.raises(AccessDenied, match="with another uid"):
        resolver.resolve(2001, 0, 1)
    with pytest.raises(AccessDenied, match="has no name"):
        resolver.resolve(1001, 0, 1)


def test_a_uid_that_got_another_name_is_nobody(resolver: Resolver, database: Database) -> None:
    resolver.resolve(1001, 0, 1)
    database.users[1001] = ("carol", 100)
    database.changes += 1
    with pytest.raises(AccessDenied, match="with another name"):
        resolver.resolve(1001, 0, 1)


def test_answers_come_from_the_cache_for_a_second(resolver: Resolver, database: Database, clock: Clock) -> None:
    for clock.now in (0.0, 0.5, 0.99):
        resolver.resolve(1001, 0, 1)
    assert database.asked == 1
    database.groups["alice"] = []
    clock.now = 1.0
    assert resolver.resolve(1001, 0, 1).group_arns == frozenset()
    assert database.asked == 2


def test_a_change_of_the_files_counts_at_once(resolver: Resolver, database: Database) -> None:
    resolver.resolve(1001, 0, 1)
    database.groups["alice"] = ["users"]
    database.changes += 1
    assert resolver.resolve(1001, 0, 1).group_arns == {ACCOUNT.group_arn("users")}


def test_a_user_who_is_gone_is_denied_even_if_he_was_known(
    resolver: Resolver, database: Database, clock: Clock
) -> None:
    resolver.resolve(1001, 0, 1)
    del database.users[1001]
    clock.now = 2.0
    for _ in range(2):
        with pytest.raises(AccessDenied):
            resolver.resolve(1001, 0, 1)


def test_the_host_s_database() -> None:
    database = HostUserDatabase()
    root = pwd.getpwuid(0)
    assert database.name_of(0) == (root.pw_name, root.pw_gid)
    assert grp.getgrgid(root.pw_gid).gr_name in database.groups_of(root.pw_name, root.pw_gid)
    assert database.name_of(2**32 - 2) is None
    assert database.name_of(2**70) is None
    assert database.version() == database.version()
    assert all(any(part) for part in database.version())


def test_this_process(pins: Pins) -> None:
    me = Resolver(pins).resolve(os.getuid(), os.getgid(), os.getpid())
    assert me.name == pwd.getpwuid(os.getuid()).pw_name
    assert {arn.rpartition("/")[2] for arn in me.group_arns} >= {grp.getgrgid(os.getgid()).gr_name}


def test_who_is_only_asked_about_is_neither_pinned_nor_recorded(
    resolver: Resolver, pins: Pins, database: Database
) -> None:
    alice = resolver.inspect(1001)
    assert (alice.arn, alice.is_account_root) == (ACCOUNT.user_arn("alice"), True)
    assert ACCOUNT.group_arn("finance") in alice.group_arns
    assert pins.pinned == {}
    pins.pinned[1002] = "somebody-else"
    for uid in (1002, 4711):
        with pytest.raises(AccessDenied):
            resolver.inspect(uid)
    assert pins.strangers == []
    database.groups["alice"] = []
    assert resolver.inspect(1001).group_arns == frozenset(), "nothing is kept from before"
