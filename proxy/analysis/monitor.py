"""Evaluates runs from their counts, once a second, and says why a run has to stop.

Memory between two evaluations holds earlier samples of control, and results that still stand.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import log

import numpy as np

from counterfault.proxy.analysis.comparison import Comparison, Threshold, compare
from counterfault.proxy.analysis.difference import difference_evidence, exceeds
from counterfault.proxy.analysis.external.reading import Reading
from counterfault.proxy.analysis.external.readings import ExternalReadings
from counterfault.proxy.analysis.sample_ratio import SampleRatio
from counterfault.proxy.analysis.verdict import Dose, Findings
from counterfault.proxy.analysis.watermark import horizon_of, p99, watermark
from counterfault.proxy.experiments.cohorts import ENROLLED, Cohort
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import LIVE, Reason, Run, State
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.keys import DoseKey, FaultResult, duration_key
from counterfault.proxy.measurement.samples import Counts, Pair, Sample, columns_for
from counterfault.proxy.measurement.totals import Totals
from counterfault.proxy.measurement.under_way import slot_of
from counterfault.proxy.values.buckets import DURATION_BUCKETS

# The chance that equal cohorts are found to differ in a baseline.
BASELINE_ALPHA = 0.01
# Control is compared with its own baseline over a window of so many seconds, in steps; the alarm is
# for so many tolerances.
WINDOW, STEP = 60.0, 10.0
TOLERANCES = 3.0
_ALARM = log(1 / 0.001)
# One bucket of durations is above the last bound.
_BUCKETS = len(DURATION_BUCKETS) + 1


type DurationsByCohort = tuple[Counts, Counts]
"""Of control and of the experiment, by bucket, shape (34,) each."""


@dataclass(slots=True)
class _Memory:
    """What an evaluation of a run has to know of earlier ones."""

    revision: str
    control: dict[str, deque[tuple[float, Sample]]] = field(default_factory=dict)
    """Cumulative samples of control with their times in seconds, oldest first, by metric."""
    compared: dict[str, Comparison] = field(default_factory=dict)
    """The last comparison of each metric, which stands until its samples grow."""
    durations: dict[str, tuple[DurationsByCohort, DurationsByCohort]] = field(default_factory=dict)
    """By listener, those of the experiment's exchanges when the run began, and those since."""
    usual: float | None = None
    """The 99th percentile of both cohorts' durations in the baseline, in seconds; None: unknown."""
    half: dict[str, Pair] = field(default_factory=dict)
    """The samples at half of recovery; the events after it show whether the cohorts recovered."""


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
        self._read_durations(run, experiment, memory)
        self._settle_rates(run, experiment, memory, now)
        for metric in metrics:
            self.readings.begin(run, metric, now)
        threshold = Threshold.of(experiment.guard.confidence, len(metrics))
        comparisons = tuple(self._compared(run, experiment, m, threshold, now) for m in metrics)
        return Findings(
            comparisons=comparisons,
            ratio=self._ratio(run, experiment),
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

    def _read_durations(self, run: Run, experiment: Experiment, memory: _Memory) -> None:
        """Read how long exchanges have taken since the run began, at the metrics' listeners."""
        for listener in {metric.at for metric in experiment.steady_state if metric.at}:
            control, exposed = (self._durations(listener, run.experiment, c) for c in ENROLLED)
            first, _ = memory.durations.get(listener, ((control, exposed), None))
            memory.durations[listener] = first, (control - first[0], exposed - first[1])
        if run.state is State.BASELINE:
            together = [a + b for _, (a, b) in memory.durations.values()]
            memory.usual = p99(np.sum(together, axis=0)) if together else None

    def _durations(self, listener: str, experiment: str, cohort: str) -> Counts:
        keys = (duration_key(listener, experiment, cohort, i) for i in range(_BUCKETS))
        return np.array([self._totals.get(key) for key in keys])

    def _settle_rates(self, run: Run, experiment: Experiment, memory: _Memory, now: float) -> None:
        """Let rates count what arrived before the watermark of each state's epoch."""
        horizon = horizon_of(memory.usual, experiment)
        for state in LIVE:
            epoch = run.epoch_of(state)
            oldest = self._totals.open.oldest_slot(run.experiment, epoch)
            self._totals.settle(run.experiment, epoch, watermark(oldest, now, horizon))

    def _unfinished(
        self, run: Run, experiment: Experiment, metric: Metric, now: float
    ) -> Counts | None:
        """Return what the experiment has under way for longer than control's p99, by replicate.

        At the end of recovery the account of the faults closes: whatever is still under way then is
        too late.
        """
        if metric.at == "":
            return None
        _, (control, _) = self._memory[run.experiment].durations[metric.at]
        before = None
        closing = run.state is State.RECOVERING and now - run.entered >= experiment.recovery
        usual = p99(control)
        if usual is not None and not closing:
            before = slot_of(max(now - usual, 0.0))
        epoch = run.epoch_of(State.RUNNING)
        return self._totals.open.older(
            run.experiment, epoch, metric.name, Cohort.EXPERIMENT, before
        )

    def _compared(
        self, run: Run, experiment: Experiment, metric: Metric, threshold: Threshold, now: float
    ) -> Comparison:
        pair = self.pair(run, metric, State.RUNNING)
        reading = self.readings.reading(run, metric, now)
        last = self._memory[run.experiment].compared.get(metric.name)
        late = self._unfinished(run, experiment, metric, now)
        stands = last is not None and not last.unfinished and (late is None or not late.any())
        if last is None or not stands or not _same(last, metric, pair, threshold, reading):
            last = compare(metric, pair, experiment.cohorts, threshold, reading, late)
            self._memory[run.experiment].compared[metric.name] = last
        return last

    def _ratio(self, run: Run, experiment: Experiment) -> SampleRatio:
        users, cohorts = self._totals.users(run.experiment, run.revision), experiment.cohorts
        share = cohorts.experiment / (cohorts.experiment + cohorts.control)
        return SampleRatio(len(users.control), len(users.experiment), share)

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
        for metric in metrics:
            pair = self.pair(run, metric, run.state)
            if difference_evidence(metric, pair, experiment.cohorts) >= alarm:
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
        late = now - run.entered >= experiment.recovery / 2
        for metric in experiment.steady_state:
            pair = self.pair(run, metric, State.RECOVERING)
            if not late:
                memory.half[metric.name] = pair
                continue
            since = pair - memory.half[metric.name] if metric.name in memory.half else pair
            if exceeds(metric, since, experiment.cohorts, 0.0, threshold.harm):
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
