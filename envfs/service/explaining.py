"""What decides about a user, a path and an access, link by link: mount, Unix modes, principal, key, policies, grants.

Everything here is looked at as it is now, and nothing is changed: no user is pinned, no key used, no record written.
"""

from __future__ import annotations

import json
import os
import pwd
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from envfs.access import unix_modes
from envfs.access.unix_modes import EXECUTE, READ, WRITE, Inode, Login
from envfs.errors import AccessDenied, ConfigError
from envfs.format.header import volume_context
from envfs.kms.model import Access, RequestFacts
from envfs.kms.policy.trace import Entry, Outcome, Unmet
from envfs.service.keys import VIA_SERVICE
from envfs.service.peer import MAX_LINE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envfs.access.peer import Peer
    from envfs.access.resolver import Resolver
    from envfs.format.volume import VolumeFile
    from envfs.fs.filesystem import Filesystem
    from envfs.kms.engine import Engine
    from envfs.kms.model import Principal
    from envfs.kms.operations.explanations import Explanation

ACTIONS: Final[dict[Access, tuple[str, ...]]] = {
    "read": ("kms:Decrypt",),
    "write": ("kms:Decrypt", "kms:GenerateDataKey"),
    "create": ("kms:GenerateDataKey",),
}
# Who may do both with a key could find out by himself what its policies and grants say about anybody.
INSIGHT: Final = ("kms:GetKeyPolicy", "kms:ListGrants")

_FILE_BITS: Final[dict[Access, int]] = {"read": READ, "write": WRITE, "create": 0}
_DIRECTORY_BITS: Final[dict[Access, int]] = {"read": EXECUTE, "write": EXECUTE, "create": WRITE | EXECUTE}
_MAX_ENTRIES: Final = 40  # that an answer tells: it is one line of at most 64 KiB
_MAX_ANSWER: Final = MAX_LINE - 1024
_MAX_TEXT: Final = 512  # characters of what others wrote


class Subject(NamedTuple):
    """What an access would ask the KMS for: a key (ARN, or the blob of a DEK), an encryption context; and the path."""

    key: str | bytes
    context: dict[str, str]
    path: str


