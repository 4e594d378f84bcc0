"""The HTML report: whole in itself, safe to open, and it shows what was measured."""

import re
from base64 import b64encode
from datetime import UTC
from hashlib import sha256
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from counterfault.proxy.models.run_record import RunRecord
from counterfault.proxy.report import html as page
from tests.support.example_runs import EXAMPLE_RUNS, empty, example_report, held, refuted

EVIL = """<script>alert(1)</script>"'&<img src=x onerror=alert(1)>"""
VOID = {"meta", "br"}


class Nesting(HTMLParser):
    """Fails on a tag that is closed by another's end."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: dict[str, int] = {}

    def handle_starttag(self, tag, attrs):
        self.seen[tag] = self.seen.get(tag, 0) + 1
        assert "style" not in dict(attrs), "the policy forbids style attributes"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def nested(html: str) -> Nesting:
    parser = Nesting()
    parser.feed(html)
    assert parser.open == []
    return parser


def drawings(html: str) -> dict[str, ElementTree.Element]:
    found = [ElementTree.fromstring(text) for text in re.findall("<svg.*?</svg>", html, re.DOTALL)]
    return {svg.attrib["aria-label"]: svg for svg in found}


def of(svg: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
    return [e for e in svg if e.attrib.get("class") == kind]


@pytest.mark.parametrize("story", EXAMPLE_RUNS)
def test_every_page_is_well_formed_and_fetches_nothing(story):
    html = page.render(RunRecord.from_data(EXAMPLE_RUNS[story]()), UTC)
    parser = nested(html)
    assert "script" not in parser.seen
    assert not re.search(r"\b(src|href)=|url\(", html)


@pytest.mark.parametrize("story", EXAMPLE_RUNS)
def test_every_chart_stays_within_its_frame_and_has_numbers_only(story):
    for svg in drawings(page.render(RunRecord.from_data(EXAMPLE_RUNS[story]()), UTC)).values():
        assert svg[0].tag == "title"
        for element in svg:
            for name in ("points", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy"):
                for number in re.split("[ ,]", element.attrib.get(name, "0")):
                    assert -1 <= float(number) <= 440


def test_the_policy_allows_its_own_style_and_nothing_else():
    html = page.render(RunRecord.from_data(held()), UTC)
    (style,) = re.findall("<style>(.*?)</style>", html, re.DOTALL)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in page.POLICY
    assert page.POLICY.startswith("default-src 'none'; ")
    assert "unsafe" not in page.POLICY
    assert html.index("Content-Security-Policy") < html.index("<style>")


def test_what_users_wrote_is_text():
    record = refuted()
    record |= {"hypothesis": EVIL, "configuration": {EVIL: EVIL}, "reason": EVIL, "faults": [EVIL]}
    record["versions"] = {EVIL: EVIL}
    record["metrics"][0] |= {"name": EVIL, "tolerance": EVIL, "levels": [EVIL, EVIL]}
    for point in record["points"]:
        point["metrics"][EVIL] = point["metrics"]["success"]
    html = page.render(RunRecord.from_data(record), UTC)
    assert "img" not in nested(html).seen
    assert "<script" not in html


def test_a_metric_has_both_cohorts_over_time_with_the_phases_behind():
    found = drawings(page.render(RunRecord.from_data(held()), UTC))
    svg = found["success: failed requests over time, both cohorts"]
    assert len(of(svg, "control")) == len(of(svg, "experiment")) == 1
    bands = [e.attrib["class"] for e in svg if e.attrib.get("class", "").startswith("phase ")]
    assert bands == ["phase baseline", "phase running", "phase recovering"]
    first = of(svg, "control")[0].attrib["points"].split(",")[0]
    assert float(first) < float(of(svg, "phase running")[0].attrib["x"])


def test_the_estimate_has_a_band_and_the_tolerance():
    found = drawings(page.render(RunRecord.from_data(held()), UTC))
    svg = found["p95: how much worse the experiment cohort is, over time"]
    assert len(of(svg, "bounds")) == len(of(svg, "estimate")) == len(of(svg, "zero")) == 1
    allowed = [e.text for e in of(svg, "allowed end")]
    assert allowed == ["allowed: 50 %"]


def test_the_harm_that_stopped_a_run_is_drawn():
    record = refuted()
    assert record["points"][-1]["metrics"]["success"]["lower"] > 0.02
    svg = drawings(page.render(RunRecord.from_data(record), UTC))[
        "success: how much worse the experiment cohort is, over time"
    ]
    (estimate,) = of(svg, "estimate")
    (allowed,) = of(svg, "allowed")
    last = estimate.attrib["points"].split(",")[-1]
    assert float(last) < float(allowed.attrib["y1"])  # higher up


def test_latencies_of_both_cohorts_lie_over_each_other():
    found = drawings(page.render(RunRecord.from_data(held()), UTC))
    svg = found["p95: distribution of latencies while the faults were on"]
    areas = [e.attrib["class"] for e in svg if "area" in e.attrib.get("class", "")]
    assert areas == ["control area", "experiment area"]
    ticks = [e.text for e in of(svg, "tick middle")]
    assert {"10ms", "100ms"} <= set(ticks)
    assert not any("distribution" in name for name in found if not name.startswith("p95"))


def test_numbers_by_phase_are_a_table():
    html = page.render(RunRecord.from_data(held()), UTC)
    rows = re.findall(
        r'<tr><th scope="row">(\w+)</th><th scope="row">(\w+)</th><td>([\d,]+)</td>', html
    )
    assert rows[:6] == [
        ("baseline", "control", "1,800"),
        ("baseline", "experiment", "1,800"),
        ("faults", "control", "10,800"),
        ("faults", "experiment", "10,800"),
        ("recovery", "control", "1,800"),
        ("recovery", "experiment", "1,800"),
    ]


def test_a_run_that_has_not_begun_says_so():
    html = page.render(RunRecord.from_data(empty()), UTC)
    assert "Nothing has happened yet." in html
    assert "<svg" not in html


def test_without_a_steady_state_nothing_was_compared():
    record = example_report(260, experiment={"steady_state": []})
    assert "Nothing has been compared." in page.render(RunRecord.from_data(record), UTC)
    assert "no steady state is defined" in page.render(RunRecord.from_data(record), UTC)


def test_an_edit_begins_the_charts_anew():
    record = example_report(60)
    before = [dict(point, epoch="1.9.running") for point in record["points"][:20]]
    again = record | {"points": before + record["points"][20:]}
    before_edit, after = (RunRecord.from_data(data) for data in (record, again))
    assert page.render(before_edit, UTC) != page.render(after, UTC)
