"""Evaluates runs from their counts, once a second, and says why a run has to stop.

Memory between two evaluations holds earlier samples of control, and results that still stand.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import log

from counterfault.proxy.analysis.comparison import Comparison, Threshold, Users, compare
from counterfault.proxy.analysis.difference import difference_evidence, exceeds
from counterfault.proxy.analysis.external.reading import Reading
from counterfault.proxy.analysis.external.readings import ExternalReadings
from counterfault.proxy.analysis.sample_ratio import SampleRatio
from counterfault.proxy.analysis.verdict import Dose, Findings
from counterfault.proxy.experiments.cohorts import ENROLLED, Cohort
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import Reason, Run, State
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.keys import DoseKey, FaultResult
from counterfault.proxy.measurement.samples import Pair, Sample, columns_for
from counterfault.proxy.measurement.totals import Totals
from counterfault.proxy.measurement.user_sample import UserSample

# The chance that equal cohorts are found to differ in a baseline.
BASELINE_ALPHA = 0.01
# Control is compared with its own baseline over a window of so many seconds, in steps; the alarm is
# for so many tolerances.
WINDOW, STEP = 60.0, 10.0
TOLERANCES = 3.0
# Users have recovered if they are worse off by no more than this share of the tolerance. Against
# none at all, with enough traffic, a trace would refute a hypothesis that allows much more.
RECOVERED = 0.5
_ALARM = log(1 / 0.001)


_BEFORE_FAULTS = (State.PENDING, State.BASELINE)


@dataclass(slots=True)
class _Memory:
    """What an evaluation of a run has to know of earlier ones."""

    revision: str
    control: dict[str, deque[tuple[float, Sample]]] = field(default_factory=dict)
    """Cumulative samples of control with their times in seconds, oldest first, by metric."""
    compared: dict[str, Comparison] = field(default_factory=dict)
    """The last comparison of each metric, which stands until its samples grow."""
    half: dict[str, Pair] = field(default_factory=dict)
    """The samples at half of recovery; the events after it show whether the cohorts recovered."""
    early: UserSample | None = None
    """The users that were met before the faults were on; None while they are off."""


class Monitor:
    """Evaluates runs. Times are seconds of one monotonic clock."""

    def __init__(self, totals: Totals) -> None:
        self._totals = totals
        self.readings = ExternalReadings(totals)
        self._memory: dict[str, _Memory] = {}

    def evaluate(self, run: Run, experiment: Experiment, now: float) -> Findings:
        """Return the findings on a run at `now`."""
        memory = self._memory.get(run.experiment)
        if memory is None or memory.revision != run.revision:
            memory = self._memory[run.experiment] = _Memory(run.revision)
        metrics = experiment.steady_state
        for metric in metrics:
            self.readings.begin(run, metric, now)
        threshold = Threshold.of(experiment.guard.confidence, len(metrics))
        ratio, newcomers = self._ratios(run, experiment, memory)
        comparisons = tuple(self._compared(run, experiment, m, threshold, now) for m in metrics)
        return Findings(
            comparisons=comparisons,
            ratio=ratio,
            newcomers=newcomers,
            dose=self._dose(run, experiment),
            differing=tuple(self._differing(run, experiment, metrics)),
            disturbed=tuple(self._disturbed(run, experiment, memory, now)),
            unrecovered=tuple(self._unrecovered(run, experiment, memory, threshold, now)),
            missing=tuple(_missing(run, experiment, comparisons, now)),
        )

    def pair(self, run: Run, metric: Metric, state: State) -> Pair:
        """Return the samples of both cohorts for a metric, in one state of a run."""
        epoch, cells = run.epoch_of(state), columns_for(metric)
        control, experiment = (
            self._totals.sample(run.experiment, epoch, metric.name, cohort, cells)
            for cohort in ENROLLED
        )
        return Pair(control, experiment)

    def _compared(
        self, run: Run, experiment: Experiment, metric: Metric, threshold: Threshold, now: float
    ) -> Comparison:
        pair = self.pair(run, metric, State.RUNNING)
        reading = self.readings.reading(run, metric, now)
        last = self._memory[run.experiment].compared.get(metric.name)
        if last is None or not _same(last, metric, pair, threshold, reading):
            users = self._users(run)
            last = compare(metric, pair, experiment.cohorts, threshold, reading, users)
            self._memory[run.experiment].compared[metric.name] = last
        return last

    def _users(self, run: Run) -> Users:
        met = self._totals.users(run.experiment, run.revision)
        return Users(met.estimate(Cohort.CONTROL), met.estimate(Cohort.EXPERIMENT))

    def _ratios(
        self, run: Run, experiment: Experiment, memory: _Memory
    ) -> tuple[SampleRatio, SampleRatio | None]:
        """Return the ratio of the users met before the faults, and that of those met since.

        A fault may make clients take new ids, for instance a new session: then the cohorts' numbers
        differ because of the fault, which is no error of their assignment. Without a baseline the
        two cannot be told apart, and all users are in the first one.
        """
        users, cohorts = self._totals.users(run.experiment, run.revision), experiment.cohorts
        share = cohorts.experiment / (cohorts.experiment + cohorts.control)
        if run.state in _BEFORE_FAULTS or not experiment.baseline:
            memory.early = None
            return SampleRatio(len(users.control), len(users.experiment), share), None
        if memory.early is None:
            memory.early = users.copy()
        early = memory.early
        later = len(users.control - early.control), len(users.experiment - early.experiment)
        before = SampleRatio(len(early.control), len(early.experiment), share)
        return before, SampleRatio(*later, share)

    def _dose(self, run: Run, experiment: Experiment) -> Dose:
        epoch, rules = run.epoch_of(State.RUNNING), range(len(experiment.faults))
        counts = (
            sum(self._totals.get(DoseKey(run.experiment, epoch, i, result)) for i in rules)
            for result in (FaultResult.PLANNED, FaultResult.PERFORMED)
        )
        planned, performed = map(int, counts)
        return Dose(planned, performed)

    def _differing(
        self, run: Run, experiment: Experiment, metrics: tuple[Metric, ...]
    ) -> Iterable[str]:
        if run.state is not State.BASELINE:
            return
        alarm = log(len(metrics) / BASELINE_ALPHA) if metrics else 0.0
        users = self._users(run)
        for metric in metrics:
            pair = self.pair(run, metric, run.state)
            if difference_evidence(metric, pair, experiment.cohorts, users) >= alarm:
                yield metric.name

    def _disturbed(
        self, run: Run, experiment: Experiment, memory: _Memory, now: float
    ) -> Iterable[str]:
        if run.state is not State.RUNNING:
            return
        for metric in experiment.steady_state:
            if metric.rate or metric.prometheus:
                continue  # a rate follows the time of day: its own past says nothing
            control = self.pair(run, metric, State.RUNNING).control
            window = _window(memory.control.setdefault(metric.name, deque()), control, now)
            before = self.pair(run, metric, State.BASELINE).control
            past = Pair(before, window)
            if exceeds(metric, past, experiment.cohorts, TOLERANCES, _ALARM):
                yield metric.name

    def _unrecovered(
        self,
        run: Run,
        experiment: Experiment,
        memory: _Memory,
        threshold: Threshold,
        now: float,
    ) -> Iterable[str]:
        if run.state is not State.RECOVERING:
            return
        users = self._users(run)
        late = now - run.entered >= experiment.recovery / 2
        for metric in experiment.steady_state:
            pair = self.pair(run, metric, State.RECOVERING)
            if not late:
                memory.half[metric.name] = pair
                continue
            since = pair - memory.half[metric.name] if metric.name in memory.half else pair
            if exceeds(metric, since, experiment.cohorts, RECOVERED, threshold.harm, users):
                yield metric.name


def stops(run: Run, found: Findings) -> list[Reason]:
    """Return why the findings ask for a run to be stopped, the most important reason first."""
    reasons = []
    if run.state is State.RUNNING and any(c.harmed for c in found.comparisons):
        reasons.append(Reason.HARM)
    if found.missing:
        reasons.append(Reason.NO_DATA)
    if found.ratio is not None and found.ratio.off:
        reasons.append(Reason.SAMPLE_RATIO)
    if found.differing:
        reasons.append(Reason.BASELINE)
    if found.disturbed:
        reasons.append(Reason.INTERFERENCE)
    return reasons


def _missing(
    run: Run, experiment: Experiment, comparisons: Iterable[Comparison], now: float
) -> Iterable[Comparison]:
    """Yield required metrics without data, once baseline ends: there is no need for it earlier."""
    ending = run.state is State.BASELINE and now - run.entered >= experiment.baseline
    if ending or run.state is State.RUNNING:
        yield from (c for c in comparisons if c.reading is not None and c.reading.overdue)


def _same(
    last: Comparison, metric: Metric, pair: Pair, threshold: Threshold, reading: Reading | None
) -> bool:
    """Whether a comparison stands; a sample is the same object until it grows."""
    samples = last.pair.control is pair.control and last.pair.experiment is pair.experiment
    return (
        samples
        and last.metric is metric
        and last.threshold == threshold
        and last.reading == reading
    )


def _window(snapshots: deque[tuple[float, Sample]], control: Sample, now: float) -> Sample:
    """Return control's events of the last `WINDOW` seconds, or since the run began."""
    if not snapshots or now - snapshots[-1][0] >= STEP:
        snapshots.append((now, control))
    while len(snapshots) > 1 and now - snapshots[1][0] >= WINDOW:
        snapshots.popleft()
    return control - snapshots[0][1]
