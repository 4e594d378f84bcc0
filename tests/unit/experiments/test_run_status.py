"""A run's status is the same after the way to a data plane."""

import json

import pytest

from counterfault.proxy.experiments.lifecycle import Epoch, State
from counterfault.proxy.experiments.run_status import RunStatus


@pytest.mark.parametrize("state", State)
def test_a_status_is_the_same_after_the_wire(state: State) -> None:
    status = RunStatus(Epoch.of("3.1", state), 5)
    again = RunStatus.from_wire(json.loads(json.dumps(status.to_wire())))
    assert again == status
    assert (again.state, again.epoch.revision) == (state, "3.1")


def test_an_epoch_without_a_state_is_an_error() -> None:
    with pytest.raises(ValueError, match="tides"):
        _ = RunStatus(Epoch("1.0.tides")).state
