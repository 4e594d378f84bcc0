"""The sample ratio: sound cohorts pass however often one looks, lopsided ones are found."""

from math import lgamma, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfault.proxy.analysis.sample_ratio import ALPHA, SampleRatio
from counterfault.proxy.experiments.cohorts import CIRCLE, Cohort
from counterfault.proxy.measurement.user_sample import UserSample
from tests.support import reference_statistics

kept = st.integers(0, 2**14)


def _chance(control: int, experiment: int, share: float) -> float:
    """log of p^experiment (1-p)^control for the share that was asked for."""
    return experiment * log(share) + control * log(1 - share)


@pytest.mark.parametrize("share", [0.5, 0.2])
@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (10, 5), (300, 280), (4000, 1000)])
def test_the_e_value_is_an_average_of_likelihood_ratios(
    counts: tuple[int, int], share: float
) -> None:
    control, experiment = counts
    average = reference_statistics.beta_average(control, experiment, 1e3 * share, 1e3 * (1 - share))
    expected = average - _chance(control, experiment, share)
    assert SampleRatio(control, experiment, share).evidence == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("share", [0.5, 0.1, 1 / 3])
@pytest.mark.parametrize("users", [1, 40, 400])
def test_for_sound_cohorts_an_e_value_is_1_on_average(share: float, users: int) -> None:
    hits = np.arange(users + 1)
    ways = np.array([lgamma(users + 1) - lgamma(k + 1) - lgamma(users - k + 1) for k in hits])
    logs = [
        SampleRatio(users - int(k), int(k), share).evidence + _chance(users - int(k), int(k), share)
        for k in hits
    ]
    assert np.exp(ways + np.array(logs)).sum() == pytest.approx(1.0, rel=1e-6)


@given(kept, kept)
def test_neither_cohort_is_preferred(control: int, experiment: int) -> None:
    one, other = SampleRatio(control, experiment, 0.5), SampleRatio(experiment, control, 0.5)
    assert one.evidence == pytest.approx(other.evidence, abs=1e-6)


@given(kept, kept, st.floats(1e-4, 1 - 1e-4))
def test_no_counts_raise(control: int, experiment: int, share: float) -> None:
    assert SampleRatio(control, experiment, share).evidence > -20


def _first_alarm(rng: np.random.Generator, share: float, asked: float, users: int) -> int | None:
    """After how many users it is said that the ratio is off, with a look every 50."""
    hits = np.cumsum(rng.random(users) < share)
    for n in range(50, users + 1, 50):
        experiment = int(hits[n - 1])
        if SampleRatio(n - experiment, experiment, asked).off:
            return n
    return None


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_sound_cohorts_raise_no_alarm(share: float) -> None:
    rng = np.random.default_rng(11)
    alarms = [_first_alarm(rng, share, share, 16_000) for _ in range(60)]
    # Of 60 runs at 0.1 %, one may; two happen once in 600 times.
    assert sum(alarm is not None for alarm in alarms) <= 1


def test_48_of_52_is_found_within_the_users_that_are_kept() -> None:
    rng = np.random.default_rng(12)
    found = sorted(_first_alarm(rng, 0.48, 0.5, 16_000) or 10**9 for _ in range(31))
    assert found[15] < 13_000
    assert sum(n < 10**9 for n in found) >= 20


def test_users_who_are_kept_have_the_cohorts_true_proportion_while_the_threshold_moves() -> None:
    alarms = 0
    for seed in range(20):
        rng = np.random.default_rng([13, seed])
        users = UserSample(512)
        off = False
        for number, experiment in zip(
            rng.integers(0, CIRCLE, 8000).tolist(), (rng.random(8000) < 0.5).tolist(), strict=True
        ):
            users.add(Cohort.EXPERIMENT if experiment else Cohort.CONTROL, number)
            off = off or SampleRatio(len(users.control), len(users.experiment), 0.5).off
        assert users.threshold <= CIRCLE // 16
        alarms += off
    assert alarms == 0


def test_the_alarm_is_at_one_in_a_thousand() -> None:
    assert ALPHA == 0.001
    assert not SampleRatio(0, 0, 0.5).off
    assert SampleRatio(10_000, 0, 0.5).off
    assert SampleRatio(0, 10_000, 0.5).off
