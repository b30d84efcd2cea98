"""WHO and WHERE of `envfs access`: who exists, and which key and encryption context are meant."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from envfs.cli.access_made import Scope
from envfs.cli.answers import every
from envfs.cli.key_reference import without_alias
from envfs.cli.who import account_of, check_group, principal_arn
from envfs.errors import AccessDenied, ConfigError, NotFound
from envfs.service import client
from envfs.service.errors import MountError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envfs.cli.backend import Backend
    from envfs.kms.arn import Account
    from envfs.service.mountinfo import MountEntry

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Key(NamedTuple):
    """A key as the KMS describes it. `manager` and `aliases` are empty where the caller may not know."""

    arn: str
    manager: str = ""


def is_key(where: str) -> bool:
    """Whether WHERE names a key, and no path."""
    return where.startswith(("alias/", "arn:")) or _UUID.fullmatch(where) is not None


def is_path(text: str) -> bool:
    """Whether an argument that may be WHO or WHERE is a path: it has a slash in it, or is one of the dots."""
    return not is_key(text) and ("/" in text or text in {".", ".."})


def find_who(backend: Backend, who: str, *, must_exist: bool) -> str:
    """The ARN of a user or group. NotFound for one that there is not, ConfigError for what cannot be named."""
    account = account_of(backend)
    if not who.startswith("arn:"):
        _check_name(who)
    arn = principal_arn(account, who)
    kinds = {account.user_arn(""): "user", account.group_arn(""): "group"}
    kind = next((kind for prefix, kind in kinds.items() if arn.startswith(prefix)), None)
    if kind is None:
        raise ConfigError(
            f"{who!r} is neither a user nor a group of this KMS",
            hint="write a user's name, @ and a group's name, or the ARN of one of them",
        )
    name = arn.partition("/")[2]
    if must_exist and kind == "group":
        check_group(f"@{name}")
    elif must_exist:
        try:
            pwd.getpwnam(name)
        except (KeyError, ValueError):
            raise NotFound(
                f"there is no user {name!r} here", hint="getent passwd lists them; a group is written @NAME"
            ) from None
    return arn


def name_of(arn: str) -> str:
    """WHO of an ARN, as it is written on the command line."""
    kind, _, name = arn.split(":", 5)[-1].partition("/")
    return f"@{name}" if kind == "group" else name or arn


def _check_name(who: str) -> None:
    """What the user database may hold, and no ARN: a space, say, as in Windows' group names."""
    bad = sorted({char for char in who.removeprefix("@") if char <= " " or char in ":/*?$\x7f"})
    if bad:
        raise ConfigError(
            f"{who!r} cannot be named in a policy: {', '.join(map(repr, bad))} cannot stand in an ARN",
            hint="make a group with a plain name that has the same members",
        )


class Where(NamedTuple):
    """WHERE, resolved. `opened` is the directory in its mount; None for a key."""

    key: Key
    scope: Scope
    opened: client.OpenPath | None = None
    facts: dict[str, Any] | None = None
    text: str = ""


@contextlib.contextmanager
def find_where(backend: Backend, where: str, *, by_path: bool = False, must_be_apart: bool = True) -> Iterator[Where]:
    """What WHERE means now. `by_path`: the directory's path counts, and not its labels.

    ConfigError for a directory that nothing sets apart from the one above it: a grant would reach that as well.
    """
    if is_key(where):
        if by_path:
            raise ConfigError("--by-path is for a directory, not for a key")
        key = _describe(backend, without_alias(backend, where))
        yield Where(key, Scope(key.arn), text=where)
        return
    with open_in_mount(Path(where)) as opened:
        assert opened.envfs_mount is not None
        require_trusted(opened.envfs_mount, backend.home)
        facts = client.ask(opened.envfs_mount, "access-scope", descriptor=opened.descriptor)
        if must_be_apart and not by_path and not facts["set_apart"]:
            raise ConfigError(
                f"{where} has the key and the labels of the directory above it: what is allowed here is allowed there",
                hint=f"envfs dir label {where} NAME=VALUE, or envfs dir set-key {where} KEY, and then new files are "
                "apart; --by-path goes by the path instead, which whoever may rename files can evade",
            )
        context = facts["context"] if not by_path else {"envfs:volume": facts["context"]["envfs:volume"]}
        path = facts["path"] if by_path else None
        yield Where(_key_of_mount(backend, facts), _scope(facts["key"], context, path), opened, facts, where)


def require_trusted(entry: MountEntry, home: Path) -> None:
    """AccessDenied for a mount of somebody who is neither root, nor the caller, nor the owner of the KMS in `home`: his
    process says which key a directory has, and could name any.
    """
    trusted = {0, os.geteuid()}
    with contextlib.suppress(OSError):
        trusted.add(home.stat().st_uid)
    if entry.owner_uid not in trusted:
        raise AccessDenied(
            f"the mount at {entry.mountpoint} is that of uid {entry.owner_uid}, whose process could name any key as "
            "that of its directory",
            hint="name the key instead of the directory",
        )


def open_in_mount(path: Path) -> client.OpenPath:
    """MountError if the path is in no mount."""
    try:
        opened = client.open_path(path)
    except FileNotFoundError:
        raise ConfigError(
            f"{path} is neither a path that exists nor a key", hint="a key is written alias/NAME, or as its id or ARN"
        ) from None
    if opened.envfs_mount is None:
        with opened:
            raise MountError(f"{path} is not below an envfs mountpoint", hint="envfs status lists the mounts")
    return opened


def scopes_of(where: Where) -> list[Scope]:
    """Its scope, and for a directory also that by its path."""
    if where.facts is None:
        return [where.scope]
    context = {"envfs:volume": where.facts["context"]["envfs:volume"]}
    return [where.scope, _scope(where.facts["key"], context, where.facts["path"])]


def _scope(key: str, context: dict[str, str], path: str | None) -> Scope:
    return Scope(key, tuple(sorted(context.items())), path)


def _describe(backend: Backend, key_id: str) -> Key:
    try:
        found = backend.call("DescribeKey", {"KeyId": key_id})["KeyMetadata"]
    except AccessDenied:
        # Who may grant need not be one who may look.
        return Key(key_id if key_id.startswith("arn:") else _key_arn(account_of(backend), key_id))
    return Key(found["Arn"], found["KeyManager"])


def _key_arn(account: Account, key_id: str) -> str:
    return account.key_arn(uuid.UUID(key_id).bytes)


def _key_of_mount(backend: Backend, facts: dict[str, Any]) -> Key:
    try:
        return _describe(backend, facts["key"])
    except NotFound:
        raise ConfigError(
            f"the mount at {facts['mountpoint']} belongs to another KMS than this",
            hint=f"ENVFS_HOME={facts['kms_home']}",
        ) from None


def aliases_by_key(backend: Backend) -> dict[str, str]:
    """Key id → one of its aliases, for people; empty for who may not list them."""
    try:
        return {
            one["TargetKeyId"]: one["AliasName"]
            for one in every(backend, "ListAliases", {}, "Aliases")
            if "TargetKeyId" in one
        }
    except AccessDenied:
        return {}
