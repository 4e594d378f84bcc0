"""What tests of the page have in common: an experiment to look at, and ways to look at it."""

from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.support.programs import Sidecar

SLOW: dict[str, Any] = {
    "hypothesis": "Nobody minds a little wait",
    "duration": "5m",
    "faults": [{"at": "inbound", "latency": "300ms", "dose": "50%"}],
    "steady_state": [
        {"name": "pages", "at": "inbound", "success_rate": {"drop": "20pp"}},
        {"name": "speed", "at": "inbound", "slow": {"over": "200ms", "rise": "90pp"}},
    ],
}


def open_all(page: Page) -> None:
    """All that can be opened on the page."""
    closed = page.locator("details:not([open]) > summary")
    while closed.count():
        closed.first.click()


def card(page: Page, name: str = "x") -> Locator:
    return page.locator(f"#experiment-{name}")


def open_page(page: Page, sidecar: Sidecar) -> None:
    page.goto(sidecar.admin, wait_until="domcontentloaded")
    expect(page.locator("#connection")).to_have_text("connected")
