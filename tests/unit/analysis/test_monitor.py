"""What the counts of a run say, second by second."""

from typing import Any

import pytest

from counterfault.proxy.analysis.monitor import Monitor, stops
from counterfault.proxy.analysis.result import Result
from counterfault.proxy.analysis.verdict import conclude
from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import Reason, Run, State
from tests.support.worker_counts import WorkerCounts

SUCCESS = {"name": "ok", "at": "inbound", "success_rate": {"drop": "1pp"}}


def experiment(**changes: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "experiment": "x",
            "state": "running",
            "duration": "100s",
            "baseline": "10s",
            "recovery": "10s",
            "cohorts": {"experiment": "1%", "control": "1%"},
            "faults": [{"at": "inbound", "error": 503}],
            "steady_state": [SUCCESS],
            **changes,
        }
    )


def run(state: State, entered: float = 0.0) -> Run:
    return Run("x", 1, state, entered=entered)


@pytest.fixture
def counted() -> WorkerCounts:
    return WorkerCounts()


@pytest.fixture
def watch(counted: WorkerCounts) -> Monitor:
    return Monitor(counted.totals)


def test_nothing_is_found_in_nothing(watch: Monitor) -> None:
    for state in State:
        found = watch.evaluate(run(state), experiment(), 1.0)
        assert stops(run(state), found) == []
        assert not found.held
        assert [c.metric.name for c in found.comparisons] == ["ok"]


def test_harm_beyond_the_tolerance_stops_a_running_run(
    watch: Monitor, counted: WorkerCounts
) -> None:
    counted.add("1.0.running", "ok", "control", good=20)
    counted.add("1.0.running", "ok", "experiment", good=16, bad=4)
    counted.dose("1.0.running", 256, 256)
    now = run(State.RUNNING)
    found = watch.evaluate(now, experiment(), 1.0)
    assert stops(now, found) == [Reason.HARM]
    stopped = Run("x", 1, State.STOPPED, Reason.HARM)
    verdict = conclude(stopped, found)
    assert verdict.result is Result.REFUTED
    assert verdict.reason.startswith("ok: 20 pp more requests failed (")
    assert verdict.reason.endswith("1 pp allowed)")


def test_harm_without_a_fault_is_no_refutation(watch: Monitor, counted: WorkerCounts) -> None:
    counted.add("1.0.running", "ok", "control", good=20)
    counted.add("1.0.running", "ok", "experiment", good=16, bad=4)
    found = watch.evaluate(run(State.RUNNING), experiment(), 1.0)
    verdict = conclude(Run("x", 1, State.STOPPED, Reason.HARM), found)
    assert verdict.result is Result.INVALID
    assert "although no fault was performed" in verdict.reason


def test_cohorts_that_differ_before_any_fault_make_the_run_invalid(
    watch: Monitor, counted: WorkerCounts
) -> None:
    counted.add("1.0.baseline", "ok", "control", good=16, bad=4)
    counted.add("1.0.baseline", "ok", "experiment", good=20)
    now = run(State.BASELINE)
    found = watch.evaluate(now, experiment(), 1.0)
    assert stops(now, found) == [Reason.BASELINE]
    verdict = conclude(Run("x", 1, State.STOPPED, Reason.BASELINE), found)
    assert (verdict.result, verdict.reason) == (Result.INVALID, f"{Reason.BASELINE}: ok")


def test_equal_cohorts_pass_the_baseline(watch: Monitor, counted: WorkerCounts) -> None:
    counted.add_both("1.0.baseline", "ok", good=160, bad=4)
    assert stops(run(State.BASELINE), watch.evaluate(run(State.BASELINE), experiment(), 1.0)) == []


