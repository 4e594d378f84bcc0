"""A drop ends the exchange without an answer."""

import pytest
from pydantic import ValidationError

from counterfault.proxy.faults.actions import Disconnect, Hang
from counterfault.proxy.faults.drop import Drop
from counterfault.proxy.values.request import Request


@pytest.mark.parametrize(
    ("settings", "action"),
    [
        ("reset", Disconnect(reset=True)),
        ("close", Disconnect(reset=False)),
        ("hang", Hang(60)),
        ({"mode": "reset"}, Disconnect(reset=True)),
        ({"mode": "hang", "hang": "5s"}, Hang(5)),
    ],
)
def test_a_mode_leads_to_its_action(settings, action):
    drop = Drop.model_validate(settings)
    assert drop.act(Request(b"GET", b"a", b"/", ()), lambda: 0.5) == action


@pytest.mark.parametrize(
    "settings",
    ["rst", "", 5, True, {}, {"mode": "hang", "hang": "0s"}, {"mode": "hang", "hang": "61m"}],
)
def test_what_is_no_drop_is_refused(settings):
    with pytest.raises(ValidationError):
        Drop.model_validate(settings)
