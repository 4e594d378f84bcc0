"""One metric of two cohorts: what is decided, shown, and left open."""

from math import inf, isnan, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfault.proxy.analysis.comparison import Threshold, boundary_of, compare
from counterfault.proxy.analysis.difference import difference_evidence, exceeds, harm_evidence
from counterfault.proxy.analysis.sample_size import needed
from counterfault.proxy.analysis.sequential import Evidence
from counterfault.proxy.experiments.experiment import Cohorts
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.samples import Pair, Sample
from tests.support.cases import each
from tests.support.samples import (
    EVEN,
    KINDS,
    LATENCIES,
    ONE,
    SHARES,
    cells,
    compared,
    drawn,
    metric,
    pairs,
    share,
    width,
)

FINE = {name: share(5000, 0) for name in KINDS} | {
    name: cells({80: 5000}, width(KINDS[name])) for name in LATENCIES
}
OUTAGE = (
    {name: share(5000, 4000) for name in SHARES}
    | {name: cells({140: 5000}, width(KINDS[name])) for name in LATENCIES}
    | {"rate": share(0, 0)}
)
sizes = st.floats(0.0001, 98).map(lambda size: f"{size:.4f}")
both = st.sampled_from([("1%", "1%"), ("50%", "0.01%"), ("0.01%", "50%")])


@st.composite
def metrics(draw: st.DrawFn) -> Metric:
    size, unit = draw(sizes), draw(st.sampled_from(["pp", "%"]))
    match draw(st.sampled_from(["success_rate", "slow", "latency", "rate"])):
        case "success_rate":
            return metric(success_rate={"drop": size + unit})
        case "slow":
            return metric(slow={"over": "1s", "rise": size + unit})
        case "latency":
            quantile = draw(st.floats(1e-6, 1 - 1e-6))
            return metric(latency={"quantile": quantile, "rise": f"{9.1 + float(size):.4f}%"})
        case _:
            return metric(rate={"drop": size + "%"})


@each("name", KINDS)
@each("effect", [-2.0, 0.0, 0.5, 1.0, 2.0, 6.0])
@each("times", [0.0, 1.0, 3.0])
def test_a_quick_look_at_the_levels_alarms_no_sooner_and_no_later(
    name: str, effect: float, times: float
) -> None:
    for seed, events in enumerate((200, 2000, 20_000)):
        pair = drawn(name, seed, events, effect)
        evidence = harm_evidence(KINDS[name], pair, EVEN, times)
        for alarm in (0.5, 3.0, 7.0):
            assert exceeds(KINDS[name], pair, EVEN, times, alarm) == (evidence >= alarm)


def test_the_loss_of_all_events_is_no_lack_of_events() -> None:
    lost = Pair(share(5000, 0), share(0, 0))
    assert exceeds(KINDS["rate"], lost, EVEN, 0.0, 7.0)


@given(st.data(), metrics(), both, st.integers(1, 20))
def test_no_counts_raise_or_give_what_is_not_a_number(
    data: st.DataObject, of: Metric, shares: tuple[str, str], count: int
) -> None:
    pair = data.draw(pairs(width(of)))
    cohorts = Cohorts.model_validate({"experiment": shares[0], "control": shares[1]})
    seen = compare(of, pair, cohorts, Threshold.of(0.95, count))
    told = [
        difference_evidence(of, pair, cohorts),
        *(harm_evidence(of, pair, cohorts, times) for times in (0, 1, 3)),
    ]
    shown = [*seen.levels, seen.effect, seen.detectable, *(seen.bounds or ()), needed(seen)]
    numbers = [seen.evidence.harm, seen.evidence.within, seen.clusters, *told, *shown]
    assert not [n for n in numbers if n is not None and isnan(n)]
    assert not (seen.harmed and seen.within)
    assert harm_evidence(of, pair, cohorts, 1.0) == seen.evidence.harm
    if seen.bounds is not None:
        assert seen.bounds[0] <= seen.bounds[1]


