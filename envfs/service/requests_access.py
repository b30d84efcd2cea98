"""What a mount answers about who may do what in it, and labels of directories; merged into `envfs.service.requests`.

| operation      | who may ask                                                                                    |
|----------------|------------------------------------------------------------------------------------------------|
| `explain`      | everybody about himself; about others root, the KMS's owner, and who administers the key       |
| `access-check` | the same: several users and accesses at once, in short                                         |
| `access-names` | root, the KMS's owner, and who administers the key: whom its policies and grants name          |
| `access-scope` | whoever could open the directory (he sends its descriptor): what a grant for it has to say     |
| `dir-label`    | the directory's Unix owner and root, if the KMS lets them describe its key, or use it so        |
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from envfs.errors import AccessDenied, ConfigError
from envfs.format.context import validate_labels
from envfs.format.header import volume_context
from envfs.service.explaining import Explainer, access_of, login_of
from envfs.service.keys import check_labels_fit, usable_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envfs.access.peer import Peer
    from envfs.service.mount_context import MountContext, Operation

MAX_USERS: Final = 64
"""Users in one `access-check`."""
MAX_NAMES: Final = 500
"""Users, and groups, that `access-names` tells."""
_SLICE: Final = 0.004  # seconds after which `access-check` answers what it has: files wait for it


def operations(context: MountContext) -> dict[str, Operation]:
    """The operations of the table above."""
    requests = _AccessRequests(context)
    return {
        "explain": requests.explain,
        "access-check": requests.check,
        "access-names": requests.names,
        "access-scope": requests.scope,
        "dir-label": requests.label,
    }


class _AccessRequests:
    def __init__(self, context: MountContext) -> None:
        self._context = context
        self._facts = context.facts
        self._volume = context.volume
        self._filesystem = context.filesystem
        self._engine = context.engine
        self._resolver = context.resolver
        self._inode = context.inode
        self._explainer = Explainer(
            context.volume,
            context.filesystem,
            context.engine,
            context.resolver,
            context.facts.options,
            context.facts.mountpoint,
        )

    def explain(self, peer: Peer, request: Mapping[str, Any], descriptor: int | None) -> dict[str, Any]:
        access = access_of(str(request.get("access")))
        login = login_of(str(request.get("user", "")))
        inode = self._inode(descriptor)
        if peer.uid != login.uid:
            self._explainer.require_insight(peer, self._explainer.subject(inode, access).key, "about other users")
        return self._explainer.explain(peer, login, inode, access, why_not=request.get("why_not") is True)

    def check(self, peer: Peer, request: Mapping[str, Any], descriptor: int | None) -> dict[str, Any]:
        """`done`: an entry for each user, in order, as far as time allowed, at least one. The client asks again."""
        users, accesses = request.get("users"), request.get("accesses")
        if not isinstance(users, list) or not isinstance(accesses, list) or not 1 <= len(users) <= MAX_USERS:
            raise ConfigError(f"the request needs 1 to {MAX_USERS} users, and accesses")
        wanted = [access_of(str(one)) for one in accesses]
        inode = self._inode(descriptor)
        is_directory = self._filesystem.is_directory(inode)
        deadline = time.monotonic() + _SLICE
        done: list[dict[str, Any]] = []
        insight: bool | None = None
        for user in users:
            login = login_of(str(user))
            if login.uid != peer.uid and not insight:
                key = self._explainer.subject(inode, wanted[0], of_new_file=is_directory).key
                self._explainer.require_insight(peer, key, "about other users")
                insight = True
            entry: dict[str, Any] = {"user": login.name, "uid": login.uid}
            try:
                principal = self._resolver.inspect(login.uid)
            except AccessDenied as denied:
                done.append({**entry, "problem": denied.message})
            else:
                entry["access"] = {
                    access: self._explainer.outcome(login, principal, inode, access, new=is_directory)
                    for access in wanted
                }
                done.append(entry)
            if time.monotonic() >= deadline or len(done) >= _most_users(len(wanted)):
                break
        return {"done": done}

    def names(self, peer: Peer, _request: Mapping[str, Any], descriptor: int | None) -> dict[str, Any]:
        inode = self._inode(descriptor)
        is_directory = self._filesystem.is_directory(inode)
        key = self._explainer.subject(inode, "read", of_new_file=is_directory).key
        self._explainer.require_insight(peer, key, "about other users")
        named = self._engine.named_on_key(key)
        users, groups = sorted(named.users), sorted(named.groups)
        return {
            "users": users[:MAX_NAMES],
            "groups": groups[:MAX_NAMES],
            "everybody": named.everybody,
            "owner_uid": self._engine.owner_uid,
            "left_out": max(0, len(users) - MAX_NAMES) + max(0, len(groups) - MAX_NAMES),
        }

    def scope(self, _peer: Peer, _request: Mapping[str, Any], descriptor: int | None) -> dict[str, Any]:
        inode = self._inode(descriptor)
        key, labels, path = self._filesystem.directory_key(inode)
        above = self._filesystem.parents_key(inode)
        return {
            "mountpoint": self._facts.mountpoint,
            "kms_home": str(self._facts.home),
            "volume_id": self._volume.volume_id.hex(),
            "path": path,
            "key": key,
            "labels": labels,
            "context": {**labels, **volume_context(self._volume.volume_id)},
            "set_apart": above is None or above != (key, labels),
        }

    def label(self, peer: Peer, request: Mapping[str, Any], descriptor: int | None) -> dict[str, Any]:
        self._context.require_writable()
        added, removed = _pairs(request.get("add")), _names(request.get("remove"))
        inode = self._inode(descriptor)
        if peer.uid not in (0, self._filesystem.owner(inode)):
            raise AccessDenied(
                "only the directory's owner and root may choose its labels",
                hint="ask them, or make a directory of your own",
            )
        described = self._filesystem.describe_directory(inode)
        own = self._changed(described["own_labels"], added, removed)
        above = self._filesystem.parents_key(inode)
        effective = {**(above[1] if above else {}), **own}
        _check_labels(effective)
        check_labels_fit(self._engine, described["key"], effective)
        principal = self._context.principal(peer)
        # Who may neither describe the key nor encrypt under it with these labels has no business choosing them: a
        # policy may require the old ones.
        context = {**effective, **volume_context(self._volume.volume_id)}
        usable_key(self._engine, principal, described["key"], context, described["path"])
        if own != described["own_labels"]:
            self._filesystem.set_directory_labels(inode, own)
        return self._filesystem.describe_directory(inode)

    @staticmethod
    def _changed(own: Mapping[str, str], added: Mapping[str, str], removed: list[str]) -> dict[str, str]:
        unknown = [name for name in removed if name not in own]
        if unknown:
            raise ConfigError(
                f"the directory has no label {unknown[0]!r} of its own",
                hint="envfs dir show tells its own labels, and those that it inherits",
            )
        return {name: value for name, value in own.items() if name not in removed} | dict(added)


def _most_users(accesses: int) -> int:
    """That fit into an answer, whatever their groups and statements are called."""
    return max(1, 12 // max(1, accesses))


def _check_labels(effective: dict[str, str]) -> None:
    """ConfigError or FormatError for labels that files cannot have, or policies cannot tell apart."""
    validate_labels(effective)
    for name, value in effective.items():
        if not (name + value).isprintable():
            raise ConfigError(f"label {name!r}: only printable characters, please")
    folded: dict[str, str] = {}
    for name in effective:
        other = folded.setdefault(name.lower(), name)
        if other != name:
            raise ConfigError(
                f"labels {other!r} and {name!r} differ in case only, which policies cannot tell apart",
                hint=f"write it {other!r}, or remove the other one first",
            )


def _pairs(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for pair in value.items() for one in pair):
        raise ConfigError("the request's labels are no pairs of strings")
    return value


def _names(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ConfigError("the request's labels to remove are no strings")
    return value
