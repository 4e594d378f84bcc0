"""Adversarial traffic is what it is declared to be, and the sidecar's sight of it is right."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.outcomes import outcome_of
from counterfault.proxy.measurement.samples import column
from tests.simulate.adversity import Adversity, run
from tests.simulate.cells import cells
from tests.simulate.conditions import (
    Conditions,
    Harm,
    Incidents,
    Latencies,
    Load,
    Queue,
    Retries,
    Users,
)
from tests.simulate.hostile import HOSTILE, RATE, SLOW, quantile
from tests.simulate.requests import Requests, draw
from tests.simulate.scenarios import ERRORS
from tests.simulate.sight import SLOT, Sight

MANY = Conditions(Users(30_000), Load(4000), seconds=60, baseline=20)
HALF_PERCENT = Harm(errors=0.005)


def _drawn(conditions: Conditions, seed: int = 1) -> tuple[Requests, Requests]:
    return draw(np.random.default_rng(seed), conditions)


def _failed(requests: Requests, on: bool = True) -> float:
    return float(requests.failed[(requests.begun >= 0) == on].mean())


@pytest.mark.parametrize(
    "conditions",
    [
        replace(MANY, harm=HALF_PERCENT),
        replace(MANY, harm=HALF_PERCENT, users=Users(30_000, icc=0.1)),
        replace(MANY, harm=HALF_PERCENT, drift=4),
        replace(MANY, harm=HALF_PERCENT, incidents=Incidents(every=20, errors=0.05)),
        replace(MANY, harm=HALF_PERCENT, retries=Retries()),
        replace(MANY, harm=HALF_PERCENT, load=Load(4000, ramp=20, burst=8)),
        replace(MANY, harm=Harm(hit=0.005), errors=0.001),
        replace(MANY, harm=Harm(hit=0.01, hit_errors=0.5), errors=0.001),
    ],
    ids=["all", "alike", "drift", "incidents", "retries", "ramp", "always", "half of the time"],
)
def test_the_experiment_fails_more_often_by_the_tolerance(conditions: Conditions) -> None:
    drawn = [_drawn(conditions, seed) for seed in range(3)]
    more = np.mean([_failed(experiment) - _failed(control) for control, experiment in drawn])
    assert more == pytest.approx(0.005, abs=0.0012)
    before = [_failed(e, False) - _failed(c, False) for c, e in drawn]
    assert np.mean(before) == pytest.approx(0.0, abs=0.0015)


def test_drift_and_retries_leave_the_mean_as_it_is_declared() -> None:
    for conditions in (replace(MANY, drift=4), replace(MANY, retries=Retries())):
        control, _ = _drawn(conditions)
        assert control.failed.mean() == pytest.approx(MANY.errors, rel=0.1)


def test_load_rises_and_bursts_in_both_cohorts_alike() -> None:
    pair = _drawn(replace(MANY, load=Load(4000, ramp=20, burst=8)), 5)
    control, experiment = (np.histogram(each.begun, np.arange(-20, 61))[0] for each in pair)
    assert np.corrcoef(control, experiment)[0, 1] > 0.99
    rising, _ = _drawn(replace(MANY, load=Load(4000, ramp=20)))
    seconds, _ = np.histogram(rising.begun, np.arange(-20, 61))
    assert seconds[-1] / seconds[0] == pytest.approx(20, rel=0.25)
    assert len(rising.begun) == pytest.approx(4000 * 80, rel=0.02)


def test_a_bot_sends_a_fifth_of_one_cohort() -> None:
    tops = []
    for seed in range(4):
        pair = _drawn(replace(MANY, users=Users(500, bot=0.2)), seed)
        tops.append([np.bincount(each.users).max() / len(each.users) for each in pair])
    assert [max(top) for top in tops] == pytest.approx([0.2] * 4, abs=0.01)
    assert all(min(top) < 0.01 for top in tops)


def test_pareto_users_are_unequal() -> None:
    control, _ = _drawn(replace(MANY, users=Users(2000, pareto=1.2)))
    counts = np.sort(np.bincount(control.users))
    assert counts[-20:].sum() > 0.1 * counts.sum()


def test_a_queue_waits_as_erlang_says() -> None:
    # M/M/20 at a load of 15: 0.16 wait (Erlang C), on average 10 ms; the rest is service.
    queue = Queue(background=0.0, patience=100)
    took = np.concatenate(
        [
            each.seconds
            for seed in range(4)
            for each in _drawn(Conditions(Users(1), queue=queue, baseline=0, seconds=240), seed)
        ]
    )
    assert took.mean() == pytest.approx(0.05 + 0.16 / (20 * 20 - 300), abs=0.0012)


def test_background_calls_slow_down_both_cohorts() -> None:
    queue = Conditions(Users(1), queue=Queue(background=2.0), seconds=120)
    for each in _drawn(queue):
        on = each.begun >= 5
        assert np.median(each.seconds[on]) > 1.2 * np.median(each.seconds[each.begun < 0])


@pytest.mark.parametrize("metric", [ERRORS, SLOW, RATE, quantile(0.5, "20%"), quantile(0.9, "15%")])
def test_requests_are_in_the_cells_that_the_product_has_for_them(metric: Metric) -> None:
    rng = np.random.default_rng(1)
    seconds = np.concatenate([10 ** rng.uniform(-5, 2.5, 400), [0.3, 1e-4, 200.0]])
    failed = rng.random(len(seconds)) < 0.3
    zero = np.zeros(len(seconds), dtype=np.int64)
    found = cells(metric, Requests(zero.astype(float), seconds, failed, zero, 1))
    said = [
        column(outcome_of(metric, None if f else 200, s))
        for s, f in zip(seconds.tolist(), failed.tolist(), strict=True)
    ]
    assert found.tolist() == said


def _small_sight(harm: Harm) -> tuple[tuple[Requests, Requests], Sight]:
    conditions = Conditions(Users(100), Load(50), harm=harm, seconds=20, baseline=10)
    drawn = _drawn(conditions)
    return drawn, Sight(ERRORS, drawn, np.random.default_rng(2))


def test_a_look_counts_what_has_ended_and_users_who_were_met() -> None:
    (control, experiment), sight = _small_sight(Harm(delay=3.0))
    for seen in sight.running(20):
        for sample, users, each in (
            (seen.pair.control, seen.users[0], control),
            (seen.pair.experiment, seen.users[1], experiment),
        ):
            ended = (each.begun >= 0) & (each.begun + each.seconds <= seen.second)
            assert sample.events == ended.sum()
            assert sample.bad == each.failed[ended].sum()
            assert users == len(set(each.users[each.begun <= seen.second].tolist()))


def test_the_baseline_has_what_began_in_it() -> None:
    (control, _), sight = _small_sight(Harm(delay=3.0))
    *_, last = sight.baseline(10)
    assert last.second == 0
    assert last.pair.control.events == (control.begun + control.seconds <= 0).sum()


def test_arrivals_are_those_that_ended_and_those_under_way() -> None:
    (control, experiment), sight = _small_sight(Harm(delay=3.0))
    for second in (1, 7, 20):
        for cohort, each in enumerate((control, experiment)):
            arrived = sight.arrived(second)[cohort]
            assert (sight.ended(second)[cohort] + sight.under_way(second)[cohort]).tolist() == (
                arrived.tolist()
            )
            slots = Counter(
                (each.begun[(each.begun >= 0) & (each.begun < second)] // SLOT).tolist()
            )
            assert {i: n for i, n in enumerate(arrived.tolist()) if n} == slots
    assert sight.under_way(20)[1][-6:].sum() > 100
    assert sight.under_way(20)[0].sum() < 10


def test_cells_have_names_of_their_own_and_the_same_run_for_the_same_seed() -> None:
    assert len({cell.key for cell in HOSTILE}) == len(HOSTILE)
    narrow = next(cell for cell in HOSTILE if cell.conditions.latencies is not None)
    assert run(narrow, 1, 5) == run(narrow, 1, 5)
    # A narrow distribution at the tolerance is never decided, so that its runs end alike.
    cell = next(cell for cell in HOSTILE if cell.group == "no effect is found")
    assert len({run(cell, 1, number) for number in range(6)}) > 1


def test_an_outage_is_refuted_and_its_absence_is_held() -> None:
    usual = Conditions(Users(500), seconds=100, baseline=10, errors=0.001)
    harmed = Adversity("", "outage", ERRORS, replace(usual, harm=Harm(errors=0.5)), {})
    assert 0 < run(harmed, 1, 0).refuted < 5
    # With 500 users, 0.5 % of whom may all be in the other cohort, it could not be held.
    usual = replace(usual, users=Users(2000), seconds=300)
    quiet = run(Adversity("", "quiet", ERRORS, usual, {}), 1, 0)
    assert quiet.held > 0
    assert quiet.held_at_end == 300


def test_a_baseline_that_differs_and_control_that_suffers_end_a_run() -> None:
    usual = Conditions(Users(500), seconds=100, baseline=20, errors=0.001)
    worse = replace(usual, incidents=Incidents(every=15, lasts=60, errors=0.5))
    endings = [run(Adversity("", "incidents", ERRORS, worse, {}), 1, n).ended for n in range(6)]
    assert any(endings)
    narrow = replace(usual, users=Users(500, bot=0.2), latencies=Latencies())
    assert run(Adversity("", "equal", ERRORS, narrow, {}), 1, 0).ended == 0
