"""What is known of a run is kept: through its end, and through a restart."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from counterfault.proxy.admin.views import detail
from counterfault.proxy.experiments.lifecycle import Epoch, State
from counterfault.proxy.measurement.keys import KeptEpochs, Key, SteadyKey
from tests.support.api_json import as_data
from tests.support.supervisor_world import SLOW, World

METRICS = ("success", "slow")


@pytest.fixture
def world(tmp_path: Path):
    world = World(tmp_path)
    world.write(SLOW)
    world.start()
    yield world
    world.close()


def shop(world: World, epoch: str, each: int = 10) -> None:
    for cohort in ("control", "experiment"):
        for metric in METRICS:
            for replicate in range(64):
                world.count(
                    SteadyKey("slow", Epoch(epoch), metric, cohort, replicate, "good"), each
                )


def seen(world: World) -> dict[str, Any]:
    found: dict[str, Any] = as_data(detail(world.supervisor, "slow"))
    return found


def verdict(world: World) -> str:
    result: str = seen(world)["verdict"]["result"]
    return result


def test_the_verdict_of_a_run_outlives_the_supervisor(world):
    world.pass_time(60)
    shop(world, "1.0.running")
    world.pass_time(640)
    before = seen(world)
    assert before["state"] == State.DONE
    assert before["verdict"]["result"] == "invalid"  # no fault has met a request
    world.close()
    world.totals.forget_others(KeptEpochs(()))
    world.start()
    after = seen(world)
    for part in ("state", "verdict", "dose", "users", "metrics", "samples", "points", "timeline"):
        assert after[part] == before[part], part


def test_an_interrupted_run_keeps_its_numbers_and_says_so(world):
    world.pass_time(60)
    shop(world, "1.0.running")
    world.pass_time(30)
    before = seen(world)
    world.close()
    world.totals.forget_others(KeptEpochs(()))
    world.start()
    after = seen(world)
    assert after["state"] == State.STOPPED
    assert after["verdict"] == {
        "result": "inconclusive",
        "reason": "the supervisor was restarted",
        "provisional": False,
    }
    assert after["metrics"] == before["metrics"]


def test_what_came_last_is_kept_when_the_supervisor_is_told_to_end(world):
    world.pass_time(60)
    shop(world, "1.0.running")
    world.pass_time(1)
    before = seen(world)
    world.supervisor.close()
    world.totals.forget_others(KeptEpochs(()))
    world.start()
    after = seen(world)
    assert after["reason"] == "the supervisor was restarted"
    for part in ("metrics", "dose", "users"):
        assert after[part] == before[part], part


def test_points_show_what_came_since_the_one_before(world):
    world.pass_time(60)
    shop(world, "1.0.running")
    world.pass_time(10)
    shop(world, "1.0.running", each=5)
    world.pass_time(10)
    events = [
        point["metrics"]["success"]["control"]["events"]
        for point in seen(world)["points"]
        if point["state"] == "running"
    ]
    assert sorted(events)[-2:] == [320, 640]
    assert sum(events) == 960


def test_the_forecast_says_how_long_at_the_present_rate(world):
    world.pass_time(60)
    for _ in range(20):
        shop(world, "1.0.running", each=1)
        world.pass_time(1)
    (found,) = (f for f in seen(world)["forecast"] if f["metric"] == "success")
    assert found["have"] == 20 * 64
    assert found["per_second"] == pytest.approx(64)
    missing = max(found["needed"] - found["have"], 0)
    assert found["seconds"] == pytest.approx(missing / 64)


def test_a_metric_without_events_will_never_be_judged(world):
    world.pass_time(70)
    (found,) = (f for f in seen(world)["forecast"] if f["metric"] == "orders")
    assert (found["have"], found["per_second"], found["seconds"]) == (0, 0, None)


def test_the_past_of_a_raised_run_is_not_shown_as_its_own(world):
    world.pass_time(60)
    shop(world, "1.0.running")
    world.pass_time(640)
    world.write(SLOW | {"run": 2, "state": "paused"})
    asyncio.run(world.supervisor.reload())
    world.pass_time(1)
    found = seen(world)
    assert (found["run"], found["state"]) == (2, State.PENDING)
    assert found["verdict"]["provisional"]
    assert {m["control"]["events"] for m in found["metrics"]} == {0}


def test_what_is_on_disk_of_many_runs_is_at_most_a_few_seconds_old(world):
    """A record a tick: of five runs, each is written every five seconds."""
    names = [f"e{i}" for i in range(5)]
    world.write(*map(many, names))
    asyncio.run(world.supervisor.reload())
    for _ in range(30):
        for name in names:
            world.count(SteadyKey(name, Epoch("1.0.running"), "a", "control", 0, "good"))
        world.pass_time(1)
    written = [world.supervisor.reader.recorded_summary(name).metrics[0] for name in names]
    assert {metric.name for metric in written} == {"a"}
    assert min(metric.control.events for metric in written) >= 24
    assert len({metric.control.events for metric in written}) == 5


def test_the_numbers_of_a_run_that_takes_a_month_are_on_disk_within_a_minute(world):
    world.write(many("e") | {"duration": "720h"})
    asyncio.run(world.supervisor.reload())
    world.pass_time(5)
    world.count(SteadyKey("e", Epoch("1.0.running"), "a", "control", 0, "good"), 7)
    world.pass_time(60)
    assert world.supervisor.reader.recorded_summary("e").metrics[0].control.events == 7
    assert len(world.supervisor.reader.points("e")) == 1


def test_twenty_experiments_of_five_metrics_cost_a_twentieth_of_a_core_at_most(tmp_path):
    """All that a tick does, in CPU time, when all samples have grown since the last."""
    world = World(tmp_path)
    names = [f"e{i}" for i in range(20)]
    world.write(*map(many, names))
    world.start()
    counted = [key for name in names for key in cells(name)]
    world.totals.update("w", [(key, 30.0) for key in counted])
    rounds = []
    for _ in range(ROUNDS):
        took = 0.0
        for _ in range(TICKS):
            world.now += 1
            world.totals.update("w", [(key, world.now) for key in counted[::20]])
            before = time.process_time()
            world.supervisor.tick()
            took += time.process_time() - before
        rounds.append(took / TICKS)
    assert {run.state for run in world.supervisor.registry.runs.values()} == {State.RUNNING}
    # The best of some: what disturbs a measurement only ever adds to it.
    assert min(rounds) < 0.05, rounds
    world.close()


# Points are written every third tick, records one after the other.
ROUNDS, TICKS = 4, 6


def cells(name: str) -> list[Key]:
    """What traffic fills: all replicates, and of latencies so many buckets."""
    metrics: dict[str, list[str | int]] = {
        "a": ["good", "bad"],
        "p50": [*range(60, 100)],
        "p99": [*range(60, 100)],
        "slow": ["good", "bad"],
        "r": ["good"],
    }
    return [
        SteadyKey(name, Epoch("1.0.running"), metric, cohort, replicate, cell)
        for metric, found in metrics.items()
        for cohort in ("control", "experiment")
        for replicate in range(64)
        for cell in found
    ]


def many(name: str) -> dict[str, Any]:
    """One of many experiments, with metrics that find nothing."""
    relative = {"quantile": 0.5, "rise": "100%"}
    return SLOW | {
        "experiment": name,
        "baseline": "0s",
        "cohorts": {"experiment": "0.1%", "control": "0.1%"},
        "steady_state": [
            {"name": "a", "at": "inbound", "success_rate": {"drop": "5pp"}},
            {"name": "p50", "at": "inbound", "latency": relative},
            {"name": "p99", "at": "inbound", "latency": relative | {"quantile": 0.99}},
            {"name": "slow", "at": "inbound", "slow": {"over": "1s", "rise": "20pp"}},
            {"name": "r", "at": "inbound", "rate": {"drop": "50%"}},
        ],
    }
