"""Durations, shares and tolerances are read exactly, and written as a person would."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfault.proxy.values.units import (
    Tolerance,
    duration,
    human,
    percent,
    positive,
    roughly,
    share,
    shown,
    tolerance,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0),
        ("250us", 0.00025),
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("3s", 3),
        ("30m", 1800),
        ("1h", 3600),
        ("2d", 172800),
    ],
)
def test_a_duration_is_read_in_seconds(text, seconds):
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value", ["", "3", 3, 3.0, True, None, "3 s", "-3s", "3S", "1h30m", ".5s", "1e3s", "٣s", "3s\n"]
)
def test_what_is_no_duration_is_refused(value):
    with pytest.raises(ValueError, match="must be a duration such as 250ms, 3s, 30m or 1h, not"):
        duration(value)


def test_a_positive_duration_is_longer_than_nothing():
    assert positive("1us") > 0
    with pytest.raises(ValueError, match="must be longer than 0s"):
        positive("0.0s")


@pytest.mark.parametrize(("text", "fraction"), [("0%", 0), ("0.05%", 0.0005), ("100%", 1)])
def test_a_share_is_read_as_a_fraction(text, fraction):
    assert share(text) == pytest.approx(fraction)


@pytest.mark.parametrize("value", ["", "1", 0.01, "1 %", "-1%", "1pp", None, ["1%"]])
def test_what_is_no_share_is_refused(value):
    with pytest.raises(ValueError, match=r"must be a share such as 1% or 0\.05%, not"):
        share(value)


def test_a_share_is_at_most_everybody():
    with pytest.raises(ValueError, match=r"must be at most 100%, not 100\.1%"):
        share("100.1%")


@pytest.mark.parametrize(
    ("text", "size"), [("0.5pp", Tolerance(0.005, False)), ("20%", Tolerance(0.2, True))]
)
def test_a_tolerance_is_absolute_or_relative(text, size):
    assert tolerance(text) == size
    assert str(size) == text


@pytest.mark.parametrize("value", ["0pp", "0%", "1001%"])
def test_a_tolerance_has_bounds(value):
    with pytest.raises(ValueError, match=f"must be above 0 and at most 1000%, not {value}"):
        tolerance(value)


def test_an_absolute_tolerance_leaves_room_for_worse():
    assert tolerance("98pp") == Tolerance(0.98, False)
    with pytest.raises(ValueError, match="must be below 99pp"):
        tolerance("100pp")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.00025, "250us"),
        (0.4, "400ms"),
        (1.5, "1.5s"),
        (60, "1m"),
        (90, "90s"),
        (3600, "1h"),
        (5400, "90m"),
        (12345, "12345s"),
        (2592000, "30d"),
    ],
)
def test_seconds_are_written_in_the_unit_a_person_would_choose(seconds, text):
    assert human(seconds) == text


@given(st.floats(1e-6, 1e7))
def test_what_is_written_can_be_read_and_is_about_the_same(seconds):
    assert duration(human(seconds)) == pytest.approx(seconds, rel=1e-3)


@pytest.mark.parametrize(("fraction", "text"), [(0.0005, "0.05%"), (0.1 + 0.2, "30%"), (1, "100%")])
def test_a_fraction_is_written_as_a_share(fraction, text):
    assert percent(fraction) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (0, "0"),
        (1, "1"),
        ("010", "'010'"),
        ({"a": 1}, "a mapping"),
        ([1], "a list"),
        ("x" * 50, "'" + "x" * 38 + "…"),
    ],
)
def test_a_value_is_quoted_in_the_words_of_yaml_and_briefly(value, text):
    assert shown(value) == text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "1s"),
        (60, "60s"),
        (91, "2m"),
        (725, "12m"),
        (5500, "2h"),
        (36 * 3600, "36h"),
        (259_200, "3d"),
        (9e8, "10,417d"),
    ],
)
def test_a_time_to_wait_is_guessed_as_a_person_would(seconds, said):
    assert roughly(seconds) == said
