"""A run's course over time: when a point of it is due, and what it holds."""

from dataclasses import dataclass, field

from proxy.account import Data, point
from proxy.analysis.verdict import Findings
from proxy.experiment import Experiment
from proxy.guard import LIVE, Run
from proxy.sample import Pair
from proxy.watch import Watch

# About so many points a run, and no two closer than a second.
POINTS = 240
CLOSEST = 1.0


@dataclass(slots=True)
class _Last:
    epoch: str
    at: float
    pairs: dict[str, Pair] = field(default_factory=dict)


class Chronicle:
    """Times are seconds of one monotonic clock."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._last: dict[str, _Last] = {}

    def due(self, run: Run, experiment: Experiment, now: float) -> bool:
        """Whether a live run is to be noted now."""
        last = self._last.get(run.experiment)
        return run.state in LIVE and (last is None or now - last.at >= spacing(experiment))

    def point(self, run: Run, experiment: Experiment, found: Findings, now: float) -> Data:
        """The run since its last point."""
        last = self._last.get(run.experiment)
        metrics = experiment.steady_state
        pairs = {m.name: self._watch.pair(run, m, run.state) for m in metrics}
        earlier = last.pairs if last is not None and last.epoch == run.epoch else {}
        recent = {n: pair - earlier[n] if n in earlier else pair for n, pair in pairs.items()}
        self._last[run.experiment] = _Last(run.epoch, now, pairs)
        metrics_now = point(found.comparisons, recent)
        return {"state": str(run.state), "epoch": run.epoch, "metrics": metrics_now}


def spacing(experiment: Experiment) -> float:
    """Seconds between two points."""
    length = experiment.baseline + experiment.duration + experiment.recovery
    return max(CLOSEST, length / POINTS)
