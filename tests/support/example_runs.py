"""Runs that went well, badly or nowhere, lived by a real supervisor on made-up traffic."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from counterfault.proxy.admin.views import report
from counterfault.proxy.experiments.cohorts import CIRCLE, REPLICATES
from counterfault.proxy.experiments.lifecycle import Epoch
from counterfault.proxy.measurement.keys import DoseKey, FaultResult, SteadyKey, UserKey
from counterfault.proxy.values.buckets import latency_cells
from tests.support.supervisor_world import SLOW, World

COHORTS = ("control", "experiment")
EXPERIMENT: dict[str, Any] = SLOW | {
    "duration": "3m",
    "baseline": "30s",
    "recovery": "30s",
    "cohorts": {"experiment": "1%", "control": "1%"},
    "faults": [{"at": "payments", "latency": {"p50": "400ms", "p99": "2s"}}],
    "steady_state": [
        {"name": "success", "at": "inbound", "success_rate": {"drop": "2pp"}},
        {"name": "p95", "at": "inbound", "latency": {"quantile": 0.95, "rise": "50%"}},
        {"name": "orders", "at": "inbound", "rate": {"drop": "30%"}},
    ],
}


class ExampleRun:
    """So many requests a second from each cohort; `harm` is what the fault adds to failures."""

    def __init__(self, world: World, *, harm: float = 0.0, faults: int = 20) -> None:
        self.world, self.harm, self.faults = world, harm, faults
        self._random, self._users = Random(7), 0

    def live(self, seconds: int, rate: int = 60) -> None:
        """Let traffic come and time pass."""
        for _ in range(seconds):
            run = self.world.supervisor.registry.runs["slow"]
            if run.state in ("done", "stopped"):
                return
            for cohort in COHORTS:
                harmed = run.state == "running" and cohort == "experiment"
                for _ in range(rate):
                    self._request(run.epoch, cohort, harmed)
                self._meet(run.revision, cohort)
            if run.state == "running":
                for result in (FaultResult.PLANNED, FaultResult.PERFORMED) if self.faults else ():
                    self.world.count(DoseKey("slow", run.epoch, 0, result), self.faults)
            self.world.pass_time(1)

    def _request(self, epoch: Epoch, cohort: str, harmed: bool) -> None:
        replicate = self._random.randrange(REPLICATES)
        bad = self._random.random() < 0.01 + (self.harm if harmed else 0.0)
        cell = latency_cells(0.5).cell(self._random.lognormvariate(-3.0, 0.6))
        for metric, what in (("success", "bad" if bad else "good"), ("p95", cell)):
            self.world.count(SteadyKey("slow", epoch, metric, cohort, replicate, what))
        self.world.count(SteadyKey("slow", epoch, "orders", cohort, replicate, "good"))

    def _meet(self, revision: str, cohort: str) -> None:
        for _ in range(3):
            number = self._random.randrange(CIRCLE)
            self.world.count(UserKey("slow", revision, cohort, number))


@contextmanager
def example_world(tmp_path: Path, seconds: int = 260, **how: Any) -> Iterator[World]:
    """A world in which the experiment has gone on for so long."""
    world = World(tmp_path / "config")
    world.write(EXPERIMENT | how.pop("experiment", {}))
    world.now = 1_790_000_000.0
    world.start()
    rate = how.pop("rate", 60)
    ExampleRun(world, **how).live(seconds, rate)
    try:
        yield world
    finally:
        world.close()


def example_report(seconds: int = 260, **how: Any) -> dict[str, Any]:
    """What reports tell of such a run; each test has its own copy."""
    found: dict[str, Any] = json.loads(_told(seconds, json.dumps(how)))
    return found


@cache
def _told(seconds: int, how: str) -> str:
    settings = json.loads(how)
    with (
        TemporaryDirectory() as directory,
        example_world(Path(directory), seconds, **settings) as world,
    ):
        return report(world.supervisor, "slow").as_json()


def held() -> dict[str, Any]:
    return example_report()


def refuted() -> dict[str, Any]:
    return example_report(harm=0.2)


def invalid() -> dict[str, Any]:
    """The fault matched nothing."""
    return example_report(faults=0)


def inconclusive() -> dict[str, Any]:
    """Hardly anybody came."""
    return example_report(rate=1)


def empty() -> dict[str, Any]:
    """It has not begun."""
    return example_report(0, experiment={"state": "paused"})


EXAMPLE_RUNS = {
    "held": held,
    "refuted": refuted,
    "invalid": invalid,
    "inconclusive": inconclusive,
    "empty": empty,
}
