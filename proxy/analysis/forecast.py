"""How long until a metric can be judged, at the rate at which its events come."""

from dataclasses import dataclass

from counterfault.proxy.analysis.comparison import Comparison, Threshold, level_of
from counterfault.proxy.analysis.sample_size import ASSUMED_BAD, expected, needed
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import State
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.samples import Pair


@dataclass(frozen=True, slots=True)
class Forecast:
    """Events of the smaller cohort, and how many come in a second."""

    metric: str
    needed: int
    have: int
    per_second: float

    @property
    def seconds(self) -> float | None:
        """Until it can be said to be within, if it is; None: at this rate, never."""
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
    """For one metric; `elapsed` are the seconds that the present phase has lasted."""
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
    """Control's share of bad events, if baseline has shown one."""
    if metric.success_rate is None and metric.slow is None:
        return ASSUMED_BAD
    seen = level_of(metric, baseline.control, 1.0)
    return seen if seen else ASSUMED_BAD
