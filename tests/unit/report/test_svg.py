"""Scales and ticks: a chart that lies about its numbers is worse than none."""

from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfault.proxy.report.svg import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    horizontal_scale,
    line,
    ticks,
    vertical_scale,
)

NUMBERS = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0.023, [0, 0.005, 0.01, 0.015, 0.02]),
        (-0.3, 0.7, [-0.2, 0, 0.2, 0.4, 0.6]),
        (0, 0, [0]),
    ],
)
def test_ticks_are_round(low, high, found):
    assert ticks(low, high) == pytest.approx(found)


@given(NUMBERS, st.floats(1e-6, 1e6))
def test_ticks_lie_within_and_are_few(low, size):
    high = low + size
    found = ticks(low, high)
    room = size * 1e-6 + abs(low) * 1e-9 + 1e-9
    assert len(found) <= 7
    assert all(low - room <= tick <= high + room for tick in found)


def test_a_scale_goes_from_edge_to_edge_and_no_further():
    x, y = horizontal_scale(0, 10), vertical_scale(0, 1)
    assert (x.at(0), x.at(5), x.at(10), x.at(99)) == (LEFT, (LEFT + RIGHT) / 2, RIGHT, RIGHT)
    assert (y.at(0), y.at(1), y.at(-1)) == (BOTTOM, TOP, BOTTOM)


def test_a_logarithmic_scale_gives_equal_ratios_equal_room():
    x = horizontal_scale(0.001, 1, log=True)
    assert isclose(x.at(0.01) - x.at(0.001), x.at(1) - x.at(0.1), abs_tol=0.2)


def test_a_line_is_broken_where_nothing_is_known():
    x, y = horizontal_scale(0, 4), vertical_scale(0, 1)
    parts = list(line(x, y, [(0, 0.1), (1, 0.2), (2, None), (3, 0.5)], "control"))
    assert [part.tag for part in parts] == ["polyline", "circle"]
