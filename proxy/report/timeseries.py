"""Charts of a metric over the run: both cohorts' levels, and the estimate with its bounds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.etree.ElementTree import Element

from counterfault.proxy.experiments.cohorts import ENROLLED
from counterfault.proxy.experiments.lifecycle import LIVE, Epoch, State
from counterfault.proxy.models.json_model import of_cohort
from counterfault.proxy.models.run_record import MetricPoint, RunRecord
from counterfault.proxy.models.run_record import Point as RunPoint
from counterfault.proxy.models.run_summary import CohortLevel, MetricSummary
from counterfault.proxy.report.svg import (
    BOTTOM,
    TOP,
    Point,
    Scale,
    axes,
    band,
    chart,
    horizontal_line,
    horizontal_scale,
    line,
    shape,
    vertical_scale,
)
from counterfault.proxy.report.wording import size
from counterfault.proxy.values.units import human

# A single point has few requests and its level is noisy, so a line joins them into at most this
# many intervals.
_MOST_INTERVALS = 60
# A phase narrower than this has no room for its name. The running phase is named in any case.
_NAMED_WIDTH = 56
_PHASE_NAMES = {"running": "faults", "recovering": "recovery"}
# Distances between ticks of the time axis, in seconds.
_TIME_STEPS = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(3600, 7200, 10800, 21600, 43200, 86400),
)


@dataclass(frozen=True, slots=True)
class TimeSeries:
    """The points of the last revision of a run, and its phases.

    Attributes:
        points: The points with their times.
        phases: Begin, end and state of each phase.
        end: The length of the run.

    All times are seconds since the run began.
    """

    points: tuple[tuple[float, RunPoint], ...]
    phases: tuple[tuple[float, float, State], ...]
    end: float

    @classmethod
    def of(cls, record: RunRecord) -> "TimeSeries":
        """Return the time series of a recorded run; it is empty if nothing has happened."""
        timeline, points = record.timeline, record.points
        times = [e.at for e in timeline] + [p.at for p in points]
        if not times:
            return cls((), (), 0.0)
        begin, end = min(times), max(times)
        revision = _revision(points[-1]) if points else ""
        kept = tuple((p.at - begin, p) for p in points if _revision(p) == revision)
        changes = [(e.at - begin, e.state) for e in timeline]
        ends = [at for at, _ in changes[1:]] + [end - begin]
        phases = zip(changes, ends, strict=False)
        live = tuple((at, until, state) for (at, state), until in phases if state in LIVE)
        return cls(kept, live, end - begin)


def levels(run: TimeSeries, metric: MetricSummary) -> str | None:
    """Return the chart, as SVG, of both cohorts' levels over time; None without a level."""
    name, kind = metric.name, _kind(metric)
    lines = {cohort: list(_levels(run, name, kind, cohort)) for cohort in ENROLLED}
    known = [value for points in lines.values() for _, value in points if value is not None]
    if not known:
        return None
    x, y = horizontal_scale(0, run.end), vertical_scale(0, max(known) * 1.15 or 0.01)
    text = {"latency": _as_time, "rate": _as_rate, "plain": _as_number}.get(kind, _as_share)
    layers = [
        *_phases(run, x),
        *axes(x, y, _time_ticks(run.end), human, text),
        *(part for cohort in ENROLLED for part in line(x, y, lines[cohort], cohort)),
    ]
    return chart(f"{name}: {_what(metric)} over time, both cohorts", layers)


def estimates(run: TimeSeries, metric: MetricSummary) -> str | None:
    """Return the chart, as SVG, of the estimate, its bounds and the tolerance over time.

    None: there is no estimate.
    """
    found = [
        (at, p.metrics[metric.name], p.metrics[metric.name].effect)
        for at, p in run.points
        if metric.name in p.metrics
    ]
    known = [(at, point, effect) for at, point, effect in found if effect is not None]
    if not known:
        return None
    unit, allowed = metric.unit, metric.allowed
    low, high = _range([(point, effect) for _, point, effect in known], allowed)
    x, y = horizontal_scale(0, run.end), vertical_scale(low, high)
    bounds = [
        (at, low if p.lower is None else p.lower, high if p.upper is None else p.upper)
        for at, p, _ in known
    ]
    layers = [
        *_phases(run, x),
        *axes(x, y, _time_ticks(run.end), human, lambda v: size(v, unit, sign=True)),
        *band(x, y, bounds, "bounds"),
        *horizontal_line(y, 0.0, "zero"),
        *line(x, y, [(at, effect) for at, _, effect in known], "estimate"),
        *horizontal_line(y, allowed, "allowed", f"allowed: {size(allowed, unit)}"),
    ]
    return chart(f"{metric.name}: how much worse the experiment cohort is, over time", layers)


