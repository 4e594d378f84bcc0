"""The words and numbers that all report formats share; every number has its unit."""

from datetime import UTC, datetime, tzinfo
from math import log

from counterfault.proxy.analysis.sample_ratio import ALPHA
from counterfault.proxy.analysis.verdict import LEAST_DOSE
from counterfault.proxy.experiments.cohorts import ENROLLED
from counterfault.proxy.models.json_model import of_cohort
from counterfault.proxy.models.run_record import RunRecord
from counterfault.proxy.models.run_summary import MetricSummary
from counterfault.proxy.values.units import human, percent

# Evidence from which on the sample ratio is off, as the natural logarithm of an e-value.
OFF_AT = log(1 / ALPHA)
_EVENT_NAMES = {"rate": "events", "prometheus": "events"}
# A smaller effect, as a fraction, is rounded to 0.
_SMALLEST_EFFECT = 5e-7
_OTHER_VERSION = "unknown: the configuration is of another version"


def title(record: RunRecord) -> str:
    """Return the experiment and the number of the run: `slow-payments #2`."""
    return f"{record.name} #{record.run}"


def verdict(record: RunRecord) -> str:
    """Return the verdict: `held`, or `inconclusive so far` while the run goes on.

    Before the faults are on there is none.
    """
    if record.verdict.provisional and record.state in ("pending", "baseline"):
        return "no verdict yet"
    return f"{record.verdict.result}{' so far' if record.verdict.provisional else ''}"


def finding(metric: MetricSummary) -> str:
    """Return what the evidence says of a metric, in two or three words."""
    if metric.harmed:
        return "worse than allowed"
    if metric.plain:
        return "not tested"
    return "within tolerance" if metric.within else "undecided"


def size(value: float | None, unit: str, *, sign: bool = False) -> str:
    """Return an effect, a fraction, with its unit: `+0.31 pp`; None has no bound."""
    if value is None:
        return "no bound"
    if abs(value) < _SMALLEST_EFFECT:
        return f"0 {unit}"
    return f"{value * 100:{'+' if sign else ''}.3g} {unit}"


def effect(metric: MetricSummary) -> str:
    """Return the effect with its bounds: `+0.31 pp (-0.2 pp to +0.8 pp; 0.5 pp allowed)`.

    A positive effect is worse for users.
    """
    allowed = f"{size(metric.allowed, metric.unit)} allowed"
    if metric.effect is None:
        return f"unknown ({allowed})"
    estimate, low, high = (
        size(value, metric.unit, sign=True) for value in (metric.effect, metric.lower, metric.upper)
    )
    return f"{estimate} ({low} to {high}; {allowed})"


def evidence(metric: MetricSummary) -> str:
    """Return the evidence for both sides and where each decides: logarithms of e-values."""
    found = metric.evidence
    harm = f"harm {_logarithm(found.harm)}, decides at {found.harm_at:.2f}"
    return f"{harm}; within {_logarithm(found.within)}, decides at {found.within_at:.2f}"


def detectable(metric: MetricSummary) -> str:
    """Return the smallest effect that four of five runs with as many events would find."""
    if metric.detectable is None:
        return "not yet known"
    return f"harm of {size(metric.detectable, metric.unit)} or more"


def events(metric: MetricSummary, cohort: str) -> str:
    """Return how many events a cohort had: `1,234 requests`."""
    count = of_cohort(metric, cohort).events
    return f"{count:,} {_EVENT_NAMES.get(metric.kind, 'requests')}"


def dose(record: RunRecord) -> str:
    """Return how many of the planned faults were performed, and how many are needed."""
    found = record.dose
    if not found.planned:
        return f"0 faults: none was due (at least {percent(LEAST_DOSE)} of those due are needed)"
    part = f"{found.share * 100:.3g}%, at least {percent(LEAST_DOSE)} needed"
    return f"{found.performed:,} of {found.planned:,} faults due were performed ({part})"


def sample_ratio(record: RunRecord) -> str:
    """Return the numbers of users in both cohorts, compared with the configured shares."""
    users = record.users
    both = users.control + users.experiment
    counted = f"{users.control:,} control, {users.experiment:,} experiment"
    if not both or users.expected_share is None:
        return f"{counted}; sample ratio unknown"
    share = f"{users.experiment / both * 100:.3g}% in experiment"
    fine = "off" if users.off else "fine"
    numbers = f"evidence {_logarithm(users.evidence)}, off at {OFF_AT:.2f}"
    if users.unseen is not None:
        counted += f" (harm to fewer than 1 user in {1 / users.unseen:,.0f} could not be seen)"
    return f"{counted}; {share}, {users.expected_share * 100:.3g}% asked: {fine} ({numbers})"


def phases(record: RunRecord) -> str:
    """Return the planned lengths of the phases."""
    planned = record.phases
    if planned is None:
        return _OTHER_VERSION
    lengths = {
        "baseline": planned.baseline,
        "faults": planned.duration,
        "recovery": planned.recovery,
    }
    return " → ".join(f"{name} {human(length)}" for name, length in lengths.items())


def shares(record: RunRecord) -> str:
    """Return the planned shares of both cohorts."""
    planned = record.cohorts
    if planned is None:
        return _OTHER_VERSION
    return ", ".join(f"{percent(of_cohort(planned, c))} {c}" for c in ENROLLED)


def moment(at: float, zone: tzinfo | None, *, day: bool = True) -> str:
    """Return a time in words: `2026-11-24 03:51:02 UTC (04:51:02 CET)`.

    Args:
        at: Unix seconds.
        zone: The zone to show beside UTC; None is that of this machine.
        day: Whether to name the day.
    """
    there = datetime.fromtimestamp(at, UTC)
    here = there.astimezone(zone)
    words = f"{there:%Y-%m-%d %H:%M:%S} UTC" if day else f"{there:%H:%M:%S} UTC"
    return words if here.utcoffset() == there.utcoffset() else f"{words} ({here:%H:%M:%S %Z})"


def span(record: RunRecord) -> tuple[float, float] | None:
    """Return when the run began and the last moment on record, in Unix seconds.

    None: nothing is on record.
    """
    times = [e.at for e in record.timeline] + [p.at for p in record.points]
    return (min(times), max(times)) if times else None


def versions(record: RunRecord) -> str:
    """Return the versions of the software: `counterfault 0.1.0, python 3.12.3`."""
    return ", ".join(f"{name} {version}" for name, version in record.versions.items())


def _logarithm(value: float | None) -> str:
    return "without bound" if value is None else f"{value:.2f}"
