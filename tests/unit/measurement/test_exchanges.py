"""An exchange counts once, under the keys that all data planes share."""

from counterfault.proxy.experiments.cohorts import Cohort
from counterfault.proxy.experiments.lifecycle import Epoch
from counterfault.proxy.experiments.steady_state import Metric
from counterfault.proxy.measurement.counters import Counters
from counterfault.proxy.measurement.exchanges import Measured, count_exchange
from counterfault.proxy.measurement.keys import (
    DurationKey,
    DurationSumKey,
    RateKey,
    RequestKey,
    SteadyKey,
)
from counterfault.proxy.values.buckets import duration_bucket, latency_bucket

EPOCH = Epoch("1.0.running")


def metric(**kind: object) -> Measured:
    return Measured(Metric.model_validate({"name": "m", "at": "in", **kind}), EPOCH)


def test_an_enrolled_exchange_counts_for_its_cohort_and_its_metrics() -> None:
    counters = Counters()
    measured = (
        metric(name="ok", success_rate={"drop": "1pp"}),
        metric(name="p99", latency={"quantile": 0.99, "rise": "20%"}),
        metric(name="orders", match={"status": "2xx"}, rate={"drop": "5%"}),
    )
    for status in (200, None):
        count_exchange(counters, "in", "x", Cohort.EXPERIMENT, status, 0.25, 7, measured, 9)
    who = ("in", "x", "experiment")

    def of(name: str, outcome: str | int) -> SteadyKey:
        return SteadyKey("x", EPOCH, name, "experiment", 7, outcome)

    assert counters.counts == {
        RequestKey(*who, "2xx"): 1,
        RequestKey(*who, "error"): 1,
        DurationKey(*who, duration_bucket(0.25)): 2,
        DurationSumKey(*who): 0.5,
        of("ok", "good"): 1,
        of("ok", "bad"): 1,
        of("p99", latency_bucket(0.25)): 2,
        RateKey("x", EPOCH, "orders", "experiment", 7, 9): 1,
    }


def test_a_bystander_counts_for_no_metric() -> None:
    counters = Counters()
    count_exchange(counters, "in", "", Cohort.BYSTANDER, 404, 0.001)
    assert {type(key) for key in counters.counts} == {RequestKey, DurationKey, DurationSumKey}
    assert counters.counts[RequestKey("in", "", "bystander", "4xx")] == 1