class Explainer:
    """Explains the decisions of one mount."""

    def __init__(
        self,
        volume: VolumeFile,
        filesystem: Filesystem,
        engine: Engine,
        resolver: Resolver,
        options: tuple[str, ...],
        mountpoint: str,
    ) -> None:
        self._volume = volume
        self._filesystem = filesystem
        self._engine = engine
        self._resolver = resolver
        self._options = options
        self._mountpoint = mountpoint

    def subject(self, inode: int, access: Access, *, of_new_file: bool = False) -> Subject:
        """`of_new_file`: of a file that would be made in the directory, also for reading and writing it."""
        if access != "create" and not of_new_file:
            return Subject(*self._filesystem.dek_request(inode))
        key_arn, labels, path = self._filesystem.directory_key(inode)
        # The file id of a file that does not exist yet is not known; no policy can have waited for it.
        return Subject(key_arn, {**labels, **volume_context(self._volume.volume_id)}, path)

    def has_insight(self, peer: Peer, key: str | bytes) -> bool:
        """Whether somebody may know all about a key: root, the KMS's owner, and who administers the key."""
        if peer.uid == 0:
            return True
        try:
            asker = self._resolver.inspect(peer.uid)
        except AccessDenied:
            return False
        if asker.is_account_root:
            return True
        return all(self._engine.explain(asker, action, key, {}).allowed for action in INSIGHT)

    def require_insight(self, peer: Peer, key: str | bytes, what: str) -> None:
        """AccessDenied, with the permissions that are missing, unless `has_insight`."""
        if self.has_insight(peer, key):
            return
        outline = self._engine.outline_key(key)
        on = "the key" if outline is None else outline.arn
        raise AccessDenied(
            f"only root, the KMS's owner and who administers the key may ask {what}: you lack "
            f"{' and '.join(INSIGHT)} on {on}",
            hint="who administers the key can allow both, or ask for you",
        )

    # The chain

    def explain(self, peer: Peer, login: Login, inode: int, access: Access, *, why_not: bool) -> dict[str, Any]:
        """The whole chain for one user. `peer` asks; unless it has insight, others than `login` are left out."""
        subject = self.subject(inode, access)
        insight = self.has_insight(peer, subject.key)
        chain: list[dict[str, Any]] = [
            self._mount_link(login, access),
            self._unix_link(login, inode, access),
        ]
        answer: dict[str, Any] = {
            "allowed": False,
            "user": login.name,
            "uid": login.uid,
            "gids": sorted(login.gids),
            "principal": None,
            "access": access,
            "path": subject.path,
            "context": subject.context,
            "decisions": [],
            "chain": chain,
        }
        try:
            principal = self._resolver.inspect(login.uid)
        except AccessDenied as denied:
            remedy = {"remedies": [f"envfs iam unpin {login.name}"]} if "another uid" in denied.message else {}
            chain.append({"link": "principal", "allowed": False, "text": denied.message, **remedy})
        else:
            answer["principal"] = principal.arn
            chain.append(_principal_link(principal))
            self._kms_links(answer, principal, subject, access, inode, insight=insight, why_not=why_not)
        answer["allowed"] = bool(answer["decisions"]) and all(link["allowed"] for link in chain)
        if not why_not:
            for link in chain:
                link.pop("remedies", None)
        return _fitting(answer)

    def outcome(self, login: Login, principal: Principal, inode: int, access: Access, *, new: bool) -> dict[str, Any]:
        """What decides, in short: `kms` with its `text`, and what the Unix modes and the mount lack."""
        subject = self.subject(inode, access, of_new_file=new)
        facts = RequestFacts(via_service=VIA_SERVICE, path=subject.path, access=access)
        decisions = [
            self._engine.explain(principal, one, subject.key, subject.context, facts) for one in ACTIONS[access]
        ]
        deciding = next((one for one in decisions if not one.allowed), decisions[0])
        mount = self._mount_link(login, access)
        unix = self._unix_link(login, inode, access)
        return {
            "allowed": deciding.allowed and bool(mount["allowed"]) and bool(unix["allowed"]),
            "kms": deciding.allowed,
            "text": _short(deciding.text),
            "unix": bool(mount["allowed"]) and bool(unix["allowed"]),
            "unix_text": "; ".join(link["text"] for link in (mount, unix) if not link["allowed"]),
            "remedies": [*mount.get("remedies", ()), *unix.get("remedies", ())],
        }

    def _mount_link(self, login: Login, access: Access) -> dict[str, Any]:
        owner = os.geteuid()
        if "allow_other" not in self._options and login.uid != owner:
            text = f"{self._mountpoint} is mounted for uid {owner} alone (no allow_other)"
            return _link("mount", text, [f"envfs mount -o allow_other … {self._mountpoint}"])
        if "ro" in self._options and access != "read":
            return _link("mount", f"{self._mountpoint} is mounted read-only", [f"envfs mount … {self._mountpoint}"])
        return {"link": "mount", "allowed": True, "text": f"{self._mountpoint} ({','.join(self._options)})"}

    def _unix_link(self, login: Login, inode: int, access: Access) -> dict[str, Any]:
        """The modes from the mount's root to the path. What lies above the mount is the client's to look at."""
        *above, last = self._filesystem.unix_inodes(inode)
        bits = _DIRECTORY_BITS if self._filesystem.is_directory(inode) else _FILE_BITS
        wanted = [(one, EXECUTE) for one in above] + [(last, bits[access])]
        return unix_link([(self._outside(one), needed) for one, needed in wanted], login, acls="acl" in self._options)

    def _outside(self, inode: Inode) -> Inode:
        inner = "" if inode.path == "/" else inode.path
        return inode._replace(path=f"{self._mountpoint.rstrip('/')}{inner}")

    def _kms_links(
        self,
        answer: dict[str, Any],
        principal: Principal,
        subject: Subject,
        access: Access,
        inode: int,
        *,
        insight: bool,
        why_not: bool,
    ) -> None:
        chain = answer["chain"]
        outline = self._engine.outline_key(subject.key)
        if outline is not None:
            usable = outline.state == "Enabled"
            aliases = list(outline.aliases) if insight else []
            text = f"{', '.join(aliases) or outline.arn} is {outline.state}"
            link = {"link": "key", "allowed": usable, "text": text, "key": outline.arn, "aliases": aliases}
            if not usable:
                link["remedies"] = [_KEY_REMEDIES.get(outline.state, "envfs key show {key}").format(key=outline.arn)]
            chain.append(link)
        facts = RequestFacts(via_service=VIA_SERVICE, path=subject.path, access=access)
        for action in ACTIONS[access]:
            explained = self._engine.explain_fully(principal, action, subject.key, subject.context, facts)
            if explained is None:
                decision = self._engine.explain(principal, action, subject.key, subject.context, facts)
                answer["decisions"].append({"action": action, "allowed": False, "text": decision.text})
                chain.append(_link("kms", decision.text, [], action=action))
                continue
            decision = explained.decision
            answer["decisions"].append({"action": action, "allowed": decision.allowed, "text": _short(decision.text)})
            # The state of the key is a link of its own.
            by_policy = explained.changes is None
            text = _short(decision.text) if by_policy is decision.allowed else "allowed by policies and grants"
            link = {"link": "kms", "action": action, "allowed": by_policy, "text": text}
            link |= _considered(explained, insight=insight)
            if why_not and explained.changes is not None:
                link["changes"] = self._changes(explained, subject, action, inode, insight=insight)
            chain.append(link)

    def _changes(
        self, explained: Explanation, subject: Subject, action: str, inode: int, *, insight: bool
    ) -> dict[str, Any]:
        changes = explained.changes
        assert changes is not None
        told: dict[str, Any] = {
            "denials": [_short(entry.ref.text) for entry in changes.denials if entry.ref is not None],
            "needs_allow": changes.needs_allow,
        }
        if not changes.needs_allow:
            return told
        told["conditions"] = [
            {"of": _name(entry), "unmet": [_unmet(one) for one in entry.unmet] or [_constraint(entry)]}
            for entry in changes.conditions
            if insight or entry.concerns_caller
        ][:_MAX_ENTRIES]
        if insight:
            told["groups"] = [arn.rpartition("/")[2] for arn in changes.groups]
        if changes.by_grant:
            outline = self._engine.outline_key(subject.key)
            told["grant"] = {
                "operation": action.removeprefix("kms:"),
                "key": None if outline is None else outline.arn,
                "context_subset": {name: value for name, value in subject.context.items() if name != "envfs:file"},
                "directory": self._scope_of(inode, subject),
            }
        return told

    def _scope_of(self, inode: int, subject: Subject) -> str | None:
        """The directory for which `envfs access grant` would do: the one that gave the file its key and labels."""
        found = self._filesystem.scope_directory(inode)
        labels = {name: value for name, value in subject.context.items() if not name.startswith("envfs:")}
        key = subject.key if isinstance(subject.key, str) else self._engine.key_arn_of_blob(subject.key)
        if found is None or (found.key_arn, found.labels) != (key, labels):
            return None
        return self._outside(Inode(found.path, 0, 0, 0)).path


