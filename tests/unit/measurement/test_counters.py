"""Counts of many workers become one that never goes down."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfault.proxy.experiments.lifecycle import Epoch
from counterfault.proxy.measurement.counters import Counters
from counterfault.proxy.measurement.exchanges import CODES, code_of
from counterfault.proxy.measurement.keys import KeptEpochs, Key, RequestKey, Rows, SteadyKey
from counterfault.proxy.measurement.totals import Totals
from counterfault.proxy.values.buckets import DURATION_BUCKETS, duration_bucket

keys = st.sampled_from([RequestKey("in", "", "bystander", c) for c in CODES])
counted = st.lists(st.tuples(st.integers(0, 3), keys, st.integers(1, 5)), max_size=60)


def test_only_changed_cells_are_taken_with_their_whole_value() -> None:
    one = RequestKey("in", "", "bystander", "2xx")
    other = RequestKey("in", "", "bystander", "5xx")
    counts = Counters()
    counts.add(one)
    counts.add(other)
    assert sorted(counts.take_changed()) == [(one, 1), (other, 1)]
    counts.add(one)
    assert counts.take_changed() == [(one, 2)]
    assert counts.take_changed() == []


@given(counted, st.data())
def test_the_sum_is_exact_whatever_the_order_and_repetition(
    counts: list[tuple[int, Key, int]], data: st.DataObject
) -> None:
    workers = [Counters() for _ in range(4)]
    reports: list[tuple[str, Rows]] = []
    for worker, key, amount in counts:
        workers[worker].add(key, amount)
        reports.append((str(worker), workers[worker].take_changed()))
    totals = Totals()
    for incarnation, rows in data.draw(st.permutations(reports * 2)):
        totals.update(incarnation, rows)
    for key in {key for _, key, _ in counts}:
        assert totals.get(key) == sum(n for _, k, n in counts if k == key)


@given(counted, st.sets(st.integers(0, 59)))
def test_counts_never_go_down_when_workers_die(
    counts: list[tuple[int, Key, int]], deaths: set[int]
) -> None:
    totals, workers, lives = Totals(), [Counters() for _ in range(4)], [0] * 4
    seen: dict[Key, float] = {}
    for i, (worker, key, amount) in enumerate(counts):
        if i in deaths:
            totals.retire(f"{worker}-{lives[worker]}")
            lives[worker] += 1
            workers[worker] = Counters()
        workers[worker].add(key, amount)
        totals.update(f"{worker}-{lives[worker]}", workers[worker].take_changed())
        assert totals.get(key) == seen.get(key, 0) + amount
        seen[key] = totals.get(key)


def test_forgotten_cells_begin_again() -> None:
    key = SteadyKey("x", Epoch("1.0.running"), "ok", "control", 3, "good")
    totals = Totals()
    totals.update("a", [(key, 5)])
    totals.forget_others(KeptEpochs([("y", key.epoch)]))
    assert totals.sample("x", key.epoch, "ok", "control", 2).events == 0


@given(st.floats(0, 200))
def test_a_duration_falls_in_the_bucket_that_bounds_it(duration: float) -> None:
    index = duration_bucket(duration)
    bounds = (0.0, *DURATION_BUCKETS, float("inf"))
    assert bounds[index] < duration or index == 0
    assert duration <= bounds[index + 1]


def test_codes_are_classes() -> None:
    assert [code_of(s) for s in (101, 200, 302, 404, 503, None, 99, 600)] == [
        *("1xx", "2xx", "3xx", "4xx", "5xx"),
        *("error", "error", "error"),
    ]


def test_a_sample_stays_as_it_is_and_is_the_same_until_it_grows() -> None:
    totals = Totals()
    key = SteadyKey("x", Epoch("1.0.running"), "m", "control", 3, "good")
    asked = ("x", key.epoch, "m", "control", 2)
    totals.update("w", [(key, 5.0)])
    first = totals.sample(*asked)
    assert totals.sample(*asked) is first
    totals.update("w", [(key, 7.0)])
    assert (first.events, totals.sample(*asked).events) == (5, 7)
    with pytest.raises(ValueError, match="read-only"):
        first.counts[3, 0] = 9
