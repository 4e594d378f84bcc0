"""Keys survive the way from worker to supervisor, and know whether their epoch is over."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfault.proxy.experiments.cohorts import ENROLLED, Cohort
from counterfault.proxy.experiments.lifecycle import Epoch, Run, State
from counterfault.proxy.measurement.keys import (
    DoseKey,
    DurationKey,
    DurationSumKey,
    FaultKey,
    FaultResult,
    InternalErrorKey,
    KeptEpochs,
    Key,
    RequestKey,
    SteadyKey,
    TrafficKey,
    UserKey,
    dose_key,
    key_from_wire,
    request_key,
    steady_key,
)

names = st.from_regex(r"[a-z0-9-]{1,8}", fullmatch=True)
epochs = st.builds(
    lambda r, e, s: Run("x", r, s, edits=e).epoch, *[st.integers(0, 9)] * 2, st.sampled_from(State)
)
cohorts, results = st.sampled_from(ENROLLED), st.sampled_from(FaultResult)
numbers = st.integers(0, 2**32 - 1)
keys: st.SearchStrategy[Key] = st.one_of(
    st.builds(RequestKey, names, names, st.sampled_from(Cohort), names),
    st.builds(DurationKey, names, names, cohorts, numbers),
    st.builds(DurationSumKey, names, names, cohorts),
    st.builds(TrafficKey, names, epochs, names, cohorts, names, numbers),
    st.builds(FaultKey, names, names, names, results),
    st.builds(DoseKey, names, epochs, numbers, results),
    st.builds(SteadyKey, names, epochs, names, cohorts, numbers, st.one_of(names, numbers)),
    st.builds(UserKey, names, names, cohorts, numbers),
    st.builds(InternalErrorKey, names),
)


@given(keys)
def test_a_key_is_the_same_after_the_wire(key: Key) -> None:
    again = key_from_wire(json.loads(json.dumps(key)))
    assert (type(again), again, hash(again)) == (type(key), key, hash(key))
    if isinstance(again, SteadyKey | DoseKey | TrafficKey):
        assert isinstance(again.epoch, Epoch)


def test_a_key_of_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(KeyError):
        key_from_wire(["inbound", "tides"])


@given(st.lists(keys, max_size=20))
def test_keys_of_different_kinds_are_never_equal(made: list[Key]) -> None:
    assert len(set(made)) == len({(type(key), *key) for key in made})


def test_keys_for_counting_are_interned() -> None:
    epoch = Epoch("1.0.running")
    assert request_key("in", "x", "control", "2xx") is request_key("in", "x", "control", "2xx")
    assert steady_key("x", epoch, "m", Cohort.CONTROL, 3, "good") == SteadyKey(
        "x", epoch, "m", Cohort.CONTROL, 3, "good"
    )
    assert isinstance(dose_key("x", epoch, 0, FaultResult.FAILED), DoseKey)


def test_counts_of_epochs_that_are_over_are_not_kept() -> None:
    kept = KeptEpochs([("x", Epoch("2.1.running"))])
    wanted: list[Key] = [
        SteadyKey("x", Epoch("2.1.running"), "m", "control", 0, "good"),
        DoseKey("x", Epoch("2.1.running"), 0, FaultResult.PLANNED),
        UserKey("x", "2.1", "control", 7),
        RequestKey("in", "x", "control", "2xx"),
        InternalErrorKey("assign"),
    ]
    unwanted: list[Key] = [
        SteadyKey("x", Epoch("2.1.baseline"), "m", "control", 0, "good"),
        SteadyKey("y", Epoch("2.1.running"), "m", "control", 0, "good"),
        DoseKey("x", Epoch("2.0.running"), 0, FaultResult.PLANNED),
        UserKey("x", "2.0", "control", 7),
    ]
    assert [key for key in (*wanted, *unwanted) if kept.keeps(key)] == wanted


def test_all_epochs_of_a_revision_are_those_of_its_states() -> None:
    run = Run("x", 2, State.RUNNING, edits=1)
    assert run.epoch in run.epochs
    assert {epoch.revision for epoch in run.epochs} == {"2.1"}
    assert [epoch.state for epoch in run.epochs] == list(State)
