"""What is known of a run is kept: through its end, and through a restart."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from supervised import SLOW, World

from proxy import tally
from proxy.guard import State
from proxy.view import detail

METRICS = ("success", "slow")
CELLS: dict[str, str | int] = {"a": "good", "p50": 80, "p99": 95, "slow": "good", "r": "good"}


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
                world.count(tally.steady("slow", epoch, metric, cohort, replicate, "good"), each)


def seen(world: World) -> dict[str, Any]:
    return detail(world.supervisor, "slow")


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
    world.totals.forget(lambda _: True)
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
    world.totals.forget(lambda _: True)
    world.start()
    after = seen(world)
    assert after["state"] == State.STOPPED
    assert after["verdict"] == {
        "result": "inconclusive",
        "reason": "the supervisor was restarted",
        "provisional": False,
    }
    assert after["metrics"] == before["metrics"]


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


def test_twenty_experiments_of_five_metrics_cost_a_twentieth_of_a_core_at_most(tmp_path):
    world = World(tmp_path)
    world.write(*(many(f"e{i}") for i in range(20)))
    world.start()
    for i in range(20):
        for metric, cell in (
            ("a", "good"),
            ("p50", 80),
            ("p99", 95),
            ("slow", "good"),
            ("r", "good"),
        ):
            for cohort in ("control", "experiment"):
                rows = [
                    (tally.steady(f"e{i}", "1.0.running", metric, cohort, replicate, cell), 30.0)
                    for replicate in range(64)
                ]
                world.totals.update("w", rows)
    took = []
    for _ in range(30):
        world.now += 1
        before = time.process_time()
        world.supervisor.tick()
        took.append(time.process_time() - before)
    assert {run.state for run in world.supervisor.ledger.runs.values()} == {State.RUNNING}
    assert sum(took) / len(took) < 0.05
    world.close()


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
