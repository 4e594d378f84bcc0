"""The state machine of a run."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfault.proxy.experiments.experiment import Experiment
from counterfault.proxy.experiments.lifecycle import (
    LIVE,
    NEXT,
    OVER,
    Event,
    Reason,
    Run,
    State,
    advance,
    remaining,
    tick,
)


def experiment(**changes: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "experiment": "x",
            "state": "running",
            "duration": "30s",
            "baseline": "10s",
            "recovery": "5s",
            "cohorts": {"experiment": "1%", "control": "1%"},
            "faults": [{"at": "inbound", "error": 503}],
            **changes,
        }
    )


def started(now: float = 0.0) -> Run:
    return advance(Run("x", 1), Event.START, now)


def test_a_run_goes_through_its_phases_in_time() -> None:
    run = started()
    seen: dict[State, int] = {}
    for now in range(60):
        run = tick(run, experiment(), float(now))
        seen.setdefault(run.state, now)
    assert seen == {
        State.BASELINE: 0,
        State.RUNNING: 10,
        State.RECOVERING: 40,
        State.DONE: 45,
    }


def test_phases_of_no_length_are_passed_at_once() -> None:
    short = experiment(baseline="0s", recovery="0s")
    assert tick(started(), short, 0.0).state is State.RUNNING
    assert tick(tick(started(), short, 0.0), short, 30.0).state is State.DONE


def test_a_stop_outranks_time() -> None:
    run = tick(started(), experiment(), 10.0, ["enough"])
    assert (run.state, run.reason) == (State.STOPPED, "enough")


def test_an_edit_goes_back_to_baseline_and_keeps_the_time_that_faults_were_on() -> None:
    run = tick(started(), experiment(), 10.0)
    run = advance(run, Event.EDITED, 22.0)
    assert (run.state, run.edits, run.spent) == (State.BASELINE, 1, 12.0)
    run = tick(run, experiment(), 32.0)
    assert remaining(run, experiment(), 32.0) == 18.0


def test_an_edit_gives_the_counts_a_new_epoch() -> None:
    run = tick(started(), experiment(), 10.0)
    assert run.epoch == "1.0.running"
    assert advance(run, Event.EDITED, 11.0).epoch == "1.1.baseline"


def test_a_pending_run_waits_for_ever() -> None:
    assert tick(Run("x", 1), experiment(), 1e9) == Run("x", 1)


@pytest.mark.parametrize("over", sorted(OVER))
@pytest.mark.parametrize("event", list(Event))
def test_nothing_leads_out_of_the_end(over: State, event: Event) -> None:
    run = Run("x", 1, over)
    assert advance(run, event, 1.0) == run


@pytest.mark.parametrize("state", sorted(set(State) - OVER))
def test_every_other_state_can_be_stopped(state: State) -> None:
    assert NEXT[state, Event.STOP] is State.STOPPED


@given(st.lists(st.tuples(st.sampled_from(["tick", "edit", "start", "stop"]), st.floats(0, 20))))
def test_a_stopped_run_stays_stopped_and_time_never_runs_backwards(
    script: list[tuple[str, float]],
) -> None:
    run, now, stopped = Run("x", 1), 0.0, False
    for what, step in script:
        now += step
        match what:
            case "tick":
                run = tick(run, experiment(), now)
            case "edit":
                run = advance(run, Event.EDITED, now)
            case "start":
                run = advance(run, Event.START, now)
            case _:
                run = tick(run, experiment(), now, ["stop"])
                stopped = stopped or run.state is State.STOPPED
        assert not stopped or run.state is State.STOPPED
        assert 0 <= run.spent <= now
        left = remaining(run, experiment(), now)
        assert (left is not None) == (run.state in LIVE)


def test_a_held_hypothesis_ends_the_faults_early_only_if_asked_to() -> None:
    run = tick(started(), experiment(), 10.0)
    assert tick(run, experiment(), 11.0, held=True).state is State.RUNNING
    eager = experiment(guard={"stop_when_held": True})
    assert tick(run, eager, 11.0, held=True).state is State.RECOVERING
    assert tick(started(), eager, 1.0, held=True).state is State.BASELINE


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans(), st.booleans()), max_size=60))
def test_no_tick_passes_between_evidence_and_stop(
    script: list[tuple[float, bool, bool]],
) -> None:
    run, now = started(), 0.0
    for step, evidence, held in script:
        now += step
        before = run
        run = tick(run, experiment(), now, [Reason.HARM] if evidence else [], held)
        if evidence and before.state in LIVE:
            assert (run.state, run.reason) == (State.STOPPED, Reason.HARM)
        assert run.state in OVER or before.state not in OVER
