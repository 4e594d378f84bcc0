"""Reads of runs for requests: no method changes what the supervisor holds or how a run ends."""

from counterfault.proxy.analysis.result import Result
from counterfault.proxy.analysis.verdict import Findings
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import Run, State
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.samples import Pair
from counterfault.proxy.measurement.totals import Totals
from counterfault.proxy.measurement.user_sample import UserSample
from counterfault.proxy.models.run_record import Point, RunRecord, TimelineEvent
from counterfault.proxy.models.run_summary import MetricSamples, RecordedSummary, RunSummary
from counterfault.proxy.runs.evaluator import Evaluator
from counterfault.proxy.runs.registry import RunRegistry


class RunReader:
    """What is known of the present runs and of past ones. Times of the history are Unix seconds."""

    def __init__(self, registry: RunRegistry, evaluator: Evaluator, totals: Totals) -> None:
        self._registry, self._evaluator, self._totals = registry, evaluator, totals

    @property
    def killed(self) -> bool:
        """Whether the kill switch is on."""
        return self._registry.store.killed

    @property
    def error(self) -> str:
        """Why the state directory cannot be used; empty if it can."""
        return self._registry.store.error

    @property
    def is_open(self) -> bool:
        """Whether the state directory is in use, so that runs can start."""
        return self._registry.store.is_open

    def run(self, experiment: Experiment) -> Run:
        """Return the present run of an experiment, a pending one before there is one."""
        return self._registry.runs.get(experiment.name) or Run(experiment.name, experiment.run)

    def remaining(self, experiment: Experiment) -> float | None:
        """Return the seconds until the run's present state ends by itself, None if it does not."""
        return self._registry.remaining(experiment)

    def findings(self, run: Run) -> Findings | None:
        """Return what the last evaluation of a run found, None if it was never evaluated."""
        return self._evaluator.findings(run)

    def preview(self, run: Run, experiment: Experiment) -> RunSummary:
        """Return the summary that an evaluation of a run that was never evaluated would give."""
        return self._evaluator.preview(run, experiment)

    def pair(self, run: Run, metric: Metric, phase: State) -> Pair:
        """Return both cohorts' samples of a metric in one phase of a run."""
        return self._evaluator.monitor.pair(run, metric, phase)

    def samples(self, run: Run, experiment: Experiment) -> MetricSamples:
        """Return the counts by metric, phase, cohort and cell."""
        return self._evaluator.samples(run, experiment)

    def users(self, run: Run) -> UserSample:
        """Return the users that the run has met since its last edit."""
        return self._totals.users(run.experiment, run.revision)

    def recorded_summary(self, name: str) -> RecordedSummary | None:
        """Return the summary of the present run with its samples, as last written."""
        return self._registry.store.summary(self._registry.runs.get(name))

    def summary(self, name: str) -> RunSummary | None:
        """Return the summary of the present run, as it is or as it ended."""
        run = self._registry.runs.get(name)
        if run is None:
            return None
        return self._evaluator.summary(run) or self._registry.store.summary(run)

    def result(self, name: str) -> Result:
        """Return the verdict on the present run in one word."""
        run = self._registry.runs.get(name)
        if run is None:
            return Result.INCONCLUSIVE
        if self._evaluator.findings(run) is not None:
            return self._evaluator.verdict(run).result
        summary = self._registry.store.summary(run)
        return summary.verdict.result if summary else Result.INCONCLUSIVE

    def timeline(self, name: str) -> list[TimelineEvent]:
        """Return the transitions of the present run, oldest first."""
        return self._registry.store.timeline(self._registry.runs.get(name))

    def points(self, name: str) -> list[Point]:
        """Return the points in time of the present run, oldest first."""
        return self._registry.store.points(self._registry.runs.get(name))

    def recorded(self, name: str, number: int | None = None) -> RunRecord | None:
        """Return the record of a past run; None without a history. Raises NotRecorded."""
        return self._registry.store.recorded(name, number)
