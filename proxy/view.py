"""What the supervisor knows, as data for JSON: the API, the page and the demo read it."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import product
from typing import Any, assert_never

from proxy import __version__, tally
from proxy.cohorts import REPLICATES, Cohort
from proxy.experiment import Experiment, Latency, Metric, Rate, Slow, SuccessRate
from proxy.guard import LIVE, Run, State
from proxy.quantile import duration_quantile, latency_quantile
from proxy.supervisor import Supervisor, UnknownExperiment, epoch_of
from proxy.units import human

type View = dict[str, Any]
type Samples = defaultdict[tuple[str | int, ...], "Sample"]

PHASES = (State.BASELINE, State.RUNNING, State.RECOVERING)
COHORTS = (Cohort.CONTROL, Cohort.EXPERIMENT)
_DOSES = ("planned", *tally.RESULTS)


@dataclass(slots=True)
class Sample:
    """Events of one steady-state metric; `buckets` for latencies only."""

    good: int = 0
    bad: int = 0
    buckets: Counter[int] = field(default_factory=Counter)

    def add(self, cell: str | int, count: int) -> None:
        match cell:
            case int():
                self.good += count
                self.buckets[cell] += count
            case "bad":
                self.bad += count
            case _:
                self.good += count


def overview(supervisor: Supervisor) -> View:
    """Everything at a glance. Times in seconds."""
    config, ledger = supervisor.config, supervisor.ledger
    error, limits = supervisor.reload_error, config.sidecar.limits
    samples = _samples(supervisor)
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
        "experiments": [_experiment(supervisor, e, samples) for e in config.experiments],
    }


def detail(supervisor: Supervisor, name: str) -> View:
    """One experiment with its history and replicates. Raises UnknownExperiment."""
    config = supervisor.config
    pairs = zip(config.experiments, config.raw_experiments, strict=True)
    experiment, raw = next(((e, raw) for e, raw in pairs if e.name == name), (None, None))
    if experiment is None:
        raise UnknownExperiment(name)
    return {
        **_experiment(supervisor, experiment, _samples(supervisor)),
        "timeline": supervisor.ledger.timeline(name),
        "replicates": _replicates(supervisor, experiment),
        "configuration": raw,
    }


def _experiment(supervisor: Supervisor, e: Experiment, samples: Samples) -> View:
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
            listener: {str(c): _traffic(supervisor, listener, e.name, c) for c in COHORTS}
            for listener in supervisor.config.sidecar.listeners
        },
        "steady_state": [_metric(run, metric, samples) for metric in e.steady_state],
    }


def _run(supervisor: Supervisor, e: Experiment) -> Run:
    return supervisor.ledger.runs.get(e.name) or Run(e.name, e.run)


def _fault(supervisor: Supervisor, e: Experiment, run: Run, index: int) -> View:
    rule = e.faults[index]
    epochs = [epoch_of(run, phase) for phase in PHASES]
    doses = {
        result: sum(
            int(supervisor.totals.get(tally.dose(e.name, epoch, index, result))) for epoch in epochs
        )
        for result in _DOSES
    }
    dose = rule.dose.share if rule.dose.limit is None else str(rule.dose)
    said = {"at": rule.at, "fault": rule.fault.name, "dose": dose, "when": rule.when}
    return said | doses


def _traffic(supervisor: Supervisor, listener: str, experiment: str, cohort: str) -> View:
    get, group = supervisor.totals.get, (listener, experiment, cohort)
    codes = {code: int(get(tally.requests(*group, code))) for code in tally.CODES}
    buckets = range(len(tally.DURATION_BUCKETS) + 1)
    durations = {i: int(get((tally.SECONDS, *group, i))) for i in buckets}
    return {
        "requests": sum(codes.values()),
        "errors": codes["5xx"] + codes["error"],
        "p50": duration_quantile(durations, 0.5),
        "p99": duration_quantile(durations, 0.99),
    }


def _metric(run: Run, metric: Metric, samples: Samples) -> View:
    def summary(phase: State, cohort: Cohort) -> View:
        sample = samples[run.experiment, epoch_of(run, phase), metric.name, cohort]
        latency = metric.latency
        quantile = latency and latency_quantile(sample.buckets, latency.quantile)
        return {"events": sample.good + sample.bad, "bad": sample.bad, "quantile": quantile}

    kind, tolerance = _kind(metric)
    return {
        "name": metric.name,
        "at": metric.at,
        "kind": kind,
        "tolerance": tolerance,
        "phases": {str(p): {str(c): summary(p, c) for c in COHORTS} for p in PHASES},
    }


def _kind(metric: Metric) -> tuple[str, str]:
    """A metric's kind, and its tolerance in words."""
    match metric.kind:
        case SuccessRate(drop=drop):
            return "success_rate", f"drop {drop}"
        case Latency(quantile=quantile, rise=rise):
            return "latency", f"p{quantile * 100:g} rise {rise}"
        case Slow(over=over, rise=rise):
            return "slow", f"over {human(over)} rise {rise}"
        case Rate(drop=drop):
            return "rate", f"drop {drop}"
        case other:
            assert_never(other)


def _samples(supervisor: Supervisor) -> Samples:
    """Events by experiment, epoch, metric and cohort."""
    # Replicates are added up first: they are most of what there is.
    cells: defaultdict[tuple[str | int, ...], float] = defaultdict(float)
    for key, value in supervisor.totals.of(tally.STEADY):
        cells[key[1:5] + key[6:]] += value
    samples: Samples = defaultdict(Sample)
    for (*labels, cell), value in cells.items():
        samples[tuple(labels)].add(cell, int(value))
    return samples


def _replicates(supervisor: Supervisor, e: Experiment) -> View:
    """Good and bad events of the running phase per replicate."""
    samples: Samples = defaultdict(Sample)
    epoch = epoch_of(_run(supervisor, e), State.RUNNING)
    for key, value in supervisor.totals.of(tally.STEADY, e.name, epoch):
        *_, metric, cohort, replicate, cell = key
        samples[metric, cohort, replicate].add(cell, int(value))
        samples[metric, cohort].add(cell, int(value))
    found: dict[str, View] = {m.name: {"running": {}} for m in e.steady_state}
    for m, c in product(e.steady_state, COHORTS):
        rows = [samples[m.name, c, i] for i in range(REPLICATES)]
        found[m.name]["running"][str(c)] = [[s.good, s.bad] for s in rows]
        if m.latency is not None:
            buckets = sorted(samples[m.name, c].buckets.items())
            found[m.name].setdefault("buckets", {})[str(c)] = {str(i): n for i, n in buckets}
    return found
