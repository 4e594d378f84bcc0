"""Keeps the results of queries to Prometheus, for each run and external metric.

Counts become samples of the run, like those of the workers. The difference of two results belongs
to a state of the run if both are from that state, so that only events after the faults began are
attributed to them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from counterfault.proxy.analysis.external.prometheus_response import (
    Answer,
    Counts,
    Level,
    Series,
    replicate_of,
)
from counterfault.proxy.analysis.external.reading import Reading, effect
from counterfault.proxy.experiments.cohorts import Cohort
from counterfault.proxy.experiments.lifecycle import Run, State
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.keys import SteadyKey
from counterfault.proxy.measurement.totals import Totals

# Seconds without a usable response after which a metric has no data.
GRACE = 15.0
_OWN = "prometheus"

type Both = Mapping[Cohort, Answer]


@dataclass(frozen=True, slots=True)
class When:
    """The moment that a query is about."""

    at: float
    """Seconds of the supervisor's monotonic clock."""
    wall: float
    """The same moment in Unix seconds, for Prometheus and for messages."""


@dataclass(slots=True)
class _Memory:
    """The results so far for one metric of a run."""

    revision: str
    began: float
    good: When | None = None
    """The moment of the last usable response."""
    why: str = ""
    """Why the last response could not be used; empty if it could."""
    epoch: str = ""
    values: dict[Cohort, dict[Series, float]] = field(default_factory=dict)
    """The last value of each series of this epoch, by cohort."""
    plain: bool = False
    levels: tuple[float, float] | None = None
    beyond: float | None = None
    """Since when all results have been beyond the tolerance, in monotonic seconds."""
    lasting: float = 0.0


class ExternalReadings:
    """Keeps results; the supervisor makes the queries. Times are monotonic seconds."""

    def __init__(self, totals: Totals) -> None:
        self._totals = totals
        self._memory: dict[tuple[str, str], _Memory] = {}

    def begin(self, run: Run, metric: Metric, now: float) -> None:
        """Start the time in which a metric must have its first result, unless it has started."""
        if metric.prometheus is not None:
            self._remembered(run, metric, now)

    def reading(self, run: Run, metric: Metric, now: float) -> Reading | None:
        """Return the state of an external metric at `now`, None for any other; changes nothing.

        A metric that has not begun is read as if it began at `now`.
        """
        if metric.prometheus is None:
            return None
        memory = self._known(run, metric) or _Memory(run.revision, now)
        last = memory.good.at if memory.good else memory.began
        late, levels = now - last > GRACE, memory.levels
        return Reading(
            plain=memory.plain,
            levels=levels,
            effect=None if levels is None else effect(levels, metric.lower_is_worse),
            lasting=memory.lasting,
            no_data=_no_data(memory) if late or memory.good is None else "",
            overdue=late and metric.prometheus.required,
        )

    def answered(self, run: Run, metric: Metric, both: Both, when: When) -> None:
        """Take the results for both cohorts, of a moment `when` in the run's present state."""
        memory = self._remembered(run, metric, when.at)
        counted = [isinstance(answer, Counts) for answer in both.values()]
        if any(counted) != all(counted):
            self.failed(run, metric, "only one cohort's series have a label `replicate`", when)
            return
        # If this moment is not after the last, a clock was set back: begin to count anew.
        again = memory.good is not None and when.wall <= memory.good.wall
        memory.good, memory.why, memory.plain = when, "", not any(counted)
        if when.at < run.entered:
            return
        if again or memory.epoch != run.epoch:
            memory.epoch, memory.values = run.epoch, {}
        for cohort, answer in both.items():
            if isinstance(answer, Counts):
                self._count(run, metric, cohort, memory, answer)
        control, experiment = both[Cohort.CONTROL], both[Cohort.EXPERIMENT]
        if isinstance(control, Level) and isinstance(experiment, Level):
            _level(run, metric, memory, (control.value, experiment.value), when.at)

    def failed(self, run: Run, metric: Metric, why: str, when: When) -> None:
        """Note that a query had no usable response, and why."""
        memory = self._remembered(run, metric, when.at)
        memory.why = why
        if run.state is State.RUNNING:
            memory.beyond, memory.lasting = None, 0.0

    def why(self, run: Run, metric: Metric) -> str:
        """Return why the last response could not be used; empty if it could, or is yet to come."""
        memory = self._known(run, metric)
        return "" if memory is None else memory.why

    def _known(self, run: Run, metric: Metric) -> _Memory | None:
        memory = self._memory.get((run.experiment, metric.name))
        return memory if memory is not None and memory.revision == run.revision else None

    def _remembered(self, run: Run, metric: Metric, now: float) -> _Memory:
        memory = self._known(run, metric)
        if memory is None:
            memory = self._memory[run.experiment, metric.name] = _Memory(run.revision, now)
        return memory

    def _count(
        self, run: Run, metric: Metric, cohort: Cohort, memory: _Memory, counts: Counts
    ) -> None:
        known = memory.values.setdefault(cohort, {})
        for series, value in counts.by_series.items():
            gain = increase(known.get(series), value)
            known[series] = value
            if gain:
                replicate = replicate_of(series)
                key = SteadyKey(run.experiment, run.epoch, metric.name, cohort, replicate, "good")
                self._totals.update(_OWN, [(key, self._totals.part(_OWN, key) + gain)])


def increase(before: float | None, now: float) -> float:
    """Return the gain of a cumulative count, 0 if it is new or was reset.

    The value of a new series may be from long before the run, and is no gain of it.
    """
    return max(now - before, 0.0) if before is not None else 0.0


def _level(
    run: Run, metric: Metric, memory: _Memory, levels: tuple[float, float], at: float
) -> None:
    """Take the levels of a plain metric; those without faults are ignored."""
    if run.state is not State.RUNNING:
        return
    memory.levels = levels
    worse = effect(levels, metric.lower_is_worse)
    if worse is None or worse <= metric.tolerance.value:
        memory.beyond, memory.lasting = None, 0.0
        return
    if memory.beyond is None:
        memory.beyond = at
    memory.lasting = at - memory.beyond


def _no_data(memory: _Memory) -> str:
    """Return a sentence such as `no data since 2026-12-01 18:00:05 UTC: HTTP 503`."""
    why = f": {memory.why}" if memory.why else ""
    if memory.good is None:
        return f"no data yet{why}"
    since = datetime.fromtimestamp(memory.good.wall, UTC)
    return f"no data since {since:%Y-%m-%d %H:%M:%S} UTC{why}"
