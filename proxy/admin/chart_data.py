"""The data of the page's charts: a run over time and its latencies, in columns."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from counterfault.proxy.analysis.wording import kind_of
from counterfault.proxy.experiments.cohorts import ENROLLED, Cohort
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import OVER, Run, State
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.keys import DurationKey
from counterfault.proxy.models.chart_data import ChartData, LatencyHistogram, MetricSeries
from counterfault.proxy.models.json_model import of_cohort
from counterfault.proxy.models.run_record import Point
from counterfault.proxy.models.run_summary import MetricSummary
from counterfault.proxy.supervisor.sidecar_state import SidecarState
from counterfault.proxy.supervisor.supervisor import UnknownExperiment
from counterfault.proxy.values.buckets import DURATION_BUCKETS, LATENCY_GROWTH, cell_bounds

# Bars of single buckets would show noise rather than a shape.
_BUCKETS_PER_BAR = 2


@dataclass(frozen=True, slots=True)
class _Moment:
    """When a point was taken, and the metrics as they were then."""

    at: float
    state: State
    epoch: str
    estimates: Mapping[str, tuple[float | None, float | None, float | None]]
    """By metric: effect, lower and upper bound."""
    levels: Mapping[str, tuple[float | None, float | None]]
    """By metric: the levels of control and of experiment."""


def chart_data(sidecar: SidecarState, name: str) -> ChartData:
    """Return the charts of an experiment's present run. Raises UnknownExperiment."""
    experiment = next((e for e in sidecar.config.experiments if e.name == name), None)
    if experiment is None:
        raise UnknownExperiment(name)
    moments = [
        *(_of_point(point) for point in sidecar.reader.points(name)),
        *_latest(sidecar, experiment),
    ]
    return ChartData(
        at=[moment.at for moment in moments],
        states=[moment.state for moment in moments],
        metrics={m.name: _metric_series(m, moments) for m in experiment.steady_state},
        latencies=_latencies(sidecar, experiment),
    )


def _of_point(point: Point) -> _Moment:
    return _Moment(
        point.at,
        point.state,
        point.epoch,
        {name: (m.effect, m.lower, m.upper) for name, m in point.metrics.items()},
        {name: (m.control.level, m.experiment.level) for name, m in point.metrics.items()},
    )


def _latest(sidecar: SidecarState, e: Experiment) -> list[_Moment]:
    """Return the estimates as they are now, or as they were when the run ended.

    They are later than the last point. The list is empty before the run has begun.
    """
    run, summary = sidecar.reader.run(e), sidecar.reader.summary(e.name)
    if summary is None:
        return []
    timeline = sidecar.reader.timeline(e.name)
    at = timeline[-1].at if run.state in OVER and timeline else sidecar.wall()
    return [_Moment(at, run.state, run.epoch, _estimates(summary.metrics), {})]


def _estimates(
    metrics: Iterable[MetricSummary],
) -> dict[str, tuple[float | None, float | None, float | None]]:
    return {m.name: (m.effect, m.lower, m.upper) for m in metrics}


def _metric_series(metric: Metric, moments: Sequence[_Moment]) -> MetricSeries:
    """Return a metric's estimates, and what each cohort counted since the point before."""
    unknown = (None, None, None)
    effect, lower, upper = (
        [m.estimates.get(metric.name, unknown)[part] for m in moments] for part in range(3)
    )
    control, experiment = (
        [m.levels.get(metric.name, unknown)[side] for m in moments] for side in range(2)
    )
    if metric.rate is not None:
        control, experiment = _per_second(moments, control), _per_second(moments, experiment)
    return MetricSeries(
        kind=kind_of(metric),
        unit="%" if metric.tolerance.relative else "pp",
        allowed=metric.tolerance.value,
        control=control,
        experiment=experiment,
        effect=effect,
        lower=lower,
        upper=upper,
    )


def _per_second(moments: Sequence[_Moment], counted: Sequence[float | None]) -> list[float | None]:
    """Return the rates per second of what was counted between two points of one epoch."""
    rates: list[float | None] = [None]
    for (before, after), events in zip(pairwise(moments), counted[1:], strict=True):
        seconds = after.at - before.at
        known = events is not None and seconds > 0 and before.epoch == after.epoch
        rates.append(events / seconds if known and events is not None else None)
    return rates[: len(moments)]


