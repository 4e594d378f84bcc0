"""The simulation draws what it says, its peers compute what they are, and its table is legible."""

import subprocess
import sys
from dataclasses import asdict, astuple, replace
from math import log
from pathlib import Path

import numpy as np
import pytest

from counterfault.proxy.experiments.steady_state import Latency
from counterfault.proxy.measurement.quantiles import latency_quantile
from tests.simulate.chances import at_least, fixed, interval
from tests.simulate.crowds import Crowd, senders, who
from tests.simulate.outcome import Outcome, run
from tests.simulate.peers import alarms
from tests.simulate.runner import counted
from tests.simulate.scenarios import (
    APART,
    BROKEN,
    CROWDS,
    ERRORS,
    KINDS,
    P50,
    P99,
    SCENARIOS,
    STAGGERED,
    Scenario,
    looks,
)
from tests.simulate.table import Row, render, row
from tests.simulate.traffic import World, draw

ROOT = Path(__file__).parent.parent.parent
SHARES = ["success_rate 0.5pp", "success_rate 1%", "slow 1pp", "slow 20%"]


def _levels(world: World, requests: int = 200_000) -> tuple[float, float]:
    """Both cohorts' shares, quantiles or numbers, of many requests."""
    (pair,) = draw(np.random.default_rng(1), world, np.array([requests])).pairs()
    samples = pair.control, pair.experiment
    if isinstance(kind := world.metric.kind, Latency):
        control, experiment = (
            latency_quantile(s.cells, kind.quantile, kind.cells.bounds) or 0.0 for s in samples
        )
    elif world.metric.rate is not None:
        control, experiment = (float(s.events) for s in samples)
    else:
        control, experiment = (s.bad / s.events for s in samples)
    return control, experiment


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("tolerances", [0.0, 1.0, 4.0])
def test_the_experiment_is_worse_by_as_many_tolerances(name: str, tolerances: float) -> None:
    metric, level = KINDS[name]
    control, experiment = _levels(World(metric, APART, tolerances, level))
    size = metric.tolerance.value * tolerances
    match name:
        case "success_rate 0.5pp" | "slow 1pp":
            expected = control + size
        case "success_rate 1%":
            expected = 1 - (1 - control) * (1 - size)
        case "rate 5%":
            expected = control * (1 - size)
        case _:
            expected = control * (1 + size)
    assert experiment == pytest.approx(expected, rel=0.03, abs=0.0008)


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("crowd", CROWDS, ids=lambda crowd: crowd.text)
def test_a_crowd_changes_who_sends_what_and_not_the_effect(name: str, crowd: Crowd) -> None:
    metric, level = KINDS[name]
    many = replace(crowd, users=40 * crowd.users, activity=min(crowd.activity, 0.5))
    control, experiment = _levels(World(metric, many, 5.0, level))
    mean = level + crowd.broken * (0.5 - level)
    assert control == pytest.approx(mean, rel=0.05)
    ideal = _levels(World(metric, APART, 5.0, mean))
    assert experiment - control == pytest.approx(ideal[1] - ideal[0], rel=0.1)


def test_requests_of_one_user_are_alike() -> None:
    crowd = Crowd("alike", users=500, activity=1.0, icc=0.2)
    (pair,) = draw(
        np.random.default_rng(2), World(ERRORS, crowd, 0.0, 0.05), np.array([20_000])
    ).pairs()
    events, bad = pair.control.counts.sum(axis=1), pair.control.counts[:, 1]
    off = bad - bad.sum() / events.sum() * events
    # By the design effect: 1 + icc * (requests of the user of a request - 1).
    assert (off @ off) / (bad.sum() * 0.95) > 8


def test_users_come_one_after_the_other() -> None:
    rng = np.random.default_rng(3)
    drawn = senders(rng, STAGGERED)
    share = np.repeat([0.1, 1.0], 5000)
    users = who(rng, STAGGERED, drawn, share)
    assert users[:5000].max() < 0.11 * drawn.count
    assert users[5000:].max() > 0.9 * drawn.count


def test_some_clients_are_broken() -> None:
    drawn = senders(np.random.default_rng(4), replace(BROKEN, users=50_000))
    assert drawn.broken.mean() == pytest.approx(0.02, abs=0.003)
    assert drawn.reach[-1] == pytest.approx(1.0, abs=0.1)


def test_the_same_seed_gives_the_same_run() -> None:
    scenario = next(s for s in SCENARIOS if s.group == "harm")
    assert run(scenario, 1, 7) == run(scenario, 1, 7)
    assert len({run(scenario, 1, number).refuted for number in range(4)}) > 1


