"""No count is lost or made twice: clients that count for themselves see what the sidecar counts."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from tests.support.programs import Sidecar, until, user
from tests.support.slow_upstream import slow_upstream

COHORTS = ("control", "experiment")
# Faults that fail some and delay others, of the experiment alone.
FAULTS = [
    {"at": "inbound", "dose": "30%", "error": 503},
    {"at": "inbound", "dose": "30%", "latency": "1200ms"},
]
METRICS = [
    {"name": "ok", "at": "inbound", "success_rate": {"drop": "50pp"}},
    {"name": "slow", "at": "inbound", "slow": {"over": "1s", "rise": "98pp"}},
    {"name": "p50", "at": "inbound", "latency": {"quantile": 0.5, "rise": "1000%"}},
    {"name": "visits", "at": "inbound", "rate": {"drop": "99%"}},
    {"name": "all", "at": "inbound", "match": {"status": "any"}, "rate": {"drop": "99%"}},
]
USERS, EACH = 8, 2
NUMBERS = count(1)


@dataclass
class Clients:
    """Sends requests and counts, by phase, cohort and metric, what it saw them end as."""

    port: int
    experiment: str
    run: int = 1
    seen: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def send(self, phase: str, *, seconds: float, status: int = 200) -> None:
        """Begin a round of requests of both cohorts; all belong to `phase`."""
        for cohort in COHORTS:
            for number in range(USERS):
                who = user(cohort, self.experiment, self.run, skip=number)
                for _ in range(EACH):
                    work = self._request(phase, cohort, who, seconds, status)
                    self.tasks.append(asyncio.ensure_future(work))

    async def _request(
        self, phase: str, cohort: str, who: str, seconds: float, status: int
    ) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        path = f"/?seconds={seconds}&status={status}"
        writer.write(f"GET {path} HTTP/1.1\r\nhost: a\r\nx-user-id: {who}\r\n\r\n".encode())
        answered = -1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            answered = int(head.split()[1])
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
        good = 0 <= answered < 500
        self.seen[phase, cohort, "ok", "good" if good else "bad"] += 1
        for name in ("slow", "p50", "all", *["visits"] * good):
            self.seen[phase, cohort, name, "any"] += 1

    async def done(self) -> None:
        await asyncio.gather(*self.tasks)
        self.tasks.clear()

    def expected(self, phase: str) -> dict[str, dict[str, Any]]:
        """By cohort and metric: the events, and for `ok` also how many were bad."""
        return {
            cohort: {
                "ok": (
                    self.seen[phase, cohort, "ok", "good"],
                    self.seen[phase, cohort, "ok", "bad"],
                ),
                **{n: self.seen[phase, cohort, n, "any"] for n in ("slow", "p50", "visits", "all")},
            }
            for cohort in COHORTS
        }


@dataclass
class Bench:
    """A sidecar of two workers before a slow upstream."""

    sidecar: Sidecar
    name: str

    def begin(self, **said: Any) -> None:
        said = {
            "baseline": "3s",
            "duration": "4s",
            "recovery": "8s",
            "steady_state": METRICS,
            "faults": FAULTS,
            **said,
        }
        self.sidecar.experiment(self.name, **said)

    async def phase(self, wanted: str) -> None:
        """Wait until the run is in a phase and the data plane acts on it."""
        await asyncio.to_thread(
            until, lambda: self.sidecar.state(self.name) == wanted and self.sidecar.acts(), 60
        )

    def edited(self) -> bool:
        """Whether the run has begun anew."""
        seen = self.sidecar.get(f"/api/experiments/{self.name}")
        return any("edited" in str(event) for event in seen["timeline"]) or (
            seen["state"] == "baseline" and len(seen["timeline"]) > 1
        )

    def counted(self, phase: str) -> dict[str, dict[str, Any]]:
        """What `Clients.expected` returns, as the sidecar says."""
        samples = self.sidecar.get(f"/api/experiments/{self.name}")["samples"]
        found: dict[str, dict[str, Any]] = {}
        for cohort in COHORTS:
            cells = {str(m["name"]): samples[str(m["name"])][phase][cohort] for m in METRICS}
            sums = {n: {cell: sum(by) for cell, by in c.items()} for n, c in cells.items()}
            found[cohort] = {name: sum(c.values()) for name, c in sums.items()}
            found[cohort]["ok"] = (sums["ok"].get("0", 0), sums["ok"].get("1", 0))
        return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, engine: str) -> Iterator[Sidecar]:
    with ExitStack() as stack:
        url = stack.enter_context(slow_upstream())
        settings = {"engine": engine, "unit": [{"header": "x-user-id"}], "workers": 2}
        sidecar = Sidecar(tmp_path_factory.mktemp("sidecar"), url, settings)
        stack.callback(sidecar.stop)
        yield sidecar.start()


@pytest.fixture
def bench(shared: Sidecar) -> Iterator[Bench]:
    name = f"x{next(NUMBERS)}"
    yield Bench(shared, name)
    (shared.directory / "experiments" / f"{name}.yaml").unlink(missing_ok=True)
    until(lambda: not shared.get("/api/experiments")["experiments"])


async def same(bench: Bench, clients: Clients, *phases: str) -> None:
    """Wait until all is reported, and compare."""
    await clients.done()
    for _ in range(60):
        if all(bench.counted(phase) == clients.expected(phase) for phase in phases):
            return
        await asyncio.sleep(0.1)
    for phase in phases:
        assert bench.counted(phase) == clients.expected(phase), phase


def test_each_phase_counts_the_exchanges_that_began_in_it(bench: Bench) -> None:
    async def story() -> None:
        clients = Clients(bench.sidecar.port, bench.name)
        bench.begin()
        for phase in ("baseline", "running", "recovering"):
            await bench.phase(phase)
            # In the baseline these set the horizon, up to which a rate waits for an answer.
            clients.send(phase, seconds=1)
            clients.send(phase, seconds=0, status=503)
            await asyncio.sleep(0.3)
            clients.send(phase, seconds=0.7 if phase == "recovering" else 4.5)
            clients.send(phase, seconds=0.7 if phase == "recovering" else 4.5, status=500)
        await same(bench, clients, "baseline", "running", "recovering")

    asyncio.run(story())


def test_an_edit_loses_nothing_of_what_counts_after_it(bench: Bench) -> None:
    async def story() -> None:
        clients = Clients(bench.sidecar.port, bench.name)
        bench.begin(baseline="30s")
        await bench.phase("baseline")
        clients.send("before", seconds=0)
        clients.send("before", seconds=2)
        await asyncio.sleep(0.3)
        bench.begin(baseline="29s", cohorts={"experiment": "30%", "control": "31%"})
        await asyncio.to_thread(until, lambda: bench.edited() and bench.sidecar.acts(), 20)
        clients.send("baseline", seconds=1)
        clients.send("baseline", seconds=0, status=500)
        await same(bench, clients, "baseline")

    asyncio.run(story())


def test_a_reload_that_changes_nothing_loses_nothing(bench: Bench) -> None:
    async def story() -> None:
        clients = Clients(bench.sidecar.port, bench.name)
        bench.begin(baseline="1s", duration="30s")
        await bench.phase("running")
        clients.send("running", seconds=2)
        clients.send("running", seconds=0, status=503)
        for _ in range(5):
            await asyncio.to_thread(bench.sidecar.post, "/-/reload")
            clients.send("running", seconds=0.1)
        await same(bench, clients, "running")

    asyncio.run(story())


def test_a_stopped_run_counts_what_it_had_under_way(bench: Bench) -> None:
    async def story() -> None:
        clients = Clients(bench.sidecar.port, bench.name)
        bench.begin(baseline="1s", duration="30s")
        await bench.phase("running")
        clients.send("running", seconds=0)
        clients.send("running", seconds=1.5)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(bench.sidecar.post, f"/api/experiments/{bench.name}/stop")
        await clients.done()
        await asyncio.sleep(0.5)
        counted, expected = bench.counted("running"), clients.expected("running")
        for cohort in COHORTS:  # a rate is compared no further than the run went
            del counted[cohort]["visits"], expected[cohort]["visits"]
        assert counted == expected

    asyncio.run(story())


def test_a_killed_worker_takes_at_most_a_beat_with_it_and_nothing_counts_twice(
    bench: Bench, engine: str
) -> None:
    if engine == "envoy":
        pytest.skip("the other engine's exchanges are Envoy's; see the next test")

    async def story() -> None:
        clients = Clients(bench.sidecar.port, bench.name)
        faults = [{"at": "inbound", "latency": "1ms"}]
        bench.begin(baseline="1s", duration="60s", faults=faults)
        await bench.phase("running")
        clients.send("running", seconds=0)
        clients.send("running", seconds=0, status=503)
        await clients.done()
        await asyncio.sleep(1)
        before = bench.counted("running")
        clients.send("running", seconds=3)
        await asyncio.sleep(1)
        for pid in bench.sidecar.workers():
            os.kill(pid, signal.SIGKILL)
        await clients.done()
        await asyncio.to_thread(until, bench.sidecar.acts, 20)
        await asyncio.sleep(1)
        after = bench.counted("running")
        # None of the requests under way had ended: they are neither good nor bad.
        for cohort in COHORTS:
            for name in ("ok", "slow", "p50"):
                assert after[cohort][name] == before[cohort][name], (cohort, name)
            # They had arrived and were reported as such.
            assert after[cohort]["all"] == before[cohort]["all"] + USERS * EACH
        clients.seen.clear()
        clients.send("running", seconds=0)
        await clients.done()
        await asyncio.sleep(1)
        again = bench.counted("running")
        for cohort in COHORTS:
            seen = sum(clients.seen["running", cohort, "ok", o] for o in ("good", "bad"))
            assert sum(again[cohort]["ok"]) == sum(after[cohort]["ok"]) + seen

    asyncio.run(story())
