"""Reports over real sockets: formats, past runs, and what is refused."""

import json
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest

from counterfault.proxy.admin.views import report
from counterfault.proxy.report import html
from tests.support.api_json import as_data
from tests.support.supervisor_world import SLOW

pytestmark = pytest.mark.anyio

REPORT = "/api/experiments/slow/report"


def is_problem(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    return str(body["detail"])


@pytest.mark.parametrize(
    ("form", "kind", "begins"),
    [
        ("text", "text/plain; charset=utf-8", "slow #1: no verdict yet\n"),
        ("json", "application/json", '{\n  "name": "slow"'),
        ("junit", "application/xml", '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>'),
        ("html", "text/html; charset=utf-8", "<!doctype html>"),
    ],
)
async def test_each_format_has_its_type(client, form, kind, begins):
    answer = await client.get(REPORT, params={"format": form})
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    assert answer.text.startswith(begins)
    assert "content-disposition" not in answer.headers


async def test_text_is_what_one_gets_without_asking(client):
    assert (await client.get(REPORT)).text == (await client.get(REPORT + "?format=text")).text


async def test_json_is_the_record_of_the_present_run(world, client):
    world.pass_time(90)
    answer = await client.get(REPORT, params={"format": "json"})
    assert answer.json() == as_data(report(world.supervisor, "slow"))
    assert [event["state"] for event in answer.json()["timeline"]] == ["baseline", "running"]


async def test_junit_is_xml_of_one_suite(client):
    answer = await client.get(REPORT, params={"format": "junit"})
    (suite,) = ElementTree.fromstring(answer.content)
    assert suite.attrib["name"] == "slow #1"


async def test_html_brings_a_policy_that_lets_nothing_but_its_style_through(client):
    answer = await client.get(REPORT, params={"format": "html"})
    policy = f"{html.POLICY}; frame-ancestors 'none'"
    assert answer.headers["content-security-policy"] == policy


async def test_a_download_has_a_name(client):
    for form, suffix in (("junit", "xml"), ("html", "html")):
        answer = await client.get(REPORT, params={"format": form, "download": "1"})
        disposition = answer.headers["content-disposition"]
        assert disposition == f'attachment; filename="slow-1.{suffix}"'
    answer = await client.get(REPORT, params={"download": "0"})
    assert "content-disposition" not in answer.headers


async def test_a_past_run_is_told_beside_the_present_one(world, client):
    world.pass_time(61)
    await world.supervisor.stop("slow")
    world.write(SLOW | {"run": 2})
    await client.post("/-/reload")
    past = (await client.get(REPORT, params={"format": "json", "run": "1"})).json()
    assert (past["run"], past["state"]) == (1, "stopped")
    assert past["verdict"]["reason"] == "stopped by an operator"
    assert past["configuration"] == SLOW
    present = (await client.get(REPORT, params={"format": "json"})).json()
    assert (present["run"], present["state"]) == (2, "baseline")


async def test_a_run_that_is_over_is_told_with_the_file_as_it_was(world, client):
    world.pass_time(61)
    await world.supervisor.stop("slow")
    world.write(SLOW | {"state": "paused", "hypothesis": "Something else"})
    await client.post("/-/reload")
    found = (await client.get(REPORT, params={"format": "json"})).json()
    assert (found["hypothesis"], found["configuration"]) == (SLOW["hypothesis"], SLOW)


async def test_an_experiment_whose_file_is_gone_is_still_told(world, client):
    world.write()
    await client.post("/-/reload")
    answer = await client.get(REPORT, params={"format": "json"})
    assert answer.json()["verdict"]["reason"] == "its file was removed"


async def test_what_there_is_not_is_told(client):
    assert "it has 1" in is_problem(await client.get(REPORT + "?run=7"), 404)
    nothing = await client.get("/api/experiments/other/report")
    assert "known: slow" in is_problem(nothing, 404)


async def test_nonsense_is_refused_with_what_is_known(client):
    said = is_problem(await client.get(REPORT + "?format=htlm"), 400)
    assert said == "unknown format 'htlm'; known: html, json, junit, text; did you mean 'html'?"
    for number in ("0", "-1", "x", "1.5", "99999999999999999999"):
        answer = await client.get(REPORT, params={"run": number})
        assert "run must be a number" in is_problem(answer, 400)


async def test_head_has_the_headers_and_no_body(client):
    answer = await client.head(REPORT, params={"format": "json"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.content == b""
    full = await client.get(REPORT, params={"format": "json"})
    assert json.loads(full.text)["name"] == "slow"
