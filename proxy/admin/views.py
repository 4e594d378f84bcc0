"""What the supervisor knows, as data for JSON: the API, the page and the demo read it."""

from typing import Any

from counterfault import __version__
from counterfault.proxy.analysis.forecast import forecast
from counterfault.proxy.analysis.verdict import conclude
from counterfault.proxy.analysis.wording import kind_of, tolerance_of
from counterfault.proxy.experiments.cohorts import ENROLLED
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import LIVE, OVER, Run, State
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.exchanges import CODES
from counterfault.proxy.measurement.keys import DoseKey, DurationKey, FaultResult, RequestKey
from counterfault.proxy.measurement.quantiles import duration_quantile, latency_quantile
from counterfault.proxy.measurement.samples import Pair, Sample
from counterfault.proxy.measurement.user_sample import UserSample
from counterfault.proxy.runs.evaluator import PHASES
from counterfault.proxy.runs.record import NotRecorded, record
from counterfault.proxy.runs.summary import VERSIONS, account
from counterfault.proxy.supervisor.supervisor import Supervisor, UnknownExperiment
from counterfault.proxy.values.buckets import DURATION_BUCKETS

type View = dict[str, Any]


def overview(supervisor: Supervisor) -> View:
    """Everything at a glance. Times in seconds."""
    config, ledger = supervisor.config, supervisor.ledger
    error, limits = supervisor.reload_error, config.sidecar.limits
    return {
        "service": config.sidecar.service,
        "version": __version__,
        "uptime": supervisor.uptime,
        "killed": ledger.killed,
        "state_dir_error": ledger.error,
        "reload_error": [] if error is None else [str(problem) for problem in error.problems],
        "lease_remaining": supervisor.lease_remaining,
        "faults_active": supervisor.engine.budget.active(),
        "workers": {
            "ready": supervisor.engine.ready,
            "wanted": config.sidecar.workers,
            "pids": supervisor.engine.pids,
        },
        "limits": {"enrolled": limits.enrolled, "active_faults": limits.active_faults},
        "enrolled": sum(
            e.cohorts.experiment + e.cohorts.control
            for e in config.experiments
            if _run(supervisor, e).state in LIVE
        ),
        "experiments": [_experiment(supervisor, e) for e in config.experiments],
    }


def detail(supervisor: Supervisor, name: str) -> View:
    """One experiment with its history and replicates. Raises UnknownExperiment."""
    config = supervisor.config
    pairs = zip(config.experiments, config.raw_experiments, strict=True)
    experiment, raw = next(((e, raw) for e, raw in pairs if e.name == name), (None, None))
    if experiment is None:
        raise UnknownExperiment(name)
    return {
        **_experiment(supervisor, experiment),
        "timeline": supervisor.ledger.timeline(name),
        "points": supervisor.ledger.points(name),
        "samples": _samples(supervisor, experiment),
        "versions": (supervisor.account(name) or {}).get("versions", VERSIONS),
        "configuration": raw,
    }


def report(supervisor: Supervisor, name: str, number: int | None = None) -> View:
    """What reports tell of a run: of the present one, or of one that the history knows.

    Raises UnknownExperiment, or NotRecorded for a run that never was.
    """
    experiment = next((e for e in supervisor.config.experiments if e.name == name), None)
    if experiment is None:
        found = supervisor.ledger.recorded(name, number)
        if found is None:
            raise UnknownExperiment(name)
        return found
    run = _run(supervisor, experiment)
    if number not in (None, run.run):
        found = supervisor.ledger.recorded(name, number)
        if found is None:
            raise NotRecorded(f"{name} has no run {number} on record; its run is {run.run}")
        return found
    if run.state in OVER and (found := _as_it_ended(supervisor, run)):
        return found
    seen = detail(supervisor, name)
    return record(run, seen["configuration"], seen, seen["timeline"], seen["points"])


def _as_it_ended(supervisor: Supervisor, run: Run) -> View | None:
    """With the file as it was then: it may say something else by now. None without a history."""
    try:
        return supervisor.ledger.recorded(run.experiment, run.run)
    except NotRecorded:
        return None


