"""Fixtures: a mount with a key of its own for one directory, and processes of users who work in it.

world    alice, bob and carol, of whom the key policy lets alice do everything; `world.allow(…)` puts another policy
agent    agent(user) → a process of the user; agent(None) one of root (see `agents`)
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.integration.revocation.agents import Agent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.command import Envfs
    from tests.integration.mounts import Mount
    from tests.integration.users import UnixUser

READ, WRITE = "kms:Decrypt", "kms:GenerateDataKey"
# Generous: what is tested is that it happens. How soon, scripts/bench-revoke measures.
DEADLINE = 10.0
ACCOUNT = "arn:envfs:iam::000000000000"


def statement(who: str, *actions: str, **more: Any) -> dict[str, Any]:
    allow = {"Effect": "Allow", "Resource": "*", "Principal": {"AWS": f"{ACCOUNT}:{who}"}}
    return allow | {"Action": list(actions)} | more


def eventually(what: Callable[[], object], expected: object) -> None:
    """What it gives, or the errno with which it fails, becomes `expected` in time."""
    end = time.monotonic() + DEADLINE
    while True:
        found = outcome(what)
        if found == expected or time.monotonic() > end:
            assert found == expected
            return
        time.sleep(0.01)


def outcome(what: Callable[[], object]) -> object:
    try:
        return what()
    except OSError as error:
        return error.errno


class World(NamedTuple):
    """`shared` is open to everybody by its mode; its files have a key of their own, alias/shared."""

    mount: Mount
    envfs: Envfs
    shared: Path
    alice: UnixUser
    bob: UnixUser
    carol: UnixUser
    policy: Path

    def allow(self, *statements: dict[str, Any]) -> None:
        """In a process of its own, as an administrator does it."""
        root = statement("root", "kms:*", Sid="Owner")
        self.policy.write_text(json.dumps({"Version": "2012-10-17", "Statement": [root, *statements]}))
        self.envfs("key", "policy", "put", "alias/shared", self.policy)

    def allow_users(self, *users: UnixUser) -> None:
        self.allow(*(statement(f"user/{user.name}", READ, WRITE) for user in users))


@pytest.fixture
def options() -> tuple[str, ...]:
    return ()


@pytest.fixture
def world(
    envfs: Envfs,
    mounted: Callable[..., Mount],
    unix_users: Callable[..., list[UnixUser]],
    directory: Callable[..., Path],
    options: tuple[str, ...],
) -> World:
    mount = mounted(*options)
    alice, bob, carol = unix_users("alice", "bob", "carol")
    envfs("key", "create", "--alias", "shared")
    shared = mount.path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    envfs("dir", "set-key", shared, "alias/shared")
    world = World(mount, envfs, shared, alice, bob, carol, directory("policies") / "policy.json")
    world.allow_users(alice, bob)
    return world


@pytest.fixture
def agent(world: World) -> Iterator[Callable[[UnixUser | None], Agent]]:
    agents: list[Agent] = []

    def make(user: UnixUser | None) -> Agent:
        agents.append(Agent(user))
        return agents[-1]

    yield make
    for one in agents:
        one.end()
