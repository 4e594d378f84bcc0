"""The charts by themselves: whatever there is to draw, drawing it comes to an end."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route

from counterfault.proxy.admin.page.assets import ASSETS
from counterfault.proxy.values.buckets import DURATION_BUCKETS, LATENCY_BUCKETS

BLANK = """<!doctype html><script src="/page/uPlot.iife.min.js"></script>
<div data-experiment="x"><figure><figcaption>A chart</figcaption>
<div id="box" style="width: 600px"></div></figure></div>"""
# uPlot draws in a microtask; what it throws there is an error of the page.
DRAWN = """async ([file, name, all]) => {
    const make = (await import(`/page/${file}`))[name];
    const colours = (await import('/page/theme.js')).theme();
    const box = document.getElementById('box');
    const labels = [];
    for (const one of all) {
        const chart = make(box, ...one, colours);
        await new Promise(done => setTimeout(done));
        labels.push(chart.axes[0]._values?.filter(said => said) ?? []);
        chart.destroy();
    }
    return labels;
}"""


@pytest.fixture(scope="module")
def blank(browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    """A page with uPlot and no more, and what went wrong on it."""
    page, wrong = browser.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.route("http://page.test/**", _serve)
    page.goto("http://page.test/")
    yield page, wrong
    page.close()


def _serve(route: Route) -> None:
    asset = ASSETS.get(route.request.url.rpartition("/page/")[2])
    if asset is None:
        route.fulfill(body=BLANK, content_type="text/html")
    else:
        route.fulfill(body=asset.content, content_type=asset.kind)


@pytest.mark.parametrize("buckets", [LATENCY_BUCKETS, DURATION_BUCKETS])
def test_latencies_of_any_range_have_an_axis_with_words(
    blank: tuple[Page, list[str]], buckets: tuple[float, ...]
) -> None:
    """uPlot's own axis never ends where it begins just below a power of ten."""
    page, wrong = blank
    histograms = []
    for first in range(0, len(buckets) - 2, 2):
        for length in (2, 9, 60):
            edges = buckets[first : first + length]
            counts = {cohort: [1] * (len(edges) - 1) for cohort in ("control", "experiment")}
            histograms.append([{"edges": edges, **counts}])
    labels = page.evaluate(DRAWN, ["histogram.js", "histogramChart", histograms])
    assert wrong == []
    wide = [said for said, (s,) in zip(labels, histograms, strict=True) if len(s["edges"]) >= 9]
    assert all(wide)


@pytest.mark.parametrize("kind", ["success_rate", "slow", "latency", "rate"])
def test_courses_of_any_values_can_be_drawn(blank: tuple[Page, list[str]], kind: str) -> None:
    page, wrong = blank
    courses: list[list[Any]] = []
    for seconds in (0.0, 1e-3, 1.0, 3600.0):
        for values in ([None, 0.0], [0.0, 0.0], [1e-4, 1e-4], [None, 0.3], [0.2, 40.0]):
            times = {"at": [1.8e9, 1.8e9 + seconds], "states": ["baseline", "running"]}
            bounds = {"effect": values, "lower": [None, -0.1], "upper": [None, None]}
            cohorts = {"control": values, "experiment": values}
            unit = {"kind": kind, "unit": "pp", "allowed": 0.05}
            courses.append([times, {**unit, **cohorts, **bounds}])
    for chart in ("levelsChart", "effectChart"):
        page.evaluate(DRAWN, ["timeseries.js", chart, courses])
    assert wrong == []
