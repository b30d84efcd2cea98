"""Moments on the command line: a date, a time, the beginning of a day, or how long ago."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    _FloatType = click.ParamType[float]
else:
    _FloatType = click.ParamType  # releases of click before 8.4 do not know the parameter

_AGO = re.compile(r"([0-9]{1,6})([smhdw])")
_DAYS_AGO = {"today": 0, "yesterday": 1}
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Moment(_FloatType):
    """Seconds since 1970. What names no time zone is in that of this machine, as a clock on its wall."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        ago = _AGO.fullmatch(str(value))
        try:
            if value in _DAYS_AGO:
                day = dt.datetime.now().astimezone().date() - dt.timedelta(days=_DAYS_AGO[value])
                return dt.datetime.combine(day, dt.time()).timestamp()
            if ago is not None:
                span = dt.timedelta(**{_UNITS[ago[2]]: int(ago[1])})
                return (dt.datetime.now(dt.UTC) - span).timestamp()
            return dt.datetime.fromisoformat(str(value)).timestamp()
        except (ValueError, OverflowError):
            known = "2026-05-01, 2026-05-01T12:00, yesterday, 30m, 2h or 7d"
            return self.fail(f"{value!r} is no time; write {known}", param, ctx)


class Deadline(_FloatType):
    """Seconds since 1970, in the future: a date or time as in `Moment`, or how long from now. A date is its end."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        text = str(value)
        now = dt.datetime.now(dt.UTC)
        span = _AGO.fullmatch(text)
        try:
            if span is not None:
                moment = now + dt.timedelta(**{_UNITS[span[2]]: int(span[1])})
            elif _DATE.fullmatch(text):
                # The next day first, then the time zone: a day has 23 or 25 hours twice a year.
                moment = (dt.datetime.fromisoformat(text) + dt.timedelta(days=1)).astimezone()
            else:
                moment = dt.datetime.fromisoformat(text).astimezone()
            seconds = moment.timestamp()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time; write 2026-05-01, 2026-05-01T12:00, 8h or 7d", param, ctx)
        if seconds <= now.timestamp():
            self.fail(f"{value!r} has passed already", param, ctx)
        return seconds


MOMENT = Moment()
DEADLINE = Deadline()
