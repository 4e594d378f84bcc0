"""Parses and formats the values that users write: `250ms`, `0.05%`, `0.5pp`, `10KB`, `50KB/s`.

A parser raises ValueError with what is allowed.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

NAME = r"[a-z0-9-]{1,40}"

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"[0-9]{1,12}(?:\.[0-9]{1,12})?"
_DURATION = rf"({_NUMBER})(us|ms|s|m|h|d)"
_SHARE = rf"({_NUMBER})%"
_TOLERANCE = rf"({_NUMBER})(pp|%)"
_BYTES = {"B": 1, "KB": 10**3, "KiB": 1 << 10, "MB": 10**6, "MiB": 1 << 20, "GB": 10**9}
_PER_SECOND = {f"{unit}/s": float(size) for unit, size in _BYTES.items()}
_PER_SECOND |= {"kbit/s": 125.0, "Mbit/s": 125e3, "Gbit/s": 125e6}
_SIZE = rf"({_NUMBER})({'|'.join(_BYTES)})"
_RATE = rf"({_NUMBER})({'|'.join(_PER_SECOND)})"
MOST_BYTES = 10**9
MOST_RATE = 1e9


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How much worse the experiment cohort may be than control.

    `value` is a fraction, 0.005 for 0.5pp and for 0.5%; a `relative` one (%) is of control's level.
    """

    value: float
    relative: bool

    def __str__(self) -> str:
        return f"{self.value * 100:g}{'%' if self.relative else 'pp'}"


def _scalar(value: Any, pattern: str, what: str) -> re.Match[str]:
    found = re.fullmatch(pattern, value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"must be {what}, not {shown(value)}")
    return found


def shown(value: Any) -> str:
    """Return a value as error messages quote it: in words of YAML, at most 40 characters."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"


def duration(value: Any) -> float:
    """Parse a duration such as `250ms`, `3s`, `30m` or `1h`. Returns seconds."""
    found = _scalar(value, _DURATION, "a duration such as 250ms, 3s, 30m or 1h")
    return float(found[1]) * _SECONDS[found[2]]


def positive(value: Any) -> float:
    """Parse a duration above zero. Returns seconds."""
    seconds = duration(value)
    if seconds <= 0:
        raise ValueError("must be longer than 0s")
    return seconds


def share(value: Any) -> float:
    """Parse a share such as `1%` or `0.05%`. Returns a fraction, 0 to 1."""
    found = _scalar(value, _SHARE, "a share such as 1% or 0.05%")
    fraction = float(found[1]) / 100
    if fraction > 1:
        raise ValueError(f"must be at most 100%, not {value}")
    return fraction


def tolerance(value: Any) -> Tolerance:
    """Parse a tolerance: `0.5pp` is absolute, `20%` is relative to control's level."""
    found = _scalar(value, _TOLERANCE, "a tolerance such as 0.5pp (absolute) or 20% (relative)")
    size = Tolerance(float(found[1]) / 100, found[2] == "%")
    if not 0 < size.value <= 10:
        raise ValueError(f"must be above 0 and at most 1000%, not {value}")
    if not size.relative and size.value >= 0.99:
        raise ValueError(f"must be below 99pp, or nothing could be worse, not {value}")
    return size


def size(value: Any) -> int:
    """Parse a size such as `512B`, `10KB` or `1MiB`. Returns bytes."""
    found = _scalar(value, _SIZE, "a size such as 512B, 10KB (1000) or 1MiB (1024 * 1024)")
    count = float(found[1]) * _BYTES[found[2]]
    if count != int(count) or not 1 <= count <= MOST_BYTES:
        raise ValueError(f"must be a whole number of bytes, 1B to 1GB, not {value}")
    return int(count)


def rate(value: Any) -> float:
    """Parse a rate such as `50KB/s` or `1Mbit/s`. Returns bytes per second."""
    found = _scalar(value, _RATE, "a rate such as 50KB/s, 1MiB/s, 256kbit/s or 10Mbit/s")
    bytes_per_second = float(found[1]) * _PER_SECOND[found[2]]
    if not 1 <= bytes_per_second <= MOST_RATE:
        raise ValueError(f"must be 1B/s to 1GB/s, not {value}")
    return bytes_per_second


def _moment(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(
            f"must be a moment with its time zone such as 2026-12-01T18:00:00Z, not {shown(value)}"
        )
    return moment


def _name(value: str) -> str:
    if not re.fullmatch(NAME, value):
        raise ValueError(f"must be 1 to 40 of a-z, 0-9 and -, not {shown(value)}")
    return value


def human_size(count: float) -> str:
    """Format a number of bytes, such as 512B or 10KB."""
    for unit in ("GB", "MB", "KB"):
        if count >= _BYTES[unit]:
            return f"{count / _BYTES[unit]:.4g}{unit}"
    return f"{count:.4g}B"


def percent(fraction: float) -> str:
    """Format a fraction as a percentage, such as 0.05% or 1%."""
    return f"{fraction * 100:.6g}%"


def human(seconds: float) -> str:
    """Format seconds in the unit a person would choose, such as 400ms, 2s or 30m."""
    for unit in ("d", "h", "m", "s", "ms"):
        scaled = seconds / _SECONDS[unit]
        if scaled >= 1 and (unit in ("s", "ms") or scaled == int(scaled)):
            return f"{scaled:.0f}{unit}" if scaled >= 1000 else f"{scaled:.4g}{unit}"
    return f"{seconds / 1e-6:.4g}us" if seconds else "0s"


def roughly(seconds: float) -> str:
    """Format seconds as the estimate of a time to wait, such as 45s, 12m, 5h or 3d."""
    for unit, most in (("s", 90), ("m", 90), ("h", 36)):
        if round(seconds / _SECONDS[unit]) <= most:
            return f"{max(1, round(seconds / _SECONDS[unit]))}{unit}"
    return f"{seconds / _SECONDS['d']:,.0f}d"


def _schema(pattern: str, example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", "examples": [example]})


Duration = Annotated[float, BeforeValidator(duration), _schema(_DURATION, "250ms")]
Positive = Annotated[float, BeforeValidator(positive), _schema(_DURATION, "30m")]
Share = Annotated[float, BeforeValidator(share), _schema(_SHARE, "1%")]
ToleranceText = Annotated[Tolerance, BeforeValidator(tolerance), _schema(_TOLERANCE, "0.5pp")]
Size = Annotated[int, BeforeValidator(size), _schema(_SIZE, "10KB")]
Rate = Annotated[float, BeforeValidator(rate), _schema(_RATE, "50KB/s")]
Name = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": f"^{NAME}$"})]
Moment = Annotated[datetime, BeforeValidator(_moment)]
