"""Describes what a configuration would do: which users, where, how much, how long."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from types import MappingProxyType
from typing import assert_never

from counterfault.proxy.analysis.comparison import Threshold
from counterfault.proxy.analysis.monitor import TOLERANCES, WINDOW
from counterfault.proxy.analysis.sample_size import (
    ASSUMED_BAD,
    ASSUMED_SIGMA,
    expected,
    expected_users,
)
from counterfault.proxy.config.model import Config
from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.engines.envoy.config.native_faults import (
    PLAIN_REQUEST,
    detours,
    worker_listeners,
)
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.fault_rule import FaultRule
from counterfault.proxy.experiments.steady_state import (
    Latency,
    Metric,
    Prometheus,
    Rate,
    Slow,
    SuccessRate,
)
from counterfault.proxy.faults.actions import Disconnect
from counterfault.proxy.values.matching import ExchangeMatch, Match
from counterfault.proxy.values.units import human, percent, roughly

type Rates = Mapping[str, float]
"""Requests a second at each listener."""


def summary(config: Config, rates: Rates = MappingProxyType({})) -> list[str]:
    """Describe a configuration in lines of text; `rates` are requests per second by listener."""
    lines: list[str] = []
    for experiment in config.experiments:
        lines += [*_experiment(experiment, config.sidecar, rates), ""]
    lines.append(f"never touched: {', '.join(config.sidecar.protect) or 'nothing'}")
    return [*lines, _total(config)]


def _total(config: Config) -> str:
    running = [e for e in config.experiments if e.state == "running"]
    if not running:
        return "no experiment is running: no user is enrolled, no fault happens"
    limits = config.sidecar.limits
    share = sum(e.cohorts.experiment + e.cohorts.control for e in running)
    enrolled = f"at most {percent(share)} of users enrolled (limit {percent(limits.enrolled)})"
    return f"{enrolled}, at most {limits.active_faults} faults at a time"


def _experiment(experiment: Experiment, sidecar: Sidecar, rates: Rates) -> Iterator[str]:
    yield f"{experiment.name}: {experiment.state}, run {experiment.run}"
    if experiment.hypothesis:
        yield f"  {experiment.hypothesis}"
    yield from _labelled("users", [_users(experiment, sidecar)])
    for rule in experiment.faults:
        yield from _labelled("fault", _fault(rule, sidecar))
    if sidecar.engine == "envoy":
        yield from _labelled("detour", list(_detours(experiment, sidecar)))
    yield from _labelled("holds if", _steady_state(experiment.steady_state, sidecar))
    yield from _labelled("needs", list(_needs(experiment, rates)))
    yield from _labelled("phases", [_phases(experiment)])
    yield from _labelled("stops", list(_stops(experiment)))


def _labelled(label: str, lines: Sequence[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield f"  {'' if number else label:<9} {line}"


def _users(experiment: Experiment, sidecar: Sidecar) -> str:
    sources = [f"{kind} {name}" for source in sidecar.unit for kind, name in source if name]
    found = ", ".join([*sources[:-1], f"else {sources[-1]}"] if sources[1:] else sources)
    hit = {at: sidecar.listeners[at] for at in sorted({rule.at for rule in experiment.faults})}
    if all(listener.scheme == "tcp" for listener in hit.values()):
        found = ", ".join(f"{listener.unit} at {at}" for at, listener in hit.items())
    cohorts = experiment.cohorts
    shares = f"{percent(cohorts.experiment)} experiment, {percent(cohorts.control)} control"
    return f"{shares}, by {found}"


def _fault(rule: FaultRule, sidecar: Sidecar) -> list[str]:
    listener = sidecar.listeners[rule.at]
    upstream = ", ".join(listener.upstream) or "a forward proxy"
    when = _when(rule)
    if rule.spares("POST") and not rule.match.method and listener.scheme != "tcp":
        when += "; methods that are not idempotent pass"
    what = "every connection" if listener.scheme == "tcp" else _requests(rule.match)
    where = f"{what} at {rule.at} ({upstream})"
    said = [where, f"{rule.fault.describe()}; {rule.dose}, {when}"]
    if listener.forward and rule.match.host is None:
        said.append("https only to hosts that are named elsewhere: this match has no host")
    return said


def _detours(experiment: Experiment, sidecar: Sidecar) -> Iterator[str]:
    """Yield where Envoy needs workers behind it, and where it differs from them."""
    own = worker_listeners(sidecar)
    for at in sorted({rule.at for rule in experiment.faults} & own):
        yield f"workers serve {at}, and Envoy does not"
    for at, why in detours(experiment).items():
        if at not in own:
            yield f"both cohorts' requests at {at} go through workers behind Envoy, for {why}"
    if any(
        rule.at not in own and rule.fault.act(PLAIN_REQUEST, lambda: 0.0) == Disconnect(reset=True)
        for rule in experiment.faults
    ):
        yield "HTTP/1 clients see a reset as a close: Envoy sends FIN, not RST"


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
    if isinstance(match, ExchangeMatch) and match.status:
        said.append(f"answered {', '.join(match.status)}")
    return ", ".join(part for part in said if part) or "every request"


def _steady_state(metrics: Sequence[Metric], sidecar: Sidecar) -> list[str]:
    width = max((len(metric.name) for metric in metrics), default=0)
    if not metrics:
        return ["nothing is measured, so there will be no verdict"]
    said = [f"{m.name:<{width}}  {_tolerance(m)}, {_measured(m, sidecar)}" for m in metrics]
    unseen = sorted({m.at for m in metrics if _blind_to_failures(m, metrics)})
    return said + [
        f"warning: failures at {at} could go unseen; measure a success_rate or slow there, too"
        for at in unseen
    ]


def _blind_to_failures(metric: Metric, metrics: Sequence[Metric]) -> bool:
    """Whether some requests of a metric may fail and no metric of the experiment would see it.

    A quantile sees only failures that are more than its rest; a rate, only that fewer come.
    """
    if metric.latency is None and metric.rate is None:
        return False
    requests = metric.match.model_copy(update={"status": ()})
    return not any(
        m.at == metric.at and (m.success_rate or m.slow) and m.match in (ExchangeMatch(), requests)
        for m in metrics
    )


def _measured(metric: Metric, sidecar: Sidecar) -> str:
    """Return where a metric is measured."""
    if metric.prometheus is None:
        raw = sidecar.listeners[metric.at].scheme == "tcp"
        return f"{'every turn' if raw else _requests(metric.match)} at {metric.at}"
    required = "; without data the run stops" if metric.prometheus.required else ""
    return f"says Prometheus: {metric.prometheus.query}{required}"


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
        case Prometheus() as outside:
            side = "below" if metric.lower_is_worse else "above"
            return f"at most {outside.tolerance} {side} control"
        case other:
            assert_never(other)


def _phases(experiment: Experiment) -> str:
    phases = ("baseline", experiment.baseline), ("faults", experiment.duration)
    steps = (*phases, ("recovery", experiment.recovery))
    said = " → ".join(f"{name} {human(seconds)}" for name, seconds in steps)
    if experiment.not_after is None:
        return said
    return f"{said}, not after {experiment.not_after.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _needs(experiment: Experiment, rates: Rates) -> Iterator[str]:
    """Yield how much traffic each metric needs until it can be shown to be within tolerance."""
    metrics = experiment.steady_state
    width = max((len(metric.name) for metric in metrics), default=0)
    threshold = Threshold.of(experiment.guard.confidence, len(metrics))
    for m in metrics:
        events = expected(m, threshold)
        what = "events" if m.rate or m.prometheus else "requests"
        users = expected_users(m)
        least = f" of at least {users:,} users" if users is not None else ""
        said = f"about {events:,} {what}{least} in each cohort ({_assumed(m)})"
        yield f"{m.name:<{width}}  {said}{_wait(experiment, m, events, rates)}"


def _assumed(metric: Metric) -> str:
    match metric.kind:
        case SuccessRate():
            return f"if {percent(ASSUMED_BAD)} fail in both"
        case Slow():
            return f"if {percent(ASSUMED_BAD)} are slow in both"
        case Latency():
            return f"if latencies are alike, lognormal with sigma {ASSUMED_SIGMA:g}"
        case Rate():
            return "if they come alike, each by itself"
        case Prometheus():
            return "if they come alike, each by itself, and are counted by replicate"
        case other:
            assert_never(other)


def _wait(experiment: Experiment, metric: Metric, events: int, rates: Rates) -> str:
    """Return how long that takes: at least so long if only some of the requests match."""
    if metric.at not in rates:
        return ""
    cohorts, rate = experiment.cohorts, rates[metric.at]
    each = rate * min(cohorts.experiment, cohorts.control)
    if each <= 0:
        return f"; never, as nothing comes to {metric.at} now"
    seconds = events / each
    least = "about" if metric.match == ExchangeMatch() else "at least"
    said = f"; {least} {roughly(seconds)} at {metric.at}'s present {rate:.3g} requests/s"
    too_long = seconds > experiment.duration
    return f"{said}: longer than its {human(experiment.duration)}" if too_long else said


def _stops(experiment: Experiment) -> Iterator[str]:
    guard, metrics = experiment.guard, experiment.steady_state
    if metrics:
        yield f"at harm beyond a tolerance, at {percent(guard.confidence)} confidence"
    if metrics and experiment.baseline:
        yield "if the cohorts differ in the baseline"
    if experiment.baseline and any(not (m.rate or m.prometheus) for m in metrics):
        far = f"{TOLERANCES:g} tolerances"
        yield f"if control gets worse than its own baseline by {far} within {human(WINDOW)}"
    yield "if the cohorts' numbers of users are not as their shares say"
    if guard.hours is not None:
        yield f"outside {guard.hours}"
    if guard.max_faults:
        yield f"after {guard.max_faults} faults"
    yield "by hand, by a reload, by the kill switch, or with the lease"
