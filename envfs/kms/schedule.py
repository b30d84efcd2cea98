"""What happens to a key by itself, and when: the end of its waiting period, rotation, expiry of imported material.

Pure functions of rows and of the time in seconds since 1970; 0 is never, as in the rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from envfs.kms.model import KeyState
from envfs.kms.schema import BackingKeyRow, KeyRow

DAY: Final = 86_400
DEFAULT_ROTATION_PERIOD: Final = 365  # days


def with_due(row: KeyRow, backing_keys: Iterable[BackingKeyRow]) -> KeyRow:
    """`row` with the time at which maintenance has to look at it next. Whoever writes a key's row, or changes one of
    its backing keys, passes it through here.
    """
    times = [backing_key.valid_to for backing_key in backing_keys if backing_key.wrapped]
    if row.state == KeyState.PENDING_DELETION:
        times.append(row.deletion_date)
    elif rotates(row):
        times.append(row.next_rotation)
    return row._replace(due=min((time for time in times if time), default=0))


def rotates(row: KeyRow) -> bool:
    """Whether the key rotates by itself as it is now. A disabled key does not; what it missed is caught up later."""
    return row.rotation_period > 0 and row.state == KeyState.ENABLED


def after_rotation(row: KeyRow, now: int) -> KeyRow:
    """`row` after an automatic rotation at `now`: the next one is a whole period later, however late this one was, so
    that of several dates that were missed one is made up for.
    """
    return row._replace(next_rotation=now + row.rotation_period * DAY)


def has_expired(backing_key: BackingKeyRow, now: int) -> bool:
    """Whether imported material must not be used any more, be it still there or not."""
    return 0 < backing_key.valid_to <= now


def expired(backing_keys: Iterable[BackingKeyRow], now: int) -> list[BackingKeyRow]:
    """Those whose material is to be removed."""
    return [one for one in backing_keys if one.wrapped and has_expired(one, now)]


def is_pending_rotation(backing_key: BackingKeyRow, current: BackingKeyRow | None) -> bool:
    """Whether imported material waits for RotateKeyOnDemand: it is newer than what encrypts now."""
    return current is not None and backing_key.version > current.version


def permanent_material(row: KeyRow, backing_keys: Iterable[BackingKeyRow]) -> list[BackingKeyRow]:
    """The backing keys that a key needs to be usable, by version: all but one that waits for a rotation."""
    ordered = sorted(backing_keys, key=lambda backing_key: backing_key.version)
    current = next((one for one in ordered if one.backing_key_id == row.backing_key_id), None)
    return [one for one in ordered if not is_pending_rotation(one, current)]
