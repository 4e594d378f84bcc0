"""An answer trickles in chunks."""

import pytest
from pydantic import ValidationError

from counterfault.proxy.faults.actions import Pace, Throttle
from counterfault.proxy.faults.slow_start import SlowStart
from counterfault.proxy.values.request import Request


def test_so_many_bytes_and_a_pause():
    slow = SlowStart.model_validate({"chunk": "100B", "delay": "200ms"})
    action = slow.act(Request(b"GET", b"a", b"/", ()), lambda: 0.5)
    assert action == Throttle(None, Pace(100, 0.2))
    assert slow.describe() == "slow_start, 100B every 200ms"


@pytest.mark.parametrize(
    "settings",
    [
        "100B",
        {"chunk": "100B"},
        {"chunk": "0B", "delay": "1s"},
        {"chunk": "2MiB", "delay": "1s"},
        {"chunk": 100, "delay": "1s"},
        {"chunk": "100B", "delay": "0s"},
        {"chunk": "100B", "delay": "61s"},
    ],
)
def test_what_is_out_of_bounds_is_refused(settings):
    with pytest.raises(ValidationError):
        SlowStart.model_validate(settings)
