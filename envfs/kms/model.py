"""The values that the KMS's callers see."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal, TypeAlias

from envfs.crypto.secret import Secret

Access: TypeAlias = Literal["read", "write", "create"]

SYMMETRIC_DEFAULT = "SYMMETRIC_DEFAULT"
ENCRYPT_DECRYPT = "ENCRYPT_DECRYPT"
ORIGIN_ENVFS = "ENVFS"
ORIGIN_EXTERNAL = "EXTERNAL"


class KeyState(enum.StrEnum):
    """AWS KMS's key states, as far as envfs has them."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"
    PENDING_DELETION = "PendingDeletion"
    PENDING_IMPORT = "PendingImport"


class KeyManager(enum.StrEnum):
    """Whose key it is: an administrator's, made by the filesystem and visible, or the filesystem's own and
    invisible.
    """

    CUSTOMER = "CUSTOMER"
    SERVICE = "SERVICE"
    OWNED = "OWNED"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. `arn` is the user's ARN, `group_arns` those of his groups; `is_account_root`: he owns the KMS."""

    uid: int
    gid: int
    pid: int
    name: str
    arn: str
    group_arns: frozenset[str]
    is_account_root: bool


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What policies may ask about a request beside its encryption context. A mount passes "envfs" as `via_service`."""

    via_service: str | None = None
    path: str | None = None
    access: Access | None = None


NO_FACTS = RequestFacts()


@dataclass(frozen=True, slots=True)
class DataKey:
    """A data key in both forms; the caller wipes `plaintext`."""

    plaintext: Secret
    blob: bytes
    key_arn: str


@dataclass(frozen=True, slots=True)
class KeyMetadata:
    """What DescribeKey tells. `created` is in seconds since 1970."""

    key_id: str
    arn: str
    account: str
    created: int
    state: KeyState
    description: str
    manager: KeyManager
    spec: str
    usage: str
    origin: str

    @property
    def enabled(self) -> bool:
        return self.state is KeyState.ENABLED


@dataclass(frozen=True, slots=True)
class KeyListEntry:
    """One key in ListKeys."""

    key_id: str
    arn: str


@dataclass(frozen=True, slots=True)
class Alias:
    """One alias in ListAliases; `name` begins with `alias/`."""

    name: str
    arn: str
    target_key_id: str
    created: int
