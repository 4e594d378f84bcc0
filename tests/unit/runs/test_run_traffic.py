"""A run's numbers are its own: three runs of one experiment, errors in the second only."""

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from counterfault.proxy.admin import metrics
from counterfault.proxy.admin.chart_data import chart_data
from counterfault.proxy.admin.page import render
from counterfault.proxy.admin.views import detail, overview, report
from counterfault.proxy.cli import status
from counterfault.proxy.cli.check import summary
from counterfault.proxy.experiments.cohorts import ENROLLED
from counterfault.proxy.experiments.lifecycle import LIVE, Epoch
from counterfault.proxy.measurement.exchanges import code_of
from counterfault.proxy.measurement.keys import (
    DoseKey,
    DurationKey,
    FaultResult,
    RequestKey,
    TrafficKey,
)
from counterfault.proxy.models.overview import ExperimentSummary
from counterfault.proxy.report import FORMATS
from counterfault.proxy.values.buckets import duration_bucket
from tests.support.supervisor_world import SIDECAR, SLOW, World

FAST, TARDY = 0.004, 0.8
"""Seconds that a request takes, and that a request with a fault takes."""
LISTENERS = SIDECAR["listeners"]
UNTOUCHED = {"listen": "127.0.0.1:0", "upstream": "http://127.0.0.1:3002"}
RUN: dict[str, Any] = SLOW | {
    "baseline": "10s",
    "duration": "20s",
    "recovery": "10s",
    "faults": [{"at": "payments", "latency": "800ms"}],
}
# Requests a second of each cohort at each listener, by the number of the run.
REQUESTS = {1: 31, 2: 37, 3: 43}


@dataclass
class Shop:
    """A world with traffic; each experiment request fails in the running phase of run 2."""

    world: World
    number: int = 1

    def live(self, seconds: int) -> None:
        """Let requests come and time pass."""
        for _ in range(seconds):
            run = self.world.supervisor.registry.runs["slow"]
            for listener in ("inbound", "payments", "mail"):
                for cohort in ENROLLED:
                    hit = cohort == "experiment" and run.state == "running"
                    status_ = 503 if hit and run.run == 2 else 200
                    seconds_ = TARDY if hit else FAST
                    self.requests(listener, cohort, status_, seconds_, REQUESTS[run.run])
            if run.state == "running":
                for result in (FaultResult.PLANNED, FaultResult.PERFORMED):
                    self.world.count(DoseKey("slow", run.epoch, 0, result), REQUESTS[run.run])
            self.world.pass_time(1)

    def requests(
        self, listener: str, cohort: str, status_: int, seconds: float, count: int
    ) -> None:
        """Count what a data plane counts of exchanges that end."""
        run = self.world.supervisor.registry.runs["slow"]
        code, bucket = code_of(status_), duration_bucket(seconds)
        self.world.count(RequestKey(listener, "slow", cohort, code), count)
        self.world.count(DurationKey(listener, "slow", cohort, bucket), count)
        if run.state in LIVE:
            key = TrafficKey("slow", run.epoch, listener, cohort, code, bucket)
            self.world.count(key, count)

    def next_run(self) -> None:
        """Raise `run` in the experiment's file."""
        self.number += 1
        self.world.write(RUN | {"run": self.number}, listeners=LISTENERS | {"mail": UNTOUCHED})
        asyncio.run(self.world.supervisor.reload())

    @property
    def seen(self) -> ExperimentSummary:
        (found,) = overview(self.world.supervisor).experiments
        return found

    def numbers(self, phase: str, listener: str = "payments") -> dict[str, tuple[int, int]]:
        """Return requests and errors of each cohort in a phase, as the API says."""
        found = self.seen.listeners[listener].phases[phase]
        return {c: (getattr(found, c).requests, getattr(found, c).errors) for c in ENROLLED}

    def told(self, number: int | None = None) -> dict[str, str]:
        """Return everything a user can read of a run, by where it stands."""
        record = report(self.world.supervisor, "slow", number)
        found = {name: each.render(record, UTC) for name, each in FORMATS.items()}
        if number in (None, self.number):
            seen = overview(self.world.supervisor)
            found["status"] = "\n".join(status.lines(seen))
            found["page"] = render(seen, {"slow": []})
        return found


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    world = World(tmp_path)
    world.write(RUN, listeners=LISTENERS | {"mail": UNTOUCHED})
    world.start()
    yield Shop(world)
    world.close()


