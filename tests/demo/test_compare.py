"""The interim comparison: known numbers, every result, and how often it is wrong."""

from collections.abc import Sequence

import numpy as np
import pytest

from proxy.demo.compare import Comparison, Result, compare, conclude, sample
from proxy.units import tolerance

REPLICATES = 64


def evenly(good: int, bad: int) -> list[tuple[int, int]]:
    return [(good, bad)] * REPLICATES


def success(
    control: Sequence[tuple[int, int]], experiment: Sequence[tuple[int, int]]
) -> Comparison:
    return compare("pages", "success_rate", tolerance("1pp"), control, experiment)


HELD = success(evenly(50, 0), evenly(50, 0))
REFUTED = success(evenly(50, 0), evenly(30, 20))
UNSURE = success(evenly(1, 0), evenly(1, 0))


def test_the_variance_is_that_of_the_replicates() -> None:
    # R = 4/20; deviations 1 - 2, 3 - 2; K/(K-1) * (1 + 1) / 20^2
    found = sample([(9, 1), (7, 3)])
    assert (found.events, found.bad) == (20, 0.2)
    assert found.variance == pytest.approx(2 * 2 / 400)
    assert found.clusters == pytest.approx(2)


def test_alike_replicates_are_not_surer_than_independent_requests() -> None:
    found = sample(evenly(8, 2))
    assert found.variance == pytest.approx(0.2 * 0.8 / 640, rel=0.01)


def test_no_bad_request_at_all_leaves_a_doubt() -> None:
    few, many = sample(evenly(1, 0)), sample(evenly(100, 0))
    assert few.variance > many.variance > 0


def test_the_interval_is_students() -> None:
    few = [(9, 1), (7, 3)] * 5
    found = success(few, few)
    margin = (2 * sample(few).variance) ** 0.5
    assert found.high == pytest.approx(2.1009 * margin, rel=0.001)  # t(0.975, 18)
    assert found.low == -found.high


def test_equal_cohorts_hold() -> None:
    assert HELD.result is Result.HELD


def test_a_difference_beyond_the_tolerance_refutes() -> None:
    assert REFUTED.estimate == pytest.approx(0.4)
    assert REFUTED.result is Result.REFUTED


def test_fewer_failures_than_in_control_hold() -> None:
    assert success(evenly(30, 20), evenly(50, 0)).result is Result.HELD


def test_too_few_requests_are_inconclusive() -> None:
    assert UNSURE.result is Result.INCONCLUSIVE


@pytest.mark.parametrize("control", [[], [(0, 0)] * REPLICATES])
def test_an_empty_cohort_is_inconclusive(control: list[tuple[int, int]]) -> None:
    assert success(control, evenly(0, 50)).result is Result.INCONCLUSIVE


@pytest.mark.parametrize("one", [(500, 0), (0, 500)])
def test_one_user_who_dominates_is_inconclusive(one: tuple[int, int]) -> None:
    assert success(evenly(50, 0), [(1, 0)] * 63 + [one]).result is Result.INCONCLUSIVE


@pytest.mark.parametrize(
    ("kind", "text", "allowed"),
    [
        ("success_rate", "1pp", 0.01),
        ("success_rate", "10%", 0.08),
        ("slow", "2pp", 0.02),
        ("slow", "10%", 0.02),
    ],
)
def test_a_relative_tolerance_is_of_controls_level(kind: str, text: str, allowed: float) -> None:
    found = compare("x", kind, tolerance(text), evenly(8, 2), evenly(8, 2))
    assert found.allowed == pytest.approx(allowed)


def test_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="knows success_rate and slow, not latency"):
        compare("x", "latency", tolerance("10%"), evenly(1, 0), evenly(1, 0))


@pytest.mark.parametrize(
    ("comparisons", "planned", "performed", "result"),
    [
        ([HELD, HELD], 100, 100, Result.HELD),
        ([HELD, REFUTED], 100, 100, Result.REFUTED),
        ([UNSURE, REFUTED], 100, 100, Result.REFUTED),
        ([HELD, UNSURE], 100, 100, Result.INCONCLUSIVE),
        ([], 100, 100, Result.INCONCLUSIVE),
        ([HELD], 100, 79, Result.INCONCLUSIVE),
        ([HELD], 0, 0, Result.INVALID),
        ([REFUTED], 100, 0, Result.INVALID),
    ],
)
def test_a_hypothesis_holds_only_as_a_whole(
    comparisons: list[Comparison], planned: int, performed: int, result: Result
) -> None:
    assert conclude(comparisons, planned, performed) is result


@pytest.mark.parametrize(
    ("experiment", "wrong"), [(0.05, Result.REFUTED), (0.06, Result.REFUTED), (0.06, Result.HELD)]
)
def test_false_alarms_are_rare_although_users_differ(experiment: float, wrong: Result) -> None:
    rng = np.random.default_rng(7)
    runs = [success(_users(rng, 0.05), _users(rng, experiment)) for _ in range(1000)]
    # 2.5 % on each side at the tolerance's edge, and less where nothing differs
    assert sum(run.result is wrong for run in runs) / 1000 < 0.045


def _users(rng: np.random.Generator, bad: float) -> list[tuple[int, int]]:
    """600 users with failure rates and popularities of their own, spread over replicates."""
    popularity = np.arange(1, 601) ** -0.7
    requests = rng.poisson(3000 * popularity / popularity.sum())
    failed = rng.binomial(requests, rng.beta(2 * bad, 2 * (1 - bad), 600))
    counts = np.zeros((REPLICATES, 2), dtype=int)
    np.add.at(counts, rng.integers(0, REPLICATES, 600), np.stack([requests - failed, failed], 1))
    return [(int(good), int(lost)) for good, lost in counts]