def test_looks_are_every_100_requests_and_more_often_at_first() -> None:
    at = looks(100_000)
    assert set(range(100, 100_001, 100)) < set(at.tolist())
    assert at[:3].tolist() == [10, 20, 30]
    assert len(SCENARIOS) == len({s.key for s in SCENARIOS})


@pytest.mark.parametrize("name", [name for name in KINDS if name != "rate 5%"])
def test_a_z_test_that_looks_once_is_right_as_often_as_it_says(name: str) -> None:
    metric, level = KINDS[name]
    rng, wrong, runs = np.random.default_rng(5), 0, 150
    for _ in range(runs):
        traffic = draw(rng, World(metric, APART, 1.0, level), np.array([4000]))
        wrong += alarms(metric, traffic, np.array([4000]), 1.0).z_test > 0
    assert at_least(wrong, runs, 0.05) > 0.001
    assert wrong > 0


@pytest.mark.parametrize("name", KINDS)
def test_peers_alarm_at_an_outage_and_hardly_at_a_great_improvement(name: str) -> None:
    metric, level = KINDS[name]
    at = np.arange(100, 5001, 100)
    tolerances = 0.4 / metric.tolerance.value if metric.latency is None else 8.0
    harm = draw(np.random.default_rng(6), World(metric, APART, tolerances, max(level, 0.2)), at)
    found = alarms(metric, harm, at, 0.0)
    assert 0 < found.z_test <= 2000
    assert 0 < found.threshold <= 2000
    assert 0 < found.mann_whitney <= 5000
    swapped = replace(harm, control=harm.experiment, experiment=harm.control)
    assert set(asdict(alarms(metric, swapped, at, 0.0)).values()) == {0}


def test_intervals_are_clopper_and_pearsons() -> None:
    assert interval(0, 100) == pytest.approx((0.0, 0.0362), abs=1e-4)
    assert interval(5, 100) == pytest.approx((0.0164, 0.1128), abs=1e-4)
    assert interval(100, 100) == pytest.approx((0.9638, 1.0), abs=1e-4)
    assert at_least(0, 20, 0.05) == 1.0
    assert at_least(1, 20, 0.05) == pytest.approx(1 - 0.95**20)


def test_one_look_needs_what_the_textbook_says() -> None:
    # (1.645 + 0.842)^2 (0.001*0.999 + 0.01*0.99) / 0.004^2
    assert fixed(World(ERRORS, APART, 1.8, 0.001)) == pytest.approx(4211, rel=0.01)
    for metric in (P50, P99):
        assert fixed(World(metric, APART, 3.0)) < fixed(World(metric, APART, 2.0))
    # So far away that one would look at a few requests only.
    assert fixed(World(ERRORS, APART, 99.8, 0.001)) < 10


def _outcome(refuted: int = 0, held: int = 0, other: int = 100) -> Outcome:
    return Outcome(refuted, held, 0, other, other, other)


def _row(scenario: Scenario, outcomes: list[Outcome]) -> Row:
    return row(scenario, counted(scenario, [astuple(each) for each in outcomes]))


def _result(rows: list[Row]) -> dict[str, object]:
    return {
        "machine": {"cpu": "Abacus"},
        "versions": {"python": "3.13.0"},
        "settings": {"seed": 1},
        "cost": {"rate 5%": {"median": 31.4, "least": 29.9, "most": 60.2}},
        "rows": rows,
    }


def test_a_table_has_the_figures_and_says_what_is_not_met() -> None:
    boundary = next(s for s in SCENARIOS if s.group == "boundary")
    harm = next(s for s in SCENARIOS if s.group == "harm")
    few = [_outcome()] * 99 + [_outcome(refuted=50)]
    said = render(_result([_row(boundary, 10 * few), _row(harm, 1000 * [_outcome(6000)])]))
    assert "1.0% (0.5–1.8)" in said
    assert "6,000" in said
    assert "31 (30–60)" in said
    assert "not" not in said.replace("not enough runs", "")
    assert "2 cells: 2 met" in said
    bad = [_row(boundary, [_outcome(refuted=50)] * 20), _row(harm, 1000 * [_outcome(7000)])]
    said = render(_result(bad))
    assert said.count("not met") == 2 + 1 + 1  # the sum over all kinds as well, and the count
    assert "2 cells: 2 not met" in said
    assert "1 not enough runs" in render(_result([_row(boundary, few)]))


def test_an_unknown_scenario_is_an_error_that_lists_the_known() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulate.run", "--only", "boundry"],
        cwd=ROOT,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "boundary: success_rate 0.5pp, independent requests" in done.stderr


def test_the_median_latency_of_the_world_is_50_ms() -> None:
    control, experiment = _levels(World(P50, APART, 2.0))
    assert log(control / 0.05) == pytest.approx(0.0, abs=0.02)
    assert experiment == pytest.approx(0.06, rel=0.02)
