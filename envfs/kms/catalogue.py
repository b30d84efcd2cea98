"""The keys, aliases and policies of the store in the form in which requests use them, kept until the store changes."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Final, TypeVar

from envfs.errors import IntegrityError, InvalidArn, NotFound
from envfs.format.context import decode_context
from envfs.kms.arn import ALIAS_PREFIX, Account, KeyReference
from envfs.kms.model import ORIGIN_EXTERNAL, Grant, GrantConstraints, KeyManager, KeyState, Principal
from envfs.kms.policy.grants import GrantSet
from envfs.kms.policy.parser import parse_identity_policy, parse_key_policy
from envfs.kms.policy.request import KeyFacts
from envfs.kms.policy.statement import Policy
from envfs.kms.schedule import permanent_material
from envfs.kms.schema import (
    ALIASES,
    BACKING_KEYS,
    GRANTS,
    IDENTITY_POLICIES,
    KEYS,
    TAGS,
    BackingKeyRow,
    GrantRow,
    KeyRow,
)
from envfs.kms.sealed_store import SealedStore

K = TypeVar("K")
V = TypeVar("V")

# A cache must not grow with the number of users or keys that ever came by.
_MAX_CACHED: Final = 20_000

_KEY_TABLES: Final = frozenset({KEYS.name, ALIASES.name, TAGS.name, BACKING_KEYS.name})


@dataclass(frozen=True, slots=True)
class Key:
    """A CMK, ready for use. `state` is what counts now: imported material that has expired is no material, whether it
    was removed already or not. `expires`: when it ceases to be so (seconds since 1970, 0: never).
    """

    row: KeyRow
    arn: str
    state: KeyState
    policy: Policy
    facts: KeyFacts
    expires: int = 0

    @property
    def is_service_managed(self) -> bool:
        return self.row.manager == KeyManager.SERVICE


class Catalogue:
    """Reads through to the store. Keys that belong to envfs itself are found by `owned_key` alone."""

    def __init__(self, store: SealedStore, account: Account, clock: Callable[[], float]) -> None:
        self._store = store
        self._account = account
        self._clock = clock
        self._keys: dict[bytes, Key] = {}
        self._aliases: dict[str, bytes] = {}
        self._references: dict[str, KeyReference] = {}  # what a text means does not depend on the store
        self._grants: dict[bytes, GrantSet] = {}
        self._identity: dict[tuple[str, frozenset[str]], tuple[Policy, ...]] = {}

    def drop(self, tables: frozenset[str]) -> None:
        """Forgets what depends on `tables`."""
        if tables & _KEY_TABLES:
            self._keys.clear()
            self._aliases.clear()
        if GRANTS.name in tables:
            self._grants.clear()
        if IDENTITY_POLICIES.name in tables:
            self._identity.clear()

    def find(self, key_id: bytes) -> Key | None:
        """The key with this id, unless it is none of the callers' business."""
        key = self._keys.get(key_id)
        if key is None or (key.expires and self._clock() >= key.expires):
            row = self._store.get(KEYS, key_id)
            if row is None or row.manager == KeyManager.OWNED:
                return None
            key = self.load(row)
            _limit(self._keys)
            self._keys[key_id] = key
        return key

    def resolve(self, reference: str) -> Key:
        """The key that a caller names by id, ARN, alias or alias ARN. NotFound, InvalidArn or InvalidAliasName."""
        parsed = self._references.get(reference)
        if parsed is None:
            parsed = self._account.parse_reference(reference)
            _limit(self._references)
            self._references[reference] = parsed
        key_id = parsed.key_id if parsed.alias is None else self.alias_target(parsed.alias)
        key = None if key_id is None else self.find(key_id)
        if key is None:
            raise NotFound(f"there is no key {reference!r}", hint="see: envfs key list")
        return key

    def resolve_key(self, reference: str) -> Key:
        """As `resolve`, for an operation that takes no alias: NotFound for one, and InvalidArn for an alias ARN."""
        if reference.startswith(ALIAS_PREFIX):
            raise NotFound(
                f"there is no key {reference!r}: this operation takes no alias",
                hint="name the key by its id or ARN; see: envfs key show",
            )
        if reference.startswith("arn:") and f":{ALIAS_PREFIX}" in reference:
            raise InvalidArn(f"{reference!r} is the ARN of an alias", hint="write a key id or a key ARN")
        return self.resolve(reference)

    def alias_target(self, name: str) -> bytes | None:
        """The id of the key behind an alias."""
        key_id = self._aliases.get(name)
        if key_id is None:
            row = self._store.get(ALIASES, name)
            if row is None:
                return None
            key_id = row.key_id
            _limit(self._aliases)
            self._aliases[name] = key_id
        return key_id

    def owned_key(self) -> KeyRow:
        """The CMK that belongs to envfs itself."""
        row = self._store.one(KEYS, manager=KeyManager.OWNED.value)
        if row is None:
            raise IntegrityError("table keys of the KMS's store: the key of envfs itself is missing")
        return row

    def backing_key(self, backing_key_id: bytes) -> BackingKeyRow | None:
        return self._store.get(BACKING_KEYS, backing_key_id)

    def grants(self, key: Key) -> GrantSet:
        """The grants on a key."""
        key_id = key.row.key_id
        found = self._grants.get(key_id)
        if found is None:
            _limit(self._grants)
            found = self._grants[key_id] = GrantSet(load=lambda: self._load_grants(key_id))
        return found

    def backing_keys(self, key_id: bytes) -> list[BackingKeyRow]:
        """All backing keys of a key, by version."""
        return sorted(self._store.find(BACKING_KEYS, key_id=key_id), key=lambda row: row.version)

    def _load_grants(self, key_id: bytes) -> list[Grant]:
        return [to_grant(row, self._account) for row in self._store.find(GRANTS, key_id=key_id)]

    def identity_policies(self, principal: Principal) -> tuple[Policy, ...]:
        """The policies attached to the principal or one of his groups, in the order of their owners' ARNs and their
        names.
        """
        cache_key = (principal.arn, principal.group_arns)
        found = self._identity.get(cache_key)
        if found is None:
            found = self._load_identity_policies(principal)
            _limit(self._identity)
            self._identity[cache_key] = found
        return found

    def _load_identity_policies(self, principal: Principal) -> tuple[Policy, ...]:
        return tuple(
            parse_identity_policy(row.policy, f"identity policy {row.name!r} of {owner}", self._account)
            for owner in sorted({principal.arn, *principal.group_arns})
            for row in self._store.find(IDENTITY_POLICIES, principal=owner)
        )

    def load(self, row: KeyRow) -> Key:
        """The key of an authentic row."""
        arn = self._account.key_arn(row.key_id)
        aliases = tuple(alias.name for alias in self._store.find(ALIASES, key_id=row.key_id))
        tags = {tag.name: tag.value for tag in self._store.find(TAGS, key_id=row.key_id)}
        facts = KeyFacts(arn, row.spec, row.usage, row.origin, aliases, tags)
        state, expires = self._state(row)
        return Key(row, arn, state, parse_key_policy(row.policy, self._account), facts, expires)

    def _state(self, row: KeyRow) -> tuple[KeyState, int]:
        """The state that counts now, and when it ends by itself."""
        state = KeyState(row.state)
        if row.origin != ORIGIN_EXTERNAL or state not in {KeyState.ENABLED, KeyState.DISABLED}:
            return state, 0
        material = permanent_material(row, self.backing_keys(row.key_id))
        expires = min((one.valid_to for one in material if one.valid_to), default=0)
        return (KeyState.PENDING_IMPORT, 0) if 0 < expires <= self._clock() else (state, expires)


def to_grant(row: GrantRow, account: Account) -> Grant:
    """The grant of an authentic row."""
    pairs = decode_context(row.constraint_context)
    constraints = {
        "": None,
        "EncryptionContextEquals": GrantConstraints(equals=pairs),
        "EncryptionContextSubset": GrantConstraints(subset=pairs),
    }[row.constraint_kind]
    return Grant(
        row.grant_id,
        account.key_arn(row.key_id),
        row.name,
        row.grantee,
        row.retiring,
        row.issuing_account,
        tuple(row.operations.split(",")),
        constraints,
        row.created,
    )


def _limit(cache: MutableMapping[K, V]) -> None:
    if len(cache) >= _MAX_CACHED:
        cache.clear()
