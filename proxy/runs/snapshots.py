"""When a point or a whole record of a live run is due to be written, and what a point holds."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from counterfault.proxy.analysis.monitor import Monitor
from counterfault.proxy.analysis.verdict import Findings
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import LIVE, Run
from counterfault.proxy.measurement.samples import Pair
from counterfault.proxy.models.run_record import Snapshot
from counterfault.proxy.runs.summary import metric_points

# A run has about this many points, at least this many seconds apart.
POINTS = 240
POINT_SPACING_MIN = 1.0
# A record with all samples is a hundred times the size of a point. It is written at least and at
# most this many seconds after the last, for one run a tick: no stop has to wait for more.
RECORD_SPACING_MIN, RECORD_SPACING_MAX = 5.0, 60.0
RECORDS_AT_ONCE = 1


@dataclass(slots=True)
class _Last:
    epoch: str
    at: float
    pairs: dict[str, Pair] = field(default_factory=dict)


class Snapshots:
    """Remembers when each run was last written. Times are seconds of one monotonic clock."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._last: dict[str, _Last] = {}
        self._recorded: dict[str, tuple[str, float]] = {}
        """The epoch and the time of the last record of each run."""

    def due(self, run: Run, experiment: Experiment, now: float) -> bool:
        """Return whether a point of the run is due; only live runs have points."""
        last = self._last.get(run.experiment)
        return run.state in LIVE and (last is None or now - last.at >= spacing(experiment))

    def due_records(self, live: Iterable[tuple[Run, Experiment]], now: float) -> list[Run]:
        """Return the runs whose record is due, longest waiting first, and count it as written."""
        waiting = sorted(
            (since, run.experiment, run)
            for run, e in live
            if (since := self._since(run, now)) <= now - record_spacing(e)
        )
        found = [run for _, _, run in waiting[:RECORDS_AT_ONCE]]
        self._recorded |= {run.experiment: (run.epoch, now) for run in found}
        return found

    def _since(self, run: Run, now: float) -> float:
        """Return when the run's record was last written; a move writes it too."""
        epoch, at = self._recorded.get(run.experiment, ("", now))
        if epoch != run.epoch:
            at = now
            self._recorded[run.experiment] = run.epoch, now
        return at

    def point(self, run: Run, experiment: Experiment, found: Findings, now: float) -> Snapshot:
        """Return what the run has counted since its last point, and its estimates."""
        last = self._last.get(run.experiment)
        metrics = experiment.steady_state
        pairs = {m.name: self._monitor.pair(run, m, run.state) for m in metrics}
        earlier = last.pairs if last is not None and last.epoch == run.epoch else {}
        recent = {n: pair - earlier[n] if n in earlier else pair for n, pair in pairs.items()}
        self._last[run.experiment] = _Last(run.epoch, now, pairs)
        metrics_now = metric_points(found.comparisons, recent)
        return Snapshot(state=run.state, epoch=run.epoch, metrics=metrics_now)


def spacing(experiment: Experiment) -> float:
    """Return the seconds between two points of a run."""
    length = experiment.baseline + experiment.duration + experiment.recovery
    return max(POINT_SPACING_MIN, length / POINTS)


def record_spacing(experiment: Experiment) -> float:
    """Return the seconds between two records: what a killed supervisor may lose of a run."""
    return min(max(spacing(experiment), RECORD_SPACING_MIN), RECORD_SPACING_MAX)