def _experiment(supervisor: Supervisor, e: Experiment) -> View:
    run = _run(supervisor, e)
    return {
        "name": e.name,
        "hypothesis": e.hypothesis,
        "run": e.run,
        "state": str(run.state),
        "reason": str(run.reason),
        "remaining": supervisor.ledger.remaining(e),
        "phases": {"baseline": e.baseline, "duration": e.duration, "recovery": e.recovery},
        "cohorts": {"experiment": e.cohorts.experiment, "control": e.cohorts.control},
        "faults": [_fault(supervisor, e, run, i) for i in range(len(e.faults))],
        "listeners": {
            listener: {str(c): _traffic(supervisor, listener, e.name, c) for c in ENROLLED}
            for listener in supervisor.config.sidecar.listeners
        },
        "steady_state": [_metric(supervisor, run, metric) for metric in e.steady_state],
        **_account(supervisor, e, run),
        "forecast": _forecast(supervisor, e, run),
    }


def _account(supervisor: Supervisor, e: Experiment, run: Run) -> View:
    """Verdict, dose, users and metrics of a run, those of one not begun included."""
    told = supervisor.account(e.name)
    if told is None:
        found = supervisor.judge.preview(run, e)
        told = account(conclude(run, found), found, UserSample())
    return {key: told[key] for key in ("verdict", "dose", "users", "metrics")}


def _forecast(supervisor: Supervisor, e: Experiment, run: Run) -> list[View]:
    """Per metric of a run under way how many events it has, needs and gets in a second."""
    found, left = supervisor.judge.findings(run), supervisor.ledger.remaining(e)
    if found is None or left is None:
        return []
    lengths = {State.BASELINE: e.baseline, State.RUNNING: e.duration, State.RECOVERING: e.recovery}
    elapsed = e.duration if run.state is State.RECOVERING else lengths[run.state] - left
    expected = (
        forecast(
            e, c, supervisor.judge.watch.pair(run, c.metric, State.BASELINE), run.state, elapsed
        )
        for c in found.comparisons
        if not c.plain
    )
    return [
        {
            "metric": f.metric,
            "needed": f.needed,
            "have": f.have,
            "per_second": f.per_second,
            "seconds": f.seconds,
        }
        for f in expected
    ]


def _run(supervisor: Supervisor, e: Experiment) -> Run:
    return supervisor.ledger.runs.get(e.name) or Run(e.name, e.run)


def _fault(supervisor: Supervisor, e: Experiment, run: Run, index: int) -> View:
    rule = e.faults[index]
    epochs = [run.epoch_of(phase) for phase in PHASES]
    doses = {
        str(result): sum(
            int(supervisor.totals.get(DoseKey(e.name, epoch, index, result))) for epoch in epochs
        )
        for result in FaultResult
    }
    dose = rule.dose.share if rule.dose.limit is None else str(rule.dose)
    said = {"at": rule.at, "fault": rule.fault.name, "dose": dose, "when": rule.when}
    return said | doses


def _traffic(supervisor: Supervisor, listener: str, experiment: str, cohort: str) -> View:
    get, group = supervisor.totals.get, (listener, experiment, cohort)
    codes = {code: int(get(RequestKey(*group, code))) for code in CODES}
    buckets = range(len(DURATION_BUCKETS) + 1)
    durations = {i: int(get(DurationKey(*group, i))) for i in buckets}
    return {
        "requests": sum(codes.values()),
        "errors": codes["5xx"] + codes["error"],
        "p50": duration_quantile(durations, 0.5),
        "p99": duration_quantile(durations, 0.99),
    }


def _metric(supervisor: Supervisor, run: Run, metric: Metric) -> View:
    def summary(sample: Sample) -> View:
        latency = metric.latency
        quantile = latency and latency_quantile(sample.cells, latency.quantile)
        return {"events": sample.events, "bad": sample.bad, "quantile": quantile}

    def both(pair: Pair) -> View:
        return {"control": summary(pair.control), "experiment": summary(pair.experiment)}

    phases = {str(p): both(supervisor.judge.watch.pair(run, metric, p)) for p in PHASES}
    return {
        "name": metric.name,
        "at": metric.at or kind_of(metric),
        "kind": kind_of(metric),
        "tolerance": tolerance_of(metric),
        "phases": phases,
    }


def _samples(supervisor: Supervisor, e: Experiment) -> View:
    """The counts by metric, phase, cohort and cell, each a list of one number per replicate."""
    run = _run(supervisor, e)
    if supervisor.judge.findings(run) is None:
        past = supervisor.account(e.name)
        if past is not None:
            return dict(past["samples"])
    return supervisor.judge.samples(run, e)
