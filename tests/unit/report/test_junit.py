"""The JUnit report: what CI systems count, in the order that their schemas want."""

import re
from datetime import UTC
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest

from counterfault.proxy.models.run_record import RunRecord
from counterfault.proxy.report import junit
from tests.support.example_runs import (
    EXAMPLE_RUNS,
    empty,
    example_report,
    held,
    inconclusive,
    invalid,
    refuted,
)

OUTCOMES = ("failure", "error", "skipped")
# What Ant's schema, the stricter one of those in use, requires of each element and its order.
SUITE = {
    "name": r"\S.*",
    "package": r"\S+",
    "id": r"\d+",
    "timestamp": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d",
    "hostname": r"\S+",
    "tests": r"\d+",
    "failures": r"\d+",
    "errors": r"\d+",
    "skipped": r"\d+",
    "time": r"\d+\.\d+",
}
CASE = {"name": r"\S.*", "classname": r"\S+", "time": r"\d+\.\d+"}
PROPERTY = {"name": r"\S.*", "value": r".*"}


def parsed(record) -> Element:
    (suite,) = ElementTree.fromstring(junit.render(RunRecord.from_data(record), UTC))
    return suite


def outcomes(record) -> dict[str, str]:
    cases = parsed(record).findall("testcase")
    return {c.attrib["name"]: c[0].tag if len(c) else "passed" for c in cases}


def has(element: Element, attributes: dict[str, str]) -> None:
    assert element.attrib.keys() == attributes.keys()
    for name, pattern in attributes.items():
        assert re.fullmatch(pattern, element.attrib[name], re.DOTALL), (name, element.attrib[name])


@pytest.mark.parametrize("story", EXAMPLE_RUNS)
def test_every_report_is_as_the_schemas_want_it(story):
    suite = parsed(EXAMPLE_RUNS[story]())
    has(suite, SUITE)
    cases = suite.findall("testcase")
    assert [child.tag for child in suite] == [
        "properties",
        *("testcase" for _ in cases),
        "system-out",
        "system-err",
    ]
    for property_ in suite[0]:
        has(property_, PROPERTY)
    for case in cases:
        has(case, CASE)
        assert len(case) <= 1
        for outcome in case:
            assert outcome.tag in OUTCOMES
            assert outcome.attrib["message"]
            assert ("type" in outcome.attrib) == (outcome.tag != "skipped")
    assert suite.attrib["tests"] == str(len(cases))
    for kind, attribute in zip(OUTCOMES, ("failures", "errors", "skipped"), strict=True):
        assert suite.attrib[attribute] == str(len(suite.findall(f"testcase/{kind}")))


def test_a_held_hypothesis_is_green():
    names = ("hypothesis", "success", "p95", "orders", "dose", "sample-ratio")
    assert outcomes(held()) == dict.fromkeys(names, "passed")


def test_a_refuted_one_is_a_failure_and_what_was_undecided_is_skipped():
    found = outcomes(refuted())
    assert (found["hypothesis"], found["success"], found["p95"]) == (
        "failure",
        "failure",
        "skipped",
    )
    assert found["dose"] == "passed"


def test_not_knowing_is_an_error():
    found = outcomes(inconclusive())
    assert (found["hypothesis"], found["success"]) == ("error", "skipped")


def test_a_run_without_a_dose_is_an_error_whatever_its_metrics_say():
    found = outcomes(invalid())
    assert (found["hypothesis"], found["dose"], found["success"]) == ("error", "error", "passed")


def test_cohorts_that_differ_without_a_fault_are_an_error_and_no_failure():
    record = example_report(harm=0.2, faults=0)
    assert record["verdict"]["result"] == "invalid"
    assert "failure" not in outcomes(record).values()


def test_a_run_under_way_is_not_green_yet():
    record = example_report(150)
    assert record["verdict"] == record["verdict"] | {"result": "held", "provisional": True}
    assert outcomes(record)["hypothesis"] == "error"


def test_what_has_not_begun_is_an_error_of_the_hypothesis_alone():
    found = outcomes(empty())
    assert found.pop("hypothesis") == "error"
    assert found.pop("sample-ratio") == "passed"
    assert found == dict.fromkeys(("success", "p95", "orders", "dose"), "skipped")


def test_numbers_are_properties_with_units():
    properties = parsed(refuted())[0]
    found = {p.attrib["name"]: p.attrib["value"] for p in properties}
    assert found["verdict"] == "refuted"
    assert found["success.finding"] == "worse than allowed"
    assert found["success.allowed"] == "2 pp"
    assert found["success.effect"].endswith(" pp")
    assert found["p95.lower"].endswith(" %")
    assert found["success.experiment"].endswith("% failed, 120 requests")


def test_what_xml_cannot_write_does_not_break_it():
    record = held() | {"hypothesis": 'a\x00b\x1b<![CDATA[&"]]>\ud800'}
    suite = parsed(record)
    found = {p.attrib["name"]: p.attrib["value"] for p in suite[0]}
    assert found["hypothesis"] == 'a\ufffdb\ufffd<![CDATA[&"]]>\ufffd'
