"""An experiment says what it needs, and nothing that contradicts it."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.steady_state import Prometheus, Rate, SuccessRate

RULE = {"at": "payments", "latency": "400ms"}
METRIC = {"name": "success", "at": "inbound", "success_rate": {"drop": "1pp"}}
LEAST = {
    "experiment": "slow",
    "state": "running",
    "duration": "30m",
    "cohorts": {"experiment": "1%", "control": "1%"},
    "faults": [RULE],
}


def rule(**changes):
    return Experiment.model_validate(LEAST | {"faults": [RULE | changes]}).faults[0]


def metric(**kind):
    bare = {"name": "m", "at": "inbound"}
    return Experiment.model_validate(LEAST | {"steady_state": [bare | kind]}).steady_state[0]


def test_what_is_not_said_has_a_default():
    experiment = Experiment.model_validate(LEAST)
    assert (experiment.name, experiment.run, experiment.salt) == ("slow", 1, b"slow#1")
    assert (experiment.baseline, experiment.duration, experiment.recovery) == (60, 1800, 60)
    assert (experiment.guard.confidence, experiment.guard.max_faults) == (0.95, None)
    assert (experiment.faults[0].dose.share, experiment.faults[0].when) == (1, "before")
    assert experiment.steady_state == ()


def test_each_run_has_a_salt_of_its_own():
    assert Experiment.model_validate(LEAST | {"run": 2}).salt == b"slow#2"


def test_an_experiment_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Experiment.model_validate(LEAST).run = 2  # type: ignore[misc]


@pytest.mark.parametrize("key", LEAST)
def test_nothing_that_is_required_has_a_default(key):
    with pytest.raises(ValidationError, match="Field required"):
        Experiment.model_validate({k: v for k, v in LEAST.items() if k != key})


def test_a_moment_has_its_time_zone():
    text = "2026-12-01T19:00:00+01:00"
    moment = Experiment.model_validate(LEAST | {"not_after": text}).not_after
    assert moment == datetime(2026, 12, 1, 18, tzinfo=UTC)


@pytest.mark.parametrize("value", ["2026-12-01", "2026-12-01T18:00:00", "soon", 1, True])
def test_a_moment_without_time_zone_is_refused(value):
    with pytest.raises(ValidationError, match="must be a moment with its time zone"):
        Experiment.model_validate(LEAST | {"not_after": value})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"experiment": "Slow"}, "must be 1 to 40 of a-z, 0-9 and -, not 'Slow'"),
        ({"experiment": "x" * 41}, "must be 1 to 40 of a-z, 0-9 and -, not 'xxx"),
        ({"cohorts": {"experiment": "0%", "control": "1%"}}, "must be above 0%"),
        ({"cohorts": {"experiment": "1%", "control": "50.1%"}}, "must be at most 50%, not 50.1%"),
        ({"guard": {"confidence": "49%"}}, "must be at least 50% and below 100%, not 49%"),
        ({"guard": {"confidence": "100%"}}, "must be at least 50% and below 100%, not 100%"),
        ({"guard": {"max_faults": 0}}, "greater than or equal to 1"),
        ({"steady_state": [METRIC, METRIC]}, "metric names must differ; twice: success"),
        ({"faults": [RULE] * 21}, "at most 20 items"),
    ],
)
def test_what_makes_no_sense_is_refused(change, said):
    with pytest.raises(ValidationError) as raised:
        Experiment.model_validate(LEAST | change)
    assert said in str(raised.value)


def test_a_rule_has_the_one_fault_that_is_given():
    assert rule().fault.name == "latency"
    assert rule(latency=None, drop="reset").fault.name == "drop"
    with pytest.raises(ValidationError, match="not error and latency"):
        rule(error=503)
    with pytest.raises(ValidationError, match="not none"):
        rule(latency=None)


def test_after_is_refused_for_a_method_that_is_not_idempotent_unless_unsafe():
    with pytest.raises(ValidationError, match="loses the answer to a POST that took effect"):
        rule(when="after", match={"method": ["GET", "POST"]})
    assert rule(when="after", match={"method": "POST"}, unsafe=True).unsafe
    assert rule(when="before", match={"method": "POST"}).when == "before"


def test_after_with_no_method_named_spares_what_is_not_idempotent():
    after = rule(when="after")
    assert after.spares("POST")
    assert after.spares("PATCH")
    assert not after.spares("GET")
    assert not rule(when="after", unsafe=True).spares("POST")
    assert not rule().spares("POST")


def test_only_what_prometheus_knows_is_measured_at_no_listener():
    bare = {"name": "m", "rate": {"drop": "5%"}}
    with pytest.raises(ValidationError, match="missing key 'at'"):
        Experiment.model_validate(LEAST | {"steady_state": [bare]})


def test_a_query_is_asked_with_its_variables_in_place():
    query = 'a{c="$cohort", n="$experiment-$run", x=~"$|$other"}'
    outside = Prometheus.model_validate({"query": query, "drop": "5%"})
    said = outside.asked({"cohort": "control", "experiment": "slow", "run": "2"})
    assert said == 'a{c="control", n="slow-2", x=~"$|$other"}'


def test_a_metric_has_the_one_kind_that_is_given():
    assert isinstance(metric(success_rate={"drop": "1pp"}).kind, SuccessRate)
    assert isinstance(metric(rate={"drop": "5%"}).kind, Rate)
    with pytest.raises(ValidationError, match="must have one of success_rate, latency, slow, rate"):
        metric()
    with pytest.raises(ValidationError, match="not success_rate and rate"):
        metric(success_rate={"drop": "1pp"}, rate={"drop": "5%"})


@pytest.mark.parametrize(
    "kind", [{"rate": {"drop": "5pp"}}, {"latency": {"quantile": 0.5, "rise": "5pp"}}]
)
def test_rates_and_quantiles_have_relative_tolerances(kind):
    with pytest.raises(ValidationError, match="must be relative to control, such as 5%, not 5pp"):
        metric(**kind)


@pytest.mark.parametrize("quantile", [0, 1, -0.5, True, "0.5", None])
def test_a_quantile_is_a_number_between_0_and_1(quantile):
    with pytest.raises(ValidationError):
        metric(latency={"quantile": quantile, "rise": "20%"})
