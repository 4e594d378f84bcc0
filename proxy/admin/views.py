"""What the supervisor knows, as models: the API, the page and reports are made of them."""

from counterfault import __version__
from counterfault.proxy.analysis.forecast import forecast
from counterfault.proxy.analysis.verdict import conclude
from counterfault.proxy.analysis.wording import kind_of, tolerance_of
from counterfault.proxy.experiments.cohorts import Cohort
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import LIVE, OVER, Run, State
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.exchanges import CODES
from counterfault.proxy.measurement.keys import DoseKey, DurationKey, FaultResult, RequestKey
from counterfault.proxy.measurement.quantiles import duration_quantile, latency_quantile
from counterfault.proxy.measurement.samples import Pair, Sample
from counterfault.proxy.measurement.user_sample import UserSample
from counterfault.proxy.models.overview import (
    CohortCounts,
    CohortTraffic,
    ExperimentDetail,
    ExperimentSummary,
    FaultCounts,
    Limits,
    ListenerTraffic,
    MetricForecast,
    Overview,
    PhaseCounts,
    SampleCounts,
    SteadyStateMetric,
    WorkerCounts,
)
from counterfault.proxy.models.run_record import RunRecord
from counterfault.proxy.models.run_summary import MetricSamples, RunSummary
from counterfault.proxy.runs.evaluator import PHASES
from counterfault.proxy.runs.record import NotRecorded, cohort_shares, phase_lengths, record
from counterfault.proxy.runs.summary import VERSIONS, run_summary
from counterfault.proxy.supervisor.sidecar_state import SidecarState
from counterfault.proxy.supervisor.supervisor import UnknownExperiment
from counterfault.proxy.values.buckets import DURATION_BUCKETS


def overview(sidecar: SidecarState) -> Overview:
    """Return the state of the sidecar and of all its experiments. Times are seconds."""
    config, reader = sidecar.config, sidecar.reader
    error, limits = sidecar.reload_error, config.sidecar.limits
    return Overview(
        service=config.sidecar.service,
        version=__version__,
        uptime=sidecar.uptime,
        killed=reader.killed,
        state_dir_error=reader.error,
        reload_error=[] if error is None else [str(problem) for problem in error.problems],
        lease_remaining=sidecar.lease_remaining,
        faults_active=sidecar.faults_active,
        workers=WorkerCounts(
            ready=sidecar.engine.ready,
            wanted=config.sidecar.workers,
            pids=sidecar.engine.pids,
        ),
        limits=Limits(enrolled=limits.enrolled, active_faults=limits.active_faults),
        enrolled=sum(
            e.cohorts.experiment + e.cohorts.control
            for e in config.experiments
            if _run(sidecar, e).state in LIVE
        ),
        experiments=[_summary(sidecar, e) for e in config.experiments],
    )


def detail(sidecar: SidecarState, name: str) -> ExperimentDetail:
    """Return one experiment with its history and its samples. Raises UnknownExperiment."""
    config = sidecar.config
    pairs = zip(config.experiments, config.raw_experiments, strict=True)
    experiment, raw = next(((e, raw) for e, raw in pairs if e.name == name), (None, None))
    if experiment is None or raw is None:
        raise UnknownExperiment(name)
    summary = sidecar.reader.summary(name)
    return ExperimentDetail(
        **vars(_summary(sidecar, experiment)),
        timeline=sidecar.reader.timeline(name),
        points=sidecar.reader.points(name),
        samples=_samples(sidecar, experiment),
        versions=summary.versions if summary else VERSIONS,
        configuration=raw,
    )


def report(sidecar: SidecarState, name: str, number: int | None = None) -> RunRecord:
    """Return the record of a run, which reports are made of.

    Args:
        sidecar: Knows the present run and the history.
        name: The experiment.
        number: The number of the run; None is the present run.

    Raises:
        UnknownExperiment: No such experiment is configured or in the history.
        NotRecorded: There was no such run.
    """
    experiment = next((e for e in sidecar.config.experiments if e.name == name), None)
    if experiment is None:
        found = sidecar.reader.recorded(name, number)
        if found is None:
            raise UnknownExperiment(name)
        return found
    run = _run(sidecar, experiment)
    if number not in (None, run.run):
        found = sidecar.reader.recorded(name, number)
        if found is None:
            raise NotRecorded(f"{name} has no run {number} on record; its run is {run.run}")
        return found
    if run.state in OVER and (found := _as_it_ended(sidecar, run)):
        return found
    seen = detail(sidecar, name)
    summary = RunSummary(
        verdict=seen.verdict,
        dose=seen.dose,
        users=seen.users,
        metrics=seen.metrics,
        versions=seen.versions,
    )
    return record(run, seen.configuration, summary, seen.samples, seen.timeline, seen.points)


def _as_it_ended(sidecar: SidecarState, run: Run) -> RunRecord | None:
    """Return the record of a run that is over from the history; None without a history.

    The history has the experiment's file as it was then; it may have been edited since.
    """
    try:
        return sidecar.reader.recorded(run.experiment, run.run)
    except NotRecorded:
        return None


