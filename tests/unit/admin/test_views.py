"""The JSON-able state is right, whole and JSON."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path

import pytest

from counterfault.proxy.admin import metrics as metrics_page
from counterfault.proxy.admin.views import detail, overview, report
from counterfault.proxy.analysis.external.prometheus_response import Counts, Level
from counterfault.proxy.analysis.external.readings import When
from counterfault.proxy.config.document import Problem
from counterfault.proxy.config.model import ConfigError
from counterfault.proxy.experiments.lifecycle import Epoch
from counterfault.proxy.measurement.keys import (
    DoseKey,
    DurationKey,
    FaultResult,
    RequestKey,
    SteadyKey,
)
from counterfault.proxy.measurement.quantiles import duration_quantile, latency_quantile
from counterfault.proxy.models.overview import ExperimentDetail, Overview
from counterfault.proxy.report import html, junit, text
from counterfault.proxy.supervisor.supervisor import UnknownExperiment
from counterfault.proxy.values.buckets import (
    DURATION_BUCKETS,
    LATENCY_BUCKETS,
    duration_bucket,
    latency_cells,
)
from tests.support.api_json import as_data
from tests.support.supervisor_world import SLOW, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.write(SLOW)
    world.start()
    yield world
    world.close()


def test_the_overview_says_how_the_sidecar_is(world):
    world.now += 1.5
    seen = as_data(overview(world.supervisor))
    assert Overview.from_data(seen) == overview(world.supervisor)
    assert seen["service"] == "shop"
    assert seen["uptime"] == 1.5
    assert seen["lease_remaining"] == 1.5
    assert (seen["killed"], seen["state_dir_error"], seen["reload_error"]) == (False, "", [])
    assert seen["workers"] == {"ready": 2, "wanted": 2, "pids": [1, 2]}
    assert seen["limits"] == {"enrolled": 0.1, "active_faults": 100}
    assert seen["enrolled"] == pytest.approx(0.03)


def test_an_experiment_begins_with_nothing_counted(world):
    (seen,) = as_data(overview(world.supervisor))["experiments"]
    assert seen["name"] == "slow"
    assert (seen["run"], seen["state"], seen["reason"]) == (1, "baseline", "")
    assert seen["remaining"] == 60
    assert seen["phases"] == {"baseline": 60, "duration": 600, "recovery": 30}
    assert seen["cohorts"] == {"experiment": 0.01, "control": 0.02}
    nothing = {"requests": 0, "errors": 0, "p50": None, "p99": None}
    both = {"control": nothing, "experiment": nothing}
    assert seen["listeners"] == {"inbound": both, "payments": both}


def test_only_live_runs_enrol_users(world):
    world.pass_time(60)
    world.pass_time(600)
    world.pass_time(30)
    seen = as_data(overview(world.supervisor))
    assert seen["experiments"][0]["state"] == "done"
    assert seen["experiments"][0]["remaining"] is None
    assert seen["enrolled"] == 0


def test_faults_are_summed_over_the_phases_of_the_present_run(world):
    for epoch in ("1.0.running", "1.0.recovering"):
        world.count(DoseKey("slow", Epoch(epoch), 1, FaultResult.PLANNED), 5)
    world.count(DoseKey("slow", Epoch("1.0.running"), 1, FaultResult.PERFORMED), 4)
    world.count(DoseKey("slow", Epoch("1.0.running"), 1, FaultResult.OVERFLOW), 3)
    world.count(DoseKey("slow", Epoch("1.0.running"), 1, FaultResult.FAILED), 2)
    world.count(DoseKey("slow", Epoch("2.0.running"), 1, FaultResult.PERFORMED), 100)
    first, second = as_data(overview(world.supervisor))["experiments"][0]["faults"]
    counts = {"planned": 10, "performed": 4, "overflow": 3, "failed": 2}
    said = {"at": "payments", "fault": "error", "dose": 0.5, "when": "before"}
    assert second == said | counts
    assert (first["fault"], first["planned"]) == ("latency", 0)


def test_a_listener_shows_requests_errors_and_quantiles(world):
    group = ("inbound", "slow", "experiment")
    for code, count in (("2xx", 90), ("4xx", 5), ("5xx", 3), ("error", 2)):
        world.count(RequestKey(*group, code), count)
    world.count(DurationKey(*group, duration_bucket(0.0012)), 100)
    seen = as_data(overview(world.supervisor))["experiments"][0]["listeners"]["inbound"]
    assert seen["experiment"]["requests"] == 100
    assert seen["experiment"]["errors"] == 5
    assert DURATION_BUCKETS[0] < seen["experiment"]["p50"] < seen["experiment"]["p99"]
    assert seen["experiment"]["p99"] <= DURATION_BUCKETS[1]
    assert seen["control"]["requests"] == 0


def test_steady_state_is_shown_by_phase_and_cohort(world):
    for phase, count in (("baseline", 7), ("running", 5), ("recovering", 3)):
        epoch = f"1.0.{phase}"
        for cell in ("good", "bad"):
            key = SteadyKey("slow", Epoch(epoch), "success", "control", 1, cell)
            world.count(key, count)
    seen = as_data(overview(world.supervisor))["experiments"][0]["steady_state"][0]
    assert (seen["name"], seen["at"], seen["kind"]) == ("success", "inbound", "success_rate")
    found = {phase: counts["control"] for phase, counts in seen["phases"].items()}
    assert found["baseline"] == {"events": 14, "bad": 7, "quantile": None}
    assert found["running"] == {"events": 10, "bad": 5, "quantile": None}
    assert found["recovering"] == {"events": 6, "bad": 3, "quantile": None}


def test_tolerances_are_told_in_words(world):
    seen = as_data(overview(world.supervisor))["experiments"][0]["steady_state"]
    assert [(m["kind"], m["tolerance"]) for m in seen] == [
        ("success_rate", "drop 0.5pp"),
        ("latency", "p99 rise 20%"),
        ("slow", "over 300ms rise 1pp"),
        ("rate", "drop 5%"),
    ]


@pytest.mark.parametrize("answer", [Level(3.0), Counts({(("replicate", "0"),): 7.0})])
def test_an_outside_metric_is_shown_and_not_exported_again(tmp_path, answer):
    world = World(tmp_path / "other")
    query = {"query": "$cohort", "drop": "5%"}
    metrics = [{"name": "orders", "prometheus": query}]
    world.write(SLOW | {"steady_state": metrics}, prometheus={"url": "http://127.0.0.1:9"})
    supervisor = world.start()
    world.pass_time(61)
    run = supervisor.registry.runs["slow"]
    (metric,) = supervisor.config.experiments[0].steady_state
    both = dict.fromkeys(("control", "experiment"), answer)
    supervisor.evaluator.monitor.readings.answered(run, metric, both, When(world.now, world.now))
    world.pass_time(5)
    seen = as_data(detail(supervisor, "slow"))
    assert ExperimentDetail.from_data(seen) == detail(supervisor, "slow")
    assert (seen["steady_state"][0]["at"], seen["metrics"][0]["at"]) == ("prometheus", "prometheus")
    plain = isinstance(answer, Level)
    assert seen["metrics"][0]["plain"] == plain
    assert len(seen["forecast"]) == (0 if plain else 1)
    level = 3.0 if plain else 0.0
    assert seen["points"][-1]["metrics"]["orders"]["control"]["level"] == level
    body, _ = metrics_page.render(supervisor)
    assert b"counterfault_steady_state_events_total{" not in body
    assert b'counterfault_evidence{experiment="slow",metric="orders"' in body
    told = report(supervisor, "slow")
    assert ("orders: not tested" if plain else "orders: undecided") in text.render(told, UTC)
    assert "<svg" in html.render(told, UTC)
    assert "orders" in junit.render(told, UTC)
    world.close()


def test_latencies_show_their_quantile(world):
    for replicate in range(64):
        cell = latency_cells(0.2).cell(0.25)
        key = SteadyKey("slow", Epoch("1.0.running"), "p99", "experiment", replicate, cell)
        world.count(key, 10)
    seen = as_data(overview(world.supervisor))["experiments"][0]["steady_state"][1]
    sample = seen["phases"]["running"]["experiment"]
    assert (sample["events"], sample["bad"]) == (640, 0)
    assert sample["quantile"] == pytest.approx(0.25, rel=0.1)


def test_an_edit_discards_what_was_counted(world):
    world.count(SteadyKey("slow", Epoch("1.0.baseline"), "success", "control", 1, "good"), 7)
    world.write(SLOW | {"cohorts": {"experiment": "2%", "control": "2%"}})
    asyncio.run(world.supervisor.reload())
    seen = as_data(overview(world.supervisor))["experiments"][0]
    assert seen["state"] == "baseline"
    assert seen["steady_state"][0]["phases"]["baseline"]["control"]["events"] == 0


def test_troubles_are_told(world):
    wrong = Problem("experiments/slow.yaml", 3, 7, "state", "must be one of paused, running")
    world.supervisor.reload_error = ConfigError([wrong])
    world.supervisor.registry.store.set_kill_switch(on=True)
    seen = as_data(overview(world.supervisor))
    assert seen["killed"] is True
    said = "experiments/slow.yaml:3:7: state: must be one of paused, running"
    assert seen["reload_error"] == [said]


def test_an_unusable_state_dir_is_told_and_nothing_starts(tmp_path):
    (tmp_path / "file").write_text("")
    world = World(tmp_path / "config")
    world.write(SLOW)
    seen = as_data(overview(world.start(tmp_path / "file" / "state")))
    assert "state" in seen["state_dir_error"]
    assert seen["experiments"][0]["state"] == "pending"
    assert seen["enrolled"] == 0


def test_detail_has_timeline_and_configuration(world):
    world.pass_time(60)
    seen = as_data(detail(world.supervisor, "slow"))
    assert ExperimentDetail.from_data(seen) == detail(world.supervisor, "slow")
    assert [event["state"] for event in seen["timeline"]] == ["baseline", "running"]
    assert seen["configuration"] == SLOW
    (summary,) = as_data(overview(world.supervisor))["experiments"]
    assert seen.items() >= summary.items()


def test_detail_has_the_samples_of_each_phase(world):
    world.count(SteadyKey("slow", Epoch("1.0.running"), "success", "control", 63, "good"), 3)
    world.count(SteadyKey("slow", Epoch("1.0.running"), "success", "control", 63, "bad"), 2)
    world.count(SteadyKey("slow", Epoch("1.0.baseline"), "success", "control", 63, "bad"), 9)
    found = as_data(detail(world.supervisor, "slow"))["samples"]
    assert found.keys() == {"success", "p99", "slow", "orders"}
    running = found["success"]["running"]
    assert running["control"]["0"] == [0] * 63 + [3]
    assert running["control"]["1"] == [0] * 63 + [2]
    assert running["experiment"] == {}
    assert found["success"]["baseline"]["control"]["1"][63] == 9


def test_detail_has_the_buckets_of_latencies(world):
    for replicate, cell in ((1, 40), (2, 40), (2, 154)):
        world.count(SteadyKey("slow", Epoch("1.0.running"), "p99", "control", replicate, cell))
    found = as_data(detail(world.supervisor, "slow"))["samples"]["p99"]["running"]["control"]
    assert found.keys() == {"40", "154"}
    assert found["40"][:4] == [0, 1, 1, 0]


def test_an_unknown_experiment_has_no_detail(world):
    with pytest.raises(UnknownExperiment):
        detail(world.supervisor, "unheard-of")


def latency_median(counts, q=0.5):
    return latency_quantile(counts, q, LATENCY_BUCKETS)


@pytest.mark.parametrize("quantile", [duration_quantile, latency_median])
def test_nothing_has_no_quantile(quantile):
    assert quantile(Counter(), 0.5) is None
    assert quantile({3: 0}, 0.5) is None


def test_a_duration_quantile_lies_on_the_line_through_its_bucket():
    low, high = DURATION_BUCKETS[4], DURATION_BUCKETS[5]
    assert duration_quantile({5: 10}, 0.5) == pytest.approx((low + high) / 2)
    assert duration_quantile({0: 10}, 0.5) == pytest.approx(DURATION_BUCKETS[0] / 2)
    assert duration_quantile({33: 10}, 0.5) == 60


def test_a_latency_quantile_lies_on_the_logarithmic_line_through_its_bucket():
    low, high = LATENCY_BUCKETS[79], LATENCY_BUCKETS[80]
    assert latency_median({80: 10}) == pytest.approx((low * high) ** 0.5)
    assert latency_median({79: 5, 81: 5}) == pytest.approx(low)
    assert latency_median({0: 1}) == LATENCY_BUCKETS[0]
    assert latency_median({160: 1}) == LATENCY_BUCKETS[-1]
