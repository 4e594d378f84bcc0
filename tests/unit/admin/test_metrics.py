"""Every series is there from the start, and traffic adds none."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from counterfault.proxy.admin import metrics
from counterfault.proxy.config.document import Problem
from counterfault.proxy.config.model import ConfigError
from counterfault.proxy.experiments.lifecycle import Epoch
from counterfault.proxy.measurement.exchanges import CODES, code_of
from counterfault.proxy.measurement.keys import (
    RESULTS,
    DurationKey,
    DurationSumKey,
    FaultKey,
    FaultResult,
    InternalErrorKey,
    RequestKey,
    SteadyKey,
)
from counterfault.proxy.values.buckets import DURATION_BUCKETS, duration_bucket
from tests.support.supervisor_world import SLOW, START, World

REQUESTS = "counterfault_requests_total"
STEADY = "counterfault_steady_state_events_total"

type Sampled = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.write(SLOW)
    world.start()
    yield world
    world.close()


def series(world: World) -> Sampled:
    body, _ = metrics.render(world.supervisor)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(world: World, name: str, **labels: str) -> float:
    wanted = {"service": "shop", **labels}.items()
    found = [v for (n, has), v in series(world).items() if n == name and wanted <= has]
    assert len(found) == 1, found
    return found[0]


def names(world: World, name: str) -> list[dict[str, str]]:
    return [dict(labels) for found, labels in series(world) if found == name]


def traffic(world: World, experiment: str, cohort: str, listener: str = "inbound") -> None:
    """One exchange and one of everything that may come of it."""
    for status in (101, 200, 302, 404, 503, None):
        world.count(RequestKey(listener, experiment, cohort, code_of(status)))
    for duration in (0.0, 0.0031, 0.2, 1000.0):
        world.count(DurationKey(listener, experiment, cohort, duration_bucket(duration)))
    world.count(DurationSumKey(listener, experiment, cohort), 1000.2031)
    for fault in ("latency", "error", "drop"):
        world.count(FaultKey(experiment, listener, fault, FaultResult.PERFORMED))
    for epoch, cell in (("1.0.running", "good"), ("1.0.baseline", "bad"), ("7.0.running", 12)):
        world.count(SteadyKey(experiment, Epoch(epoch), "success", cohort, 63, cell))
    world.count(InternalErrorKey("elsewhere"))


def test_every_series_of_the_contract_is_there_before_any_traffic(world):
    found = series(world)
    counts = [v for (name, _), v in found.items() if name.endswith(("_total", "_bucket", "_sum"))]
    assert set(counts) == {0.0}
    assert {name for name, _ in found} == {
        "counterfault_requests_total",
        "counterfault_request_duration_seconds_bucket",
        "counterfault_request_duration_seconds_count",
        "counterfault_request_duration_seconds_sum",
        "counterfault_faults_total",
        "counterfault_faults_active",
        "counterfault_steady_state_events_total",
        "counterfault_experiment_state",
        "counterfault_users",
        "counterfault_sample_ratio_evidence",
        "counterfault_verdict",
        "counterfault_effect",
        "counterfault_evidence",
        "counterfault_config_last_reload_successful",
        "counterfault_config_last_reload_timestamp_seconds",
        "counterfault_lease_remaining_seconds",
        "counterfault_internal_errors_total",
        "counterfault_tasks",
        "counterfault_build_info",
    }


def test_the_combinations_follow_from_the_configuration(world):
    groups = {(x["listener"], x["experiment"], x["cohort"]) for x in names(world, REQUESTS)}
    cohorts = [("", "bystander"), ("slow", "control"), ("slow", "experiment")]
    assert groups == {(at, *cohort) for at in ("inbound", "payments") for cohort in cohorts}
    assert len(names(world, REQUESTS)) == len(groups) * len(CODES)
    faults = names(world, "counterfault_faults_total")
    assert {(x["listener"], x["fault"]) for x in faults} == {
        ("payments", "latency"),
        ("payments", "error"),
    }
    assert len(faults) == 2 * len(RESULTS)


@pytest.mark.parametrize(
    ("metric", "outcomes"),
    [
        ("success", {"good", "bad"}),
        ("slow", {"good", "bad"}),
        ("p99", {"good"}),
        ("orders", {"good"}),
    ],
)
def test_steady_state_has_sixteen_replicates_and_the_outcomes_of_its_kind(world, metric, outcomes):
    found = [x for x in names(world, STEADY) if x["metric"] == metric]
    assert {x["outcome"] for x in found} == outcomes
    assert {x["replicate"] for x in found} == {str(i) for i in range(16)}
    assert {x["run"] for x in found} == {"1"}
    assert len(found) == 16 * 2 * len(outcomes)


def test_traffic_adds_no_series(world):
    before = series(world).keys()
    for experiment in ("slow", "", "unheard-of"):
        for cohort in ("control", "experiment", "bystander", "elsewhere"):
            for listener in ("inbound", "payments", "gone"):
                traffic(world, experiment, cohort, listener)
    assert series(world).keys() == before


def test_requests_are_counted_by_code(world):
    world.count(RequestKey("inbound", "slow", "control", "2xx"), 3)
    world.count(RequestKey("inbound", "", "bystander", "error"), 2)
    inbound = {"listener": "inbound", "experiment": "slow", "cohort": "control"}
    assert value(world, REQUESTS, **inbound, code="2xx") == 3
    assert value(world, REQUESTS, **inbound, code="5xx") == 0
    assert value(world, REQUESTS, experiment="", listener="inbound", code="error") == 2


def test_the_histogram_is_cumulative_and_has_its_sum(world):
    traffic(world, "slow", "experiment")
    name, group = "counterfault_request_duration_seconds", {"cohort": "experiment"}
    group |= {"listener": "inbound"}
    buckets = {x["le"] for x in names(world, f"{name}_bucket")}
    assert len(buckets) == len(DURATION_BUCKETS) + 1
    for le, expected in (("0.001", 1), ("0.004", 2), ("0.256", 3), ("60.0", 3), ("+Inf", 4)):
        assert value(world, f"{name}_bucket", **group, le=le) == expected
    assert value(world, f"{name}_count", **group) == 4
    assert value(world, f"{name}_sum", **group) == pytest.approx(1000.2031)


def test_steady_state_counts_the_running_phase_of_the_present_edit_only(world):
    for replicate in (1, 17, 33, 49, 2):
        world.count(
            SteadyKey("slow", Epoch("1.0.running"), "success", "control", replicate, "good")
        )
    world.count(SteadyKey("slow", Epoch("1.0.running"), "success", "control", 17, "bad"))
    for epoch in ("1.0.baseline", "1.0.recovering", "1.1.running", "2.0.running"):
        world.count(SteadyKey("slow", Epoch(epoch), "success", "control", 1, "good"))
    labels = {"metric": "success", "cohort": "control"}
    assert value(world, STEADY, **labels, replicate="1", outcome="good") == 4
    assert value(world, STEADY, **labels, replicate="1", outcome="bad") == 1
    assert value(world, STEADY, **labels, replicate="2", outcome="good") == 1


def test_all_latencies_are_good_events(world):
    for cell in (0, 80, 154):
        world.count(SteadyKey("slow", Epoch("1.0.running"), "p99", "experiment", 5, cell))
    assert value(world, STEADY, metric="p99", cohort="experiment", replicate="5") == 3


def test_one_state_is_one(world):
    def ones() -> list[str]:
        found = series(world).items()
        return [
            dict(labels)["state"]
            for (name, labels), is_so in found
            if name == "counterfault_experiment_state" and is_so
        ]

    assert ones() == ["baseline"]
    world.pass_time(60)
    assert ones() == ["running"]
    world.pass_time(601)
    assert ones() == ["recovering"]


def test_gauges_say_how_the_supervisor_is(world):
    assert value(world, "counterfault_lease_remaining_seconds") == 3
    assert value(world, "counterfault_config_last_reload_successful") == 1
    assert value(world, "counterfault_config_last_reload_timestamp_seconds") == START
    world.now += 2
    world.supervisor.reload_error = ConfigError([Problem("sidecar.yaml", 1, 1, "", "wrong")])
    world.supervisor.failed("history", OSError("full"))
    assert value(world, "counterfault_lease_remaining_seconds") == 1
    assert value(world, "counterfault_config_last_reload_successful") == 0
    assert value(world, "counterfault_config_last_reload_timestamp_seconds") == START
    assert value(world, "counterfault_internal_errors_total", where="history") == 1


def test_tasks_are_told_apart(world):
    assert value(world, "counterfault_tasks", process="workers") == 4
    assert value(world, "counterfault_tasks", process="supervisor") == 0  # there is no event loop


def test_active_faults_are_those_of_all_workers(world):
    world.engine.budget._set(3, 2)
    world.engine.budget._set(4, 1)
    assert value(world, "counterfault_faults_active") == 3


def test_without_experiments_there_are_bystanders_alone(tmp_path):
    world = World(tmp_path)
    world.write()
    world.start()
    assert {x["cohort"] for x in names(world, REQUESTS)} == {"bystander"}
    assert names(world, STEADY) == []
    world.close()


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain"),
        ("text/html", "text/plain"),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "application/openmetrics"),
        ("application/openmetrics-text; version=never", "text/plain"),
        ("text/plain; version=x", "text/plain"),
    ],
)
def test_the_format_is_negotiated(world, accept, kind):
    assert metrics.render(world.supervisor, accept)[1].startswith(kind)


def test_openmetrics_is_valid_and_has_no_created_series(world):
    traffic(world, "slow", "experiment")
    body, _ = metrics.render(world.supervisor, "application/openmetrics-text;version=1.0.0")
    families = list(openmetrics_families(body.decode()))
    assert families
    assert b"_created" not in body


def test_every_family_has_help_and_a_conventional_name(world):
    body, _ = metrics.render(world.supervisor)
    for family in text_string_to_metric_families(body.decode()):
        assert family.documentation.endswith(".")
        assert family.name.startswith("counterfault_")
        samples = {sample.name for sample in family.samples}
        assert family.type != "counter" or all(n.endswith("_total") for n in samples)
