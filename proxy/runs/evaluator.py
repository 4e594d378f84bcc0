"""Evaluates runs once a second, and turns what it found into summaries, points and records."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from counterfault.proxy.analysis.monitor import Monitor, stops
from counterfault.proxy.analysis.verdict import Findings, Verdict, conclude
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import OVER, PHASES, Run, State
from counterfault.proxy.measurement.samples import Pair
from counterfault.proxy.measurement.totals import Totals
from counterfault.proxy.measurement.user_sample import UserSample
from counterfault.proxy.models.run_record import Snapshot
from counterfault.proxy.models.run_summary import (
    CohortCells,
    MetricSamples,
    RecordedSummary,
    RunSummary,
)
from counterfault.proxy.runs.evaluation import Evaluation
from counterfault.proxy.runs.run_counts import fault_counts, listener_traffic
from counterfault.proxy.runs.snapshots import Snapshots
from counterfault.proxy.runs.summary import run_summary

_NOT_YET = (State.PENDING, State.BASELINE)


@dataclass(frozen=True, slots=True)
class _Evaluated:
    """The last evaluation of a run."""

    revision: str
    experiment: Experiment
    findings: Findings


class Evaluator:
    """Keeps what it found about each run until another run or an edit of it begins.

    `clock` returns monotonic seconds.
    """

    def __init__(self, totals: Totals, clock: Callable[[], float]) -> None:
        self.monitor = Monitor(totals)
        self._totals, self._clock = totals, clock
        self._snapshots = Snapshots(self.monitor)
        self._found: dict[str, _Evaluated] = {}
        self._ended: dict[str, tuple[str, RunSummary]] = {}
        """The revision and the summary with which a run ended, by the experiment's name."""

    def evaluate_all(self, live: Iterable[tuple[Run, Experiment]]) -> dict[str, Evaluation]:
        """Evaluate the live runs now and keep what is found; by the experiments' names."""
        return {run.experiment: self._evaluate(run, experiment) for run, experiment in live}

    def _evaluate(self, run: Run, experiment: Experiment) -> Evaluation:
        found = self.monitor.evaluate(run, experiment, self._clock())
        self._found[run.experiment] = _Evaluated(run.revision, experiment, found)
        return Evaluation(tuple(stops(run, found)), found.held)

    def preview(self, run: Run, experiment: Experiment) -> RunSummary:
        """Return what the counts say of a run that was never evaluated; remembers nothing."""
        found = Monitor(self._totals).evaluate(run, experiment, self._clock())
        return self._summarise(_Evaluated(run.revision, experiment, found), run, UserSample())

    def findings(self, run: Run) -> Findings | None:
        """Return what the last evaluation of a run found; None if it was never evaluated."""
        found = self._evaluated(run)
        return None if found is None else found.findings

    def _evaluated(self, run: Run) -> _Evaluated | None:
        found = self._found.get(run.experiment)
        return found if found is not None and found.revision == run.revision else None

    def verdict(self, run: Run) -> Verdict:
        """Return the verdict on a run as it is now."""
        return conclude(run, self.findings(run) or Findings())

    def summary(self, run: Run) -> RunSummary | None:
        """Return the summary of a run as it is now, or as it ended.

        None: it was never evaluated. What is counted after the end changes no summary, so that
        the history, the page and reports have the same numbers.
        """
        revision, ended = self._ended.get(run.experiment, ("", None))
        if run.state in OVER and revision == run.revision:
            return ended
        found = self._evaluated(run)
        if found is None:
            return None
        return self._summarise(found, run, self._totals.users(run.experiment, run.revision))

    def _summarise(self, found: _Evaluated, run: Run, users: UserSample) -> RunSummary:
        return run_summary(
            conclude(run, found.findings),
            found.findings,
            users,
            fault_counts(run, found.experiment, self._totals),
            listener_traffic(run, found.experiment, self._totals),
        )

    def record(self, run: Run, experiment: Experiment | None) -> RecordedSummary:
        """Return the summary of a run that moves, with its samples, for the history.

        None instead of an experiment: its file was removed, and no samples are left.
        """
        if experiment is None:
            return _recorded(run, self._summary_at_end(run), {})
        if run.state in _NOT_YET or self.findings(run) is None:
            self._evaluate(run, experiment)
        return _recorded(run, self._summary_at_end(run), self.samples(run, experiment))

    def _summary_at_end(self, run: Run) -> RunSummary | None:
        """Return the summary of a run; keep it if it is over."""
        found = self.summary(run)
        if run.state in OVER and found is not None:
            self._ended[run.experiment] = run.revision, found
        return found

    def samples(self, run: Run, experiment: Experiment) -> MetricSamples:
        """Return the counts by metric, phase, cohort and cell."""
        return {
            metric.name: {str(s): _samples(self.monitor.pair(run, metric, s)) for s in PHASES}
            for metric in experiment.steady_state
        }

    def points(self, live: Iterable[tuple[Run, Experiment]]) -> list[tuple[Run, Snapshot]]:
        """Return a point in time of each run for which one is due."""
        now = self._clock()
        return [self.point(run, e) for run, e in live if self._snapshots.due(run, e, now)]

    def point(self, run: Run, experiment: Experiment) -> tuple[Run, Snapshot]:
        """Return a run as the last evaluation found it, as a point in time."""
        found = self.findings(run) or Findings()
        return run, self._snapshots.point(run, experiment, found, self._clock())

    def records(self, live: Iterable[tuple[Run, Experiment]]) -> list[tuple[Run, RecordedSummary]]:
        """Return the records of runs for which they are due, a few at a time."""
        of = {run.experiment: (run, experiment) for run, experiment in live}
        due = self._snapshots.due_records(of.values(), self._clock())
        return [(run, self.record(*of[run.experiment])) for run in due]


def _recorded(run: Run, summary: RunSummary | None, samples: MetricSamples) -> RecordedSummary:
    known = summary or run_summary(conclude(run, Findings()), Findings(), UserSample())
    return RecordedSummary(**vars(known), samples=samples)


def _samples(pair: Pair) -> CohortCells:
    return CohortCells(control=pair.control.to_json(), experiment=pair.experiment.to_json())
