"""The admin port over real sockets: routes, errors, and who is let in."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import httpx
import jsonschema
import pytest

from counterfault.proxy.admin import events, openapi, routes, server
from counterfault.proxy.admin import route as base
from counterfault.proxy.admin.chart_data import chart_data
from counterfault.proxy.admin.server import ROUTES, serve
from counterfault.proxy.admin.views import detail, overview, report
from counterfault.proxy.measurement.keys import DurationKey, InternalErrorKey
from counterfault.proxy.models.overview import Overview
from counterfault.proxy.supervisor.supervisor import Supervisor
from tests.support.api_json import as_data
from tests.support.cases import each
from tests.support.supervisor_world import SLOW, World

pytestmark = pytest.mark.anyio

GETS = (
    "/",
    "/metrics",
    "/healthz",
    "/readyz",
    "/api/experiments",
    "/api/experiments/slow",
    "/api/experiments/slow/report",
    "/api/experiments/slow/series",
    "/page/main.js",
    "/api/events",
    "/openapi.json",
)
POSTS = ("/-/reload", "/api/stop", "/api/resume", "/api/experiments/slow/stop", "/logout")
PROBES = ("/metrics", "/healthz", "/readyz")


async def eventually(what: Callable[[], object]) -> None:
    for _ in range(1000):
        if what():
            return
        await asyncio.sleep(0.01)
    pytest.fail("not so after 10 s")


def state(world: World) -> str:
    return str(world.supervisor.registry.runs["slow"].state)


def is_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert "type" in body
    return body


async def test_metrics_are_served_in_the_wanted_format(client):
    plain = await client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'counterfault_faults_active{service="shop"} 0.0' in plain.text
    accept = {"Accept": "application/openmetrics-text;version=1.0.0"}
    modern = await client.get("/metrics", headers=accept)
    assert modern.headers["content-type"].startswith("application/openmetrics-text")
    assert modern.text.endswith("# EOF\n")


async def test_healthz_says_ok(client):
    answer = await client.get("/healthz")
    assert (answer.status_code, answer.text) == (200, "ok\n")


async def test_readyz_is_fine_when_all_workers_act_on_the_plan(client):
    answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert answer.text.splitlines() == ["[+] workers 2/2", "[+] state_dir", "[+] last reload"]


async def test_readyz_fails_while_a_worker_does_not_act_on_the_plan(world, client):
    world.engine.ready = 1
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert "[-] workers 1/2" in answer.text


async def test_readyz_tells_of_a_broken_state_dir_and_is_ready(tmp_path):
    (tmp_path / "file").write_text("")
    world = World(tmp_path / "config")
    world.write(SLOW)
    world.start(tmp_path / "file" / "state")
    ready, lines = routes.readiness(world.supervisor)
    assert ready
    assert lines[1].startswith("[-] state_dir ")
    assert lines[1].endswith(": no run starts")


async def test_readyz_tells_of_a_failed_reload_and_is_ready(world, client):
    world.write(SLOW | {"duration": "soon", "run": "x"})
    await client.post("/-/reload")
    answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert "[-] last reload failed: experiments/slow.yaml:" in answer.text
    assert "(and 1 more)" in answer.text


async def test_a_reload_swaps_in_what_the_directory_says(world, client):
    world.write(SLOW | {"hypothesis": "It holds"})
    answer = await client.post("/-/reload")
    assert (answer.status_code, answer.text) == (200, "reloaded\n")
    seen = (await client.get("/api/experiments")).json()
    assert seen["experiments"][0]["hypothesis"] == "It holds"


async def test_a_bad_file_is_refused_with_its_lines_and_changes_nothing(world, client):
    before, generation = world.supervisor.config, world.engine.generation
    world.write(SLOW | {"duration": "soon"})
    problem = is_problem(await client.post("/-/reload"), 422)
    (line,) = problem["errors"]
    assert re.fullmatch(r"experiments/slow\.yaml:4:\d+: duration: must be a duration.*", line)
    assert world.supervisor.config is before
    assert world.engine.generation == generation
    seen = (await client.get("/api/experiments")).json()
    assert seen["reload_error"] == [line]
    assert seen["experiments"][0]["state"] == "baseline"


async def test_a_good_file_heals_a_failed_reload(world, client):
    world.write(SLOW | {"duration": "soon"})
    await client.post("/-/reload")
    world.write(SLOW)
    assert (await client.post("/-/reload")).status_code == 200
    assert (await client.get("/api/experiments")).json()["reload_error"] == []


async def test_the_api_serves_the_overview(world, client):
    answer = await client.get("/api/experiments")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == as_data(overview(world.supervisor))


async def test_the_api_serves_an_experiment(world, client):
    answer = await client.get("/api/experiments/slow")
    assert answer.json() == as_data(detail(world.supervisor, "slow"))


async def test_an_unknown_experiment_is_told_with_the_known(client):
    for answer in (
        await client.get("/api/experiments/slo"),
        await client.post("/api/experiments/slo/stop"),
        await client.get("/api/experiments/%3Cb%3E"),
    ):
        assert "known: slow" in is_problem(answer, 404)["detail"]


async def test_without_experiments_there_is_none_to_know(world, client):
    world.write()
    await client.post("/-/reload")
    assert "no experiment" in is_problem(await client.get("/api/experiments/x"), 404)["detail"]


async def test_a_stop_stops_one_experiment(world, client):
    answer = await client.post("/api/experiments/slow/stop")
    assert answer.status_code == 200
    assert answer.json()["state"] == "stopped"
    assert answer.json()["reason"] == "stopped by an operator"
    assert world.engine.runs == {}
    assert not world.supervisor.reader.killed


async def test_a_stop_answers_when_the_workers_have_stopped(world, client):
    confirmed = asyncio.Event()
    world.engine.confirm = confirmed.wait
    asking = asyncio.ensure_future(client.post("/api/experiments/slow/stop"))
    async with asyncio.timeout(30):
        while state(world) != "stopped":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not asking.done()
    confirmed.set()
    assert (await asking).status_code == 200


async def test_a_stop_that_a_worker_does_not_confirm_is_accepted(world, client, monkeypatch):
    monkeypatch.setattr("counterfault.proxy.supervisor.supervisor.CONFIRM", 0.05)
    world.engine.confirm = asyncio.Event().wait
    answer = await client.post("/api/stop")
    assert answer.status_code == 202
    assert answer.json()["killed"]
    assert state(world) == "stopped"


async def test_the_kill_switch_stops_everything_and_resume_starts_nothing(world, client):
    answer = await client.post("/api/stop")
    assert answer.json()["killed"]
    assert answer.json()["experiments"][0]["state"] == "stopped"
    answer = await client.post("/api/resume")
    assert answer.status_code == 200
    assert not answer.json()["killed"]
    world.pass_time(5)
    assert state(world) == "stopped"


async def test_what_the_kill_switch_kept_pending_does_not_start_at_resume(world, client):
    await client.post("/api/stop")
    world.write(SLOW, SLOW | {"experiment": "later"})
    await client.post("/-/reload")
    await client.post("/api/resume")
    world.pass_time(5)
    seen = (await client.get("/api/experiments/later")).json()
    assert (seen["state"], seen["reason"]) == ("stopped", "the kill switch is on")


async def test_a_higher_run_starts_after_resume(world, client):
    await client.post("/api/stop")
    await client.post("/api/resume")
    world.write(SLOW | {"run": 2})
    await client.post("/-/reload")
    assert (await client.get("/api/experiments/slow")).json()["state"] == "baseline"


@each("path", [path for path in GETS if path != "/api/events"])
async def test_head_has_the_headers_of_get_and_no_body(client, path):
    head, get = await client.head(path), await client.get(path)
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]
    # The experiments' JSON holds times.
    assert path.startswith(("/api", "/metrics")) or (
        head.headers["content-length"] == get.headers["content-length"]
    )


async def test_head_of_the_events_does_not_wait(client):
    answer = await client.head("/api/events")
    assert answer.headers["content-type"] == "text/event-stream"


@each("path", GETS)
async def test_posting_where_one_reads_is_refused(client, path):
    answer = await client.post(path)
    assert "GET" in is_problem(answer, 405)["detail"]
    assert answer.headers["allow"] == "GET, HEAD"


@each("path", POSTS)
@each("method", ["GET", "PUT", "DELETE", "OPTIONS", "BREW"])
async def test_deeds_are_posted(world, client, path, method):
    answer = await client.request(method, path)
    is_problem(answer, 405)
    assert answer.headers["allow"] == "POST"
    assert state(world) == "baseline"


@each("path", ["/nothing", "/api", "/api/experiments/", "/favicon.ico"])
async def test_an_unknown_route_is_told(client, path):
    assert path in is_problem(await client.get(path), 404)["detail"]


async def test_a_bug_of_ours_is_counted_and_not_shown(world, client, monkeypatch):
    def broken(_: Any) -> dict[str, Any]:
        raise RuntimeError("the secret")

    monkeypatch.setattr(routes, "overview", broken)
    answer = await client.get("/api/experiments")
    is_problem(answer, 500)
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert world.totals.get(InternalErrorKey("admin")) == 1
    assert (await client.get("/healthz")).status_code == 200


@each("path", [p for p in (*GETS, *POSTS) if p not in PROBES])
@each("host", ["evil.example", "evil.example:9900", "localhost.evil.example"])
async def test_a_rebound_name_is_refused(world, client, path, host):
    method = "POST" if path in POSTS else "GET"
    answer = await client.request(method, path, headers={"Host": host})
    assert "Host" in is_problem(answer, 403)["detail"]
    assert state(world) == "baseline"
    assert not world.supervisor.reader.killed


@each("path", PROBES)
async def test_probes_come_under_any_name(client, path):
    answer = await client.get(path, headers={"Host": "10.1.2.3:9900"})
    assert answer.status_code == 200


@each("host", ["localhost", "LOCALHOST:80", "[::1]:1", "127.8.8.8:9900"])
async def test_loopback_names_are_welcome(client, host):
    answer = await client.get("/api/experiments", headers={"Host": host})
    assert answer.status_code == 200


@each("path", POSTS)
@each(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000", "Host": "localhost:9900"},
        {"Origin": "http://[", "Host": "localhost:9900"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_another_site_cannot_post(world, client, path, headers):
    is_problem(await client.post(path, headers=headers), 403)
    assert state(world) == "baseline"
    assert not world.supervisor.reader.killed


async def test_our_own_page_may_post(client):
    headers = {"Origin": "http://localhost:9900", "Host": "localhost:9900"}
    answer = await client.post("/api/resume", headers=headers | {"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 200


@each("path", [path for path in GETS if path != "/api/events"])
async def test_every_answer_says_how_to_treat_it(client, path):
    answer = await client.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    kept = "no-cache" if path.startswith("/page/") else "no-store"
    assert answer.headers["cache-control"] == kept
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "server" not in answer.headers


async def next_event(lines: AsyncIterator[str]) -> dict[str, Any]:
    async for line in lines:
        if line.startswith("data: "):
            seen: dict[str, Any] = json.loads(line.removeprefix("data: "))
            return seen
    raise EOFError


async def test_events_bring_the_overview_at_once_and_again(world, client, monkeypatch):
    monkeypatch.setattr(events, "INTERVAL", 0.05)
    monkeypatch.setattr(base, "MAX_AGE", 0.0)
    async with client.stream("GET", "/api/events") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        lines = answer.aiter_lines()
        assert await next_event(lines) == as_data(overview(world.supervisor))
        world.pass_time(60)
        states = [(await next_event(lines))["experiments"][0]["state"] for _ in range(3)]
    assert states[-1] == "running"


async def test_a_stream_ends_when_its_client_leaves(admin, client):
    async with client.stream("GET", "/api/events") as answer:
        await next_event(answer.aiter_lines())
        assert len(admin._site.streams) == 1
    await eventually(lambda: not admin._site.streams and not admin._site.busy)


async def test_streams_and_pages_share_an_overview(client, monkeypatch):
    asked: list[object] = []

    def counted(supervisor: Supervisor) -> Overview:
        asked.append(supervisor)
        return overview(supervisor)

    monkeypatch.setattr(base, "MAX_AGE", 60.0)
    monkeypatch.setattr(base, "overview", counted)
    for _ in range(3):
        await client.get("/")
        async with client.stream("GET", "/api/events") as answer:
            await next_event(answer.aiter_lines())
    assert len(asked) == 1


async def test_there_are_not_endless_streams(client, monkeypatch):
    monkeypatch.setattr(events, "MAX_STREAMS", 1)
    async with client.stream("GET", "/api/events") as answer:
        await next_event(answer.aiter_lines())
        is_problem(await client.get("/api/events"), 503)


async def test_a_stream_that_nobody_reads_is_closed(world, admin, monkeypatch):
    monkeypatch.setattr(events, "INTERVAL", 0.0)
    monkeypatch.setattr(events, "WRITE_TIMEOUT", 0.2)
    large = replace(overview(world.supervisor), service="x" * 1_000_000)
    monkeypatch.setattr(base, "overview", lambda _: large)
    with socket.create_connection(admin.address) as sock:
        sock.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await eventually(lambda: admin._site.streams)
        await eventually(lambda: not admin._site.streams and not admin._site.busy)
    assert world.totals.get(InternalErrorKey("admin")) == 0


async def test_stopping_ends_streams_and_lets_requests_finish(world, admin, client):
    confirmed = asyncio.Event()
    world.engine.confirm = confirmed.wait
    async with client.stream("GET", "/api/events") as answer:
        lines = answer.aiter_lines()
        await next_event(lines)
        asking = asyncio.ensure_future(client.post("/api/stop"))
        await asyncio.sleep(0.1)
        stopping = asyncio.ensure_future(admin.stop())
        with pytest.raises(EOFError):
            await next_event(lines)
    assert not stopping.done()
    confirmed.set()
    assert (await asking).status_code == 200
    await stopping
    with pytest.raises(httpx.ConnectError):
        await client.get("/healthz")


async def test_openapi_describes_every_route(client):
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    patterns = {re.sub("{(name|file)}", "([^/]+)", path) for path in document["paths"]}
    assert patterns == {pattern for pattern, _ in ROUTES}
    for path, operations in document["paths"].items():
        methods = {"post"} if path.replace("{name}", "slow") in POSTS else {"get"}
        if path == "/login":
            methods = {"get", "post"}
        assert operations.keys() - {"parameters"} == methods


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The schema that a reference leads to; of a value that may be null, that of the others."""
    schema = schema.get("anyOf", [schema])[0]
    name = schema.get("$ref", "").rpartition("/")[2]
    return resolved(document, document["components"]["schemas"][name]) if name else schema


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """As much of JSON Schema as the document uses for objects and arrays."""
    schema = resolved(document, schema)
    if isinstance(value, list):
        for item in value:
            check(document, schema.get("items", {}), item)
    if isinstance(value, dict) and "properties" in schema:
        assert set(schema["required"]) <= value.keys() <= set(schema["properties"])
    for key, item in value.items() if isinstance(value, dict) else ():
        more = schema.get("additionalProperties", {})
        part = schema.get("properties", {}).get(key, more)
        check(document, {} if part is True else part, item)


