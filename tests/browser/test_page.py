"""The page in a browser, while its sidecar begins, ends and comes back."""

import signal

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.page_views import SLOW, card, open_page
from tests.support.programs import Sidecar, until

pytestmark = pytest.mark.timeout(300)


def test_a_reload_starts_it_the_curves_part_and_stop_stops_it(page: Page, shop: Sidecar) -> None:
    open_page(page, shop)
    expect(page.get_by_role("heading", name="No experiment is configured")).to_be_visible()

    shop.experiment("x", baseline="6s", **SLOW)
    expect(card(page).locator(".state")).to_have_text("baseline")
    expect(page.get_by_role("status")).to_contain_text("x: new")
    expect(card(page).locator(".state")).to_have_text("running", timeout=30_000)

    chart = card(page).locator("[data-metric=speed] [data-chart=levels] canvas")
    expect(chart).to_be_visible(timeout=30_000)
    page.wait_for_function(
        """async () => {
            const series = await (await fetch('/api/experiments/x/series')).json();
            const {control, experiment} = series.metrics.speed;
            const last = (values) => values.filter(x => x !== null).at(-1);
            return last(experiment) > last(control) + 0.2;
        }""",
        timeout=60_000,
        polling=500,
    )
    until(lambda: min(drawn(chart, cohort) for cohort in ("control", "experiment")) > 40)
    at_risk = "60% of users are enrolled, of at most 100%"
    expect(page.get_by_role("img", name=at_risk)).to_be_visible()
    bar = page.locator(".bar rect")
    assert [x.get_attribute("width") for x in bar.all()] == ["30.0", "30.0"]

    card(page).get_by_role("button", name="Stop x").click()
    expect(card(page).locator(".state")).to_have_text("stopped")
    expect(card(page)).to_contain_text("stopped by an operator")
    expect(page.get_by_role("status")).to_contain_text("x: stopped")
    assert shop.state() == "stopped"
    expect(card(page).get_by_role("button", name="Stop x")).to_have_count(0)
    expect(page.locator("#title-x")).to_be_focused()

    for kind, file in (("JSON", "x-1.json"), ("JUnit", "x-1.xml")):
        with page.expect_download() as downloaded:
            card(page).get_by_role("link", name=kind).click()
        assert downloaded.value.suggested_filename == file


def drawn(chart: Locator, cohort: str) -> int:
    """How many of a canvas's pixels have about a cohort's colour."""
    pixels: int = chart.evaluate(
        """(canvas, cohort) => {
            const style = getComputedStyle(document.documentElement);
            const hex = style.getPropertyValue(`--${cohort}`).trim().slice(1);
            const wanted = [0, 2, 4].map(i => parseInt(hex.slice(i, i + 2), 16));
            const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            let found = 0;
            for (let i = 0; i < data.length; i += 4)
                if (data[i + 3] > 128 && wanted.every((x, j) => Math.abs(x - data[i + j]) < 24))
                    found++;
            return found;
        }""",
        cohort,
    )
    return pixels


def test_it_says_that_the_supervisor_is_gone_and_when_it_is_back(page: Page, shop: Sidecar) -> None:
    shop.running("y", **SLOW)
    open_page(page, shop)
    expect(page.locator("#lost")).to_be_hidden()
    assert shop.process is not None
    shop.process.send_signal(signal.SIGKILL)
    shop.process.wait(10)
    expect(page.locator("#connection")).to_have_text("disconnected")
    expect(page.get_by_role("alert")).to_contain_text("the supervisor does not answer")
    expect(card(page, "y")).to_be_visible()

    shop.start()
    expect(page.locator("#connection")).to_have_text("connected", timeout=30_000)
    expect(page.locator("#lost")).to_be_hidden()
    expect(card(page, "y")).to_contain_text("the supervisor was restarted")


def test_a_token_is_asked_for_once_and_again_when_it_has_changed(
    page: Page, guarded_shop: Sidecar
) -> None:
    token = guarded_shop.directory / "token"
    guarded_shop.running("x", **SLOW)

    def sign_in(word: str) -> None:
        page.get_by_label("Token").fill(word)
        page.get_by_role("button", name="Sign in").click()

    page.goto(guarded_shop.admin)
    sign_in("not-the-token-at-all")
    expect(page.get_by_role("alert")).to_have_text("That is not the token.")
    sign_in("sixteen-bytes-or-more")
    expect(page.locator("#connection")).to_have_text("connected")
    expect(card(page)).to_be_visible()

    beside = token.with_suffix(".new")
    beside.write_text("another-sixteen-bytes")
    beside.rename(token)
    expect(page.get_by_label("Token")).to_be_visible(timeout=30_000)
    sign_in("another-sixteen-bytes")
    card(page).get_by_role("button", name="Stop x").click()
    expect(card(page).locator(".state")).to_have_text("stopped")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    said = guarded_shop.log.read_text() + page.content()
    assert not any(word in said for word in ("sixteen-bytes", "not-the-token"))
