"""A GET changes nothing: the same runs, with and without requests for them, end alike."""

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
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

# Seconds in which all requests are sent, beside the reloads: nothing serves yet, and phases are
# under way. At the reloads some runs are new; around the restart most have ended.
READ_AT = (0, 20)
# The moments, counted from 0, at which every HEAD follows: the first reload and a closed store.
HEADS_AT = (1, 6)

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


# Each is sent for one experiment: what they render is what the report without a format reads.
RENDERED = "done"


def paths_of(pattern: str) -> list[str]:
    """The paths of one entry of GETS: for each experiment in READ, or one without a name."""
    names = (RENDERED,) if "format=" in pattern else READ
    return list(dict.fromkeys(pattern.format(name=name) for name in names))


class Readers:
    """Sends every GET to the admin port of a world, at each moment when `read` is awaited.

    `traces` holds what the supervisor held differently after the requests: one entry for each
    moment or, with `singly`, for each entry of GETS. `heads_at` are the moments, counted from 0,
    at which every HEAD follows.
    """

    def __init__(
        self, world: World, *, heads_at: Collection[int] = (), singly: bool = False
    ) -> None:
        self._world, self._heads_at, self._singly = world, heads_at, singly
        self._moments = 0
        self.traces: list[str] = []
        self.statuses: dict[str, set[int]] = {"GET": set(), "HEAD": set()}

    async def read(self) -> None:
        moment = self._moments
        self._moments += 1
        methods = ("GET", "HEAD") if moment in self._heads_at else ("GET",)
        patterns = [(method, pattern) for method in methods for pattern in GETS]
        groups = [[one] for one in patterns] if self._singly else [patterns]
        async with self._client() as client:
            before = contents(self._world.supervisor)
            for group in groups:
                for method, pattern in group:
                    for path in paths_of(pattern):
                        await self._send(client, method, path)
                after = contents(self._world.supervisor)
                if after != before:
                    name = " ".join(group[0]) if self._singly else "some request"
                    self.traces.append(f"moment {moment}: {name}")
                before = after

    async def _send(self, client: httpx.AsyncClient, method: str, path: str) -> None:
        async with client.stream(method, path) as answer:
            self.statuses[method].add(answer.status_code)
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


async def lived(world: World, read: Callable[[], Awaitable[None]]) -> dict[str, Any]:
    """What became of the runs, second by second, and what the supervisor holds at the end.

    `read` is awaited in the seconds READ_AT, after each reload, and around a restart.
    """
    written = dict(EXPERIMENTS)
    world.write(*written.values(), prometheus={"url": "http://127.0.0.1:9"})
    world.engine.serves = False
    supervisor = world.start()
    states = []
    for second in range(TICKS):
        if second in READ_AT:
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
        "accounts": {name: world.supervisor.reader.summary(name) for name in EXPERIMENTS},
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
    world.supervisor.evaluator.monitor.readings.answered(run, m, both, when)


def on_disk(world: World) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(world.directory / "state" / "history.sqlite")) as db:
        tables = ("runs", "events", "accounts", "points", "switches")
        return {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in tables}


async def nothing() -> None:
    """Read nothing."""


@pytest.fixture(scope="module")
def unread(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What became of the runs of the script when no request comes."""
    world = World(tmp_path_factory.mktemp("unread"))
    return as_text(asyncio.run(lived(world, nothing)))


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Readers]:
    """What became of the same runs when all requests come at every moment."""
    return read_run(tmp_path_factory.mktemp("read"), singly=False)


def read_run(directory: Path, *, singly: bool) -> tuple[str, Readers]:
    world = World(directory)
    readers = Readers(world, heads_at=HEADS_AT, singly=singly)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(route, "MAX_AGE", 0.0)  # each request is answered anew
        return as_text(asyncio.run(lived(world, readers.read))), readers


def as_text(found: dict[str, Any]) -> str:
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
def test_no_get_changes_what_the_supervisor_holds(
    reading: tuple[str, Readers], tmp_path: Path
) -> None:
    traces = reading[1].traces
    if traces:  # send each request by itself, which is slow, to name the one
        traces = read_run(tmp_path, singly=True)[1].traces or traces
    assert traces == []


def test_runs_end_alike_with_and_without_reads(reading: tuple[str, Readers], unread: str) -> None:
    assert reading[0] == unread


def test_every_moment_had_answers_of_every_kind(reading: tuple[str, Readers]) -> None:
    assert reading[1].statuses == {"GET": {200, 400, 404}, "HEAD": {200, 400, 404}}
