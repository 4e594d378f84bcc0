"""Weekly windows of time for `guard.hours`, such as `Mon-Fri 09:00-17:00 Europe/London`."""

import re
from dataclasses import dataclass
from datetime import datetime, time
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, WithJsonSchema

from counterfault.proxy.values.units import shown

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY = "|".join(DAYS)
_DAYS = rf"(?:{_DAY})(?:-(?:{_DAY}))?(?:,(?:{_DAY})(?:-(?:{_DAY}))?)*"
_CLOCK = r"(?:[01]\d|2[0-4]):[0-5]\d"
_HOURS = rf"(?:({_DAYS}) )?({_CLOCK})-({_CLOCK}) (\S+)"
_EXAMPLE = "Mon-Fri 09:00-17:00 Europe/London"
_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Window:
    """A window on some weekdays, in the local time of a time zone.

    `days`: 0 is Monday. `start`, `end`: minutes since midnight; the window ends before `end`.
    """

    days: frozenset[int]
    start: int
    end: int
    zone: str

    def open(self, moment: datetime) -> bool:
        """Whether a moment lies in the window; `moment` must have a time zone."""
        local = moment.astimezone(ZoneInfo(self.zone))
        return local.weekday() in self.days and self.start <= _minutes(local.time()) < self.end

    def __str__(self) -> str:
        days = ",".join(DAYS[day] for day in sorted(self.days)) + " " if len(self.days) < 7 else ""
        hours = "-".join(f"{m // 60:02}:{m % 60:02}" for m in (self.start, self.end))
        return f"{days}{hours} {self.zone}"


def window(value: Any) -> Window:
    """Parse a window. Raises ValueError, with what is wrong with it."""
    if isinstance(value, Window):
        return value
    found = re.fullmatch(_HOURS, value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"must be days, hours and a time zone like {_EXAMPLE}, not {shown(value)}")
    days, start, end, zone = found.groups()
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as e:
        raise ValueError(f"{shown(zone)} is no time zone; Europe/London is one") from e
    first, last = _of_day(start), _of_day(end)
    if not first < last <= _MINUTES:
        raise ValueError(f"must begin before it ends, at 24:00 at the latest, not {start}-{end}")
    return Window(_weekdays(days), first, last, zone)


def _weekdays(days: str | None) -> frozenset[int]:
    """Parse weekdays such as `Mon-Fri,Sun`; a range such as `Sat-Mon` may pass the week's end."""
    if days is None:
        return frozenset(range(7))
    found: set[int] = set()
    for part in days.split(","):
        first, _, last = part.partition("-")
        start, length = DAYS.index(first), (DAYS.index(last or first) - DAYS.index(first)) % 7
        found |= {(start + i) % 7 for i in range(length + 1)}
    return frozenset(found)


def _of_day(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)


def _minutes(at: time) -> int:
    return at.hour * 60 + at.minute


Hours = Annotated[
    Window,
    BeforeValidator(window),
    WithJsonSchema({"type": "string", "pattern": f"^{_HOURS}$", "examples": [_EXAMPLE]}),
]
