"""A GET changes nothing: the same runs, with and without requests for them, end alike."""

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from counterfault.proxy.admin import route
from counterfault.proxy.admin.server import ROUTES, serve
from counterfault.proxy.analysis.external.prometheus_response import Answer, Counts, Level
from counterfault.proxy.analysis.external.readings import When
from counterfault.proxy.experiments.cohorts import Cohort
from counterfault.proxy.experiments.lifecycle import State
from counterfault.proxy.measurement.keys import DoseKey, FaultResult, SteadyKey, UserKey
from tests.support import http_clients
from tests.support.object_graph import contents
from tests.support.supervisor_world import SLOW, World

pytestmark = pytest.mark.anyio

QUERY = {"query": "$cohort", "drop": "20%"}
# One of each kind; the script below answers for `counted` and `level`, never for `silent`.
METRICS: list[dict[str, Any]] = [
    {"name": "success", "at": "inbound", "success_rate": {"drop": "5pp"}},
    {"name": "p99", "at": "inbound", "latency": {"quantile": 0.99, "rise": "50%"}},
    {"name": "slow", "at": "inbound", "slow": {"over": "300ms", "rise": "5pp"}},
    {"name": "orders", "at": "inbound", "rate": {"drop": "30%"}},
    {"name": "counted", "prometheus": QUERY | {"required": True}},
    {"name": "level", "prometheus": QUERY},
]
SILENT = {"name": "silent", "prometheus": QUERY}
REQUIRED = {"name": "silent", "prometheus": QUERY | {"required": True}}
PHASES = {"baseline": "4s", "duration": "20s", "recovery": "4s"}
TICKS = 45

SHORT = SLOW | PHASES | {"cohorts": {"experiment": "0.1%", "control": "0.1%"}}