def test_cohorts_of_the_wrong_sizes_make_the_run_invalid(
    watch: Monitor, counted: WorkerCounts
) -> None:
    counted.users("1.0", 5000, 4000)
    now = run(State.RUNNING)
    found = watch.evaluate(now, experiment(), 1.0)
    assert stops(now, found) == [Reason.SAMPLE_RATIO]
    verdict = conclude(Run("x", 1, State.STOPPED, Reason.SAMPLE_RATIO), found)
    assert verdict.result is Result.INVALID
    assert "44.44% of 9000 enrolled users" in verdict.reason


def test_users_who_take_new_ids_because_of_a_fault_do_not_make_the_run_invalid(
    watch: Monitor, counted: WorkerCounts
) -> None:
    counted.users("1.0", 2000, 2000)
    watch.evaluate(run(State.BASELINE), experiment(), 1.0)
    assert watch.evaluate(run(State.RUNNING), experiment(), 2.0).ratio is not None
    counted.users("1.0", 4000, 7000)
    counted.add_both("1.0.running", "ok", good=1000)
    counted.dose("1.0.running", 256, 256)
    now = run(State.RUNNING)
    found = watch.evaluate(now, experiment(), 3.0)
    assert found.newcomers is not None
    assert found.newcomers.off
    assert all(c.within for c in found.comparisons)
    assert stops(now, found) == []
    verdict = conclude(Run("x", 1, State.DONE), found)
    assert verdict.result is Result.INCONCLUSIVE
    assert (
        "new users were in the experiment cohort, not 50%: clients took new ids" in verdict.reason
    )


def test_shares_that_differ_are_no_mismatch(watch: Monitor, counted: WorkerCounts) -> None:
    counted.users("1.0", 8000, 2000)
    shares = experiment(cohorts={"experiment": "1%", "control": "4%"})
    assert stops(run(State.RUNNING), watch.evaluate(run(State.RUNNING), shares, 1.0)) == []


def test_control_that_gets_worse_than_its_past_ends_the_run(
    watch: Monitor, counted: WorkerCounts
) -> None:
    counted.add("1.0.baseline", "ok", "control", good=100)
    now = run(State.RUNNING)
    for second in range(0, 60, 5):
        counted.add_both("1.0.running", "ok", good=10)
        assert stops(now, watch.evaluate(now, experiment(), second)) == []
    for second in range(60, 90, 5):
        counted.add_both("1.0.running", "ok", good=8, bad=2)
        found = watch.evaluate(now, experiment(), second)
    assert stops(now, found) == [Reason.INTERFERENCE]


def test_what_control_was_like_an_hour_ago_does_not_hide_what_it_is_like(
    watch: Monitor, counted: WorkerCounts
) -> None:
    counted.add("1.0.baseline", "ok", "control", good=100)
    now = run(State.RUNNING)
    counted.add_both("1.0.running", "ok", good=100_000)
    for second in range(0, 200, 10):
        watch.evaluate(now, experiment(), second)
    counted.add_both("1.0.running", "ok", good=8, bad=2)
    assert stops(now, watch.evaluate(now, experiment(), 205)) == [Reason.INTERFERENCE]


def test_all_within_holds_with_enough_of_a_dose_only(watch: Monitor, counted: WorkerCounts) -> None:
    counted.add_both("1.0.running", "ok", good=100)
    counted.dose("1.0.running", 1000, 790)
    assert not watch.evaluate(run(State.RUNNING), experiment(), 1.0).held
    done = conclude(run(State.DONE), watch.evaluate(run(State.DONE), experiment(), 1.0))
    assert done.result is Result.INCONCLUSIVE
    assert done.reason == "only 790 of 1000 faults due were performed"
    counted.dose("1.0.running", 0, 10)
    found = watch.evaluate(run(State.RUNNING), experiment(), 1.0)
    assert found.held
    verdict = conclude(run(State.RUNNING), found)
    assert (verdict.result, verdict.provisional) == (Result.HELD, True)
    assert conclude(run(State.DONE), found).result is Result.HELD


