"""A metric's course over the run: both cohorts' levels, and the estimate with its bounds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.etree.ElementTree import Element

from counterfault.proxy.experiments.cohorts import ENROLLED
from counterfault.proxy.experiments.lifecycle import LIVE, Epoch, State
from counterfault.proxy.report.svg import (
    BOTTOM,
    TOP,
    Point,
    Scale,
    across,
    axes,
    band,
    level,
    line,
    shape,
    upwards,
)
from counterfault.proxy.report.svg import svg as drawn
from counterfault.proxy.report.wording import Data, size
from counterfault.proxy.values.units import human

# A moment has few requests, and its level jumps about: so many stretches of time are shown at most.
_STRETCHES = 60
# How wide a band must be to have room for its name; that of the faults has it in any case.
_NAMED = 56
_NAMES = {"running": "faults", "recovering": "recovery"}
_TIMES = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


@dataclass(frozen=True, slots=True)
class TimeSeries:
    """The points of the last revision of a run, and its phases; times in seconds since it began."""

    points: tuple[tuple[float, Data], ...]
    phases: tuple[tuple[float, float, str], ...]
    end: float

    @classmethod
    def of(cls, record: Data) -> "TimeSeries":
        timeline, points = record["timeline"], record["points"]
        times = [entry["at"] for entry in (*timeline, *points)]
        if not times:
            return cls((), (), 0.0)
        begin, end = min(times), max(times)
        revision = _revision(points[-1]) if points else ""
        kept = tuple((p["at"] - begin, p) for p in points if _revision(p) == revision)
        changes = [(e["at"] - begin, e["state"]) for e in timeline]
        ends = [at for at, _ in changes[1:]] + [end - begin]
        phases = zip(changes, ends, strict=False)
        lived = tuple((at, until, state) for (at, state), until in phases if state in LIVE)
        return cls(kept, lived, end - begin)


def levels(course: TimeSeries, metric: Data) -> str | None:
    """The chart of both cohorts' levels; None if there is nothing to show."""
    name, kind = metric["name"], _kind(metric)
    lines = {cohort: list(_levels(course, name, kind, cohort)) for cohort in ENROLLED}
    known = [value for points in lines.values() for _, value in points if value is not None]
    if not known:
        return None
    x, y = across(0, course.end), upwards(0, max(known) * 1.15 or 0.01)
    text = {"latency": _as_time, "rate": _as_rate, "plain": _as_number}.get(kind, _as_share)
    layers = [
        *_phases(course, x),
        *axes(x, y, _times(course.end), human, text),
        *(part for cohort in ENROLLED for part in line(x, y, lines[cohort], cohort)),
    ]
    return drawn(f"{name}: {_what(metric)} over time, both cohorts", layers)


def estimates(course: TimeSeries, metric: Data) -> str | None:
    """The chart of the estimate so far, its bounds and the tolerance; None without any."""
    found = [(at, p["metrics"][metric["name"]]) for at, p in _having(course, metric["name"])]
    known = [(at, m) for at, m in found if m["effect"] is not None]
    if not known:
        return None
    unit, allowed = metric["unit"], metric["allowed"]
    low, high = _range([m for _, m in known], allowed)
    x, y = across(0, course.end), upwards(low, high)
    bounds = [
        (at, low if m["lower"] is None else m["lower"], high if m["upper"] is None else m["upper"])
        for at, m in known
    ]
    layers = [
        *_phases(course, x),
        *axes(x, y, _times(course.end), human, lambda v: size(v, unit, sign=True)),
        *band(x, y, bounds, "bounds"),
        *level(y, 0.0, "zero"),
        *line(x, y, [(at, m["effect"]) for at, m in known], "estimate"),
        *level(y, allowed, "allowed", f"allowed: {size(allowed, unit)}"),
    ]
    return drawn(f"{metric['name']}: how much worse the experiment cohort is, over time", layers)


def _having(course: TimeSeries, name: str) -> Iterator[tuple[float, Data]]:
    return ((at, point) for at, point in course.points if name in point["metrics"])


