"""Samples add up in any order, and what has come since is a difference."""

from functools import reduce

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from counterfault.proxy.measurement.samples import (
    BAD,
    GOOD,
    LATENCY_COLUMNS,
    SHARE_COLUMNS,
    Pair,
    Sample,
    column,
    columns_for,
    columns_of,
)
from counterfault.proxy.values.buckets import LEAST_RISE, latency_cells
from tests.support.samples import KINDS, samples, share

# Below 2^53 in sum, up to which floats count exactly.
MOST = 10**10
widths = st.sampled_from([SHARE_COLUMNS, LATENCY_COLUMNS])


@given(st.data(), widths)
def test_the_sum_does_not_depend_on_the_order(data: st.DataObject, width: int) -> None:
    parts = data.draw(st.lists(samples(width, MOST), min_size=1, max_size=5))
    other = data.draw(st.permutations(parts))
    whole = reduce(Sample.__add__, parts)
    assert reduce(Sample.__add__, other) == whole
    middle = len(parts) // 2
    left = reduce(Sample.__add__, parts[:middle], Sample.empty(width))
    right = reduce(Sample.__add__, parts[middle:], Sample.empty(width))
    assert left + right == whole
    assert whole.events == sum(part.events for part in parts)


@given(st.data(), widths)
def test_what_has_come_since_is_the_difference_of_cumulative_counts(
    data: st.DataObject, width: int
) -> None:
    before, since = data.draw(samples(width, MOST)), data.draw(samples(width, MOST))
    assert (before + since) - before == since
    pair, later = Pair(before, since), Pair(since, before)
    assert (pair + later) - pair == later


@given(st.data(), widths)
def test_a_sample_survives_json(data: st.DataObject, width: int) -> None:
    sample = data.draw(samples(width, MOST))
    said = sample.to_json()
    assert Sample.from_json(said, width) == sample
    assert all(isinstance(n, int) for counts in said.values() for n in counts)
    assert all(any(counts) for counts in said.values())


def test_adding_leaves_both_as_they_were() -> None:
    one, other = share(100, 5), share(64, 64)
    before = one.counts.copy(), other.counts.copy()
    one + other
    assert np.array_equal(one.counts, before[0])
    assert np.array_equal(other.counts, before[1])


def test_counts_are_told_by_outcome_and_by_cell() -> None:
    sample = share(100, 5)
    assert (sample.events, sample.bad) == (100, 5)
    assert sample.cells == {GOOD: 95, BAD: 5}
    assert [int(counts.sum()) for counts in sample.outcomes] == [95, 5]
    assert Pair(sample, share(90, 0)).fewest == 90
    assert Sample.empty().cells == {}


def test_a_latency_is_neither_good_nor_bad() -> None:
    sample = Sample.empty(LATENCY_COLUMNS)
    sample.counts[3, 1] = 7
    assert (sample.events, sample.bad) == (7, 0)
    assert [int(counts.sum()) for counts in sample.outcomes] == [7, 0]


def test_every_cell_a_worker_names_has_a_column() -> None:
    assert (column("good"), column("bad")) == (GOOD, BAD)
    assert columns_of("good") == SHARE_COLUMNS
    for rise in (LEAST_RISE, 0.1, 0.2, 0.5, 1.0, 10.0):
        cells = latency_cells(rise)
        for seconds in (0.0, cells.bounds[0], 0.2, cells.bounds[-1], 1e9):
            cell = cells.cell(seconds)
            assert column(cell) < cells.columns <= columns_of(cell) == LATENCY_COLUMNS
    for metric in KINDS.values():
        of = metric.latency
        assert columns_for(metric) == (SHARE_COLUMNS if of is None else of.cells.columns)
