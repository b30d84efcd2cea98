"""What a mount answers on its control socket, and to whom.

| operation     | who may ask                                                                                     |
|---------------|-------------------------------------------------------------------------------------------------|
| `status`      | everybody who reaches the socket; the counters only root and the mount's owner                  |
| `file-show`   | whoever could open the path (he sends its descriptor)                                           |
| `dir-show`    | the same                                                                                        |
| `dir-set-key` | the directory's Unix owner and root, if the KMS lets them describe the key or encrypt under it |
| `explain`     | everybody about himself; root and the KMS's owner about everybody                               |
"""

from __future__ import annotations

import os
import pwd
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from envfs.access.peer import Peer
from envfs.errors import AccessDenied, ConfigError
from envfs.format.header import volume_context
from envfs.kms.model import Access, RequestFacts
from envfs.service.errors import MountError
from envfs.service.keys import VIA_SERVICE, usable_key
from envfs.service.peer import inode_in_mount

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from envfs.access.resolver import Resolver
    from envfs.format.volume import VolumeFile
    from envfs.fs.filesystem import Filesystem
    from envfs.kms.engine import Engine

_ACTIONS: dict[Access, tuple[str, ...]] = {
    "read": ("kms:Decrypt",),
    "write": ("kms:Decrypt", "kms:GenerateDataKey"),
    "create": ("kms:GenerateDataKey",),
}


@dataclass(frozen=True, slots=True)
class MountFacts:
    """What does not change while a mount lives. `options` are in the words of `-o`."""

    device: str
    mountpoint: str
    lower: Path
    home: Path
    options: tuple[str, ...]
    started: float
    log: Path | None


class Requests:
    """Answers the requests of one mount. `handle` is the handler of `envfs.service.control.ControlServer`."""

    def __init__(
        self, facts: MountFacts, volume: VolumeFile, filesystem: Filesystem, engine: Engine, resolver: Resolver
    ) -> None:
        self._facts = facts
        self._volume = volume
        self._filesystem = filesystem
        self._engine = engine
        self._resolver = resolver
        self._operations: dict[str, Callable[[Peer, Mapping[str, Any], int | None], dict[str, Any]]] = {
            "status": self._status,
            "file-show": self._file_show,
            "dir-show": self._dir_show,
            "dir-set-key": self._dir_set_key,
            "explain": self._explain,
        }

    def handle(self, peer: Peer, request: Mapping[str, Any], descriptor: int | None) -> dict[str, Any]:
        """The result of one request; raises EnvfsError or OSError where there is none."""
        operation = self._operations.get(request["op"])
        if operation is None:
            raise ConfigError(
                f"the daemon knows no operation {request['op']!r}",
                hint="it is of another release than this command: mount again",
            )
        return operation(peer, request, descriptor)

    def _status(self, peer: Peer, _request: Mapping[str, Any], _descriptor: int | None) -> dict[str, Any]:
        facts, volume = self._facts, self._volume
        status: dict[str, Any] = {
            "mountpoint": facts.mountpoint,
            "lower": os.fspath(facts.lower),
            "pid": os.getpid(),
            "uid": os.geteuid(),
            "uptime_seconds": round(time.time() - facts.started, 1),
            "options": list(facts.options),
            "volume_id": volume.volume_id.hex(),
            "kms_id": volume.kms_id.hex(),
            "kms_home": os.fspath(facts.home),
            "key": volume.key_arn,
            "suite": volume.suite.label,
            "block_size": volume.block_size,
            "log": None if facts.log is None else os.fspath(facts.log),
        }
        if peer.uid in (0, os.geteuid()):
            status["counters"] = self._filesystem.stats()
        return status

    def _file_show(self, _peer: Peer, _request: Mapping[str, Any], descriptor: int | None) -> dict[str, Any]:
        return self._filesystem.describe_file(self._inode(descriptor))

    def _dir_show(self, _peer: Peer, _request: Mapping[str, Any], descriptor: int | None) -> dict[str, Any]:
        return self._filesystem.describe_directory(self._inode(descriptor))

    def _dir_set_key(self, peer: Peer, request: Mapping[str, Any], descriptor: int | None) -> dict[str, Any]:
        if "ro" in self._facts.options:
            raise MountError(f"{self._facts.mountpoint} is mounted read-only", hint="mount it without -o ro first")
        inode = self._inode(descriptor)
        owner = self._filesystem.owner(inode)
        if peer.uid not in (0, owner):
            raise AccessDenied(
                "only the directory's owner and root may choose its key",
                hint="ask them, or make a directory of your own",
            )
        principal = self._resolver.resolve(peer.uid, peer.gid, peer.pid)
        _, labels, path = self._filesystem.directory_key(inode)
        context = {**labels, **volume_context(self._volume.volume_id)}
        key_arn = usable_key(self._engine, principal, _text(request, "key"), context, path)
        self._filesystem.set_directory_key(inode, key_arn)
        return self._filesystem.describe_directory(inode)

    def _explain(self, peer: Peer, request: Mapping[str, Any], descriptor: int | None) -> dict[str, Any]:
        user, access = _text(request, "user"), _access(_text(request, "access"))
        entry = _user(user)
        if peer.uid not in (0, entry.pw_uid):
            asker = self._resolver.resolve(peer.uid, peer.gid, peer.pid)
            if not asker.is_account_root:
                raise AccessDenied(
                    "only root and the KMS's owner may ask about other users", hint=f"--user {asker.name} is answered"
                )
        principal = self._resolver.resolve(entry.pw_uid, entry.pw_gid, peer.pid)
        key, context, path = self._subject(self._inode(descriptor), access)
        facts = RequestFacts(via_service=VIA_SERVICE, path=path, access=access)
        decisions = []
        for action in _ACTIONS[access]:
            decision = self._engine.explain(principal, action, key, context, facts)
            decisions.append({"action": action, "allowed": decision.allowed, "text": decision.text})
        return {
            "allowed": all(decision["allowed"] for decision in decisions),
            "user": user,
            "principal": principal.arn,
            "access": access,
            "path": path,
            "decisions": decisions,
        }

    def _subject(self, inode: int, access: str) -> tuple[str | bytes, dict[str, str], str]:
        """Key (an ARN, or the blob of a DEK), encryption context and path of what is asked about."""
        if access != "create":
            return self._filesystem.dek_request(inode)
        key_arn, labels, path = self._filesystem.directory_key(inode)
        # The file id of a file that does not exist yet is not known; no policy can have waited for it.
        return key_arn, {**labels, **volume_context(self._volume.volume_id)}, path

    def _inode(self, descriptor: int | None) -> int:
        if descriptor is None:
            raise ConfigError("the request needs the descriptor of a path")
        return inode_in_mount(descriptor, self._facts.device)


def _text(request: Mapping[str, Any], name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"the request lacks {name!r}")
    return value


def _access(text: str) -> Access:
    for access in _ACTIONS:
        if access == text:
            return access
    raise ConfigError(f"no access: {text!r}", hint="one of " + ", ".join(_ACTIONS))


def _user(text: str) -> pwd.struct_passwd:
    """The account called `text`, or with that uid."""
    try:
        return pwd.getpwnam(text)
    except (KeyError, ValueError):
        pass
    try:
        return pwd.getpwuid(int(text))
    except (KeyError, ValueError, OverflowError):
        raise ConfigError(f"there is no user {text!r} here", hint="getent passwd lists them") from None
