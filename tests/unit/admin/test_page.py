"""The page as the server renders it: it must be of use without a script."""

import re
from html.parser import HTMLParser

import pytest

from counterfault.proxy.admin.page.assets import ASSETS
from counterfault.proxy.experiments.lifecycle import Epoch
from counterfault.proxy.measurement.keys import DoseKey, FaultResult, SteadyKey, TrafficKey
from tests.support.supervisor_world import SLOW

pytestmark = pytest.mark.anyio

FORM = {"Accept": "text/html,*/*", "Content-Type": "application/x-www-form-urlencoded"}


async def test_the_page_shows_cohorts_side_by_side(world, client):
    epoch = Epoch("1.0.baseline")
    world.count(TrafficKey("slow", epoch, "inbound", "control", "2xx", 3), 1234)
    world.count(TrafficKey("slow", epoch, "inbound", "experiment", "5xx", 3), 617)
    answer = await client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    for said in ("slow", "baseline", "1 min 00 s", "1\u202f234", "617", "100 %"):
        assert said in answer.text


async def test_a_metric_shows_levels_estimate_and_what_is_allowed(world, client):
    world.pass_time(60)
    for replicate in range(64):
        for cohort, bad in (("control", 1), ("experiment", 9)):
            for cell, count in (("good", 20 - bad), ("bad", bad)):
                key = SteadyKey("slow", Epoch("1.0.running"), "success", cohort, replicate, cell)
                world.count(key, count)
    for _ in range(3):
        world.count(DoseKey("slow", Epoch("1.0.running"), 0, FaultResult.PLANNED), 1)
        world.count(DoseKey("slow", Epoch("1.0.running"), 0, FaultResult.PERFORMED), 1)
    world.pass_time(1)
    page = (await client.get("/")).text
    for said in ("5% failed", "45% failed", "40 pp more requests failed", "harmed"):
        assert said in page
    (label,) = re.findall(r"aria-label=\"Worse by ([^\"]+)\"", page)
    assert label.startswith("+40 pp; at least +")
    assert label.endswith(" pp; +0.5 pp allowed")


async def test_the_page_shows_what_happened(world, client):
    world.pass_time(60)
    await client.post("/api/experiments/slow/stop")
    page = (await client.get("/")).text
    assert re.findall(r"</time> <strong>(\w+)</strong>", page) == ["baseline", "running", "stopped"]
    assert "stopped by an operator" in page
    assert '<time datetime="1970-01-12T13:47:40Z">12 Jan 13:47:40 UTC</time>' in page


async def test_what_was_done_is_shown_at_once(client):
    assert 'data-state="baseline"' in (await client.get("/")).text
    await client.post("/api/experiments/slow/stop")
    assert 'data-state="stopped"' in (await client.get("/")).text


async def test_without_script_a_form_stops_and_leads_back(world, client):
    page = (await client.get("/")).text
    assert '<form method="post" action="/api/experiments/slow/stop"' in page
    for path in ("/api/experiments/slow/stop", "/api/stop", "/api/resume"):
        answer = await client.post(path, headers=FORM)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert world.supervisor.registry.runs["slow"].state == "stopped"


async def test_the_page_escapes_what_users_wrote(world, client):
    world.write(SLOW | {"hypothesis": "<script>alert(1)</script>&\"'"})
    await client.post("/-/reload")
    page = (await client.get("/")).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in page


async def test_the_page_shows_what_is_wrong(world, client):
    await client.post("/api/stop")
    world.write(SLOW | {"duration": "<i>soon"})
    await client.post("/-/reload")
    world.supervisor.registry.store.error = "state_dir /nowhere: <b>"
    page = (await client.get("/")).text
    assert "The kill switch is on." in page
    assert "state_dir /nowhere: &lt;b&gt;" in page
    assert "experiments/slow.yaml:4:" in page
    assert "<i>" not in page


async def test_the_page_says_why_a_run_has_not_begun(world, client):
    world.write(SLOW | {"experiment": "later", "state": "paused"})
    await client.post("/-/reload")
    assert "Not begun: its file says <code>paused</code>." in (await client.get("/")).text


async def test_an_empty_page_says_how_to_begin(world, client):
    world.write()
    await client.post("/-/reload")
    page = (await client.get("/")).text
    assert "No experiment is configured" in page
    assert "experiments/NAME.yaml" in page


async def test_the_page_runs_its_own_files_only(client):
    answer = await client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"(src|href|action)=\"(https?:)?//", answer.text)
    assert ' style="' not in answer.text
    assert "<style" not in answer.text
    assert not re.search(r"<script(?![^>]* src=)", answer.text)
    assert not re.search(r" on[a-z]+=", answer.text)


async def test_all_that_the_page_asks_for_is_there(client):
    page = (await client.get("/")).text
    named = set(re.findall(r"\"/page/([^\"]+)\"", page))
    for name, asset in ASSETS.items():
        named |= set(re.findall(r"from \"\./([^\"]+)\"", asset.content.decode()))
        answer = await client.get(f"/page/{name}")
        assert (answer.status_code, answer.content) == (200, asset.content)
        assert answer.headers["content-type"] == asset.kind
    assert named == set(ASSETS)


async def test_a_file_that_the_browser_has_is_not_sent_again(client):
    first = await client.get("/page/page.css")
    again = await client.get("/page/page.css", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "name", ["login.css", "page.html", "__init__.py", "..%2Fbase.py", "%2e%2e"]
)
async def test_nothing_else_can_be_had(client, name):
    assert (await client.get(f"/page/{name}")).status_code == 404


class Balance(HTMLParser):
    """Whether every tag that is opened is closed, in order."""

    VOID = frozenset({"meta", "link", "input", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Closed already."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


async def test_the_html_is_balanced_and_its_ids_are_unique(world, client):
    world.write(SLOW, SLOW | {"experiment": "other"}, SLOW | {"experiment": "third", "faults": []})
    await client.post("/-/reload")
    world.pass_time(60)
    balance = Balance()
    balance.feed((await client.get("/")).text)
    assert balance.open == []
    assert len(balance.ids) == len(set(balance.ids))
