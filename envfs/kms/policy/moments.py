"""When a decision may become another one although nothing was changed: conditions on the time of the request.

Whoever keeps what a decision allowed (an open file) asks again at these moments, and need not ask in between.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from envfs.kms.policy.operators import parse_date

_TIME_KEYS: Final = frozenset({"aws:currenttime", "aws:epochtime"})
# In place of a moment: it cannot be told when the outcome changes, so that it may be at any time.
AT_ANY_TIME: Final = -math.inf


def moments_of(conditions: Mapping[str, Mapping[str, Any]]) -> tuple[float, ...]:
    """Moments (seconds since 1970) at which the outcome of a `Condition` element that was compiled may change.

    `AT_ANY_TIME` is among them if a value is no date: it has a policy variable, or is a pattern.
    """
    return tuple(
        moment
        for operator, keys in conditions.items()
        for name, values in keys.items()
        if name.lower() in _TIME_KEYS and "null" not in operator.lower()
        for value in (values if isinstance(values, list) else [values])
        for moment in _around(str(value))
    )


def _around(text: str) -> tuple[float, ...]:
    """Whether "before", "at" or "after", it changes at the date itself or a second later: dates have seconds here."""
    try:
        moment = parse_date(text) / 1_000_000
    except ValueError:
        return _from_number(text)
    return moment, moment + 1


def _from_number(text: str) -> tuple[float, ...]:
    """aws:EpochTime may be compared with any number."""
    try:
        moment = float(text)
    except ValueError:
        return (AT_ANY_TIME,)
    return math.floor(moment), math.floor(moment) + 1, math.floor(moment) + 2


def next_moment(sets: Sequence[Sequence[float]], now: float) -> float:
    """The first moment after `now` (infinity: none), or `AT_ANY_TIME`."""
    coming = math.inf
    for moments in sets:
        for moment in moments:
            if moment == AT_ANY_TIME:
                return AT_ANY_TIME
            if now < moment < coming:
                coming = moment
    return coming