@each("name", KINDS)
@each("effect", [0.0, 0.5, 0.9, 1.1, 1.5, 3.0])
def test_bounds_pass_the_tolerance_just_when_something_is_decided(name: str, effect: float) -> None:
    allowed = KINDS[name].tolerance.value
    for seed in range(4):
        for events in (300, 3000, 30_000):
            seen = compared(name, drawn(name, seed, events, effect))
            assert seen.bounds is not None
            assert seen.effect is not None
            low, high = seen.bounds
            assert (low > allowed) == seen.harmed
            assert (high < allowed) == seen.within
            assert low <= seen.effect <= high


@each("name", KINDS)
def test_an_outage_is_harm(name: str) -> None:
    seen = compared(name, Pair(FINE[name], OUTAGE[name]))
    assert (seen.harmed, seen.within) == (True, False)


@each("name", KINDS)
def test_an_experiment_that_does_better_is_within(name: str) -> None:
    better = share(50_000, 0) if name == "rate" else FINE[name]
    seen = compared(name, Pair(FINE[name] if name == "rate" else OUTAGE[name], better))
    assert (seen.harmed, seen.within) == (False, True)


@each("name", SHARES)
def test_if_all_is_good_in_both_cohorts_nobody_is_harmed(name: str) -> None:
    seen = compared(name, Pair(FINE[name], FINE[name]))
    assert not seen.harmed
    assert seen.effect == pytest.approx(0.0)
    # 20 % more than nothing is nothing: no number of requests can show that.
    assert seen.within == (name != "slow, relative")


@each("name", SHARES)
def test_if_all_is_bad_in_both_cohorts_it_was_not_the_fault(name: str) -> None:
    bad = share(5000, 5000)
    assert not compared(name, Pair(bad, bad)).harmed


@each("name", KINDS)
@each("events", [0, 1, 29])
def test_few_events_say_nothing(name: str, events: int) -> None:
    few = cells({150: events}, width(KINDS[name])) if name in LATENCIES else share(events, events)
    # For a rate, few events of the experiment are just what harm looks like.
    others = [Pair(FINE[name], few)] if name != "rate" else []
    for pair in (Pair(few, few), Pair(few, FINE[name]), *others):
        seen = compared(name, pair)
        assert (seen.signal, seen.evidence, seen.bounds, seen.effect) == (
            None,
            Evidence(),
            None,
            None,
        )
        if pair.control is few:
            assert needed(seen) is None


@each("name", [name for name in KINDS if name != "rate"])
@each("users", [1, 2, 7])
@each("cell", [0, -1])
def test_a_handful_of_users_never_decides(name: str, users: int, cell: int) -> None:
    few = Sample.empty(width(KINDS[name]))
    few.counts[:users, cell] = 10**9
    for pair in (Pair(FINE[name], few), Pair(few, FINE[name]), Pair(few, few)):
        seen = compared(name, pair)
        assert seen.clusters == pytest.approx(users)
        assert (seen.harmed, seen.within) == (False, False)
        assert difference_evidence(KINDS[name], pair, EVEN) == 0.0


@each("users", [1, 2])
def test_a_rate_of_one_busy_user_is_not_known(users: int) -> None:
    busy = Sample.empty()
    busy.counts[:users, 0] = 10**6
    for pair in (Pair(FINE["rate"], busy), Pair(busy, FINE["rate"]), Pair(busy, busy)):
        seen = compared("rate", pair)
        assert (seen.harmed, seen.within) == (False, False)


@each("name", KINDS)
def test_an_empty_cohort_has_no_level(name: str) -> None:
    empty = Sample.empty(width(KINDS[name]))
    levels = compared(name, Pair(empty, empty)).levels
    assert levels == ((0.0, 0.0) if name == "rate" else (None, None))


def test_levels_are_in_the_unit_of_the_metric() -> None:
    pair = Pair(share(1000, 10), share(500, 10))
    assert compared("success_rate, absolute", pair).levels == (0.01, 0.02)
    cohorts = Cohorts.model_validate({"experiment": "0.5%", "control": "2%"})
    assert compare(KINDS["rate"], pair, cohorts, ONE).levels == (500.0, 1000.0)
    slower = Pair(cells({80: 1000}), cells({88: 1000}))
    control, experiment = compared("latency p99", slower).levels
    assert control is not None
    assert experiment == pytest.approx(1.2**4 * control)