def live_three_runs(shop: Shop) -> None:
    """Live two whole runs, and the third until its faults are on."""
    for _ in range(2):
        shop.live(40)
        assert shop.seen.state == "done"
        shop.next_run()
    shop.live(15)
    assert (shop.seen.run, shop.seen.state) == (3, "running")


def test_each_phase_of_each_run_has_its_own_requests_and_errors(shop):
    for number in (1, 2, 3):
        each = REQUESTS[number]
        assert shop.seen.listeners["payments"].phases == {}
        shop.live(4)
        assert shop.numbers("baseline") == dict.fromkeys(ENROLLED, (4 * each, 0))
        shop.live(6 + 7)
        assert shop.numbers("baseline") == dict.fromkeys(ENROLLED, (10 * each, 0))
        failed = 7 * each if number == 2 else 0
        found = {"control": (7 * each, 0), "experiment": (7 * each, failed)}
        assert shop.numbers("running") == found
        shop.live(13 + 10)
        assert shop.seen.state == "done"
        assert shop.numbers("recovering") == dict.fromkeys(ENROLLED, (10 * each, 0))
        total = shop.seen.listeners["payments"]
        assert total.control.requests == total.experiment.requests == 40 * each
        assert total.experiment.errors == (20 * each if number == 2 else 0)
        shop.next_run()


def test_durations_are_those_of_the_phase(shop):
    live_three_runs(shop)
    phases = shop.seen.listeners["payments"].phases
    assert phases["baseline"].experiment.p50 == phases["running"].control.p50
    assert phases["baseline"].experiment.p99 < 0.01
    assert 0.5 < phases["running"].experiment.p50 <= 1


def test_no_error_of_run_2_is_shown_with_another_run(shop):
    live_three_runs(shop)
    with_errors, errors = report(shop.world.supervisor, "slow", 2), 20 * REQUESTS[2]
    assert with_errors.listeners["payments"].phases["running"].experiment.errors == errors
    for number in (1, 3):
        found = report(shop.world.supervisor, "slow", number)
        for listener in found.listeners.values():
            assert listener.control.errors == listener.experiment.errors == 0
            assert not any(p.experiment.errors for p in listener.phases.values())
        for where, text in shop.told(number).items():
            assert str(errors) not in _numbers(text), where


def test_page_status_and_all_reports_show_the_same_numbers(shop):
    live_three_runs(shop)
    told = shop.told(3)
    assert told.keys() == {"text", "json", "junit", "html", "status", "page"}
    for where, text in told.items():
        # 10 s of baseline, 5 s of faults; json and the page show the sum of both, too.
        for requests in (10 * REQUESTS[3], 5 * REQUESTS[3]):
            assert str(requests) in _numbers(text), (where, requests)
    assert "run 2" not in told["page"]


def test_listeners_that_the_experiment_does_not_touch_are_not_listed(shop):
    live_three_runs(shop)
    assert list(shop.seen.listeners) == ["inbound", "payments"]
    for where, text in shop.told(3).items():
        assert "mail" not in text, where
    assert list(report(shop.world.supervisor, "slow", 2).listeners) == ["inbound", "payments"]


def test_the_history_of_a_run_survives_a_restart_and_stands_as_it_ended(shop):
    live_three_runs(shop)
    shop.live(25)
    before = {n: report(shop.world.supervisor, "slow", n) for n in (1, 2, 3)}
    shown = shop.seen
    assert shown.state == "done"
    # An exchange that ends after its run changes nothing any more.
    late = TrafficKey("slow", Epoch(before[3].points[-1].epoch), "payments", "control", "5xx", 3)
    shop.world.count(late, 9)
    assert shop.seen.listeners == shown.listeners == before[3].listeners
    assert shop.seen.faults == shown.faults == before[3].fault_counts
    shop.world.close()
    again = World(shop.world.directory)
    again.now = shop.world.now + 5
    again.start()
    assert {n: report(again.supervisor, "slow", n) for n in (1, 2, 3)} == before
    (seen,) = overview(again.supervisor).experiments
    assert (seen.listeners, seen.faults) == (shown.listeners, shown.faults)
    assert seen.steady_state == shown.steady_state
    again.close()


