"""A KMS to test with, and people who use it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from envfs.kms.arn import Account
from envfs.kms.bootstrap import init_kms
from envfs.kms.engine import Engine
from envfs.kms.model import Principal, RequestFacts
from envfs.kms.rootkey import KEY_FILE_NAME, KeyFileUnlock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

T = TypeVar("T")

ACCOUNT = Account("envfs", "local", "000000000000")
OWNER_UID = 1000
THROUGH_MOUNT = RequestFacts(via_service="envfs", path="/finance/report", access="read")
CONTEXT: Mapping[str, str] = {"envfs:volume": "00" * 16, "envfs:file": "11" * 16}


def person(name: str, uid: int, *groups: str, owner: bool = False, account: Account = ACCOUNT) -> Principal:
    arns = frozenset(account.group_arn(group) for group in groups)
    return Principal(uid, uid, 4242, name, account.user_arn(name), arns, owner)


OWNER = person("olga", OWNER_UID, owner=True)
ALICE = person("alice", 1001, "finance", "staff")
BOB = person("bob", 1002, "staff")
ROOT = person("root", 0, "root")


@dataclass
class People:
    """A user database that a test can change."""

    uids: dict[str, int] = field(default_factory=lambda: {"olga": OWNER_UID, "alice": 1001, "bob": 1002, "root": 0})

    def uid_of(self, name: str) -> int | None:
        return self.uids.get(name)


class Clock:
    """Seconds since 1970, as a test wants them."""

    def __init__(self, now: float = 1_700_000_000.25) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def make_kms(home: Path) -> Path:
    init_kms(home, owner_uid=OWNER_UID)
    return home


def open_kms(home: Path, *, clock: Clock | None = None, people: People | None = None) -> Engine:
    return Engine.open(home, KeyFileUnlock(home / KEY_FILE_NAME), clock=clock or Clock(), users=people or People())


def policy(*statements: Mapping[str, Any], version: str = "2012-10-17") -> str:
    return json.dumps({"Version": version, "Statement": list(statements)})


def statement(effect: str, principal: object, action: object, **more: object) -> dict[str, Any]:
    """One statement of a key policy; `principal` None leaves it out."""
    made: dict[str, Any] = {"Effect": effect, "Action": action, "Resource": "*"} | more
    if principal is not None:
        made["Principal"] = principal if principal == "*" else {"AWS": principal}
    return {name: value for name, value in made.items() if value is not None}


def owner_statement() -> dict[str, Any]:
    """The default policy's statement: without it a policy would lock the owner out."""
    return statement("Allow", ACCOUNT.root_arn, "kms:*", Sid="Owner")


def users_policy(*principals: Principal) -> str:
    """The owner may do everything, and these may use the key."""
    arns = [principal.arn for principal in principals]
    return policy(owner_statement(), statement("Allow", arns, ["kms:Decrypt", "kms:GenerateDataKey"], Sid="Users"))


def every(page: Callable[..., tuple[tuple[T, ...], str | None]], *arguments: object) -> list[T]:
    """All items of a list that comes in pages."""
    items, marker = page(*arguments)
    found = list(items)
    while marker is not None:
        items, marker = page(*arguments, marker=marker)
        found += items
    return found


def audit_records(home: Path) -> list[dict[str, Any]]:
    """All records, in the order of the chains' names."""
    paths = sorted((home / "audit").glob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]