def unix_link(wanted: list[tuple[Inode, int]], login: Login, *, acls: bool) -> dict[str, Any]:
    """Whether the user has the bits on each inode; each with its mode and what is missing."""
    path: list[dict[str, Any]] = []
    remedies: list[str] = []
    problems: list[str] = []
    for inode, bits in wanted:
        lacking = unix_modes.missing(inode, login, bits)
        path.append(
            {
                "path": inode.path,
                "mode": f"{inode.mode & 0o7777:04o}",
                "uid": inode.uid,
                "gid": inode.gid,
                "acl": inode.acl is not None,
                "needed": unix_modes.letters(bits),
                "missing": unix_modes.letters(lacking),
            }
        )
        if lacking:
            problems.append(f"no {unix_modes.letters(lacking)} on {inode.path} ({inode.mode & 0o7777:04o})")
            remedies += unix_modes.remedies(inode, login, lacking, acls=acls)
    if len(path) > _MAX_ENTRIES:  # a deep one: what is in the way, and the end
        path = [one for one in path[:-_MAX_ENTRIES] if one["missing"]][:_MAX_ENTRIES] + path[-_MAX_ENTRIES:]
    text = _short("; ".join(problems)) or "every mode on the path lets him through"
    return {"link": "unix", "allowed": not problems, "text": text, "path": path, "remedies": remedies[:_MAX_ENTRIES]}


def login_of(user: str | int) -> Login:
    """The account of this name or uid, with its groups. ConfigError if there is none."""
    entry = _entry(str(user))
    return Login(entry.pw_name, entry.pw_uid, frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid)))


