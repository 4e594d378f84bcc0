"""Recorded durations are drawn as they were recorded."""

from random import Random
from statistics import quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from counterfault.proxy.faults.actions import Delay
from counterfault.proxy.faults.latency import Latency
from counterfault.proxy.faults.recorded_latency import recorded
from counterfault.proxy.values.request import Request

REQUEST = Request(b"GET", b"a", b"/", ())


def drawn(content, count=20_000):
    files = {"slow.csv": content}
    settings = {"recorded": "slow.csv"}
    latency = Latency.model_validate(settings, context={"files": files.__getitem__})
    random = Random(1)
    actions = [latency.act(REQUEST, random.random) for _ in range(count)]
    return [action.seconds for action in actions if isinstance(action, Delay)]


def test_values_are_drawn_with_the_quantiles_they_have():
    random = Random(2)
    values = [random.lognormvariate(-2, 0.7) for _ in range(5000)]
    cuts = quantiles(drawn("\n".join(f"{v:.6f}" for v in values).encode()), n=100)
    wanted = quantiles(values, n=100)
    assert [cuts[i] for i in (49, 89, 98)] == pytest.approx([wanted[i] for i in (49, 89, 98)], 0.05)


def test_buckets_are_drawn_on_straight_lines_within_them():
    buckets = b"le,count\n0.1,100\n0.2,500\n0.4,900\n0.8,990\n+Inf,1000\n"
    cuts = quantiles(drawn(buckets), n=100)
    assert cuts[49] == pytest.approx(0.2, rel=0.05)
    assert cuts[89] == pytest.approx(0.4, rel=0.05)
    assert cuts[98] == pytest.approx(0.8, rel=0.05)
    assert max(drawn(buckets)) == 0.8


def test_empty_buckets_are_never_drawn():
    found = drawn(b"le,count\n0.1,0\n0.2,10\n0.3,10\n0.4,10\n0.5,20\n")
    assert all(0.1 <= v <= 0.2 or 0.4 <= v <= 0.5 for v in found)
    assert sum(v <= 0.2 for v in found) / len(found) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    "said", ["0.25", "250ms", " 250ms ", "# why\n\n0.25", "2.5e-1", "250000us"]
)
def test_a_value_is_in_seconds_or_has_a_unit(said):
    assert drawn(said.encode(), 2) == [0.25, 0.25]


@given(st.lists(st.floats(0, 3600), min_size=1, max_size=50), st.floats(0, 1), st.floats(0, 1))
def test_more_of_the_requests_never_wait_less(values, u, v):
    found = recorded("a.csv", "\n".join(map(repr, values)).encode(), 3600)
    low, high = sorted((u, v))
    assert min(values) <= found.quantile(low) <= found.quantile(high) <= max(values)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "slow.csv has no values"),
        (b"# nothing\n", "slow.csv has no values"),
        (b"0.1\nfast\n", "slow.csv:2: must be a duration of 0 to 3600 seconds such as"),
        (b"-1", "slow.csv:1: must be a duration"),
        (b"nan", "slow.csv:1: must be a duration"),
        (b"3601", "slow.csv:1: must be a duration"),
        (b"0.1,0.2", "slow.csv:1: must be a duration"),
        (b"\xff", "slow.csv must be UTF-8"),
        (b"le,count\n", "slow.csv has no values in buckets with a bound"),
        (b"le,count\n+Inf,5\n", "slow.csv has no values in buckets with a bound"),
        (b"le,count\n0.1,0\n", "slow.csv has no values in buckets with a bound"),
        (b"le,count\n0.1,5\n0.1,6\n", "slow.csv:3: bounds and cumulative counts must rise"),
        (b"le,count\n0.1,5\n0.2,4\n", "slow.csv:3: bounds and cumulative counts must rise"),
        (b"le,count\n0.1\n", "slow.csv:2: must be a bound above 0 and a count such as"),
        (b"le,count\n0,5\n", "slow.csv:2: must be a bound above 0 and a count such as"),
        (b"le,count\n4000,5\n", "slow.csv:2: bounds must be at most 3600 seconds"),
        (b"x" * (1 << 20) + b"x", "slow.csv must be at most 1024 KiB"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(content, said):
    with pytest.raises(ValidationError) as raised:
        drawn(content)
    assert said in str(raised.value)
