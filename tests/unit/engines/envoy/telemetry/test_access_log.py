"""Envoy's lines, counted as a worker counts its own requests."""

import pytest

from counterfault.proxy.engines.envoy.telemetry.access_log import AccessLogCounter, parse_line
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import Epoch
from counterfault.proxy.measurement.counters import Counters
from counterfault.proxy.measurement.keys import (
    DoseKey,
    DurationKey,
    DurationSumKey,
    FaultKey,
    FaultResult,
    RateKey,
    RequestKey,
    SteadyKey,
    UserKey,
)
from counterfault.proxy.values.buckets import duration_bucket, latency_bucket

EXPERIMENT = Experiment.model_validate(
    {
        "experiment": "x",
        "state": "running",
        "duration": "1h",
        "cohorts": {"experiment": "1%", "control": "1%"},
        "faults": [{"at": "inbound", "error": 503}, {"at": "inbound", "latency": "1s"}],
        "steady_state": [
            {"name": "good", "at": "inbound", "success_rate": {"drop": "1pp"}},
            {"name": "p99", "at": "inbound", "latency": {"quantile": 0.99, "rise": "20%"}},
            {
                "name": "orders",
                "at": "inbound",
                "match": {"regex": "/orders/[0-9]+"},
                "rate": {"drop": "5%"},
            },
        ],
    }
)
type Counts = dict[tuple[object, ...], float]
EPOCH = Epoch("1.0.running")


def line(
    code: str = "200",
    whole: str = "1500",
    kind: str = "DownstreamEnd",
    upstream: str = "10.0.0.1:80",
    metrics: str = "good,p99",
    path: str = "",
    status: str = "",
    faults: str = "",
    slot: int = 9,
) -> bytes:
    envoy = ("inbound", kind, code, "-", whole, "700", "42", upstream)
    own = ("x", EPOCH, "experiment", "7", "99", metrics, path, status, faults, str(slot))
    return "\t".join((*envoy, *own)).encode()


def counted(
    *lines: bytes, detours: dict[str, str] | None = None
) -> dict[tuple[object, ...], float]:
    counts = Counters()
    count = AccessLogCounter(counts)
    count.expect(EXPERIMENT, EPOCH, detours or {})
    for text in lines:
        if (found := parse_line(text)) is not None:
            count.add(found)
    return {key: n for key, n in counts.counts.items() if not isinstance(key, UserKey)}


def steady(metric: str, cell: str | int) -> tuple[object, ...]:
    return SteadyKey("x", EPOCH, metric, "experiment", 7, cell)


def test_an_exchange_counts_with_its_microseconds() -> None:
    found = counted(line())
    assert found == {
        RequestKey("inbound", "x", "experiment", "2xx"): 1,
        DurationKey("inbound", "x", "experiment", duration_bucket(0.0015)): 1,
        DurationSumKey("inbound", "x", "experiment"): 0.0015,
        steady("good", "good"): 1,
        steady("p99", latency_bucket(0.0015)): 1,
    }


def test_an_answer_that_was_not_whole_is_an_error_at_its_elapsed_time() -> None:
    found = counted(line(whole="-"), line(code="0", whole="-"))
    assert found[RequestKey("inbound", "x", "experiment", "error")] == 2
    assert found[steady("good", "bad")] == 2
    assert found[steady("p99", latency_bucket(0.042))] == 2


def test_an_upgrade_counts_once_when_it_is_answered() -> None:
    begun = line(code="101", whole="-", kind="DownstreamTunnelSuccessfullyEstablished")
    found = counted(begun, line(code="101", whole="-"))
    assert found[RequestKey("inbound", "x", "experiment", "1xx")] == 1
    assert found[steady("p99", latency_bucket(0.0007))] == 1


def test_what_was_injected_into_a_grpc_call_counts_as_what_it_means() -> None:
    found = counted(line(code="200", status="503", faults="0:performed"))
    assert found[RequestKey("inbound", "x", "experiment", "5xx")] == 1
    assert found[FaultKey("x", "inbound", "error", FaultResult.PERFORMED)] == 1


def test_faults_and_doses_are_counted_by_rule() -> None:
    found = counted(line(faults="1:overflow,0:performed"))
    assert found[FaultKey("x", "inbound", "latency", FaultResult.OVERFLOW)] == 1
    assert found[DoseKey("x", EPOCH, 1, FaultResult.PLANNED)] == 1
    assert found[DoseKey("x", EPOCH, 1, FaultResult.OVERFLOW)] == 1
    assert found[DoseKey("x", EPOCH, 0, FaultResult.PERFORMED)] == 1


def test_a_regex_is_looked_at_here() -> None:
    paths = [b"/orders/12", b"/orders/12/x", b"/\xc3\xa9"]
    found = counted(*(line(metrics="orders", path=path.hex()) for path in paths))
    assert found[RateKey("x", EPOCH, "orders", "experiment", 7, 9)] == 1


def test_a_detour_that_fell_back_is_counted_and_compared_with_nothing() -> None:
    detours = {"inbound": "127.0.0.1:7000"}
    found = counted(line(), line(upstream="127.0.0.1:7000"), detours=detours)
    assert found[RequestKey("inbound", "x", "experiment", "2xx")] == 2
    assert found[steady("good", "good")] == 1


@pytest.mark.parametrize("text", [b"", b"a\tb", line()[:-5] + b"\t", line(faults="0:maybe")])
def test_what_is_no_line_of_ours_is_an_error(text: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        counted(text)
