"""What Envoy counts by itself: everybody who is in no experiment."""

from bisect import bisect_left
from collections import Counter
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfault.proxy.engines.envoy.config.histogram_buckets import BUCKETS
from counterfault.proxy.engines.envoy.telemetry.admin_stats import rows
from counterfault.proxy.measurement.keys import (
    DurationKey,
    DurationSumKey,
    InternalErrorKey,
    RequestKey,
)
from counterfault.proxy.values.buckets import DURATION_BUCKETS


def requests(code: int, flags: str, value: int) -> dict[str, object]:
    return {"name": f"counterfault.inbound.requests.code.{code}.flags.{flags}", "value": value}


def test_whole_answers_and_others() -> None:
    found = dict(
        rows(
            [
                requests(200, "-", 5),
                requests(204, "-", 2),
                requests(200, "DC", 3),
                requests(200, "UC", 1),
                requests(503, "UC", 4),
                requests(503, "UF,URX", 6),
                requests(0, "DC", 7),
                requests(101, "DC", 8),
            ]
        )
    )
    codes = {"2xx": 7, "5xx": 10, "error": 11, "1xx": 8}
    assert found == {RequestKey("inbound", "", "bystander", code): n for code, n in codes.items()}


def histogram(counts: dict[float, int]) -> dict[str, Any]:
    """So many events below each bound, in microseconds, and above the one before."""
    cumulative = accumulate(counts.get(bound, 0) for bound in BUCKETS)
    buckets = [
        {"upper_bound": bound, "cumulative": n}
        for bound, n in zip(BUCKETS, cumulative, strict=True)
    ]
    return {"histograms": [{"name": "counterfault.inbound.duration", "buckets": buckets}]}


def test_durations_come_in_the_buckets_that_are_exported() -> None:
    between = BUCKETS[BUCKETS.index(2000) + 1]
    counts = {500.0: 1, 1000.0: 2, 1414.214: 3, between: 4, 2828.427: 1, BUCKETS[-1]: 2}
    found = dict(rows([histogram(counts), {"name": "http.inbound.lua.errors", "value": 2}]))
    seconds = found.pop(DurationSumKey("inbound", "", "bystander"))
    assert found == {
        DurationKey("inbound", "", "bystander", 0): 3,
        DurationKey("inbound", "", "bystander", 1): 3,
        DurationKey("inbound", "", "bystander", 3): 5,
        DurationKey("inbound", "", "bystander", len(DURATION_BUCKETS)): 2,
        InternalErrorKey("assign"): 2,
    }
    assert seconds == pytest.approx(120.02, abs=0.005)


@given(st.lists(st.floats(0.0001, 60), min_size=200, max_size=300))
def test_the_sum_of_durations_is_within_a_bucket(durations: list[float]) -> None:
    counts = Counter(BUCKETS[bisect_left(BUCKETS, duration * 1e6)] for duration in durations)
    found = dict(rows([histogram(counts)]))
    said = found[DurationSumKey("inbound", "", "bystander")]
    assert said == pytest.approx(sum(durations), rel=0.1)


def test_every_exported_bound_is_one_of_envoys() -> None:
    assert {round(bound * 1e6, 3) for bound in DURATION_BUCKETS} < set(BUCKETS)
    assert list(BUCKETS) == sorted(set(BUCKETS))
