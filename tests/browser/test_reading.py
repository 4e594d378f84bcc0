"""The page in a browser, as its users read and use it: all of them look at one sidecar."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.page_views import SLOW, card, open_all, open_page
from tests.support.programs import Sidecar, until

pytestmark = pytest.mark.timeout(300)

AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture
def running(shared_shop: Sidecar) -> Sidecar:
    """A sidecar that others look at too, with a new run of the experiment `x` and no other."""
    shared_shop.post("/api/resume")
    for file in (shared_shop.directory / "experiments").iterdir():
        if file.name != "x.yaml":
            file.unlink()
    known = {e["name"]: e["run"] for e in shared_shop.get("/api/experiments")["experiments"]}
    run = known.get("x", 0) + 1
    shared_shop.experiment("x", run=run, **SLOW)

    def begun() -> bool:
        found = shared_shop.get("/api/experiments")["experiments"]
        runs = {(e["name"], e["run"], e["state"]) for e in found}
        return runs == {("x", run, "running")} and shared_shop.acts()

    until(begun)
    return shared_shop


def test_the_kill_switch_asks_once_and_can_be_lifted(page: Page, running: Sidecar) -> None:
    open_page(page, running)
    page.get_by_role("button", name="Stop everything…").click()
    dialog = page.get_by_role("dialog", name="Stop everything?")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    assert running.state() == "running"

    page.get_by_role("button", name="Stop everything…").click()
    dialog.get_by_role("button", name="Stop everything").click()
    expect(dialog).to_be_hidden()
    expect(page.get_by_text("The kill switch is on.")).to_be_visible()
    expect(card(page).locator(".state")).to_have_text("stopped")
    assert running.get("/api/experiments")["killed"] is True
    expect(page.get_by_role("button", name="Stop everything…")).to_have_count(0)

    page.get_by_role("button", name="Lift the kill switch").click()
    expect(page.get_by_text("The kill switch is on.")).to_have_count(0)
    assert running.state() == "stopped"


def test_everything_can_be_done_by_keyboard(page: Page, running: Sidecar) -> None:
    open_page(page, running)

    def focused() -> str:
        return str(page.evaluate("document.activeElement.textContent.trim()"))

    def tab_to(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if focused() == name:
                return
        pytest.fail(f"{name} cannot be reached")

    page.keyboard.press("Tab")
    assert focused() == "Skip to the experiments"
    tab_to("Stop everything…")
    page.keyboard.press("Enter")
    assert focused() == "Cancel"
    page.keyboard.press("Escape")
    assert focused() == "Stop everything…"

    tab_to("Faults, listeners and timeline of x")
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Faults of x")).to_be_visible()
    # What is open and focused stays so while the page is kept fresh.
    before = card(page).locator(".remaining").text_content()
    expect(card(page).locator(".remaining")).not_to_have_text(before or "")
    assert focused() == "Faults, listeners and timeline of x"
    expect(page.get_by_role("region", name="Faults of x")).to_be_visible()

    page.keyboard.press("Home")
    page.evaluate("document.activeElement.blur()")
    tab_to("Stop x")
    page.keyboard.press("Enter")
    expect(card(page).locator(".state")).to_have_text("stopped")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, running: Sidecar, scheme: Any) -> None:
    running.experiment("gone", **SLOW | {"cohorts": {"experiment": "5%", "control": "5%"}})
    # Read by axe, which is not of the page and so has no place in its policy.
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    open_page(page, running)
    running.post("/api/experiments/gone/stop")
    expect(card(page, "gone").locator(".state")).to_have_text("stopped")
    open_all(page)
    expect(page.locator("#experiment-x canvas").first).to_be_visible(timeout=30_000)
    assert serious(page) == []
    page.get_by_role("button", name="Stop everything…").click()
    assert serious(page) == []
    page.get_by_role("dialog").get_by_role("button", name="Stop everything").click()
    expect(page.get_by_text("The kill switch is on.")).to_be_visible()
    assert serious(page) == []
    context.close()


def serious(page: Page) -> list[str]:
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{v['id']}: {node['html']} {node['any'][:1]}"
        for v in found["violations"]
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
    ]


@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_narrow_screen_needs_no_sideways_scroll(page: Page, running: Sidecar, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    long = f"w{width}-" + "name-" * 6 + "label"
    running.running(long, **SLOW | {"cohorts": {"experiment": "5%", "control": "5%"}})
    open_page(page, running)
    expect(card(page, long)).to_be_visible()
    open_all(page)
    for name in ("x", long):
        expect(card(page, name).locator("canvas").first).to_be_visible(timeout=30_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_times_are_the_readers_and_utc_on_hover(browser: Browser, running: Sidecar) -> None:
    context = browser.new_context(timezone_id="Asia/Kathmandu", locale="en-GB")
    page = context.new_page()
    open_page(page, running)
    page.locator("#more-x > summary").click()
    first = page.locator(".timeline time").first
    shown, title = first.text_content() or "", first.get_attribute("title") or ""
    utc = re.search(r"(\d\d):(\d\d):\d\d UTC", title)
    local = re.search(r"(\d\d):(\d\d):\d\d$", shown)
    assert utc
    assert local
    minutes = (int(local[1]) - int(utc[1])) * 60 + int(local[2]) - int(utc[2])
    assert minutes % (24 * 60) == 5 * 60 + 45
    context.close()


def test_without_script_it_still_tells_and_stops(browser: Browser, running: Sidecar) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(running.admin)
    expect(card(page).locator(".state")).to_have_text("running")
    expect(card(page).locator(".cohorts").first).to_be_visible()
    expect(page.locator("canvas")).to_have_count(0)
    card(page).get_by_role("button", name="Stop x").click()
    expect(card(page).locator(".state")).to_have_text("stopped")
    assert page.url == f"{running.admin}/"
    context.close()
