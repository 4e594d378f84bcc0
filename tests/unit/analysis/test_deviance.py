"""The quick deviances agree with slow ones, and say the same whichever way one looks at things."""

from collections.abc import Sequence
from math import log

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from counterfault.proxy.analysis.comparison import boundary_of
from counterfault.proxy.analysis.deviance import Boundary, proportion, quantile, rate
from counterfault.proxy.analysis.latency_cdf import LatencyCdf
from counterfault.proxy.analysis.replicate_variance import Events, clusters_of, events_of, share_of
from counterfault.proxy.analysis.sequential import Signal
from counterfault.proxy.experiments.steady_state import Latency, Metric
from counterfault.proxy.measurement.samples import BAD, GOOD, Counts, Sample
from tests.support import reference_statistics
from tests.support.samples import KINDS, LATENCIES, SHARES, cells, drawn, samples, share, width

EQUAL = Boundary(plus=0.01)
P99 = Latency.model_validate({"quantile": 0.99, "rise": "20%"})


def _shares(control: Counts, experiment: Counts, at: Boundary, hits: int = BAD) -> Signal:
    return proportion(share_of(control, hits), share_of(experiment, hits), at)


def _quantile(control: Counts, experiment: Counts, of: Latency, at: Boundary) -> Signal:
    hc, he = (LatencyCdf(Sample(counts), of.quantile) for counts in (control, experiment))
    return quantile(hc, he, at, of.cells.width)[0]