def _summary(sidecar: SidecarState, e: Experiment) -> ExperimentSummary:
    run = _run(sidecar, e)
    summary = _run_summary(sidecar, e, run)
    return ExperimentSummary(
        name=e.name,
        hypothesis=e.hypothesis,
        run=e.run,
        state=run.state,
        reason=str(run.reason),
        remaining=sidecar.reader.remaining(e),
        phases=phase_lengths(e),
        cohorts=cohort_shares(e),
        faults=[_fault(sidecar, e, run, i) for i in range(len(e.faults))],
        listeners={
            listener: ListenerTraffic(
                control=_traffic(sidecar, listener, e.name, Cohort.CONTROL),
                experiment=_traffic(sidecar, listener, e.name, Cohort.EXPERIMENT),
            )
            for listener in sidecar.config.sidecar.listeners
        },
        steady_state=[_metric(sidecar, run, metric) for metric in e.steady_state],
        verdict=summary.verdict,
        dose=summary.dose,
        users=summary.users,
        metrics=summary.metrics,
        forecast=_forecast(sidecar, e, run),
    )


def _run_summary(sidecar: SidecarState, e: Experiment, run: Run) -> RunSummary:
    """Return the summary of a run, even of one that has not begun."""
    found = sidecar.reader.summary(e.name)
    if found is not None:
        return found
    findings = sidecar.reader.preview(run, e)
    return run_summary(conclude(run, findings), findings, UserSample())


def _forecast(sidecar: SidecarState, e: Experiment, run: Run) -> list[MetricForecast]:
    """Return per metric of a live run how many events it has, needs and gets in a second."""
    found, left = sidecar.reader.findings(run), sidecar.reader.remaining(e)
    if found is None or left is None:
        return []
    lengths = {State.BASELINE: e.baseline, State.RUNNING: e.duration, State.RECOVERING: e.recovery}
    elapsed = e.duration if run.state is State.RECOVERING else lengths[run.state] - left
    expected = (
        forecast(e, c, sidecar.reader.pair(run, c.metric, State.BASELINE), run.state, elapsed)
        for c in found.comparisons
        if not c.plain
    )
    return [
        MetricForecast(
            metric=f.metric,
            needed=f.needed,
            have=f.have,
            per_second=f.per_second,
            seconds=f.seconds,
        )
        for f in expected
    ]


def _run(sidecar: SidecarState, e: Experiment) -> Run:
    return sidecar.reader.run(e)


def _fault(sidecar: SidecarState, e: Experiment, run: Run, index: int) -> FaultCounts:
    rule = e.faults[index]
    epochs = [run.epoch_of(phase) for phase in PHASES]

    def count(result: FaultResult) -> int:
        get = sidecar.totals.get
        return sum(int(get(DoseKey(e.name, epoch, index, result))) for epoch in epochs)

    return FaultCounts(
        at=rule.at,
        fault=rule.fault.name,
        dose=rule.dose.share if rule.dose.limit is None else str(rule.dose),
        when=rule.when,
        planned=count(FaultResult.PLANNED),
        performed=count(FaultResult.PERFORMED),
        overflow=count(FaultResult.OVERFLOW),
        failed=count(FaultResult.FAILED),
    )


def _traffic(
    sidecar: SidecarState, listener: str, experiment: str, cohort: Cohort
) -> CohortTraffic:
    get, group = sidecar.totals.get, (listener, experiment, cohort)
    codes = {code: int(get(RequestKey(*group, code))) for code in CODES}
    requests = sum(codes.values())
    # Each exchange is counted with its duration; most of a thousand experiments have none.
    buckets = range(len(DURATION_BUCKETS) + 1 if requests else 0)
    durations = {i: int(get(DurationKey(*group, i))) for i in buckets}
    return CohortTraffic(
        requests=requests,
        errors=codes["5xx"] + codes["error"],
        p50=duration_quantile(durations, 0.5),
        p99=duration_quantile(durations, 0.99),
    )


def _metric(sidecar: SidecarState, run: Run, metric: Metric) -> SteadyStateMetric:
    latency, kind = metric.latency, kind_of(metric)

    def counts(sample: Sample) -> SampleCounts:
        quantile = None
        if latency is not None and sample.events:
            quantile = latency_quantile(sample.cells, latency.quantile, latency.cells.bounds)
        return SampleCounts(events=sample.events, bad=sample.bad, quantile=quantile)

    def both(pair: Pair) -> CohortCounts:
        return CohortCounts(control=counts(pair.control), experiment=counts(pair.experiment))

    pair = sidecar.reader.pair
    return SteadyStateMetric(
        name=metric.name,
        at=metric.at or kind,
        kind=kind,
        tolerance=tolerance_of(metric),
        phases=PhaseCounts(
            baseline=both(pair(run, metric, State.BASELINE)),
            running=both(pair(run, metric, State.RUNNING)),
            recovering=both(pair(run, metric, State.RECOVERING)),
        ),
    )


def _samples(sidecar: SidecarState, e: Experiment) -> MetricSamples:
    """Return the counts of the present run; of one that is over, those in the history."""
    run = _run(sidecar, e)
    if sidecar.reader.findings(run) is None:
        past = sidecar.reader.recorded_summary(e.name)
        if past is not None:
            return past.samples
    return sidecar.reader.samples(run, e)
