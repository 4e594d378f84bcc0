"""The report as JUnit XML, for CI systems.

A suite has a case for the hypothesis, one for each metric, one for the dose and one for the sample
ratio. The case `hypothesis` is the verdict: it passes if that is `held`, is a failure if
`refuted`, and an error if `inconclusive` or `invalid` or if the run still goes on: CI systems show
an error as red as a failure, and a skipped case as if nothing were wrong, which not knowing is not.
A metric is skipped while it is undecided, for the hypothesis has that error already. In the order
of elements and attributes it keeps to both schemas in use, of Ant's task and of Jenkins' plugin;
those have properties for suites only, so that a metric's name stands before those of its numbers.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from counterfault.proxy.analysis.verdict import LEAST_DOSE, Result
from counterfault.proxy.experiments.cohorts import ENROLLED
from counterfault.proxy.report import text, wording
from counterfault.proxy.report.wording import Data

# XML 1.0 has no way to write these (2.2, Char).
_NO_CHARACTER = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PASSED = ""


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    outcome: str
    """`failure`, `error`, `skipped`, or nothing if it passed."""
    message: str
    seconds: float = 0.0


def render(record: Data, zone: tzinfo | None) -> str:
    """One `testsuites` with one `testsuite`; the text report is its `system-out`."""
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
        _write(suite, case, record["name"])
    SubElement(suite, "system-out").text = _clean(text.render(record, zone))
    SubElement(suite, "system-err")
    indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(suites, encoding="unicode")}\n'


def _write(suite: Element, case: _Case, experiment: str) -> None:
    names = {"name": case.name, "classname": f"counterfault.{experiment}"}
    made = SubElement(suite, "testcase", {**names, "time": _seconds(case.seconds)})
    if case.outcome == _PASSED:
        return
    told = {"message": _clean(case.message)}
    if case.outcome != "skipped":
        told["type"] = case.outcome
    SubElement(made, case.outcome, told)


def _cases(record: Data) -> Iterator[_Case]:
    told, span = record["verdict"], wording.span(record)
    lasted = span[1] - span[0] if span else 0.0
    said = f"{wording.verdict(record)}: {told['reason']}"
    yield _Case("hypothesis", _of_verdict(told), said, lasted)
    for metric in record["metrics"]:
        yield _Case(metric["name"], _of_metric(metric, told["result"]), metric["says"])
    enough = record["dose"]["share"] >= LEAST_DOSE
    yield _Case("dose", _PASSED if enough else _pending("error", told), wording.dose(record))
    off = record["users"]["off"]
    yield _Case("sample-ratio", "error" if off else _PASSED, wording.sample_ratio(record))


def _of_verdict(told: Data) -> str:
    if told["provisional"]:
        return "error"
    return {Result.HELD: _PASSED, Result.REFUTED: "failure"}.get(told["result"], "error")


def _of_metric(metric: Data, result: str) -> str:
    if metric["harmed"]:
        return "failure" if result == Result.REFUTED else "error"
    return _PASSED if metric["within"] else "skipped"


def _pending(outcome: str, told: Data) -> str:
    """What may still come right is skipped."""
    return "skipped" if told["provisional"] else outcome


def _properties(record: Data) -> Iterator[tuple[str, str]]:
    yield "verdict", wording.verdict(record)
    yield "reason", record["verdict"]["reason"]
    yield "hypothesis", record["hypothesis"]
    yield "state", record["state"]
    yield "dose", wording.dose(record)
    yield "users", wording.sample_ratio(record)
    for metric in record["metrics"]:
        yield from ((f"{metric['name']}.{name}", value) for name, value in _numbers(metric))
    for name, version in record["versions"].items():
        yield f"version.{name}", version


def _numbers(metric: Data) -> Iterator[tuple[str, str]]:
    unit = metric["unit"]
    yield "finding", wording.finding(metric)
    yield "tolerance", metric["tolerance"]
    for name in ("effect", "lower", "upper", "allowed", "detectable"):
        unknown = name in ("effect", "detectable") and metric[name] is None
        yield name, "unknown" if unknown else wording.size(metric[name], unit)
    yield "evidence", wording.evidence(metric)
    for cohort, level in zip(ENROLLED, metric["levels"], strict=True):
        yield cohort, f"{level}, {wording.events(metric, cohort)}"


def _count(cases: list[_Case], outcome: str) -> int:
    return sum(case.outcome == outcome for case in cases)


def _seconds(value: float) -> str:
    return f"{value:.3f}"


def _clean(said: str) -> str:
    return _NO_CHARACTER.sub("\N{REPLACEMENT CHARACTER}", said)