def _latencies(sidecar: SidecarState, e: Experiment) -> list[LatencyHistogram]:
    """Return a histogram for each latency metric.

    Without such a metric, for each listener at which the other metrics are measured.
    """
    run = sidecar.reader.run(e)
    found = [_of_metric(sidecar, run, m) for m in e.steady_state if m.latency is not None]
    if not found:
        listeners = sorted({m.at for m in e.steady_state} or {f.at for f in e.faults})
        found = [_of_listener(sidecar, e, listener) for listener in listeners]
    return [histogram for histogram in found if histogram is not None]


def _of_metric(sidecar: SidecarState, run: Run, metric: Metric) -> LatencyHistogram | None:
    """Return a metric's latencies of the running phase, else of the baseline."""
    past, bounds = None, metric.latency.cells.bounds if metric.latency else ()
    if sidecar.reader.findings(run) is None:
        summary = sidecar.reader.recorded_summary(run.experiment)
        past = summary.samples.get(metric.name) if summary else None
        for recorded in summary.metrics if summary else ():
            if recorded.name == metric.name:
                bounds = cell_bounds(recorded.cell_growth or LATENCY_GROWTH)
    for phase in (State.RUNNING, State.BASELINE):
        if past is not None:
            sides = [_summed(of_cohort(past[phase], c)) for c in ENROLLED]
        else:
            pair = sidecar.reader.pair(run, metric, phase)
            sides = [pair.control.cells, pair.experiment.cells]
        if any(sides):
            name = f"{metric.name}, {phase}"
            return _histogram(name, metric.at, bounds, sides, _BUCKETS_PER_BAR)
    return None


def _summed(columns: Mapping[str, Sequence[int]]) -> dict[int, int]:
    return {int(cell): sum(counts) for cell, counts in columns.items()}


def _of_listener(sidecar: SidecarState, e: Experiment, listener: str) -> LatencyHistogram | None:
    def cells(cohort: Cohort) -> dict[int, int]:
        keys = (DurationKey(listener, e.name, str(cohort), i) for i in buckets)
        counts = ((key.bucket, int(sidecar.totals.get(key))) for key in keys)
        return {cell: count for cell, count in counts if count}

    buckets = range(len(DURATION_BUCKETS) + 1)
    sides = [cells(c) for c in ENROLLED]
    if not any(sides):
        return None
    name = f"all requests at {listener} since the supervisor started"
    return _histogram(name, listener, DURATION_BUCKETS, sides, 1)


def _histogram(
    name: str,
    at: str,
    bounds: Sequence[float],
    sides: Iterable[Mapping[int, int]],
    buckets_per_bar: int,
) -> LatencyHistogram:
    """Return a histogram from the first bar with a request to the last.

    Args:
        name: What the histogram shows.
        at: The listener.
        bounds: The upper bounds of the buckets in seconds.
        sides: Control's and experiment's requests by bucket.
        buckets_per_bar: How many buckets a bar stands for.
    """
    control, experiment = sides
    bars = sorted({bucket // buckets_per_bar for bucket in (*control, *experiment)})
    first, last = bars[0], bars[-1]

    def counts(side: Mapping[int, int]) -> list[int]:
        return [
            sum(side.get(bar * buckets_per_bar + i, 0) for i in range(buckets_per_bar))
            for bar in range(first, last + 1)
        ]

    return LatencyHistogram(
        name=name,
        at=at,
        edges=[_bound(bounds, i * buckets_per_bar - 1) for i in range(first, last + 2)],
        control=counts(control),
        experiment=counts(experiment),
    )


def _bound(bounds: Sequence[float], index: int) -> float:
    """Return a bucket's upper bound in seconds.

    The first and the last bucket are open: each gets a bound that continues its neighbour's ratio.
    """
    if index < 0:
        return bounds[0] ** 2 / bounds[1]
    if index < len(bounds):
        return bounds[index]
    return bounds[-1] * bounds[1] / bounds[0]