def _levels(run: TimeSeries, name: str, kind: str, cohort: str) -> Iterator[Point]:
    """Yield a cohort's level in intervals of several points each, at the end of the interval."""
    moments = zip(_starts(run), run.points, strict=True)
    counts = [
        (at, at - start, of_cohort(point.metrics[name], cohort))
        for start, (at, point) in moments
        if name in point.metrics
    ]
    together = -(-len(counts) // _MOST_INTERVALS) or 1
    for first in range(0, len(counts), together):
        part = counts[first : first + together]
        seconds = sum(length for _, length, _ in part)
        yield part[-1][0], _interval_level([counted for *_, counted in part], kind, seconds)


def _interval_level(counts: Sequence[CohortLevel], kind: str, seconds: float) -> float | None:
    """Return the level in an interval of so many seconds; None if it is not known.

    It is the share of bad requests, or the rate per second. A latency's level is the mean of the
    points' quantiles, weighted by their requests: the points do not hold the latencies.
    """
    if kind == "plain":
        known = [c.level for c in counts if c.level is not None]
        return sum(known) / len(known) if known else None
    if kind == "rate":
        return sum(c.level or 0 for c in counts) / seconds if seconds > 0 else None
    events = sum(c.events for c in counts)
    if not events:
        return None
    if kind == "latency":
        return sum((c.level or 0) * c.events for c in counts) / events
    return sum(c.bad for c in counts) / events


def _starts(run: TimeSeries) -> Iterator[float]:
    """Yield when each point's counts began: at the point before, or with its phase."""
    last = 0.0
    starts = [at for at, *_ in run.phases]
    for at, _ in run.points:
        yield max([last, *(s for s in starts if last < s < at)])
        last = at


def _range(known: Sequence[tuple[MetricPoint, float]], allowed: float) -> tuple[float, float]:
    """Return the lowest and highest effect to show.

    The range holds zero, the tolerance, the later two thirds of the estimates, and the last
    bounds. Early estimates and bounds are so wide that they would hide the rest.
    """
    late = [effect for _, effect in known[len(known) // 3 :]]
    last, _ = known[-1]
    bounds = [v for v in (last.lower, last.upper) if v is not None]
    shown = [0.0, allowed, *late, *bounds]
    low, high = min(shown), max(shown)
    room = (high - low) * 0.2
    return low - room, high + room


def _phases(run: TimeSeries, x: Scale) -> Iterator[Element]:
    for begin, end, state in run.phases:
        left, width = x.at(begin), round(x.at(end) - x.at(begin), 1)
        yield shape("rect", f"phase {state}", x=left, y=TOP, width=width, height=BOTTOM - TOP)
        if width >= _NAMED_WIDTH or state == State.RUNNING:
            name = _PHASE_NAMES.get(state, state)
            yield shape("text", "name middle", name, x=round(left + width / 2, 1), y=TOP - 6)
    for (_, end, _), (begin, *_) in pairwise(run.phases):
        if begin >= end:
            yield shape("line", "change", x1=x.at(begin), x2=x.at(begin), y1=TOP, y2=BOTTOM)


def _time_ticks(length: float) -> list[float]:
    """Return the times to mark on the axis of a run of so many seconds, in seconds."""
    step = next((t for t in _TIME_STEPS if length / t <= 6), _TIME_STEPS[-1])
    return [float(step * i) for i in range(int(length // step) + 1)]


def _revision(point: RunPoint) -> str:
    return Epoch(point.epoch).revision


def _kind(metric: MetricSummary) -> str:
    """Return the metric's kind; one in Prometheus is `rate`, or `plain` if it is one number."""
    if metric.kind != "prometheus":
        return metric.kind
    return "plain" if metric.plain else "rate"


def _what(metric: MetricSummary) -> str:
    kinds = {
        "success_rate": "failed requests",
        "slow": "slow requests",
        "rate": "events",
        "plain": "what Prometheus says",
    }
    return kinds.get(_kind(metric), f"{metric.tolerance.split()[0]} latency")


def _as_number(value: float) -> str:
    return f"{value:.4g}"


def _as_time(value: float) -> str:
    return human(float(f"{value:.3g}"))


def _as_share(value: float) -> str:
    return f"{value * 100:.3g}%"


def _as_rate(value: float) -> str:
    return f"{value:.3g}/s"
