"""Renders a report as JUnit XML, for CI systems.

A suite has a case for the hypothesis, one for each metric, one for the dose and one for the sample
ratio. The case `hypothesis` is the verdict: it passes if the verdict is `held`, is a failure if it
is `refuted`, and an error if it is `inconclusive` or `invalid` or if the run still goes on. CI
systems show an error as red as a failure, and a skipped case as if nothing were wrong; an unknown
result is not good news, so it is an error. A metric is skipped while it is undecided, because the
hypothesis has that error already.

The order of elements and attributes satisfies both schemas in use: that of Ant's junit task and
that of Jenkins' plugin. Those allow properties of suites only, so each property of a metric
begins with the metric's name.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from counterfault.proxy.analysis.result import Result
from counterfault.proxy.analysis.verdict import LEAST_DOSE
from counterfault.proxy.experiments.cohorts import ENROLLED
from counterfault.proxy.models.json_model import of_cohort
from counterfault.proxy.models.run_record import RunRecord
from counterfault.proxy.models.run_summary import MetricSummary, VerdictSummary
from counterfault.proxy.report import text, wording

# XML 1.0 cannot hold these characters (section 2.2, production Char).
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PASSED = ""


@dataclass(frozen=True, slots=True)
class _Case:
    """A test case. `outcome` is `failure`, `error` or `skipped`, and empty if the case passed."""

    name: str
    outcome: str
    message: str
    seconds: float = 0.0


def render(record: RunRecord, zone: tzinfo | None) -> str:
    """Return one `testsuites` with one `testsuite`, whose `system-out` is the text report.

    Args:
        record: The run.
        zone: The zone that the text report shows beside UTC; None is that of this machine.
    """
    cases = list(_cases(record))
    span = wording.span(record)
    suites = Element("testsuites")
    attributes = {
        "name": wording.title(record),
        "package": "counterfault",
        "id": "0",
        "timestamp": f"{datetime.fromtimestamp(span[0] if span else 0.0, UTC):%Y-%m-%dT%H:%M:%S}",
        "hostname": "localhost",
        "tests": str(len(cases)),
        **{f"{kind}s": str(_count(cases, kind)) for kind in ("failure", "error")},
        "skipped": str(_count(cases, "skipped")),
        "time": _seconds(sum(case.seconds for case in cases)),
    }
    suite = SubElement(suites, "testsuite", attributes)
    properties = SubElement(suite, "properties")
    for name, value in _properties(record):
        SubElement(properties, "property", name=name, value=_clean(value))
    for case in cases:
        _write(suite, case, record.name)
    SubElement(suite, "system-out").text = _clean(text.render(record, zone))
    SubElement(suite, "system-err")
    indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(suites, encoding="unicode")}\n'


def _write(suite: Element, case: _Case, experiment: str) -> None:
    names = {"name": case.name, "classname": f"counterfault.{experiment}"}
    element = SubElement(suite, "testcase", {**names, "time": _seconds(case.seconds)})
    if case.outcome == _PASSED:
        return
    attributes = {"message": _clean(case.message)}
    if case.outcome != "skipped":
        attributes["type"] = case.outcome
    SubElement(element, case.outcome, attributes)


def _cases(record: RunRecord) -> Iterator[_Case]:
    verdict, span = record.verdict, wording.span(record)
    seconds = span[1] - span[0] if span else 0.0
    message = f"{wording.verdict(record)}: {verdict.reason}"
    yield _Case("hypothesis", _verdict_outcome(verdict), message, seconds)
    for metric in record.metrics:
        yield _Case(metric.name, _metric_outcome(metric, verdict.result), metric.says)
    yield _Case("dose", _dose_outcome(record), wording.dose(record))
    ratio = "error" if record.users.off else _PASSED
    yield _Case("sample-ratio", ratio, wording.sample_ratio(record))


def _verdict_outcome(verdict: VerdictSummary) -> str:
    if verdict.provisional:
        return "error"
    return {Result.HELD: _PASSED, Result.REFUTED: "failure"}.get(verdict.result, "error")


def _metric_outcome(metric: MetricSummary, result: Result) -> str:
    if metric.harmed:
        return "failure" if result == Result.REFUTED else "error"
    return _PASSED if metric.within else "skipped"


def _dose_outcome(record: RunRecord) -> str:
    """Return the outcome of the dose; while the run goes on, a low dose may still become enough."""
    if record.dose.share >= LEAST_DOSE:
        return _PASSED
    return "skipped" if record.verdict.provisional else "error"


def _properties(record: RunRecord) -> Iterator[tuple[str, str]]:
    yield "verdict", wording.verdict(record)
    yield "reason", record.verdict.reason
    yield "hypothesis", record.hypothesis
    yield "state", record.state
    yield "dose", wording.dose(record)
    yield "users", wording.sample_ratio(record)
    for metric in record.metrics:
        yield from ((f"{metric.name}.{name}", value) for name, value in _numbers(metric))
    for listener, traffic in record.listeners.items():
        for phase, both in traffic.phases.items():
            for cohort in ENROLLED:
                counted = wording.traffic(of_cohort(both, cohort))
                yield f"requests.{listener}.{phase}.{cohort}", counted
    for name, version in record.versions.items():
        yield f"version.{name}", version


def _numbers(metric: MetricSummary) -> Iterator[tuple[str, str]]:
    unit = metric.unit
    yield "finding", wording.finding(metric)
    yield "tolerance", metric.tolerance
    yield "effect", "unknown" if metric.effect is None else wording.size(metric.effect, unit)
    yield "lower", wording.size(metric.lower, unit)
    yield "upper", wording.size(metric.upper, unit)
    yield "allowed", wording.size(metric.allowed, unit)
    known = metric.detectable is not None
    yield "detectable", wording.size(metric.detectable, unit) if known else "unknown"
    yield "evidence", wording.evidence(metric)
    for cohort, level in zip(ENROLLED, metric.levels, strict=True):
        yield cohort, f"{level}, {wording.events(metric, cohort)}"


def _count(cases: list[_Case], outcome: str) -> int:
    return sum(case.outcome == outcome for case in cases)


def _seconds(value: float) -> str:
    return f"{value:.3f}"


def _clean(text_: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text_)
