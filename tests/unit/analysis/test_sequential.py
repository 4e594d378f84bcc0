"""The mixture e-value is the one that adding up gives, and its bounds are its inverse."""

from dataclasses import replace
from math import exp, inf, log, sqrt

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from counterfault.proxy.analysis.sequential import (
    Signal,
    bounds,
    evidence,
    needed_times,
    two_sided_evidence,
)
from tests.support import reference_statistics

# So many degrees of freedom that a t-score is a normal one.
MANY = 1e12
scores = st.floats(-30, 30)
kappas = st.floats(-6, 6).map(lambda power: 10**power)
freedoms = st.floats(1, 126)


def _signal(z: float, kappa: float, freedom: float = MANY, error: float = 0.01) -> Signal:
    """A signal whose distance is so many standard errors."""
    return Signal(z * error, z, error**2, error * sqrt(kappa), freedom)


@pytest.mark.parametrize("z", [-3.0, -0.5, 0.0, 1.0, 2.5, 5.0])
@pytest.mark.parametrize("kappa", [0.01, 1.0, 30.0])
def test_evidence_within_is_a_mixture_of_likelihood_ratios(z: float, kappa: float) -> None:
    found = evidence(_signal(z, kappa)).within
    assert found == pytest.approx(log(reference_statistics.mixture_within(-z, kappa)), abs=1e-5)


@pytest.mark.parametrize("z", [-3.0, 0.0, 1.0, 4.0])
@pytest.mark.parametrize("kappa", [0.01, 1.0, 30.0])
def test_evidence_of_harm_is_mixed_over_near_and_far_effects(z: float, kappa: float) -> None:
    near, far = reference_statistics.mixture(z, kappa), reference_statistics.mixture(z, 100 * kappa)
    found = evidence(_signal(z, kappa)).harm
    assert found == pytest.approx(log(0.8 * near + 0.2 * far), abs=1e-4)


@pytest.mark.parametrize("kappa", [0.01, 1.0, 4.0])
@pytest.mark.parametrize("side", ["harm", "within"])
def test_at_the_boundary_an_e_value_is_1_on_average(kappa: float, side: str) -> None:
    # Up to 100 standard errors: of an e-value's average, the rare large values are a good part.
    z = np.linspace(-100, 100, 4001)
    logs = np.array([getattr(evidence(_signal(float(x), kappa)), side) for x in z])
    weighted = np.exp(logs - z**2 / 2) / sqrt(2 * np.pi)
    assert np.trapezoid(weighted, z) == pytest.approx(1.0, abs=0.001)


@given(st.floats(-15, 15), st.floats(-3, 3).map(lambda power: 10**power))
def test_either_side_counts_half(z: float, kappa: float) -> None:
    both = two_sided_evidence(_signal(z, kappa))
    assert both == pytest.approx(two_sided_evidence(_signal(-z, kappa)))
    most = log(reference_statistics.mixture(abs(z), kappa))
    assert most - log(2) - 1e-3 <= both <= most + 1e-3


@pytest.mark.parametrize("z", [-40.0, -20.0, -5.0])
@pytest.mark.parametrize("kappa", [0.1, 1.0, 100.0])
def test_the_farther_beyond_the_boundary_the_less_it_is_within(z: float, kappa: float) -> None:
    assert evidence(_signal(-z, kappa)).within < -1
    # Of a distribution that went on beyond the boundary, the far end would have been evidence.
    assert evidence(_signal(-z + 1, kappa)).within <= evidence(_signal(-z, kappa)).within


def test_what_is_blind_is_no_evidence() -> None:
    seen = Signal(0.1, 5.0, 4e-4, 0.02, MANY)
    half, wholly = replace(seen, blind=0.05), replace(seen, blind=0.2)
    assert half.told == pytest.approx(2.5)
    assert evidence(half) == evidence(replace(seen, z=2.5))
    assert (wholly.told, wholly.error) == (0.0, seen.error)
    low, high = bounds(wholly, 3.0, 3.0)
    assert low < 0 < high


@given(scores, scores, kappas, freedoms)
def test_evidence_rises_with_the_score(a: float, b: float, kappa: float, freedom: float) -> None:
    low, high = (evidence(_signal(z, kappa, freedom)) for z in sorted((a, b)))
    assert low.harm <= high.harm + 1e-9
    assert low.within >= high.within - 1e-9


@given(scores, kappas, freedoms)
def test_few_clusters_weaken_evidence(z: float, kappa: float, freedom: float) -> None:
    few, many = evidence(_signal(z, kappa, freedom)), evidence(_signal(z, kappa))
    assert few.harm <= max(many.harm, 0.0) + 1e-6
    assert few.within <= max(many.within, 0.0) + 1e-6


@pytest.mark.parametrize("freedom", [14, 30, 126])
@pytest.mark.parametrize("t", [0.5, 2.0, 3.0, 5.0, 8.0])
def test_a_t_score_counts_as_the_normal_score_that_is_as_unlikely(t: float, freedom: float) -> None:
    z = reference_statistics.normal_score(reference_statistics.student_tail(t, freedom))
    as_t, as_normal = evidence(_signal(t, 1.0, freedom)), evidence(_signal(z, 1.0))
    assert as_t.harm == pytest.approx(as_normal.harm, abs=0.03, rel=0.01)


@given(scores, kappas, freedoms, st.floats(1, 10), st.floats(1, 10))
def test_bounds_pass_the_boundary_just_when_evidence_decides(
    z: float, kappa: float, freedom: float, harm_at: float, within_at: float
) -> None:
    signal = _signal(z, kappa, freedom)
    found = evidence(signal)
    # Bounds are found by halving: so close to a decision, they may be on the other side of it.
    assume(abs(found.harm - harm_at) > 0.01)
    assume(abs(found.within - within_at) > 0.01)
    low, high = bounds(signal, harm_at, within_at)
    assert (low > 0) == (found.harm >= harm_at)
    assert (high < 0) == (found.within >= within_at)
    assert low <= signal.distance <= high


def test_no_information_is_no_evidence() -> None:
    nothing = evidence(Signal(0.0, 0.0, 0.0, 0.0, 1.0))
    assert exp(nothing.harm) == pytest.approx(1.0)
    assert exp(nothing.within) == pytest.approx(1.0)


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.001])
def test_so_many_times_as_many_events_decide(alpha: float) -> None:
    signal = _signal(-0.5, 0.25)
    times = needed_times(signal, log(1 / alpha))
    then = _signal(-0.5 * times**0.5, 0.25 * times)
    assert evidence(then).within == pytest.approx(log(1 / alpha), abs=0.01)


def test_what_is_not_within_never_will_be() -> None:
    assert needed_times(_signal(0.5, 0.25), log(20)) == inf
