"""Parses files of recorded durations into an inverse distribution function.

A file has one value a line, in seconds or with a unit (`0.25`, `250ms`). Or its first line is
`le,count` and the others are the buckets of a Prometheus histogram: an upper bound in seconds, and
how many values are at most that (cumulative). Empty lines and comments (#) are ignored.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from counterfault.proxy.values.units import duration, shown

type Point = tuple[float, float]
"""A share of the values, 0 to 1, and the seconds that this share stays below."""
type Line = tuple[int, str]

BUCKETS = "le,count"
# Files with more values are thinned out to about this many points.
_MOST_POINTS = 2000


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded distribution.

    `file`: its name; `points`: with rising shares and seconds; `count`: how many values it has.
    """

    file: str
    points: tuple[Point, ...]
    count: float

    def quantile(self, u: float) -> float:
        """Return the quantile `u`, 0 to 1, in seconds: interpolated linearly between the points."""
        after = bisect_right(self.points, u, key=lambda point: point[0])
        if after in (0, len(self.points)):
            return self.points[min(after, len(self.points) - 1)][1]
        (u0, v0), (u1, v1) = self.points[after - 1], self.points[after]
        return v0 + (v1 - v0) * (u - u0) / (u1 - u0)


def recorded(file: str, content: bytes, longest: float) -> Recorded:
    """Parse a file whose values are at most `longest` seconds.

    Raises ValueError, with the line that is wrong and how.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise ValueError(f"{file} must be UTF-8") from e
    lines = list(_lines(text))
    if lines and lines[0][1].replace(" ", "").lower() == BUCKETS:
        return _of_buckets(file, lines[1:], longest)
    return _of_values(file, lines, longest)


def _lines(text: str) -> Iterator[Line]:
    for number, line in enumerate(text.splitlines(), 1):
        said = line.strip()
        if said and not said.startswith("#"):
            yield number, said


def _of_values(file: str, lines: list[Line], longest: float) -> Recorded:
    values = sorted(_seconds(file, number, said, longest) for number, said in lines)
    if not values:
        raise ValueError(f"{file} has no values")
    count = len(values)
    step = max(1, math.ceil(count / _MOST_POINTS))
    # Both ends are always kept; in between, every `step`-th value.
    kept = sorted({*range(0, count, step), count - 1})
    return Recorded(file, tuple(((i + 0.5) / count, values[i]) for i in kept), count)


def _seconds(file: str, number: int, said: str, longest: float) -> float:
    try:
        seconds = duration(said) if said[-1].isalpha() else float(said)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= longest:
        allowed = f"a duration of 0 to {longest:g} seconds such as 0.25 or 250ms"
        raise ValueError(f"{file}:{number}: must be {allowed}, not {shown(said)}")
    return seconds


def _of_buckets(file: str, lines: list[Line], longest: float) -> Recorded:
    buckets: list[Point] = [(0.0, 0.0)]
    for number, said in lines:
        bound, cumulative = _bucket(file, number, said)
        if not bound > buckets[-1][0] or cumulative < buckets[-1][1]:
            raise ValueError(f"{file}:{number}: bounds and cumulative counts must rise")
        if bound > longest and not math.isinf(bound):
            raise ValueError(f"{file}:{number}: bounds must be at most {longest:g} seconds")
        buckets.append((bound, cumulative))
    total = buckets[-1][1]
    if not total or len(buckets) < 2 or math.isinf(buckets[1][0]):
        raise ValueError(f"{file} has no values in buckets with a bound")
    # What lies above the last bound is taken to be at it, as histogram_quantile does.
    highest = max(bound for bound, _ in buckets if not math.isinf(bound))
    places = [(count / total, min(bound, highest)) for bound, count in buckets]
    return Recorded(file, _rising(places), total)


def _bucket(file: str, number: int, said: str) -> Point:
    try:
        bound, count = (float(part) for part in said.split(","))
        if bound <= 0 or not 0 <= count < math.inf:
            raise ValueError
    except ValueError:
        allowed = "a bound above 0 and a count such as 0.25,1042 or +Inf,1050"
        raise ValueError(f"{file}:{number}: must be {allowed}, not {shown(said)}") from None
    return bound, count


def _rising(places: list[Point]) -> tuple[Point, ...]:
    """Drop empty buckets: of points with equal shares, keep the first and the last."""
    kept: list[Point] = []
    for share, seconds in places:
        if len(kept) > 1 and kept[-1][0] == kept[-2][0] == share:
            kept[-1] = (share, seconds)
        else:
            kept.append((share, seconds))
    return tuple(kept)
