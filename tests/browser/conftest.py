"""A real Chromium that looks at a real sidecar with real users."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support import programs
from tests.support.programs import Nginx, Sidecar
from tests.support.shared_sidecar import exclusive_use

# As root, without a screen, and without asking anybody else for anything.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
RATE = 60
# The answers of a shop: a page a user cannot see is no load.
PATHS = "location / { return 200 'a page'; } location = /checkout { return 200 'thanks'; }"


# Not for the session: while Playwright runs, asyncio.run is refused in this thread.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = programs.program("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page whose script and policy must not complain."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    context.set_default_timeout(20_000)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if is_fault(said.text) else None)
    yield page
    context.close()
    assert wrong == []


def is_fault(said: str) -> bool:
    """Whether a line of the console is about our own page; a lost connection is told there too."""
    return "Content Security Policy" in said or "Uncaught" in said


@pytest.fixture(scope="module")
def shared_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    """A sidecar in front of nginx, with users who come all the time."""
    with _opened(tmp_path_factory.mktemp("shop")) as sidecar:
        yield sidecar


@pytest.fixture
def shop(shared_shop: Sidecar) -> Iterator[Sidecar]:
    """The same, for those who want it without any other experiment, and may restart it."""
    with exclusive_use(shared_shop):
        yield shared_shop


@pytest.fixture
def guarded_shop(tmp_path: Path) -> Iterator[Sidecar]:
    """One of its own that asks for the token that is in its directory."""
    (tmp_path / "sidecar").mkdir()
    (tmp_path / "sidecar" / "token").write_text("sixteen-bytes-or-more")
    admin = {"token_file": "token"}
    with _opened(tmp_path, admin) as sidecar:
        yield sidecar


@contextmanager
def _opened(directory: Path, admin: Mapping[str, str] = {}) -> Iterator[Sidecar]:
    with ExitStack() as stack:
        nginx = Nginx(directory / "nginx", PATHS)
        stack.callback(nginx.stop)
        sidecar = Sidecar(directory / "sidecar", nginx.url, {})
        sidecar.settings["admin"].update(admin)
        sidecar.write_settings()
        stack.callback(sidecar.stop)
        sidecar.start()
        command = [sys.executable, "-m", "counterfault.proxy.demo.traffic", "--target", sidecar.url]
        users = subprocess.Popen([*command, "--rate", str(RATE)], stdout=subprocess.DEVNULL)
        stack.callback(users.wait, 20)
        stack.callback(users.terminate)
        yield sidecar