def test_an_edited_run_counts_from_its_edit_on(shop):
    shop.live(5)
    changed = {"cohorts": {"experiment": "2%", "control": "2%"}}
    shop.world.write(RUN | changed, listeners=LISTENERS | {"mail": UNTOUCHED})
    asyncio.run(shop.world.supervisor.reload())
    assert shop.seen.listeners["payments"].phases == {}
    shop.live(2)
    assert shop.numbers("baseline") == dict.fromkeys(ENROLLED, (2 * REQUESTS[1], 0))


def test_an_exchange_belongs_to_the_phase_in_which_it_began(shop):
    epoch = shop.world.supervisor.registry.runs["slow"].epoch
    shop.live(12)
    assert shop.seen.state == "running"
    key = TrafficKey("slow", epoch, "payments", "control", "5xx", duration_bucket(3.0))
    shop.world.count(key, 1)
    assert shop.numbers("baseline")["control"] == (10 * REQUESTS[1] + 1, 1)
    assert shop.numbers("running")["control"] == (2 * REQUESTS[1], 0)


def test_a_worker_that_ends_takes_no_numbers_with_it(shop):
    shop.live(5)
    shop.world.totals.retire("worker")
    assert shop.numbers("baseline")["control"] == (5 * REQUESTS[1], 0)


def test_the_counters_of_prometheus_go_on_over_all_runs(shop):
    live_three_runs(shop)
    body, _ = metrics.render(shop.world.supervisor)
    (line,) = (
        line
        for line in body.decode().splitlines()
        if line.startswith("counterfault_requests_total{")
        and all(part in line for part in ('code="5xx"', '"payments"', '"experiment"'))
    )
    assert float(line.split()[-1]) == 20 * REQUESTS[2]


def test_the_histogram_of_a_listener_is_of_the_run_and_phase(shop):
    without_latency = [m for m in RUN["steady_state"] if "latency" not in m]
    shop.world.write(RUN | {"steady_state": without_latency, "run": 2})
    asyncio.run(shop.world.supervisor.reload())
    shop.live(4)
    (histogram,) = chart_data(shop.world.supervisor, "slow").latencies
    assert histogram.name == "requests at inbound, baseline"
    assert sum(histogram.control) == 4 * REQUESTS[2]
    shop.live(11)
    (histogram,) = chart_data(shop.world.supervisor, "slow").latencies
    assert histogram.name == "requests at inbound, running"
    assert sum(histogram.control) == 5 * REQUESTS[2]


def test_the_api_says_what_the_numbers_are(shop):
    live_three_runs(shop)
    seen = json.loads(detail(shop.world.supervisor, "slow").as_json())
    record = json.loads(report(shop.world.supervisor, "slow").as_json())
    assert seen["listeners"] == record["listeners"]
    assert seen["faults"] == record["fault_counts"]
    assert record["listeners"]["payments"]["phases"].keys() == {"baseline", "running"}


def _numbers(text: str) -> set[str]:
    """Return the whole numbers in a text, without separators of thousands and without fractions."""
    return set(re.findall(r"(?<![\d.:#-])\d+(?![\d.:%])", text))


def test_without_a_baseline_everything_says_what_is_switched_off(shop):
    shop.world.write(RUN | {"baseline": "0s", "run": 2})
    asyncio.run(shop.world.supervisor.reload())
    shop.number = 2
    shop.live(2)
    told = shop.told() | {"check": "\n".join(summary(shop.world.supervisor.config))}
    del told["json"]  # it has the length of the phase itself
    for where, text in told.items():
        assert "ithout a baseline the cohorts are not" in " ".join(text.split()), where


def test_no_verdict_is_told_before_the_faults_are_on(shop):
    shop.live(3)
    for where, text in shop.told().items():
        assert "inconclusive so far" not in text, where
    shop.live(10)
    for where in ("status", "page", "text", "html", "junit"):
        assert " so far" in shop.told()[where], where
