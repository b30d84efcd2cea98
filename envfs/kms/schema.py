"""The tables of the KMS's store, their rows as values, and the encoding under which rows are authenticated (FORMAT.md
9.1, 9.2).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

SCHEMA_VERSION: Final = 2
APPLICATION_ID: Final = 0x454E564B  # "ENVK"

Value: TypeAlias = int | str | bytes
_LENGTH: Final = struct.Struct(">I")
_INTEGER: Final = struct.Struct(">q")


def encode_fields(values: Iterable[Value]) -> bytes:
    """`fields(…)` of FORMAT.md 9.1: each value with its type and length, so that no two lists encode alike."""
    parts: list[bytes] = []
    for value in values:
        if isinstance(value, int):
            parts += (b"I", _INTEGER.pack(value))
        elif isinstance(value, str):
            text = value.encode("utf-8")
            parts += (b"T", _LENGTH.pack(len(text)), text)
        else:
            parts += (b"B", _LENGTH.pack(len(value)), value)
    return b"".join(parts)


class StoreRow(NamedTuple):
    id: int
    store_id: bytes
    partition: str
    region: str
    account: str
    owner_uid: int
    created: int


class RootSlotRow(NamedTuple):
    slot_id: bytes
    kind: str
    parameters: bytes
    wrapped: bytes
    created: int


class KeyRow(NamedTuple):
    """A CMK. `rotation_period` is in days; times are in seconds since 1970; 0 is never. `due`: when maintenance has to
    look at the key next, the earliest of its times and those of its backing keys.
    """

    key_id: bytes
    manager: str
    spec: str
    usage: str
    origin: str
    state: str
    description: str
    created: int
    backing_key_id: bytes
    policy: str
    deletion_date: int = 0
    rotation_period: int = 0
    next_rotation: int = 0
    due: int = 0


class BackingKeyRow(NamedTuple):
    """One piece of a CMK's material. `wrapped` is empty where imported material was deleted or has expired (`valid_to`,
    0: never); `material_id` then tells whether the same is imported again. `rotation_type` says how it came to be: "",
    `AUTOMATIC` or `ON_DEMAND`. `public_key` (SubjectPublicKeyInfo, DER) is empty for symmetric keys.
    """

    backing_key_id: bytes
    key_id: bytes
    version: int
    spec: str
    wrapped: bytes
    created: int
    rotation_type: str = ""
    public_key: bytes = b""
    material_id: bytes = b""
    description: str = ""
    valid_to: int = 0


class AliasRow(NamedTuple):
    """`updated`: when the alias got the key that it stands for."""

    name: str
    key_id: bytes
    created: int
    updated: int = 0


class IdentityPolicyRow(NamedTuple):
    principal: str
    name: str
    policy: str
    created: int


class GrantRow(NamedTuple):
    """A grant. `operations` are sorted and joined by commas; `constraint_kind` is "", `EncryptionContextEquals` or
    `EncryptionContextSubset`, and `constraint_context` an encoded encryption context (FORMAT.md section 3).
    """

    grant_id: str
    key_id: bytes
    name: str
    grantee: str
    retiring: str
    issuing_account: str
    operations: str
    constraint_kind: str
    constraint_context: bytes
    created: int


class TagRow(NamedTuple):
    key_id: bytes
    name: str
    value: str


class AccessKeyRow(NamedTuple):
    """What a Unix user signs requests with over TCP; `wrapped` is the secret access key under the root key."""

    access_key_id: str
    uid: int
    user: str
    wrapped: bytes
    created: int


class PinRow(NamedTuple):
    uid: int
    name: str
    created: int


class AuditChainRow(NamedTuple):
    chain_id: bytes
    sequence: int
    tag: bytes
    size: int
    sealed: int
    created: int


class SetRow(NamedTuple):
    name: str
    generation: int
    rows: int
    digest: bytes


class TreeRow(NamedTuple):
    """A digest in the tree of table `name`: of leaf `number` under node `parent`, of node `number` if that is -1."""

    name: str
    parent: int
    number: int
    digest: bytes


class StateRow(NamedTuple):
    id: int
    generation: int
    mac: bytes


Row = TypeVar("Row", bound=tuple[Value, ...])


@dataclass(frozen=True, slots=True)
class Table(Generic[Row]):
    """One table: `columns` as (name, SQL type), the first `key_length` of them being the primary key.

    A `sealed` table carries a MAC and the number of its leaf in each row, in the last columns `mac` and `leaf`. Rows
    with equal `group` columns (by default the primary key) share a leaf. Only where it `regroups` may the group of a
    row change while its primary key stays.
    """

    name: str
    make: Callable[[Iterable[Value]], Row]
    columns: tuple[tuple[str, str], ...]
    key_length: int = 1
    unique: tuple[str, ...] = ()
    sealed: bool = True
    group: tuple[str, ...] = ()
    regroups: bool = False
    indexes: tuple[str, ...] = ()

    @property
    def stored_columns(self) -> tuple[tuple[str, str], ...]:
        """All columns, as `columns`."""
        return (*self.columns, ("mac", "BLOB"), ("leaf", "INTEGER")) if self.sealed else self.columns

    @property
    def group_columns(self) -> tuple[str, ...]:
        return self.group or self.key_columns

    @property
    def key_columns(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.columns[: self.key_length])


STORE: Final = Table(
    "store",
    StoreRow._make,
    (("id", "INTEGER"), ("store_id", "BLOB"), ("partition", "TEXT"), ("region", "TEXT"), ("account", "TEXT"),
     ("owner_uid", "INTEGER"), ("created", "INTEGER")),
)  # fmt: skip
ROOT_SLOTS: Final = Table(
    "root_slots",
    RootSlotRow._make,
    (("slot_id", "BLOB"), ("kind", "TEXT"), ("parameters", "BLOB"), ("wrapped", "BLOB"), ("created", "INTEGER")),
)
KEYS: Final = Table(
    "keys",
    KeyRow._make,
    (("key_id", "BLOB"), ("manager", "TEXT"), ("spec", "TEXT"), ("usage", "TEXT"), ("origin", "TEXT"),
     ("state", "TEXT"), ("description", "TEXT"), ("created", "INTEGER"), ("backing_key_id", "BLOB"),
     ("policy", "TEXT"), ("deletion_date", "INTEGER"), ("rotation_period", "INTEGER"), ("next_rotation", "INTEGER"),
     ("due", "INTEGER")),
    indexes=("manager", "due"),
)  # fmt: skip
BACKING_KEYS: Final = Table(
    "backing_keys",
    BackingKeyRow._make,
    (("backing_key_id", "BLOB"), ("key_id", "BLOB"), ("version", "INTEGER"), ("spec", "TEXT"), ("wrapped", "BLOB"),
     ("created", "INTEGER"), ("rotation_type", "TEXT"), ("public_key", "BLOB"), ("material_id", "BLOB"),
     ("description", "TEXT"), ("valid_to", "INTEGER")),
    group=("key_id",),
)  # fmt: skip
ALIASES: Final = Table(
    "aliases",
    AliasRow._make,
    (("name", "TEXT"), ("key_id", "BLOB"), ("created", "INTEGER"), ("updated", "INTEGER")),
    group=("key_id",),
    regroups=True,
)
IDENTITY_POLICIES: Final = Table(
    "identity_policies",
    IdentityPolicyRow._make,
    (("principal", "TEXT"), ("name", "TEXT"), ("policy", "TEXT"), ("created", "INTEGER")),
    key_length=2,
    group=("principal",),
)
GRANTS: Final = Table(
    "grants",
    GrantRow._make,
    (("grant_id", "TEXT"), ("key_id", "BLOB"), ("name", "TEXT"), ("grantee", "TEXT"), ("retiring", "TEXT"),
     ("issuing_account", "TEXT"), ("operations", "TEXT"), ("constraint_kind", "TEXT"), ("constraint_context", "BLOB"),
     ("created", "INTEGER")),
    group=("key_id",),
)  # fmt: skip
TAGS: Final = Table(
    "tags",
    TagRow._make,
    (("key_id", "BLOB"), ("name", "TEXT"), ("value", "TEXT")),
    key_length=2,
    group=("key_id",),
)
ACCESS_KEYS: Final = Table(
    "access_keys",
    AccessKeyRow._make,
    (("access_key_id", "TEXT"), ("uid", "INTEGER"), ("user", "TEXT"), ("wrapped", "BLOB"), ("created", "INTEGER")),
)
PINS: Final = Table(
    "pins", PinRow._make, (("uid", "INTEGER"), ("name", "TEXT"), ("created", "INTEGER")), unique=("name",)
)
AUDIT_CHAINS: Final = Table(
    "audit_chains",
    AuditChainRow._make,
    (("chain_id", "BLOB"), ("sequence", "INTEGER"), ("tag", "BLOB"), ("size", "INTEGER"), ("sealed", "INTEGER"),
     ("created", "INTEGER")),
)  # fmt: skip
SETS: Final = Table(
    "sets",
    SetRow._make,
    (("name", "TEXT"), ("generation", "INTEGER"), ("rows", "INTEGER"), ("digest", "BLOB")),
    sealed=False,
)
TREE: Final = Table(
    "tree",
    TreeRow._make,
    (("name", "TEXT"), ("parent", "INTEGER"), ("number", "INTEGER"), ("digest", "BLOB")),
    key_length=3,
    sealed=False,
)
STATE: Final = Table(
    "state", StateRow._make, (("id", "INTEGER"), ("generation", "INTEGER"), ("mac", "BLOB")), sealed=False
)

SEALED_TABLES: Final = (
    STORE, ROOT_SLOTS, KEYS, BACKING_KEYS, ALIASES, GRANTS, TAGS, IDENTITY_POLICIES, ACCESS_KEYS, PINS, AUDIT_CHAINS,
)  # fmt: skip
ALL_TABLES: Final = (*SEALED_TABLES, TREE, SETS, STATE)
