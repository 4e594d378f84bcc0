"""What a configuration would do, as text: who is hit, where, how much, how long."""

from collections.abc import Iterator, Sequence
from datetime import UTC
from typing import assert_never

from proxy.config import Config
from proxy.experiment import Experiment, FaultRule, Latency, Metric, Rate, Slow, SuccessRate
from proxy.match import Match, Outcome
from proxy.sidecar import Sidecar
from proxy.units import human, percent


def summary(config: Config) -> list[str]:
    """A configuration as lines of text."""
    lines: list[str] = []
    for experiment in config.experiments:
        lines += [*_experiment(experiment, config.sidecar), ""]
    lines.append(f"never touched: {', '.join(config.sidecar.protect) or 'nothing'}")
    return [*lines, _total(config)]


def _total(config: Config) -> str:
    running = [e for e in config.experiments if e.state == "running"]
    if not running:
        return "no experiment is running: nobody is enrolled, no fault happens"
    limits = config.sidecar.limits
    share = sum(e.cohorts.experiment + e.cohorts.control for e in running)
    enrolled = f"at most {percent(share)} of users enrolled (limit {percent(limits.enrolled)})"
    return f"{enrolled}, at most {limits.active_faults} faults at a time"


def _experiment(experiment: Experiment, sidecar: Sidecar) -> Iterator[str]:
    yield f"{experiment.name}: {experiment.state}, run {experiment.run}"
    if experiment.hypothesis:
        yield f"  {experiment.hypothesis}"
    yield from _labelled("users", [_users(experiment, sidecar)])
    for rule in experiment.faults:
        yield from _labelled("fault", _fault(rule, sidecar))
    yield from _labelled("holds if", _steady_state(experiment.steady_state))
    yield from _labelled("phases", [_phases(experiment)])
    yield from _labelled("stops", [_stops(experiment)])


def _labelled(label: str, lines: Sequence[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield f"  {'' if number else label:<9} {line}"


def _users(experiment: Experiment, sidecar: Sidecar) -> str:
    sources = [f"{kind} {name}" for source in sidecar.unit for kind, name in source if name]
    found = ", ".join([*sources[:-1], f"else {sources[-1]}"] if sources[1:] else sources)
    cohorts = experiment.cohorts
    shares = f"{percent(cohorts.experiment)} experiment, {percent(cohorts.control)} control"
    return f"{shares}, by {found}"


def _fault(rule: FaultRule, sidecar: Sidecar) -> list[str]:
    listener = sidecar.listeners[rule.at]
    upstream = ", ".join(listener.upstream) or "a forward proxy"
    when = _when(rule)
    if rule.spares("POST") and not rule.match.method:
        when += "; methods that are not idempotent pass"
    where = f"{_requests(rule.match)} at {rule.at} ({upstream})"
    said = [where, f"{rule.fault.describe()}; {rule.dose}, {when}"]
    if listener.forward and rule.match.host is None:
        said.append("https only to hosts that are named elsewhere: this match has no host")
    return said


def _when(rule: FaultRule) -> str:
    if rule.per == "message":
        whose = "its clients" if rule.when == "before" else "the upstream"
        return f"per WebSocket message of {whose}"
    return "around the upstream" if rule.fault.stage == "around" else f"{rule.when} the upstream"


def _requests(match: Match) -> str:
    path = match.path or (f"{match.prefix}*" if match.prefix else match.regex and f"~{match.regex}")
    said = [" ".join(part for part in (", ".join(match.method), path) if part)]
    said += [f"host {match.host}"] if match.host else []
    said += [f"{name}: {value}" for name, value in match.headers.items()]
    if isinstance(match, Outcome) and match.status:
        said.append(f"answered {', '.join(match.status)}")
    return ", ".join(part for part in said if part) or "every request"


def _steady_state(metrics: Sequence[Metric]) -> list[str]:
    width = max((len(metric.name) for metric in metrics), default=0)
    return [
        f"{m.name:<{width}}  {_tolerance(m)}, {_requests(m.match)} at {m.at}" for m in metrics
    ] or ["nothing is measured, so there will be no verdict"]


def _tolerance(metric: Metric) -> str:
    match metric.kind:
        case SuccessRate(drop=drop):
            return f"success rate at most {drop} below control"
        case Latency(quantile=quantile, rise=rise):
            return f"p{quantile * 100:g} latency at most {rise} above control"
        case Slow(over=over, rise=rise):
            return f"slower than {human(over)} at most {rise} above control"
        case Rate(drop=drop):
            return f"events at most {drop} below control"
        case other:
            assert_never(other)


def _phases(experiment: Experiment) -> str:
    phases = ("baseline", experiment.baseline), ("faults", experiment.duration)
    steps = (*phases, ("recovery", experiment.recovery))
    said = " → ".join(f"{name} {human(seconds)}" for name, seconds in steps)
    if experiment.not_after is None:
        return said
    return f"{said}, not after {experiment.not_after.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _stops(experiment: Experiment) -> str:
    most = experiment.guard.max_faults
    early = "early by hand, by a reload or by the kill switch"
    return f"{early}, or after {most} faults" if most else early
