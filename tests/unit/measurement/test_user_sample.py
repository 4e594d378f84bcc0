"""Of the users a run has met, exactly those below one threshold are kept, for both cohorts."""

import random

from hypothesis import given
from hypothesis import strategies as st

from counterfault.proxy.experiments.cohorts import CIRCLE, Cohort
from counterfault.proxy.measurement.user_sample import MOST, UserSample

COHORTS = (Cohort.CONTROL, Cohort.EXPERIMENT)
# Two at least: of each cohort there may be one whose hash is zero, below every threshold.
mosts = st.integers(2, 20)
met = st.lists(st.tuples(st.sampled_from(COHORTS), st.integers(0, CIRCLE - 1)), max_size=80)
type Met = list[tuple[Cohort, int]]


def _all(stream: Met, most: int) -> UserSample:
    users = UserSample(most)
    for cohort, number in stream:
        users.add(cohort, number)
    return users


@given(met, mosts)
def test_exactly_the_users_below_the_threshold_are_kept(stream: Met, most: int) -> None:
    users = _all(stream, most)
    for cohort in COHORTS:
        seen = {number for of, number in stream if of is cohort}
        assert users.of(cohort) == {number for number in seen if number < users.threshold}
    assert len(users.control) + len(users.experiment) <= most


@given(met, mosts)
def test_the_threshold_is_no_lower_than_it_must_be(stream: Met, most: int) -> None:
    users = _all(stream, most)
    below = {(cohort, number) for cohort, number in stream if number < 2 * users.threshold}
    assert users.threshold == CIRCLE or len(below) > most


@given(met, mosts, st.data())
def test_order_repetition_and_workers_make_no_difference(
    stream: Met, most: int, data: st.DataObject
) -> None:
    whole = _all(stream, most)
    assert _all(data.draw(st.permutations(stream * 2)), most) == whole
    # Workers hand on whom they keep at that moment; each has met some of the users.
    workers, union = [UserSample(most) for _ in range(3)], UserSample(most)
    for cohort, number in stream:
        worker = data.draw(st.sampled_from(workers))
        if worker.add(cohort, number):
            union.add(cohort, number)
    assert union == whole


def test_a_user_is_new_once() -> None:
    users = UserSample(2)
    assert users.add(Cohort.CONTROL, 5)
    assert not users.add(Cohort.CONTROL, 5)
    users.add(Cohort.CONTROL, 6)
    users.add(Cohort.EXPERIMENT, CIRCLE // 2)  # one too many: it goes itself
    assert users.threshold == CIRCLE // 2
    assert not users.add(Cohort.EXPERIMENT, CIRCLE // 2)


def test_estimates_are_exact_below_the_bound_and_close_above_it() -> None:
    chance = random.Random(4)
    users = UserSample()
    for number in range(100_000):
        cohort = Cohort.EXPERIMENT if number % 4 == 0 else Cohort.CONTROL
        users.add(cohort, chance.randrange(CIRCLE))
        if number == 9_999:
            assert users.estimate(Cohort.EXPERIMENT) == 2500
            assert users.estimate(Cohort.CONTROL) == 7500
    assert MOST // 4 < len(users.control) + len(users.experiment) <= MOST
    # A quarter of 12,500 kept users or more: a standard error of 2 %; five of them.
    assert abs(users.estimate(Cohort.EXPERIMENT) - 25_000) < 2_500
    assert abs(users.estimate(Cohort.CONTROL) - 75_000) < 4_500
