"""The judge: what is known of each run, what it amounts to, and what is put on record."""

from collections.abc import Callable, Iterable

from counterfault.proxy.analysis.monitor import Monitor, stops
from counterfault.proxy.analysis.verdict import Findings, Verdict, conclude
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import Reason, Run, State
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
from counterfault.proxy.runs.snapshots import Snapshots
from counterfault.proxy.runs.summary import run_summary

PHASES = (State.BASELINE, State.RUNNING, State.RECOVERING)
_NOT_YET = (State.PENDING, State.BASELINE)


class Evaluator:
    """`clock` in monotonic seconds; what it holds of a run ends with the run or an edit of it."""

    def __init__(self, totals: Totals, clock: Callable[[], float]) -> None:
        self.watch = Monitor(totals)
        self._totals, self._clock = totals, clock
        self._chronicle = Snapshots(self.watch)
        self._found: dict[str, tuple[str, Findings]] = {}

    def look(self, live: Iterable[tuple[Run, Experiment]]) -> None:
        """Find out what the counts of the live runs say now."""
        now = self._clock()
        for run, experiment in live:
            self._found[run.experiment] = run.revision, self.watch.evaluate(run, experiment, now)

    def preview(self, run: Run, experiment: Experiment) -> Findings:
        """Return what the counts say of a run that `look` has not seen; remembers nothing."""
        return Monitor(self._totals).evaluate(run, experiment, self._clock())

    def findings(self, run: Run) -> Findings | None:
        """What was found when a run was last looked at."""
        revision, found = self._found.get(run.experiment, ("", None))
        return found if revision == run.revision else None

    def verdict(self, run: Run) -> Verdict:
        """On a run as it is now."""
        return conclude(run, self.findings(run) or Findings())

    def stops(self, run: Run) -> list[Reason]:
        """Why the numbers ask for a run to be stopped."""
        found = self.findings(run)
        return stops(run, found) if found else []

    def held(self, run: Run) -> bool:
        """Whether all metrics are within, with enough of a dose."""
        found = self.findings(run)
        return found is not None and found.held

    def account(self, run: Run) -> RunSummary | None:
        """All there is to say of a run; None if it was never looked at."""
        found = self.findings(run)
        if found is None:
            return None
        users = self._totals.users(run.experiment, run.revision)
        return run_summary(conclude(run, found), found, users)

    def record(self, run: Run, experiment: Experiment | None) -> RecordedSummary:
        """Return the summary of a run that moves, with its samples, for the history.

        None instead of an experiment: its file was removed, and no samples are left.
        """
        if experiment is None:
            return _recorded(run, self.account(run), {})
        if run.state in _NOT_YET or self.findings(run) is None:
            self.look([(run, experiment)])
        return _recorded(run, self.account(run), self.samples(run, experiment))

    def samples(self, run: Run, experiment: Experiment) -> MetricSamples:
        """The counts by metric, phase, cohort and cell."""
        return {
            metric.name: {str(s): _samples(self.watch.pair(run, metric, s)) for s in PHASES}
            for metric in experiment.steady_state
        }

    def points(self, live: Iterable[tuple[Run, Experiment]]) -> list[tuple[Run, Snapshot]]:
        """Points of the runs for which they are due."""
        now = self._clock()
        return [self.point(run, e) for run, e in live if self._chronicle.due(run, e, now)]

    def point(self, run: Run, experiment: Experiment) -> tuple[Run, Snapshot]:
        """A run as it was last found, as a point in time."""
        found = self.findings(run) or Findings()
        return run, self._chronicle.point(run, experiment, found, self._clock())

    def records(self, live: Iterable[tuple[Run, Experiment]]) -> list[tuple[Run, RecordedSummary]]:
        """Records of the runs for which they are due, a few at a time."""
        of = {run.experiment: (run, experiment) for run, experiment in live}
        due = self._chronicle.whole(of.values(), self._clock())
        return [(run, self.record(*of[run.experiment])) for run in due]


def _recorded(run: Run, summary: RunSummary | None, samples: MetricSamples) -> RecordedSummary:
    known = summary or run_summary(conclude(run, Findings()), Findings(), UserSample())
    return RecordedSummary(
        verdict=known.verdict,
        dose=known.dose,
        users=known.users,
        metrics=known.metrics,
        versions=known.versions,
        samples=samples,
    )


def _samples(pair: Pair) -> CohortCells:
    return CohortCells(control=pair.control.to_json(), experiment=pair.experiment.to_json())
