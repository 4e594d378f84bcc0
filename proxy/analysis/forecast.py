"""Forecasts when a metric will have enough events to be judged."""

from dataclasses import dataclass

from counterfault.proxy.analysis.comparison import Comparison, Threshold, level_of
from counterfault.proxy.analysis.sample_size import ASSUMED_BAD, expected, needed
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import State
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.samples import Pair


@dataclass(frozen=True, slots=True)
class Forecast:
    """The forecast for one metric, by the events of the cohort that has fewer.

    Attributes:
        metric: Its name.
        needed: How many events it needs.
        have: How many events there are.
        per_second: How many events come per second.
    """

    metric: str
    needed: int
    have: int
    per_second: float

    @property
    def seconds(self) -> float | None:
        """Seconds until the metric can be found within, if it is; None: never, without events."""
        missing = max(self.needed - self.have, 0)
        if not missing:
            return 0.0
        return missing / self.per_second if self.per_second > 0 else None


def forecast(
    experiment: Experiment,
    comparison: Comparison,
    baseline: Pair,
    state: State,
    elapsed: float,
) -> Forecast:
    """Return the forecast for a metric.

    Args:
        experiment: The experiment.
        comparison: The metric as it is compared now.
        baseline: Its events before the faults.
        state: The state of the run.
        elapsed: Seconds since that state began.
    """
    metric, have = comparison.metric, comparison.pair.fewest
    running = state in (State.RUNNING, State.RECOVERING, State.DONE)
    counted = have if running else baseline.fewest
    size = 0 if comparison.within else _size(experiment, comparison, baseline)
    return Forecast(metric.name, size, have, counted / elapsed if elapsed > 0 else 0.0)


def _size(experiment: Experiment, comparison: Comparison, baseline: Pair) -> int:
    found = needed(comparison)
    if found is not None:
        return found
    threshold = Threshold.of(experiment.guard.confidence, len(experiment.steady_state))
    return expected(comparison.metric, threshold, _bad(comparison.metric, baseline))


def _bad(metric: Metric, baseline: Pair) -> float:
    """Return control's share of bad events in baseline, or an assumed one."""
    if metric.success_rate is None and metric.slow is None:
        return ASSUMED_BAD
    seen = level_of(metric, baseline.control, 1.0)
    return seen if seen else ASSUMED_BAD
