"""A truncation is after some bytes or after a share."""

import pytest
from pydantic import ValidationError

from counterfault.proxy.faults.actions import Truncate
from counterfault.proxy.faults.truncate import Truncation
from counterfault.proxy.values.request import Request


@pytest.mark.parametrize(
    ("settings", "action", "said"),
    [
        ("10KB", Truncate(10_000, None), "truncate after 10KB"),
        ({"after": "1KiB"}, Truncate(1024, None), "truncate after 1.024KB"),
        ({"share": "50%"}, Truncate(None, 0.5), "truncate after 50% of the body"),
        ({"share": "0%"}, Truncate(None, 0.0), "truncate after 0% of the body"),
    ],
)
def test_settings_lead_to_their_action(settings, action, said):
    fault = Truncation.model_validate(settings)
    assert fault.act(Request(b"GET", b"a", b"/", ()), lambda: 0.5) == action
    assert fault.describe() == said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "must have one of after and share"),
        ({"after": "1KB", "share": "5%"}, "must have one of after and share"),
        ({"share": "100%"}, "must be below 100%"),
        ("10", "must be a size such as"),
        ("0.5B", "whole number of bytes"),
        ("2GB", "1B to 1GB"),
    ],
)
def test_what_is_no_truncation_is_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        Truncation.model_validate(settings)
