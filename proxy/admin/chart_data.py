"""GET /api/experiments/NAME/series: a run's course and latencies, in columns for charts."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from counterfault.proxy.analysis.wording import kind_of
from counterfault.proxy.experiments.cohorts import ENROLLED, Cohort
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import OVER, Run, State
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.keys import DurationKey
from counterfault.proxy.supervisor.supervisor import Supervisor, UnknownExperiment
from counterfault.proxy.values.buckets import DURATION_BUCKETS, LATENCY_BUCKETS

type Data = dict[str, Any]

_ESTIMATE = ("effect", "lower", "upper")
# Finer ones would show noise rather than a shape.
_JOINED = 2


def series(supervisor: Supervisor, name: str) -> Data:
    """Raises UnknownExperiment. Times in Unix seconds; a null is a gap."""
    experiment = next((e for e in supervisor.config.experiments if e.name == name), None)
    if experiment is None:
        raise UnknownExperiment(name)
    points = [*supervisor.ledger.points(name), *_present(supervisor, name)]
    return {
        "at": [point["at"] for point in points],
        "states": [point["state"] for point in points],
        "metrics": {m.name: _course(m, points) for m in experiment.steady_state},
        "latencies": _latencies(supervisor, experiment),
    }


def _present(supervisor: Supervisor, name: str) -> list[Data]:
    """The estimates as they are now or were at the end, which came after the last point."""
    run, account = supervisor.ledger.runs.get(name), supervisor.account(name)
    if run is None or not account:
        return []
    timeline = supervisor.ledger.timeline(name)
    at = timeline[-1]["at"] if run.state in OVER and timeline else supervisor.wall()
    metrics = {m["name"]: {part: m[part] for part in _ESTIMATE} for m in account["metrics"]}
    return [{"at": at, "state": str(run.state), "epoch": run.epoch, "metrics": metrics}]


def _course(metric: Metric, points: Sequence[Data]) -> Data:
    """How one metric went: what each cohort counted since the point before, and the estimate."""
    seen = [point["metrics"].get(metric.name) or {} for point in points]
    levels = {str(c): [(m.get(c) or {}).get("level") for m in seen] for c in ENROLLED}
    if metric.rate is not None:
        levels = {c: _per_second(points, values) for c, values in levels.items()}
    return {
        "kind": kind_of(metric),
        "unit": "%" if metric.tolerance.relative else "pp",
        "allowed": metric.tolerance.value,
        **levels,
        **{part: [m.get(part) for m in seen] for part in _ESTIMATE},
    }


def _per_second(points: Sequence[Data], counted: Sequence[float | None]) -> list[float | None]:
    """A rate of what was counted between two points of one epoch."""
    rates: list[float | None] = [None]
    for (before, after), events in zip(pairwise(points), counted[1:], strict=True):
        seconds = after["at"] - before["at"]
        known = events is not None and seconds > 0 and before["epoch"] == after["epoch"]
        rates.append(events / seconds if known and events is not None else None)
    return rates[: len(points)]


def _latencies(supervisor: Supervisor, e: Experiment) -> list[Data]:
    """Of each latency metric; without one, of the listeners at which the rest is measured."""
    run = supervisor.ledger.runs.get(e.name) or Run(e.name, e.run)
    found = [_of_metric(supervisor, run, m) for m in e.steady_state if m.latency is not None]
    if not found:
        listeners = sorted({m.at for m in e.steady_state} or {f.at for f in e.faults})
        found = [_of_listener(supervisor, e, listener) for listener in listeners]
    return [spread for spread in found if spread is not None]


def _of_metric(supervisor: Supervisor, run: Run, metric: Metric) -> Data | None:
    past = None
    if supervisor.judge.findings(run) is None:
        past = (supervisor.account(run.experiment) or {}).get("samples", {}).get(metric.name)
    for phase in (State.RUNNING, State.BASELINE):
        if past is not None:
            sides = [_summed(past[str(phase)][str(c)]) for c in ENROLLED]
        else:
            pair = supervisor.judge.watch.pair(run, metric, phase)
            sides = [pair.control.cells, pair.experiment.cells]
        if any(sides):
            said = f"{metric.name}, {phase}"
            return _spread(said, metric.at, LATENCY_BUCKETS, sides, _JOINED)
    return None


def _summed(columns: Mapping[str, Sequence[int]]) -> dict[int, int]:
    return {int(cell): sum(counts) for cell, counts in columns.items()}


def _of_listener(supervisor: Supervisor, e: Experiment, listener: str) -> Data | None:
    def cells(cohort: Cohort) -> dict[int, int]:
        keys = (DurationKey(listener, e.name, str(cohort), i) for i in buckets)
        counts = ((int(key[-1]), int(supervisor.totals.get(key))) for key in keys)
        return {cell: count for cell, count in counts if count}

    buckets = range(len(DURATION_BUCKETS) + 1)
    sides = [cells(c) for c in ENROLLED]
    if not any(sides):
        return None
    said = f"all requests at {listener} since the supervisor started"
    return _spread(said, listener, DURATION_BUCKETS, sides, 1)


def _spread(
    said: str, at: str, bounds: Sequence[float], sides: Iterable[Mapping[int, int]], joined: int
) -> Data:
    """Counts between `edges`, of which there is one more than counts; trimmed to what is seen."""
    control, experiment = sides
    cells = sorted({cell // joined for cell in (*control, *experiment)})
    first, last = cells[0], cells[-1]

    def counts(side: Mapping[int, int]) -> list[int]:
        return [
            sum(side.get(cell, 0) for cell in range(i * joined, (i + 1) * joined))
            for i in range(first, last + 1)
        ]

    return {
        "name": said,
        "at": at,
        "edges": [_bound(bounds, i * joined - 1) for i in range(first, last + 2)],
        "control": counts(control),
        "experiment": counts(experiment),
    }


def _bound(bounds: Sequence[float], index: int) -> float:
    """A bucket's upper bound in seconds; those beyond both ends go on as their neighbours do."""
    if index < 0:
        return bounds[0] ** 2 / bounds[1]
    if index < len(bounds):
        return bounds[index]
    return bounds[-1] * bounds[1] / bounds[0]
