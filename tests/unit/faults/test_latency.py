"""Every latency is one inverse distribution function, and keeps to what was asked."""

from random import Random
from statistics import quantiles

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from counterfault.proxy.faults.actions import Delay
from counterfault.proxy.faults.latency import LONGEST, Latency
from counterfault.proxy.values.request import Request

REQUEST = Request(b"GET", b"a", b"/", ())


def drawn(settings, count=20_000):
    latency, random = Latency.model_validate(settings), Random(1)
    actions = [latency.act(REQUEST, random.random) for _ in range(count)]
    delays = [action.seconds for action in actions if isinstance(action, Delay)]
    assert len(delays) == count
    return sorted(delays)


@pytest.mark.parametrize(
    ("settings", "p50", "p99"),
    [
        ("400ms", 0.4, 0.4),
        ({"fixed": "400ms"}, 0.4, 0.4),
        ({"mean": "200ms", "jitter": "100ms"}, 0.2, 0.298),
        ({"p50": "400ms", "p99": "2s"}, 0.4, 2.0),
        ({"p50": "100ms", "p90": "400ms", "p99": "2s", "p999": "5s"}, 0.1, 2.0),
        ({"p99": "2s"}, 2.0, 2.0),
        ({"lognormal": {"median": "200ms", "sigma": 0.5}}, 0.2, 0.64),
        ({"p50": "400ms", "p99": "2s", "max": "1s"}, 0.4, 1.0),
    ],
)
def test_the_draws_have_the_percentiles_that_were_asked_for(settings, p50, p99):
    cuts = quantiles(drawn(settings), n=100)
    assert cuts[49] == pytest.approx(p50, rel=0.05)
    assert cuts[98] == pytest.approx(p99, rel=0.05)


@pytest.mark.parametrize("name", ["p75", "p90", "p95"])
def test_each_percentile_in_between_is_met(name):
    share = int(name[1:]) / 100
    delays = drawn({"p50": "100ms", name: "500ms", "p999": "5s"})
    assert delays[int(share * len(delays))] == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("settings", [{"p50": "1ms", "p75": "1h"}, {"p50": "1s", "p99": "2s"}])
def test_nobody_waits_for_ever(settings):
    latency = Latency.model_validate(settings)
    assert latency.quantile(1 - 2**-53) <= LONGEST
    assert latency.quantile(1 - 2**-53) == latency.quantile(0.999)


def test_a_spread_stays_within_its_jitter():
    delays = drawn({"mean": "200ms", "jitter": "200ms"})
    assert delays[0] >= 0
    assert delays[-1] <= 0.4


MILLISECONDS = st.integers(1, 10_000).map("{}ms".format)
SETTINGS = st.one_of(
    st.builds(lambda d: {"fixed": d}, MILLISECONDS),
    st.builds(lambda m, j: {"mean": f"{m + j}ms", "jitter": f"{j}ms"}, *[st.integers(0, 9999)] * 2),
    st.dictionaries(
        st.sampled_from(["p50", "p75", "p90", "p95", "p99", "p999"]),
        st.integers(1, 60_000),
        min_size=1,
    ).map(lambda points: dict(zip(sorted(points), _rising(points.values()), strict=True))),
    st.builds(
        lambda m, s: {"lognormal": {"median": m, "sigma": s}}, MILLISECONDS, st.floats(0.01, 3)
    ),
)


def _rising(values):
    return [f"{value}ms" for value in sorted(values)]


UNIT = st.floats(0, 1, exclude_max=True)


@given(SETTINGS, st.none() | MILLISECONDS, UNIT, UNIT)
def test_more_of_the_requests_never_wait_less(settings, most, u, v):
    latency = Latency.model_validate(settings | {"max": most})
    low, high = sorted((u, v))
    assert 0 <= latency.quantile(low) <= latency.quantile(high) <= LONGEST


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_a_lower_percentile_is_at_most_the_higher(p50, p99):
    assume(p99 < p50)
    with pytest.raises(ValidationError, match=r"must be at least p50 \("):
        Latency.model_validate({"p50": f"{p50}ms", "p99": f"{p99}ms"})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"p75": "3s", "p90": "2s", "p50": "1s"}, "must be at least p75 (3s)"),
        ({}, "must have one of fixed, mean, percentiles, lognormal, recorded, not none of them"),
        ({"fixed": "1s", "p50": "1s"}, "not fixed and percentiles"),
        ({"max": "1s"}, "not none of them"),
        ({"mean": "1s"}, "must have mean and jitter together"),
        ({"fixed": "1s", "jitter": "1s"}, "must have mean and jitter together"),
        ({"mean": "1s", "jitter": "2s"}, "jitter must be at most mean (1s)"),
        ({"p50": "0s"}, "must be longer than 0s"),
        ("61m", "less than or equal to 3600"),
        ("fast", "must be a duration such as"),
        (400, "must be a duration such as"),
        ({"lognormal": {"median": "1s", "sigma": 0}}, "greater than 0"),
        ({"lognormal": {"median": "1s", "sigma": 3.1}}, "less than or equal to 3"),
        ({"lognormal": {"median": "1s", "sigma": True}}, "valid number"),
        ({"lognormal": {"median": "1s"}}, "Field required"),
    ],
)
def test_what_is_no_distribution_is_refused(settings, said):
    with pytest.raises(ValidationError) as raised:
        Latency.model_validate(settings)
    assert said in str(raised.value)