def test_effects_are_in_the_unit_of_the_tolerance() -> None:
    pair = Pair(share(10_000, 100), share(10_000, 300))
    assert {name: compared(name, pair).effect for name in SHARES} == {
        "success_rate, absolute": pytest.approx(0.02),
        "success_rate, relative": pytest.approx(0.02 / 0.99),
        "slow, absolute": pytest.approx(0.02),
        "slow, relative": pytest.approx(2.0),
    }
    fewer = Pair(share(10_000, 0), share(9_000, 0))
    assert compared("rate", fewer).effect == pytest.approx(0.1)
    slower = Pair(cells({80: 1000}), cells({88: 1000}))
    assert compared("latency p99", slower).effect == pytest.approx(1.2**4 - 1)


def test_anything_is_without_measure_more_than_nothing() -> None:
    seen = compared("slow, relative", Pair(share(10_000, 0), share(10_000, 30)))
    assert seen.harmed
    assert (seen.effect, seen.bounds) == (inf, (inf, inf))
    assert compared("slow, relative", Pair(share(100, 0), share(100, 0))).bounds == (-1.0, inf)


def test_cohorts_of_unequal_size_may_have_equal_rates() -> None:
    cohorts = Cohorts.model_validate({"experiment": "5%", "control": "20%"})
    pair = Pair(share(80_000, 0), share(20_000, 0))
    seen = compare(KINDS["rate"], pair, cohorts, ONE)
    assert seen.effect == pytest.approx(0.0)
    assert seen.within


def test_more_metrics_ask_for_more_evidence_of_harm_only() -> None:
    one, ten = Threshold.of(0.95, 1), Threshold.of(0.95, 10)
    assert one.harm == one.within == ten.within == pytest.approx(log(20))
    assert ten.harm == pytest.approx(log(200))
    assert Threshold.of(0.95, 0) == one


@each("name", KINDS)
@each("times", [0.0, 1.0, 3.0])
def test_a_boundary_is_so_many_tolerances_from_equality(name: str, times: float) -> None:
    of, level = KINDS[name], 0.1
    allowed = of.tolerance.value * (level if of.tolerance.relative else 1.0)
    at = boundary_of(of, times)
    far, reach = allowed * times, allowed * (times or 1.0)
    if of.latency is not None:  # tolerances upon each other, so that all are at edges of cells
        far, reach = (level * ((1 + of.tolerance.value) ** x - 1) for x in (times, times or 1.0))
        assert at.cells == pytest.approx(log(at.rho) / of.latency.cells.width)
    assert at.sign * (at.rho * level + at.delta - level) == pytest.approx(far)
    assert at.reach(level) == pytest.approx(reach)


def test_many_tolerances_may_be_more_than_there_is() -> None:
    wide = metric(success_rate={"drop": "60pp"})
    assert harm_evidence(wide, Pair(share(5000, 0), share(5000, 5000)), EVEN, 3.0) > 0
    assert harm_evidence(wide, Pair(share(5000, 0), share(5000, 2500)), EVEN, 3.0) < 0
    gone = Pair(share(5000, 0), share(0, 0))
    assert harm_evidence(metric(rate={"drop": "50%"}), gone, EVEN, 3.0) > 0


@each("name", KINDS)
def test_two_tolerances_are_worse_than_one_and_not_than_three(name: str) -> None:
    of, pair = KINDS[name], drawn(name, 2, 100_000, effect=2.0)
    assert harm_evidence(of, pair, EVEN, 0.0) > harm_evidence(of, pair, EVEN, 1.0) > ONE.harm
    assert harm_evidence(of, pair, EVEN, 3.0) < 0
    assert difference_evidence(of, pair, EVEN) > ONE.harm


@each("name", KINDS)
def test_with_more_events_smaller_effects_are_detectable(name: str) -> None:
    few, many = (compared(name, drawn(name, 1, n, 0.0)).detectable for n in (1000, 30_000))
    assert few is not None
    assert many is not None
    assert few > many > KINDS[name].tolerance.value