def _levels(course: TimeSeries, name: str, kind: str, cohort: str) -> Iterator[Point]:
    """A cohort's level over time; a share is that of a stretch of time."""
    moments = zip(_befores(course), course.points, strict=True)
    cells = [
        (at, at - before, point["metrics"][name][cohort])
        for before, (at, point) in moments
        if name in point["metrics"]
    ]
    together = -(-len(cells) // _STRETCHES) or 1
    for start in range(0, len(cells), together):
        part = cells[start : start + together]
        lasted = sum(length for _, length, _ in part)
        yield part[-1][0], _together([cell for *_, cell in part], kind, lasted)


def _together(cells: Sequence[Data], kind: str, lasted: float) -> float | None:
    """The level of a stretch of time: of its requests, or of its seconds for a rate.

    Of a latency's quantile it is the mean over the points, each with the weight of its requests.
    """
    if kind == "plain":
        known = [float(cell["level"]) for cell in cells if cell["level"] is not None]
        return sum(known) / len(known) if known else None
    if kind == "rate":
        return sum(float(cell["level"] or 0) for cell in cells) / lasted if lasted > 0 else None
    events = sum(int(cell["events"]) for cell in cells)
    if not events:
        return None
    if kind == "latency":
        return sum(float(cell["level"] or 0) * int(cell["events"]) for cell in cells) / events
    return sum(int(cell["bad"]) for cell in cells) / events


def _befores(course: TimeSeries) -> Iterator[float]:
    """When each point's counts began: at the point before, or with its phase."""
    last = 0.0
    starts = [at for at, *_ in course.phases]
    for at, _ in course.points:
        yield max([last, *(s for s in starts if last < s < at)])
        last = at


def _range(known: Sequence[Data], allowed: float) -> tuple[float, float]:
    """What is worth seeing: the tolerance and no effect, and the later estimates and bounds."""
    late = known[len(known) // 3 :]
    last = [v for v in (known[-1]["lower"], known[-1]["upper"]) if v is not None]
    seen = [0.0, allowed, *(m["effect"] for m in late), *last]
    low, high = min(seen), max(seen)
    room = (high - low) * 0.2
    return low - room, high + room


def _phases(course: TimeSeries, x: Scale) -> Iterator[Element]:
    for begin, end, state in course.phases:
        left, width = x.at(begin), round(x.at(end) - x.at(begin), 1)
        yield shape("rect", f"phase {state}", x=left, y=TOP, width=width, height=BOTTOM - TOP)
        if width >= _NAMED or state == State.RUNNING:
            name = _NAMES.get(state, state)
            yield shape("text", "name middle", name, x=round(left + width / 2, 1), y=TOP - 6)
    for (_, end, _), (begin, *_) in pairwise(course.phases):
        if begin >= end:
            yield shape("line", "change", x1=x.at(begin), x2=x.at(begin), y1=TOP, y2=BOTTOM)


def _times(length: float) -> list[float]:
    """Moments to name on the axis."""
    step = next((t for t in _TIMES if length / t <= 6), _TIMES[-1])
    return [float(step * i) for i in range(int(length // step) + 1)]


def _revision(point: Data) -> str:
    return Epoch(point["epoch"]).revision


def _kind(metric: Data) -> str:
    """What Prometheus counts comes at a rate, too, unless it is one number."""
    if metric["kind"] != "prometheus":
        return str(metric["kind"])
    return "plain" if metric["plain"] else "rate"


def _what(metric: Data) -> str:
    kinds = {
        "success_rate": "failed requests",
        "slow": "slow requests",
        "rate": "events",
        "plain": "what Prometheus says",
    }
    return kinds.get(_kind(metric), f"{metric['tolerance'].split()[0]} latency")


def _as_number(value: float) -> str:
    return f"{value:.4g}"


def _as_time(value: float) -> str:
    return human(float(f"{value:.3g}"))


def _as_share(value: float) -> str:
    return f"{value * 100:.3g}%"


def _as_rate(value: float) -> str:
    return f"{value:.3g}/s"
