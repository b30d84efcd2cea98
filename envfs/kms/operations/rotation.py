"""New key material under the same key: automatically, on demand, and which there has been.

https://docs.aws.amazon.com/kms/latest/developerguide/rotate-keys.html. A key's id, ARN, aliases, policy and grants
stay, and every old backing key stays for decryption.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from envfs.errors import Conflict, LimitExceeded, UnsupportedOperation, Validation
from envfs.kms.arn import key_id_text
from envfs.kms.audit.record import Call
from envfs.kms.catalogue import Key
from envfs.kms.model import (
    DOES_NOT_EXPIRE,
    EXPIRES,
    NO_FACTS,
    ORIGIN_EXTERNAL,
    ORIGIN_FOREIGN,
    ORIGIN_KMS,
    ROTATED_AUTOMATICALLY,
    ROTATED_ON_DEMAND,
    SYMMETRIC_DEFAULT,
    KeyState,
    Principal,
    RequestFacts,
    Rotation,
    RotationStatus,
)
from envfs.kms.operations.on_key import OnKey
from envfs.kms.paging import check_limit, make_marker, read_marker
from envfs.kms.schedule import (
    DAY,
    DEFAULT_ROTATION_PERIOD,
    after_rotation,
    has_expired,
    is_pending_rotation,
)
from envfs.kms.schema import BACKING_KEYS, BackingKeyRow, KeyRow
from envfs.kms.sealed_store import Transaction

SHORTEST_PERIOD: Final = 90  # days
LONGEST_PERIOD: Final = 2560
MAX_ON_DEMAND: Final = 25
DEFAULT_PAGE: Final = 100
LARGEST_PAGE: Final = 1000

ROTATIONS_ONLY: Final = "ROTATIONS_ONLY"
ALL_KEY_MATERIAL: Final = "ALL_KEY_MATERIAL"


class RotationOperations(OnKey):
    """Only symmetric encryption keys rotate."""

    def get_key_rotation_status(
        self, principal: Principal, key_id: str, facts: RequestFacts = NO_FACTS
    ) -> RotationStatus:
        """Whether the key rotates by itself. While its deletion is pending it does not, whatever it was set to."""
        with self._on_key("GetKeyRotationStatus", principal, key_id, facts) as (_, key):
            _check_automatic(key)
            row = key.row
            if not row.rotation_period:
                return RotationStatus(key.arn, enabled=False)
            if key.state is KeyState.PENDING_DELETION:
                return RotationStatus(key.arn, enabled=False, period_days=row.rotation_period)
            return RotationStatus(
                key.arn, enabled=True, period_days=row.rotation_period, next_rotation=row.next_rotation
            )

    def enable_key_rotation(
        self,
        principal: Principal,
        key_id: str,
        period_days: int = DEFAULT_ROTATION_PERIOD,
        facts: RequestFacts = NO_FACTS,
    ) -> None:
        """From now on the key gets new material every 90 to 2,560 days; if it does already, the period changes."""
        extra = {"kms:rotationperiodindays": str(period_days)}
        parameters = {"rotationPeriodInDays": period_days}
        with self._on_key("EnableKeyRotation", principal, key_id, facts, parameters, extra, changes=True) as (
            call,
            key,
        ):
            _check_automatic(key)
            if not SHORTEST_PERIOD <= period_days <= LONGEST_PERIOD:
                raise Validation(f"a rotation period has {SHORTEST_PERIOD} to {LONGEST_PERIOD} days, not {period_days}")
            with self._change(call) as transaction:
                row = self._current(call, key)
                if row.rotation_period != period_days:  # to ask again for what is so already puts nothing off
                    date = self._now() + period_days * DAY
                    row = row._replace(rotation_period=period_days, next_rotation=date)
                self._put_key(transaction, row)

    def disable_key_rotation(self, principal: Principal, key_id: str, facts: RequestFacts = NO_FACTS) -> None:
        """The key keeps the material that it has."""
        with self._on_key("DisableKeyRotation", principal, key_id, facts, changes=True) as (call, key):
            _check_automatic(key)
            with self._change(call) as transaction:
                row = self._current(call, key)
                self._put_key(transaction, row._replace(rotation_period=0, next_rotation=0))

    def rotate_key_on_demand(self, principal: Principal, key_id: str, facts: RequestFacts = NO_FACTS) -> str:
        """The key's ARN. New material now, at most 25 times in a key's life; the automatic schedule stays. A key with
        imported material takes the new material that was imported for this.
        """
        with self._on_key("RotateKeyOnDemand", principal, key_id, facts, changes=True) as (call, key):
            _check_rotates(key)
            with self._change(call) as transaction:
                row = self._current(call, key)
                _check_own_material(row)
                backing_keys = self._catalogue.backing_keys(row.key_id)
                made = sum(one.rotation_type == ROTATED_ON_DEMAND for one in backing_keys)
                if made >= MAX_ON_DEMAND:
                    raise LimitExceeded(f"{key.arn} was rotated on demand {made} times, which is the most")
                if row.origin == ORIGIN_KMS:
                    self._rotate(transaction, row, ROTATED_ON_DEMAND)
                else:
                    self._rotate_to(transaction, row, self._waiting(key, row, backing_keys))
        return key.arn

    def list_key_rotations(
        self,
        principal: Principal,
        key_id: str,
        *,
        include: str = ROTATIONS_ONLY,
        limit: int = DEFAULT_PAGE,
        marker: str | None = None,
        facts: RequestFacts = NO_FACTS,
    ) -> tuple[tuple[Rotation, ...], str | None]:
        """The rotations so far, oldest first; with `ALL_KEY_MATERIAL` also the first material, and one that waits for a
        rotation.
        """
        with self._on_key("ListKeyRotations", principal, key_id, facts) as (_, key):
            _check_rotates(key)
            if include not in {ROTATIONS_ONLY, ALL_KEY_MATERIAL}:
                raise Validation(f"{include!r}: write {ROTATIONS_ONLY} or {ALL_KEY_MATERIAL}")
            check_limit(limit, LARGEST_PAGE)
            after = read_marker(marker, int)
            rows = self._catalogue.backing_keys(key.row.key_id)
            current = next((one for one in rows if one.backing_key_id == key.row.backing_key_id), None)
            wanted = [
                one
                for one in rows
                if (include == ALL_KEY_MATERIAL or one.rotation_type) and (after is None or (one.version,) > after)
            ]
            page = wanted[:limit]
            found = tuple(self._rotation(key, one, current) for one in page)
            return found, make_marker(page[-1].version) if len(wanted) > limit else None

    def _rotation(self, key: Key, row: BackingKeyRow, current: BackingKeyRow | None) -> Rotation:
        waits = is_pending_rotation(row, current)
        state = "PENDING_ROTATION" if waits else "CURRENT" if row is current else "NON_CURRENT"
        rotation = Rotation(
            key_id_text(key.row.key_id),
            row.material_id.hex(),
            state,
            rotated=row.created if row.rotation_type else None,
            rotation_type=row.rotation_type or None,
        )
        if key.row.origin != ORIGIN_EXTERNAL:
            return rotation
        is_there = row.wrapped and not has_expired(row, self._now())
        return replace(
            rotation,
            description=row.description,
            import_state="IMPORTED" if is_there else "PENDING_IMPORT",
            expiration_model=EXPIRES if row.valid_to else DOES_NOT_EXPIRE,
            valid_to=row.valid_to or None,
        )

    def _waiting(self, key: Key, row: KeyRow, backing_keys: list[BackingKeyRow]) -> BackingKeyRow:
        """The imported material that waits for a rotation."""
        current = next((one for one in backing_keys if one.backing_key_id == row.backing_key_id), None)
        for one in backing_keys:
            if is_pending_rotation(one, current) and one.wrapped and not has_expired(one, self._now()):
                return one
        raise Conflict(f"no new key material was imported into {key.arn}", hint="import it first, as new key material")

    def _rotate_automatically(self, transaction: Transaction, row: KeyRow) -> Call:
        """When the time has come."""
        self._rotate(transaction, after_rotation(row, self._now()), ROTATED_AUTOMATICALLY)
        return Call("RotateKey", None, parameters={"rotationType": ROTATED_AUTOMATICALLY})

    def _rotate(self, transaction: Transaction, row: KeyRow, rotation_type: str) -> None:
        version = max(one.version for one in self._catalogue.backing_keys(row.key_id)) + 1
        made = self._keyring.new_backing_key(row.key_id, version, row.spec, self._now())
        transaction.put(BACKING_KEYS, made._replace(rotation_type=rotation_type))
        self._put_key(transaction, row._replace(backing_key_id=made.backing_key_id))

    def _rotate_to(self, transaction: Transaction, row: KeyRow, imported: BackingKeyRow) -> None:
        transaction.put(BACKING_KEYS, imported._replace(rotation_type=ROTATED_ON_DEMAND, created=self._now()))
        self._put_key(transaction, row._replace(backing_key_id=imported.backing_key_id))


def _check_rotates(key: Key) -> None:
    if key.row.spec != SYMMETRIC_DEFAULT:
        raise UnsupportedOperation(
            f"{key.arn} has the key spec {key.row.spec}: only symmetric encryption keys rotate",
            hint="make a new key, and let the alias stand for it",
        )


def _check_own_material(row: KeyRow) -> None:
    if row.origin == ORIGIN_FOREIGN:
        raise UnsupportedOperation(
            "the material of a foreign key is rotated by the KMS that holds it", hint="rotate it there"
        )


def _check_automatic(key: Key) -> None:
    _check_rotates(key)
    _check_own_material(key.row)
    if key.row.origin != ORIGIN_KMS:
        raise UnsupportedOperation(
            f"{key.arn} has imported material, which does not rotate by itself",
            hint="import new material and rotate on demand",
        )
