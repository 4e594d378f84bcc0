"""The text report: what a manager and who is on call need, on one screen."""

from datetime import UTC, timedelta, timezone

import pytest

from counterfault.proxy.models.run_record import RunRecord
from counterfault.proxy.report import text
from tests.support.example_runs import EXAMPLE_RUNS, held, inconclusive, refuted

CET = timezone(timedelta(hours=1), "CET")
METRICS = ("success", "p95", "orders")


def report(record, zone=UTC):
    """By label, what an entry says; continued lines are joined. Metrics' entries by their name."""
    found: dict[str, str] = {}
    section, label = "", ""
    for line in text.render(RunRecord.from_data(record), zone).splitlines():
        if not line.startswith(" "):
            section = line.partition(":")[0]
            continue
        label = line[2:14].strip() or label
        key = f"{section}.{label}" if section in METRICS else label
        found[key] = f"{found.get(key, '')} {line[14:]}".strip()
    return found


def test_a_held_hypothesis_is_told_with_all_its_numbers():
    record = held()
    said = text.render(RunRecord.from_data(record), UTC)
    assert said.startswith("slow #1: held\n  hypothesis  Checkout keeps working\n")
    found = report(record)
    assert found["because"].startswith("all within tolerance; ")
    assert found["dose"] == "3,600 of 3,600 faults due were performed (100%, at least 80% needed)"
    assert found["users"].startswith(
        "720 control, 720 experiment (harm to fewer than 1 user in 240 could not be seen); "
        "50% in experiment, 50% asked: "
    )
    assert found["success.control"].endswith("% failed, 10,800 requests")
    assert found["success.worse by"].endswith(" pp; 2 pp allowed)")
    assert "decides at 4.09; within " in found["success.evidence"]
    assert found["p95.could see"].startswith("harm of ")
    assert found["orders.experiment"] == "10,800 per 1% of users, 10,800 events"
    assert found["planned"].startswith("baseline 30s → faults 3m → recovery 30s; 1% control, 1% ")
    assert found["fault"] == "latency p50 400ms, p99 2s at payments"
    assert "counterfault 0.1.0, python 3." in said


def test_harm_is_told_by_the_metric_that_shows_it():
    said = text.render(RunRecord.from_data(refuted()), UTC)
    assert said.startswith("slow #1: refuted\n")
    assert "\nsuccess: worse than allowed (success_rate at inbound, drop 2pp)\n" in said
    assert "\np95: undecided (latency at inbound, p95 rise 50%)\n" in said
    assert "stopped: a metric got worse than its tolerance" in said


def test_times_are_told_in_utc_and_on_the_readers_clock():
    record = RunRecord.from_data(inconclusive())
    assert "2026-09-21 14:13:20 UTC (15:13:20 CET)  baseline\n" in text.render(record, CET)
    assert "2026-09-21 14:13:20 UTC  baseline\n" in text.render(record, UTC)


@pytest.mark.parametrize("story", EXAMPLE_RUNS)
def test_each_story_fits_on_a_screen(story: str):
    lines = text.render(RunRecord.from_data(EXAMPLE_RUNS[story]()), CET).splitlines()
    assert max(map(len, lines)) <= text.WIDTH
    assert len(lines) <= 50
    assert not any(line != line.rstrip() for line in lines)
