"""What `make simulate` measures, in small: seeded runs, looked at all the time.

If false alarms are 5 % at most, one of these bounds is passed once in a thousand seeds or less.
"""

import statistics
from math import inf

import pytest

from tests.simulate.chances import at_least
from tests.simulate.crowds import Crowd
from tests.simulate.outcome import Outcome, run
from tests.simulate.scenarios import ALPHA, APART, KINDS, SCENARIOS, Scenario
from tests.simulate.traffic import World

SEED = 3
RUNS = 40
# So few and so alike that requests that were taken for independent would be wrong by far.
ALIKE = Crowd("300 users, correlated", users=300, activity=1.5, icc=0.1)
BROKEN = Crowd("300 users, broken clients", users=300, activity=1.0, broken=0.05)
HARM = [scenario for scenario in SCENARIOS if scenario.group == "harm"]


def _runs(scenario: Scenario, runs: int = RUNS) -> list[Outcome]:
    return [run(scenario, SEED, number) for number in range(runs)]


def _is_chance(said: list[int]) -> bool:
    """Whether so many of these runs may be wrong, if 5 % are."""
    return at_least(sum(n > 0 for n in said), len(said), ALPHA) > 0.001


@pytest.mark.parametrize("name", KINDS)
def test_at_the_boundary_neither_side_is_decided(name: str) -> None:
    metric, level = KINDS[name]
    outcomes = _runs(Scenario("boundary", name, World(metric, APART, 1.0, level), 4000))
    assert _is_chance([o.refuted for o in outcomes])
    assert _is_chance([o.held for o in outcomes])


@pytest.mark.parametrize("crowd", [ALIKE, BROKEN], ids=lambda crowd: crowd.text)
@pytest.mark.parametrize("name", ["success_rate 0.5pp", "slow 20%", "latency p50 10%", "rate 5%"])
def test_users_who_are_alike_are_not_taken_for_many(name: str, crowd: Crowd) -> None:
    metric, level = KINDS[name]
    outcomes = _runs(Scenario("boundary", name, World(metric, crowd, 1.0, level), 10_000))
    assert _is_chance([o.refuted for o in outcomes])
    assert _is_chance([o.held for o in outcomes])


@pytest.mark.parametrize("name", ["slow 1pp", "latency p50 10%"])
def test_equal_cohorts_do_not_differ(name: str) -> None:
    metric, level = KINDS[name]
    outcomes = _runs(Scenario("A/A", name, World(metric, ALIKE, 0.0, level), 4000))
    assert _is_chance([o.differ for o in outcomes])
    assert _is_chance([o.refuted for o in outcomes])
    # The same requests by a test that knows neither of users nor of looks.
    assert not _is_chance([o.z_test for o in outcomes])


@pytest.mark.parametrize("users", [8, 20])
def test_early_looks_at_a_few_users_decide_nothing(users: int) -> None:
    crowd = Crowd(f"{users} users", users=users, icc=0.05)
    for name in ("success_rate 1%", "latency p50 10%"):
        metric, level = KINDS[name]
        outcomes = _runs(Scenario("boundary", name, World(metric, crowd, 1.0, level), 500))
        assert _is_chance([o.refuted for o in outcomes])
        assert _is_chance([o.held for o in outcomes])


@pytest.mark.parametrize("scenario", HARM, ids=lambda scenario: scenario.name)
def test_harm_is_found_as_soon_as_promised(scenario: Scenario) -> None:
    found = sorted(o.refuted or inf for o in _runs(scenario, 25))
    assert scenario.at_most is not None
    # The median of 25 runs, with room for chance: the 9th smallest is below it 19 times in 20.
    assert found[8] <= scenario.at_most
    assert statistics.median(found) <= 1.25 * scenario.at_most