def experiment(name: str, *metrics: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """One of the experiments of the script, with metrics of every kind and `metrics`."""
    whole = SHORT | {"experiment": name, "steady_state": [*METRICS, *metrics]} | changes
    found: dict[str, Any] = json.loads(json.dumps(whole))  # shared parts would be YAML's aliases
    return found


# Named for how they end: each state, and each reading of a Prometheus metric, is in one of them.
EXPERIMENTS = {
    "done": experiment("done"),
    "optional": experiment("optional", SILENT),
    "missed": experiment("missed", REQUIRED),
    "late": experiment("late", REQUIRED, state="paused"),
    "paused": experiment("paused", REQUIRED, state="paused"),
    "harmed": experiment("harmed"),
    "edited": experiment("edited", SILENT),
    "stopped": experiment("stopped", REQUIRED),
    "long": experiment("long", duration="10m"),
}
# Seconds after the start at which the directory is changed and loaded again.
EDITS: dict[int, dict[str, Any]] = {
    9: {"late": experiment("late", REQUIRED)},
    12: {"edited": experiment("edited", SILENT, faults=[{"at": "payments", "error": 500}])},
    40: {"done": experiment("done", run=2, state="paused")},
}

# The experiments that are asked for by name; the overview, the page and the metrics have all.
READ = ("late", "edited", "done")

GETS = (
    "/",
    "/page/main.js",
    "/page/nothing.js",
    "/login",
    "/metrics",
    "/healthz",
    "/readyz",
    "/openapi.json",
    "/nothing",
    "/api/experiments",
    "/api/experiments/{name}",
    "/api/experiments/nothing",
    "/api/experiments/{name}/series",
    "/api/experiments/{name}/report",
    "/api/experiments/{name}/report?format=json",
    "/api/experiments/{name}/report?format=junit",
    "/api/experiments/{name}/report?format=html&download=1",
    "/api/experiments/{name}/report?format=nothing",
    "/api/experiments/{name}/report?run=1",
    "/api/experiments/{name}/report?run=7",
    "/api/events",
)


class Readers:
    """Sends one request after the other to the admin port of a world, for every experiment."""

    def __init__(self, world: World, method: str) -> None:
        self._world, self._method = world, method
        paths = (path.format(name=name) for path in GETS for name in READ)
        self.paths = list(dict.fromkeys(paths))
        self.statuses: set[int] = set()

    async def read(self) -> None:
        async with self._client() as client:
            for path in self.paths:
                await self._read(client, path)

    async def traces(self) -> list[str]:
        """The paths after which the supervisor holds something else than before."""
        found = []
        async with self._client() as client:
            before = contents(self._world.supervisor)
            for path in GETS:
                for one in dict.fromkeys(path.format(name=name) for name in READ):
                    await self._read(client, one)
                after = contents(self._world.supervisor)
                if after != before:
                    found.append(path)
                before = after
        return found

    async def _read(self, client: httpx.AsyncClient, path: str) -> None:
        async with client.stream(self._method, path) as answer:
            self.statuses.add(answer.status_code)
            async for _ in answer.aiter_bytes():
                if path == "/api/events":
                    break

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[httpx.AsyncClient]:
        admin = await serve(self._world.supervisor)
        url = f"http://127.0.0.1:{admin.address[1]}"
        async with http_clients.AsyncClient(base_url=url, timeout=20) as client:
            yield client
        await admin.stop()


async def lived(
    world: World, read: Callable[[], Awaitable[None]], every: int = 1
) -> dict[str, Any]:
    """What became of the runs, second by second, and what the supervisor holds at the end.

    `read` is awaited every so many seconds, after each reload, and around a restart.
    """
    written = dict(EXPERIMENTS)
    world.write(*written.values(), prometheus={"url": "http://127.0.0.1:9"})
    world.engine.serves = False
    supervisor = world.start()
    states = []
    for second in range(TICKS):
        if second % every == 0:
            await read()
        world.engine.serves = second >= 2
        if second in EDITS:
            written |= EDITS[second]
            world.write(*written.values(), prometheus={"url": "http://127.0.0.1:9"})
            await supervisor.reload()
            await read()
        if second == 15:
            await supervisor.stop("stopped")
        traffic(world, second)
        world.pass_time(1)
        states.append(
            {n: (r.state, r.reason, r.entered) for n, r in supervisor.registry.runs.items()}
        )
    await read()
    memory = contents(supervisor)
    world.close()
    await read()  # a supervisor whose state directory is gone answers all the same
    world.start()
    await read()
    world.pass_time(2)
    found = {
        "states": states,
        "memory": memory,
        "memory after a restart": contents(world.supervisor),
        "on disk": on_disk(world),
        "accounts": {name: world.supervisor.reader.account(name) for name in EXPERIMENTS},
    }
    world.close()
    return found


def traffic(world: World, second: int) -> None:
    """Requests of a second in every live run, and Prometheus' answers every fifth second."""
    for run, e in world.supervisor.live():
        for cohort in (Cohort.CONTROL, Cohort.EXPERIMENT):
            harmed = run.experiment == "harmed" and run.state is State.RUNNING
            bad = harmed and cohort is Cohort.EXPERIMENT
            cells = {
                "success": "bad" if bad else "good",
                "p99": 70,
                "slow": "good",
                "orders": "good",
            }
            for replicate in range(0, 64, 8):
                for metric, cell in cells.items():
                    key = SteadyKey(run.experiment, run.epoch, metric, cohort, replicate, cell)
                    world.count(key, 24)
            world.count(UserKey(run.experiment, run.revision, cohort, 1000 * second))
        for result in (FaultResult.PLANNED, FaultResult.PERFORMED):
            world.count(DoseKey(run.experiment, run.epoch, 0, result))
        if second % 5 == 0:
            for external in e.steady_state:
                parse_response(world, run.experiment, external.name, second)


def parse_response(world: World, name: str, metric: str, second: int) -> None:
    found: Answer
    if metric == "counted":
        found = Counts({(("replicate", str(i)),): 7.0 * second for i in range(16)})
    elif metric == "level":
        found = Level(100.0)
    else:
        return
    (e,) = (e for e in world.supervisor.config.experiments if e.name == name)
    (m,) = (m for m in e.steady_state if m.name == metric)
    both = {Cohort.CONTROL: found, Cohort.EXPERIMENT: found}
    when = When(world.now, world.now)
    run = world.supervisor.registry.runs[name]
    world.supervisor.evaluator.monitor.outside.answered(run, m, both, when)


def on_disk(world: World) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(world.directory / "state" / "history.sqlite")) as db:
        tables = ("runs", "events", "accounts", "points", "switches")
        return {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in tables}


async def nothing() -> None:
    """Read nothing."""


@pytest.fixture(scope="module")
def unread(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The runs of the script when no request comes."""
    world = World(tmp_path_factory.mktemp("unread"))
    return told(asyncio.run(lived(world, nothing)))


def told(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=1, default=str)


def test_every_route_is_among_the_gets() -> None:
    paths = [path.partition("?")[0].format(name="x") for path in GETS]
    for pattern, handler in ROUTES:
        if handler.get is not route.Route.get:
            assert any(re.fullmatch(pattern, path) for path in paths), pattern


def test_the_script_has_runs_in_every_state_and_a_required_metric_missed(unread: str) -> None:
    found = json.loads(unread)
    seen = {state for moment in found["states"] for state, _, _ in moment.values()}
    assert seen == set(State)
    last = {name: (state, reason) for name, (state, reason, _) in found["states"][-1].items()}
    assert last["harmed"][1].startswith("a metric got worse")
    assert last["missed"] == last["late"] == ("stopped", "a required metric had no data")


@pytest.mark.timeout(300)
async def test_no_single_get_changes_what_the_supervisor_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "MAX_AGE", 0.0)  # each request is answered anew
    world = World(tmp_path)
    readers, traces = Readers(world, "GET"), list[str]()

    async def read() -> None:
        traces.extend(await readers.traces())

    await lived(world, read, every=30)
    assert traces == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_runs_end_alike_with_and_without_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unread: str, method: str
) -> None:
    monkeypatch.setattr(route, "MAX_AGE", 0.0)
    world = World(tmp_path)
    readers = Readers(world, method)
    assert told(await lived(world, readers.read, every=6 if method == "GET" else 15)) == unread
    assert readers.statuses == {200, 400, 404}