def access_of(text: str) -> Access:
    """ConfigError unless it is one."""
    for access in ACTIONS:
        if access == text:
            return access
    raise ConfigError(f"no access: {text!r}", hint="one of " + ", ".join(ACTIONS))


def _entry(text: str) -> pwd.struct_passwd:
    """The account called `text`, or with that uid."""
    try:
        return pwd.getpwnam(text)
    except (KeyError, ValueError):
        pass
    try:
        return pwd.getpwuid(int(text))
    except (KeyError, ValueError, OverflowError):
        raise ConfigError(f"there is no user {text!r} here", hint="getent passwd lists them") from None


_KEY_REMEDIES: Final[Mapping[str, str]] = {
    "Disabled": "envfs key enable {key}",
    "PendingDeletion": "envfs key cancel-deletion {key} && envfs key enable {key}",
    "PendingImport": "envfs key import {key} FILE",
}
_WORDS: Final = {
    Outcome.DENIES: "denies",
    Outcome.ALLOWS: "allows",
    Outcome.DELEGATES: "allows what an identity policy allows as well",
    Outcome.OTHER_ACTION: "is about other actions",
    Outcome.OTHER_PRINCIPAL: "is about others",
    Outcome.OTHER_RESOURCE: "is about other keys",
    Outcome.UNMET: "does not apply",
}
# What decides is told first, should there be more than an answer has room for.
_RANK: Final = {outcome: rank for rank, outcome in enumerate(_WORDS)} | {Outcome.UNMET: 3}


def _link(name: str, text: str, remedies: list[str], **more: Any) -> dict[str, Any]:
    return {"link": name, "allowed": False, "text": text, "remedies": remedies, **more}


def _principal_link(principal: Principal) -> dict[str, Any]:
    groups = sorted(arn.rpartition("/")[2] for arn in principal.group_arns)
    owner = ", the owner of the KMS" if principal.is_account_root else ""
    text = f"{principal.arn}{owner}; groups: {', '.join(groups) or '-'}"
    return {"link": "principal", "allowed": True, "text": _short(text), "groups": groups[:200]}


def _considered(explained: Explanation, *, insight: bool) -> dict[str, Any]:
    entries = [entry for entry in explained.trace.entries if insight or entry.concerns_caller]
    entries.sort(key=lambda entry: _RANK[entry.outcome])
    told = [_told(entry) for entry in entries[:_MAX_ENTRIES]]
    return {
        "considered": told,
        "not_told": len(explained.trace.entries) - len(told) + explained.trace.other_grants,
    }


def _told(entry: Entry) -> dict[str, Any]:
    unmet = [_unmet(one) for one in entry.unmet]
    if entry.outcome is Outcome.UNMET and entry.rule is not None:
        unmet = [_constraint(entry)]
    return {"what": _name(entry), "outcome": entry.outcome.value, "text": _WORDS[entry.outcome], "unmet": unmet}


def _name(entry: Entry) -> str:
    if entry.statement is not None:
        return _short(entry.statement.ref.text)
    assert entry.rule is not None
    grant = entry.rule.grant
    named = f" {grant.name!r}" if grant.name else ""
    return _short(f"grant {grant.grant_id[:16]}…{named} to {grant.grantee} ({', '.join(grant.operations)})")


def _unmet(one: Unmet) -> str:
    wanted = " or ".join(repr(value) for value in one.wanted)
    if one.is_error:
        return _short(f"{one.key} {one.operator} {wanted}: cannot be evaluated for this request")
    found = "the request has none" if one.found is None else f"it is {one.found!r}"
    return _short(f"{one.key} {one.operator} {wanted}: {found}")


def _constraint(entry: Entry) -> str:
    assert entry.rule is not None
    constraints = entry.rule.constraints
    if constraints is None:
        return "what is asked for is more than the grant has"
    pairs = ", ".join(f"{name}={value}" for name, value in constraints.pairs.items())
    return _short(f"{constraints.types[0]} {pairs}: the encryption context is another")


def _fitting(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer, without as many of its particulars as do not fit into a line."""
    while len(json.dumps(answer)) > _MAX_ANSWER:
        lists = [link[name] for link in answer["chain"] for name in ("considered", "path", "groups") if name in link]
        longest: list[Any] = max(lists, key=len, default=[])
        if not longest:
            break
        del longest[len(longest) // 2 :]
    return answer


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1]}…"
