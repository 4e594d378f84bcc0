"""The required size is about what a run without an effect needs."""

import statistics

import numpy as np
import pytest

from counterfault.proxy.analysis.comparison import Threshold, compare
from counterfault.proxy.analysis.sample_size import expected, needed
from tests.simulate.crowds import Crowd
from tests.simulate.scenarios import APART
from tests.simulate.traffic import World, draw
from tests.support.samples import EVEN, KINDS, ONE, compared, drawn, metric

ASSUMED = 0.01  # of bad events


def _held_after(name: str, seed: int, looks: list[int]) -> int:
    world = World(KINDS[name], APART, 0.0, ASSUMED)
    traffic = draw(np.random.default_rng([7, seed]), world, np.array(looks))
    for n, pair in zip(looks, traffic.pairs(), strict=True):
        if compare(KINDS[name], pair, EVEN, ONE).within:
            return n
    return 10 * looks[-1]


@pytest.mark.parametrize("name", KINDS)
def test_half_of_runs_are_within_after_about_as_many(name: str) -> None:
    seen = compared(name, drawn(name, 1, 50_000, 0.0))
    if name == "latency p99" or name.startswith(("success_rate", "slow")):
        size = expected(KINDS[name], ONE, ASSUMED)
    else:
        size = needed(seen) or 0
    looks = [round(size * share / 20) for share in range(1, 61)]
    median = statistics.median(_held_after(name, seed, looks) for seed in range(25))
    assert size / 3 < median < 1.5 * size


@pytest.mark.parametrize("name", KINDS)
def test_the_estimate_does_not_depend_on_how_much_has_been_seen(name: str) -> None:
    few, many = (needed(compared(name, drawn(name, 3, n, 0.0))) for n in (5000, 80_000))
    assert few is not None
    assert many is not None
    assert few / 2 < many < few * 2


def test_a_finer_tolerance_needs_more() -> None:
    coarse, fine = (expected(metric(rate={"drop": drop}), ONE) for drop in ("5%", "2.5%"))
    assert 3.5 < fine / coarse < 4.5
    rare, common = (expected(KINDS["slow, relative"], ONE, bad) for bad in (0.001, 0.1))
    assert rare > 50 * common


def test_more_confidence_needs_more() -> None:
    of = KINDS["success_rate, absolute"]
    assert expected(of, Threshold.of(0.99, 1)) > 1.2 * expected(of, ONE)
    # Only harm is corrected for the number of metrics: to hold, all of them must be within.
    assert expected(of, Threshold.of(0.95, 9)) == expected(of, ONE)


def test_users_who_are_alike_need_more() -> None:
    of = KINDS["slow, absolute"]
    crowd = Crowd("alike", users=500, activity=1.0, icc=0.2)
    sizes = []
    for who in (APART, crowd):
        world = World(of, who, 0.0, 0.05)
        (pair,) = draw(np.random.default_rng(5), world, np.array([30_000])).pairs()
        sizes.append(needed(compare(of, pair, EVEN, ONE)) or 0)
    assert sizes[1] > 5 * sizes[0]