def test_one_metric_left_open_leaves_all_open(watch: Monitor, counted: WorkerCounts) -> None:
    counted.add_both("1.0.running", "ok", good=100)
    counted.dose("1.0.running", 10, 10)
    more = experiment(
        steady_state=[
            SUCCESS,
            {"name": "slow", "at": "inbound", "slow": {"over": "1s", "rise": "1pp"}},
        ]
    )
    found = watch.evaluate(run(State.DONE), more, 1.0)
    verdict = conclude(run(State.DONE), found)
    assert verdict.result is Result.INCONCLUSIVE
    assert verdict.reason == "slow: only 0 events in a cohort"


def test_no_recovery_refutes_what_seemed_to_hold(watch: Monitor, counted: WorkerCounts) -> None:
    counted.add_both("1.0.running", "ok", good=1000)
    counted.dose("1.0.running", 10, 10)
    now = run(State.RECOVERING, entered=100.0)
    watch.evaluate(now, experiment(), 101.0)
    counted.add("1.0.recovering", "ok", "control", good=20)
    counted.add("1.0.recovering", "ok", "experiment", good=14, bad=6)
    found = watch.evaluate(now, experiment(), 110.0)
    assert stops(now, found) == []
    verdict = conclude(run(State.DONE), found)
    assert verdict.result is Result.REFUTED
    assert "still worse at the end of recovery" in verdict.reason


def test_what_was_left_of_the_fault_early_in_recovery_does_not_count(
    watch: Monitor, counted: WorkerCounts
) -> None:
    now = run(State.RECOVERING, entered=100.0)
    counted.add("1.0.recovering", "ok", "control", good=20)
    counted.add("1.0.recovering", "ok", "experiment", good=14, bad=6)
    watch.evaluate(now, experiment(), 104.0)
    counted.add_both("1.0.recovering", "ok", good=20)
    assert watch.evaluate(now, experiment(), 110.0).unrecovered == ()


def test_nothing_measured_is_inconclusive(watch: Monitor, counted: WorkerCounts) -> None:
    counted.dose("1.0.running", 10, 10)
    found = watch.evaluate(run(State.DONE), experiment(steady_state=[]), 1.0)
    assert conclude(run(State.DONE), found).result is Result.INCONCLUSIVE


def test_faults_that_could_not_be_performed_make_the_run_invalid(
    watch: Monitor, counted: WorkerCounts
) -> None:
    counted.add_both("1.0.running", "ok", good=1000)
    counted.dose("1.0.running", 10, 0)
    found = watch.evaluate(run(State.DONE), experiment(), 1.0)
    verdict = conclude(run(State.DONE), found)
    assert (verdict.result, verdict.reason) == (
        Result.INVALID,
        "none of the 10 faults due could be performed",
    )


@pytest.mark.parametrize(
    "reason",
    sorted(set(Reason) - {Reason.HARM, Reason.SAMPLE_RATIO, Reason.BASELINE, Reason.INTERFERENCE}),
)
def test_a_run_stopped_for_another_reason_is_inconclusive(
    watch: Monitor, counted: WorkerCounts, reason: Reason
) -> None:
    counted.add_both("1.0.running", "ok", good=1000)
    counted.dose("1.0.running", 10, 10)
    found = watch.evaluate(run(State.RUNNING), experiment(), 1.0)
    verdict = conclude(Run("x", 1, State.STOPPED, reason), found)
    assert (verdict.result, verdict.reason) == (Result.INCONCLUSIVE, reason)


def test_an_edit_forgets_what_control_was_like(watch: Monitor, counted: WorkerCounts) -> None:
    counted.add("1.0.baseline", "ok", "control", good=100)
    counted.add_both("1.0.running", "ok", good=8, bad=2)
    watch.evaluate(run(State.RUNNING), experiment(), 0.0)
    edited = Run("x", 1, State.RUNNING, edits=1)
    assert stops(edited, watch.evaluate(edited, experiment(), 1.0)) == []
