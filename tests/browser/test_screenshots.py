"""What the README shows: the page while an experiment runs, is held and is refuted."""

import os
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, expect

from tests.support import png
from tests.support.demo_shop import Shop, open_demo_shop

RATE = 30
# Larger ones make a README slow to open.
MOST_BYTES = 150_000
HELD: dict[str, Any] = {
    "hypothesis": "Shoppers do not notice that recommendations are slow",
    "baseline": "8s",
    "duration": "75s",
    "recovery": "6s",
    "cohorts": {"experiment": "25%", "control": "25%"},
    "faults": [{"at": "recommendations", "latency": {"p50": "80ms", "p99": "2s"}}],
    "steady_state": [
        {"name": "pages", "at": "inbound", "success_rate": {"drop": "5pp"}},
        {"name": "page-p90", "at": "inbound", "latency": {"quantile": 0.9, "rise": "400%"}},
    ],
}
REFUTED: dict[str, Any] = {
    "hypothesis": "Shoppers can check out although payments fail",
    "baseline": "8s",
    "duration": "2m",
    "recovery": "6s",
    "cohorts": {"experiment": "25%", "control": "25%"},
    "faults": [
        {"at": "payments", "match": {"method": "POST", "path": "/charge"}, "error": 503}
        | {"dose": "40%"}
    ],
    "steady_state": [
        {"name": "checkout", "at": "inbound", "match": {"path": "/checkout"}}
        | {"success_rate": {"drop": "5pp"}},
        {"name": "orders", "at": "inbound", "match": {"path": "/checkout", "status": "2xx"}}
        | {"rate": {"drop": "20%"}},
    ],
}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with open_demo_shop(tmp_path, RATE, limits={"enrolled": "60%"}) as shop:
        yield shop


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Where they go; the README's own only if they are asked for."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path / "images")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_the_page_while_running_held_and_refuted(
    browser: Browser, shop: Shop, images: Path
) -> None:
    light, dark = (
        browser.new_page(
            viewport={"width": 1100, "height": 800}, color_scheme=scheme, locale="en-GB"
        )
        for scheme in ("light", "dark")
    )
    for page in (light, dark):
        page.goto(shop.sidecar.admin, wait_until="domcontentloaded")

    shop.sidecar.experiment("slow-recommendations", **HELD)
    expect(light.locator(".remaining")).to_have_text(re.compile("^[34]. s$"), timeout=90_000)
    take(light, images / "running.png")
    expect(light.locator(".state")).to_have_text("done", timeout=120_000)
    expect(light.locator(".head .verdict")).to_have_text("held")
    take(dark, images / "held.png")

    shop.sidecar.experiment("slow-recommendations", **HELD | {"state": "paused"})
    shop.sidecar.experiment("failing-payments", **REFUTED)
    card = light.locator("#experiment-failing-payments")
    expect(card.locator(".state")).to_have_text("stopped", timeout=150_000)
    expect(card.locator(".head .verdict")).to_have_text("refuted")
    light.locator("#body-slow-recommendations > summary").click()
    take(light, images / "refuted.png")


def take(page: Page, path: Path) -> None:
    """Of all there is, once the charts are drawn."""
    page.wait_for_function("document.querySelectorAll('.plot canvas').length >= 5")
    page.mouse.move(0, 0)
    png.write(path, decoded(page, page.screenshot(full_page=True, animations="disabled")))
    assert path.stat().st_size < MOST_BYTES


def decoded(page: Page, image: bytes) -> NDArray[np.uint8]:
    """A PNG's pixels, as the browser sees them; on a page without a policy against it."""
    assert page.context.browser
    blank = page.context.browser.new_page()
    width, height, data = blank.evaluate(
        """async (image) => {
            const bytes = Uint8Array.from(atob(image), c => c.charCodeAt(0));
            const bitmap = await createImageBitmap(new Blob([bytes], {type: 'image/png'}));
            const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
            const context = canvas.getContext('2d');
            context.drawImage(bitmap, 0, 0);
            const {data} = context.getImageData(0, 0, bitmap.width, bitmap.height);
            const reader = new FileReader();
            const read = new Promise(done => { reader.onload = done; });
            reader.readAsDataURL(new Blob([data]));
            await read;
            return [bitmap.width, bitmap.height, reader.result.split(',')[1]];
        }""",
        b64encode(image).decode(),
    )
    blank.close()
    pixels = np.frombuffer(b64decode(data), dtype=np.uint8).reshape(height, width, 4)
    return pixels[:, :, :3]
