"""Renders a report as plain text that fits on one screen."""

from collections.abc import Iterator
from datetime import tzinfo
from textwrap import wrap

from counterfault.proxy.experiments.cohorts import ENROLLED
from counterfault.proxy.models.json_model import of_cohort
from counterfault.proxy.models.run_record import RunRecord
from counterfault.proxy.models.run_summary import MetricSummary
from counterfault.proxy.models.run_traffic import ListenerTraffic
from counterfault.proxy.report import wording
from counterfault.proxy.values.units import human

WIDTH = 100
_LABEL_WIDTH = 14


def render(record: RunRecord, zone: tzinfo | None) -> str:
    """Return the report in lines of at most 100 characters, unless one word is longer.

    Args:
        record: The run.
        zone: The zone to show beside UTC; None is that of this machine.
    """
    return "".join(f"{line}\n" for line in _lines(record, zone))


def _lines(record: RunRecord, zone: tzinfo | None) -> Iterator[str]:
    yield f"{wording.title(record)}: {wording.verdict(record)}"
    yield from _entry("hypothesis", record.hypothesis or "none is written down")
    yield from _entry("because", record.verdict.reason)
    yield from _entry("run", _run(record, zone))
    yield from _entry("planned", f"{wording.phases(record)}; {wording.shares(record)} of users")
    for fault in wording.faults(record):
        yield from _entry("fault", fault)
    yield from _entry("dose", wording.dose(record))
    yield from _entry("users", wording.sample_ratio(record))
    for metric in record.metrics:
        yield ""
        yield from _metric(metric)
    if record.listeners:
        yield ""
        yield "requests, by the phase in which they came:"
    for listener, traffic in record.listeners.items():
        yield from _listener(listener, traffic)
    yield ""
    yield from _timeline(record, zone)
    yield from _entry("versions", wording.versions(record))


def _run(record: RunRecord, zone: tzinfo | None) -> str:
    state = f"{record.state} ({record.reason})" if record.reason else str(record.state)
    span = wording.span(record)
    if span is None:
        return f"{state}; nothing has happened yet"
    first, last = span
    until = wording.moment(last, zone, day=False)
    lasted = human(round(last - first))
    return f"{state}; {wording.moment(first, zone)} to {until}, {lasted}"


def _metric(metric: MetricSummary) -> Iterator[str]:
    where = "" if metric.kind == "prometheus" else f" at {metric.at}"
    what = f"{metric.kind}{where}, {metric.tolerance}"
    yield f"{metric.name}: {wording.finding(metric)} ({what})"
    for cohort, level in zip(ENROLLED, metric.levels, strict=True):
        yield from _entry(cohort, f"{level}, {wording.events(metric, cohort)}")
    yield from _entry("worse by", wording.effect(metric))
    yield from _entry("evidence", f"{wording.evidence(metric)} (ln of e-values)")
    could = f"{wording.detectable(metric)}, in four of five such runs"
    yield from _entry("could see", could)


def _listener(name: str, traffic: ListenerTraffic) -> Iterator[str]:
    if not traffic.phases:
        yield from _entry(name, "none of either cohort")
    for phase, both in traffic.phases.items():
        for cohort in ENROLLED:
            counted = wording.traffic(of_cohort(both, cohort))
            what = f"{wording.PHASE_NAMES.get(phase, phase):<9} {cohort:<11} {counted}"
            yield from _entry(name, what)


def _timeline(record: RunRecord, zone: tzinfo | None) -> Iterator[str]:
    for number, event in enumerate(record.timeline):
        because = f": {event.reason}" if event.reason else ""
        when = wording.moment(event.at, zone)
        yield from _entry("" if number else "timeline", f"{when}  {event.state}{because}")


def _entry(label: str, words: str) -> list[str]:
    """Return the lines of one entry: the label stands before the first of them."""
    lines = wrap(words, WIDTH - _LABEL_WIDTH) or [""]
    return [f"  {'' if i else label:<{_LABEL_WIDTH - 2}}{line}" for i, line in enumerate(lines)]