def _signal(of: Metric, control: Counts, experiment: Counts, tolerances: float = 1.0) -> Signal:
    at = boundary_of(of, tolerances)
    if isinstance(of.kind, Latency):
        return _quantile(control, experiment, of.kind, at)
    if of.rate is not None:
        return rate((events_of(control), 1.0), (events_of(experiment), 1.0), at)
    return _shares(control, experiment, at, GOOD if at.sign < 0 else BAD)


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("effect", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("events", [100, 20_000])
def test_a_share_has_the_likelihood_of_its_boundary(name: str, effect: float, events: int) -> None:
    for seed in range(3):
        pair = drawn(name, seed, events, effect)
        _agree(name, pair.control.counts, pair.experiment.counts)


@given(
    st.sampled_from([*SHARES, *LATENCIES]),
    st.sampled_from([0.0, 1.0, 3.0]),
    st.data(),
)
def test_whatever_the_counts_nine_digits_agree_with_the_slow_way(
    name: str, tolerances: float, data: st.DataObject
) -> None:
    control, experiment = (
        data.draw(samples(width(KINDS[name]), most=10**6)).counts for _ in range(2)
    )
    assume(control.any())
    assume(experiment.any())
    _agree(name, control, experiment, tolerances)


def _agree(name: str, control: Counts, experiment: Counts, tolerances: float = 1.0) -> None:
    of = KINDS[name]
    at = boundary_of(of, tolerances)
    found = _signal(of, control, experiment, tolerances)
    if isinstance(of.kind, Latency):
        z, variance = reference_statistics.quantile_on_grid(
            control, experiment, of.kind.quantile, at.rho, of.kind.cells.width
        )
    else:
        z, variance = reference_statistics.proportion(
            control, experiment, GOOD if at.sign < 0 else BAD, at
        )
    events = control.sum() + experiment.sum()
    # Of a deviance, what is left of numbers as large as the events is as exact as they are.
    squares = (found.z * abs(found.z), z * abs(z))
    assert squares[0] == pytest.approx(squares[1], rel=1e-9, abs=max(1e-9, 1e-14 * events))
    assert found.variance == pytest.approx(variance, rel=1e-9)


@pytest.mark.parametrize("name", LATENCIES)
@pytest.mark.parametrize("effect", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("sizes", [(1000, 1000), (20_000, 20_000), (40_000, 400), (400, 40_000)])
def test_a_quantile_has_the_deviance_at_the_best_threshold(
    name: str, effect: float, sizes: tuple[int, int]
) -> None:
    of, at = KINDS[name], boundary_of(KINDS[name])
    assert of.latency is not None
    control = drawn(name, 1, sizes[0], effect).control.counts
    experiment = drawn(name, 2, sizes[1], effect).experiment.counts
    found = _signal(of, control, experiment)
    z, distance = reference_statistics.quantile(
        control, experiment, of.latency.quantile, at.rho, of.latency.cells.width
    )
    assert found.distance == pytest.approx(distance, abs=1e-6)
    # The best threshold of a grid is at most so much worse than the best there is.
    assert found.z == pytest.approx(z, rel=0.01, abs=1e-3)


@pytest.mark.parametrize("effect", [0.0, 1.0, 3.0])
def test_a_rate_is_as_sure_as_its_replicates_and_never_surer_than_chance(effect: float) -> None:
    at = boundary_of(KINDS["rate"])
    pair = drawn("rate", 3, 20_000, effect)
    control, experiment = events_of(pair.control.counts), events_of(pair.experiment.counts)
    found = rate((control, 1.0), (experiment, 2.0), at)
    yc, ye = pair.control.counts.sum(axis=1), pair.experiment.counts.sum(axis=1)
    assert found.distance == pytest.approx(-(ye.sum() / 2 - 0.95 * yc.sum()))
    # A sum of 64 has 64 times the variance of one of them.
    between = 64 * (0.95**2 * yc.var(ddof=1) + ye.var(ddof=1) / 4)
    assert found.variance == pytest.approx(max(between, ye.sum() / 4 + 0.95**2 * yc.sum()))


def test_a_rate_that_is_as_regular_as_a_clock_is_not_surer_for_it() -> None:
    regular = Events(6400.0, 64 * 100.0**2)
    found = rate((regular, 1.0), (regular, 1.0), boundary_of(KINDS["rate"]))
    assert found.variance == pytest.approx(6400 * (1 + 0.95**2))


@given(st.integers(30, 10**7), st.integers(30, 10**7), st.floats(0, 1), st.floats(0, 1))
def test_equality_looks_the_same_from_both_sides(n: int, m: int, p: float, q: float) -> None:
    control, experiment = share(n, int(n * p)).counts, share(m, int(m * q)).counts
    one = _shares(control, experiment, EQUAL).z
    assert _shares(experiment, control, EQUAL).z == pytest.approx(-one, rel=1e-3, abs=0.01)
    # Less good is more bad.
    assert _shares(control, experiment, EQUAL, GOOD).z == pytest.approx(-one, rel=1e-3, abs=0.01)


@pytest.mark.parametrize("name", KINDS)
def test_which_replicate_is_which_makes_no_difference(name: str) -> None:
    pair = drawn(name, 5)
    control, experiment = pair.control.counts, pair.experiment.counts
    shuffled = [np.random.default_rng(6).permutation(counts) for counts in (control, experiment)]
    found = _signal(KINDS[name], shuffled[0], shuffled[1])
    assert found.z == pytest.approx(_signal(KINDS[name], control, experiment).z)


@pytest.mark.parametrize("name", LATENCIES)
@pytest.mark.parametrize("step", [-16, 1, 24])
def test_a_service_that_is_slower_as_a_whole_has_the_same_ratio_of_quantiles(
    name: str, step: int
) -> None:
    pair = drawn(name, 8)
    control, experiment = pair.control.counts, pair.experiment.counts
    here = _signal(KINDS[name], control, experiment)
    moved = [np.roll(counts, step, axis=1) for counts in (control, experiment)]
    there = _signal(KINDS[name], moved[0], moved[1])
    assert (there.z, there.distance, there.reach) == pytest.approx(
        (here.z, here.distance, here.reach)
    )


def test_bad_events_of_a_few_users_count_for_less() -> None:
    at = Boundary(delta=0.005, plus=0.005)
    control, spread = share(6400, 64).counts, share(6400, 256).counts
    alike = share(6400, 0).counts
    alike[:4] += [[-64, 64]]
    assert alike.sum(axis=0).tolist() == spread.sum(axis=0).tolist()
    assert _shares(control, alike, at).z < _shares(control, spread, at).z / 3


def test_clusters_are_as_many_as_equal_replicates() -> None:
    def clusters(good: Sequence[float]) -> tuple[float, float]:
        shares, latencies = np.zeros((64, 2)), np.zeros((64, 161))
        shares[: len(good), 0] = latencies[: len(good), 80] = good
        if good:
            of_cdf = LatencyCdf(Sample(latencies), 0.5).split(80.5).clusters
            assert of_cdf == pytest.approx(clusters_of(latencies))
        return events_of(shares).clusters, clusters_of(latencies)

    assert clusters([1.0] * 64) == pytest.approx((64, 64))
    assert clusters([0.0, 500.0]) == pytest.approx((1, 1))
    assert clusters([10.0, 10.0]) == pytest.approx((2, 2))
    assert clusters([]) == (0, 0)


@given(samples(width(KINDS[LATENCIES[0]])), st.floats(-40, 200), st.sampled_from([0.5, 0.99]))
def test_a_deviance_can_be_told_of_any_place(sample: Sample, place: float, q: float) -> None:
    assume(sample.events)
    cdf = LatencyCdf(sample, q)
    total = cdf.total
    share = cdf.below(place) / total
    expected = total * reference_statistics.kl(share, q)
    assert cdf.deviance(place) == pytest.approx(expected, rel=1e-9, abs=max(1e-9, 1e-14 * total))


def test_a_quantile_beyond_all_bounds_is_in_the_outermost_bucket() -> None:
    of, last = P99.cells, P99.cells.beyond
    found = _quantile(
        cells({80: 1000}).counts,
        cells({last: 1000}).counts,
        P99,
        boundary_of(KINDS["latency p99"]),
    )
    assert found.distance == pytest.approx((last - 80) * of.width - log(1.2))


@pytest.mark.parametrize(("slower", "told"), [(0, -1), (1, -1), (2, 0), (3, 1)])
def test_a_cell_that_has_both_quantiles_says_nothing(slower: int, told: int) -> None:
    # Two cells make the tolerance. Where in its cell a quantile is, is not known.
    control = cells({70: 10, 80: 10_000, 90: 10}).counts
    experiment = cells({70: 10, 80 + slower: 10_000, 95: 40}).counts
    found = _quantile(control, experiment, P99, boundary_of(KINDS["latency p99"]))
    assert np.sign(found.told) == told


def test_if_so_many_fail_that_no_quantile_is_left_it_cannot_be_compared() -> None:
    last = P99.cells.beyond
    control, experiment = cells({80: 9000, last: 1000}), cells({80: 5000, last: 5000})
    for pair in ((control, experiment), (experiment, control), (control, control)):
        at = boundary_of(KINDS["latency p99"])
        found = _quantile(pair[0].counts, pair[1].counts, P99, at)
        assert found.told == 0


@pytest.mark.parametrize("per_user", [1.0, 10.0, 1000.0])
def test_bad_events_that_were_not_seen_may_be_those_of_few_users(per_user: float) -> None:
    at = boundary_of(KINDS["success_rate, absolute"])
    none = share_of(share(20_000, 0).counts, BAD)
    found, unknown = proportion(none, none, at, per_user), proportion(none, none, at)
    assert found.z == pytest.approx(unknown.z / per_user**0.5)
    few, more = share(20_000, 20).counts, share(20_000, 30).counts
    z, variance = reference_statistics.proportion(few, more, BAD, at, per_user)
    known = proportion(share_of(few, BAD), share_of(more, BAD), at, per_user)
    assert (known.z, known.variance) == pytest.approx((z, variance))
