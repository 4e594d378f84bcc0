"""A run's course over time: when a point of it is due, and what it holds; when all of it is."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from counterfault.proxy.analysis.monitor import Monitor
from counterfault.proxy.analysis.verdict import Findings
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import LIVE, Run
from counterfault.proxy.measurement.samples import Pair
from counterfault.proxy.models.run_record import Snapshot
from counterfault.proxy.runs.summary import metric_points

# About so many points a run, and no two closer than a second.
POINTS = 240
CLOSEST = 1.0
# All numbers and samples of a run are a hundred times as much to write as a point. They are written
# so often, in seconds, and of so many runs at once: a stop must not have to wait for them.
OFTEN, SELDOM = 5.0, 60.0
AT_ONCE = 1


@dataclass(slots=True)
class _Last:
    epoch: str
    at: float
    pairs: dict[str, Pair] = field(default_factory=dict)


class Snapshots:
    """Times are seconds of one monotonic clock."""

    def __init__(self, watch: Monitor) -> None:
        self._watch = watch
        self._last: dict[str, _Last] = {}
        self._whole: dict[str, tuple[str, float]] = {}
        """The epoch and the time of the last account of each run."""

    def due(self, run: Run, experiment: Experiment, now: float) -> bool:
        """Whether a live run is to be noted now."""
        last = self._last.get(run.experiment)
        return run.state in LIVE and (last is None or now - last.at >= spacing(experiment))

    def whole(self, live: Iterable[tuple[Run, Experiment]], now: float) -> list[Run]:
        """The runs whose account is due, those that wait the longest first; they are noted now."""
        waiting = sorted(
            (since, run.experiment, run)
            for run, e in live
            if (since := self._since(run, now)) <= now - often(e)
        )
        found = [run for _, _, run in waiting[:AT_ONCE]]
        self._whole |= {run.experiment: (run.epoch, now) for run in found}
        return found

    def _since(self, run: Run, now: float) -> float:
        """When a run's account was last written; what moves is written as it moves."""
        epoch, at = self._whole.get(run.experiment, ("", now))
        if epoch != run.epoch:
            at = now
            self._whole[run.experiment] = run.epoch, now
        return at

    def point(self, run: Run, experiment: Experiment, found: Findings, now: float) -> Snapshot:
        """The run since its last point."""
        last = self._last.get(run.experiment)
        metrics = experiment.steady_state
        pairs = {m.name: self._watch.pair(run, m, run.state) for m in metrics}
        earlier = last.pairs if last is not None and last.epoch == run.epoch else {}
        recent = {n: pair - earlier[n] if n in earlier else pair for n, pair in pairs.items()}
        self._last[run.experiment] = _Last(run.epoch, now, pairs)
        metrics_now = metric_points(found.comparisons, recent)
        return Snapshot(state=run.state, epoch=run.epoch, metrics=metrics_now)


def spacing(experiment: Experiment) -> float:
    """Seconds between two points."""
    length = experiment.baseline + experiment.duration + experiment.recovery
    return max(CLOSEST, length / POINTS)


def often(experiment: Experiment) -> float:
    """Seconds between two accounts: what a killed supervisor may lose of its numbers."""
    return min(max(spacing(experiment), OFTEN), SELDOM)
