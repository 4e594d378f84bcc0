"""What Envoy counts by itself: everybody who is in no experiment."""

from typing import Any

from proxy import tally
from proxy.engines.envoy.stats import BUCKETS, rows
from proxy.tally import DURATION_BUCKETS


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
    assert found == {
        tally.requests("inbound", "", "bystander", code): n for code, n in codes.items()
    }


def test_durations_come_in_the_buckets_that_are_exported() -> None:
    edges = [0, 3, 3, 5, *([5] * (len(BUCKETS) - 5)), 9]
    histogram = {
        "name": "counterfault.inbound.duration",
        "buckets": [
            {"upper_bound": bound, "cumulative": n} for bound, n in zip(BUCKETS, edges, strict=True)
        ],
    }
    stats: list[dict[str, Any]] = [
        {"histograms": [histogram]},
        {"name": "counterfault.inbound.us", "value": 2_500_000},
        {"name": "http.inbound.lua.errors", "value": 2},
    ]
    assert dict(rows(stats)) == {
        (tally.SECONDS, "inbound", "", "bystander", 1): 3,
        (tally.SECONDS, "inbound", "", "bystander", 3): 2,
        (tally.SECONDS, "inbound", "", "bystander", len(DURATION_BUCKETS)): 4,
        tally.seconds_sum("inbound", "", "bystander"): 2.5,
        tally.internal("assign"): 2,
    }