async def test_openapi_names_every_field(world, client):
    document = (await client.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    check(document, schemas["Overview"], as_data(overview(world.supervisor)))
    check(document, schemas["ExperimentDetail"], as_data(detail(world.supervisor, "slow")))
    check(document, schemas["RunRecord"], as_data(report(world.supervisor, "slow")))
    world.count(DurationKey("inbound", "slow", "control", 5), 3)
    check(document, schemas["ChartData"], as_data(chart_data(world.supervisor, "slow")))
    check(document, schemas["Problem"], (await client.get("/nothing")).json())


async def test_answers_are_valid_by_their_schemas(world, client):
    world.pass_time(70)
    document = (await client.get("/openapi.json")).json()
    for path, name in {
        "/api/experiments": "Overview",
        "/api/experiments/slow": "ExperimentDetail",
        "/api/experiments/slow/report?format=json": "RunRecord",
        "/api/experiments/slow/series": "ChartData",
        "/nothing": "Problem",
    }.items():
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.validate((await client.get(path)).json(), schema)


def test_the_committed_document_is_what_the_models_say_today():
    assert openapi.FILE.read_text() == openapi.text(), "run `make generate`"


def test_every_model_and_no_module_is_named_in_the_document():
    names = openapi.document()["components"]["schemas"]
    assert {"Overview", "ExperimentDetail", "RunRecord", "ChartData", "MetricSummary"} <= set(names)
    assert all(re.fullmatch("[A-Z][A-Za-z]+", name) for name in names)
    assert all("description" in schema for schema in names.values() if "properties" in schema)


async def test_a_taken_port_is_told_with_its_address(tmp_path, admin):
    taken = f"127.0.0.1:{admin.address[1]}"
    for key in ("listen", "metrics"):
        world = World(tmp_path / key)
        world.write(SLOW, admin={"listen": "127.0.0.1:0"} | {key: taken})
        with pytest.raises(OSError, match=rf"admin\.{key}: {taken}: .*in use"):
            await serve(world.start())
        world.close()


async def test_a_large_body_is_refused(world, client):
    # The connection is closed on what is left of the body; the answer may be lost by that.
    with suppress(httpx.TransportError):
        answer = await client.post("/api/stop", content=b"x" * (server._MAX_BODY + 1))
        assert answer.status_code == 400
    assert state(world) == "baseline"
