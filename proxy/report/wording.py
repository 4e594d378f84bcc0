"""The words and numbers that all reports share; every number has its unit."""

from datetime import UTC, datetime, tzinfo
from math import log
from typing import Any

from counterfault.proxy.analysis.sample_ratio import ALPHA
from counterfault.proxy.analysis.verdict import LEAST_DOSE
from counterfault.proxy.experiments.cohorts import ENROLLED
from counterfault.proxy.values.units import human, percent

type Data = dict[str, Any]

OFF_AT = log(1 / ALPHA)
_EVENTS = {"rate": "events", "prometheus": "events"}
_NOTHING = 5e-7


def title(record: Data) -> str:
    """`slow-payments #2`."""
    return f"{record['name']} #{record['run']}"


def verdict(record: Data) -> str:
    """`held`, or `inconclusive so far` while the run goes on."""
    told = record["verdict"]
    return f"{told['result']} so far" if told["provisional"] else str(told["result"])


def finding(metric: Data) -> str:
    """What a metric amounts to."""
    if metric["harmed"]:
        return "worse than allowed"
    if metric.get("plain"):
        return "not tested"
    return "within tolerance" if metric["within"] else "undecided"


def size(value: float | None, unit: str, *, sign: bool = False) -> str:
    """An effect with its unit: `+0.31 pp`; where it has no bound, so in words."""
    if value is None:
        return "no bound"
    if abs(value) < _NOTHING:
        return f"0 {unit}"
    return f"{value * 100:{'+' if sign else ''}.3g} {unit}"


def effect(metric: Data) -> str:
    """`+0.31 pp (-0.2 pp to +0.8 pp; 0.5 pp allowed)`; positive is worse for users."""
    unit, allowed = metric["unit"], f"{size(metric['allowed'], metric['unit'])} allowed"
    if metric["effect"] is None:
        return f"unknown ({allowed})"
    low, high = (size(metric[bound], unit, sign=True) for bound in ("lower", "upper"))
    return f"{size(metric['effect'], unit, sign=True)} ({low} to {high}; {allowed})"


def evidence(metric: Data) -> str:
    """Both sides with what decides them, as natural logarithms of e-values."""
    told = metric["evidence"]
    sides = ("harm", "within")
    said = (f"{side} {_log(told[side])}, decides at {told[f'{side}_at']:.2f}" for side in sides)
    return "; ".join(said)


def detectable(metric: Data) -> str:
    """The smallest effect that a run with as many events finds in four of five cases."""
    found = metric["detectable"]
    return "not yet known" if found is None else f"harm of {size(found, metric['unit'])} or more"


def events(metric: Data, cohort: str) -> str:
    """`1,234 requests`."""
    return f"{metric[cohort]['events']:,} {_EVENTS.get(metric['kind'], 'requests')}"


def dose(record: Data) -> str:
    """Faults performed against planned, with what is asked."""
    told = record["dose"]
    if not told["planned"]:
        return f"0 faults: none was due (at least {percent(LEAST_DOSE)} of those due are needed)"
    part = f"{told['share'] * 100:.3g}%, at least {percent(LEAST_DOSE)} needed"
    return f"{told['performed']:,} of {told['planned']:,} faults due were performed ({part})"


def sample_ratio(record: Data) -> str:
    """Users of both cohorts against their shares."""
    told = record["users"]
    both = told["control"] + told["experiment"]
    counted = f"{told['control']:,} control, {told['experiment']:,} experiment"
    if not both or told["expected_share"] is None:
        return f"{counted}; sample ratio unknown"
    share = f"{told['experiment'] / both * 100:.3g}% in experiment"
    fine = "off" if told["off"] else "fine"
    numbers = f"evidence {_log(told['evidence'])}, off at {OFF_AT:.2f}"
    return f"{counted}; {share}, {told['expected_share'] * 100:.3g}% asked: {fine} ({numbers})"


def phases(record: Data) -> str:
    """The phases as planned."""
    planned = record["phases"]
    if planned is None:
        return "unknown: the configuration is of another version"
    names = {"baseline": "baseline", "duration": "faults", "recovery": "recovery"}
    return " → ".join(f"{said} {human(planned[name])}" for name, said in names.items())


def shares(record: Data) -> str:
    """The cohorts as planned."""
    planned = record["cohorts"]
    if planned is None:
        return "unknown: the configuration is of another version"
    return ", ".join(f"{percent(planned[c])} {c}" for c in ENROLLED)


def moment(at: float, zone: tzinfo | None, *, day: bool = True) -> str:
    """`2026-11-24 03:51:02 UTC (04:51:02 CET)`; `at` in Unix seconds, no zone is that of here."""
    there = datetime.fromtimestamp(at, UTC)
    here = there.astimezone(zone)
    said = f"{there:%Y-%m-%d %H:%M:%S} UTC" if day else f"{there:%H:%M:%S} UTC"
    return said if here.utcoffset() == there.utcoffset() else f"{said} ({here:%H:%M:%S %Z})"


def span(record: Data) -> tuple[float, float] | None:
    """When the run began and when it was last heard of, in Unix seconds."""
    times = [entry["at"] for entry in (*record["timeline"], *record["points"])]
    return (min(times), max(times)) if times else None


def versions(record: Data) -> str:
    """`counterfault 0.1.0, python 3.12.3`."""
    return ", ".join(f"{name} {version}" for name, version in record["versions"].items())


def _log(value: float | None) -> str:
    return "without bound" if value is None else f"{value:.2f}"
