"""A corruption is of bytes, of a place in JSON, or of the whole body."""

import pytest
from pydantic import ValidationError

from counterfault.proxy.faults.actions import Flip, Patch, Replace, Rewrite
from counterfault.proxy.faults.corrupt import Corrupt
from counterfault.proxy.values.request import Request


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ("1%", Flip(0.01, 0.5)),
        ({"bytes": "100%"}, Flip(1.0, 0.5)),
        ({"body": "grüße"}, Replace("grüße".encode())),
        ({"body": ""}, Replace(b"")),
        ({"json": {"pointer": "/a/0", "value": None}}, Patch(("a", "0"), None)),
        ({"json": {"pointer": "", "value": [1, {"b": 2}]}}, Patch((), [1, {"b": 2}])),
        ({"json": {"pointer": "/a~1b/~0", "remove": True}}, Patch(("a/b", "~"), None, True)),
    ],
)
def test_settings_lead_to_their_change(settings, change):
    corrupt = Corrupt.model_validate(settings)
    action = corrupt.act(Request(b"GET", b"a", b"/", ()), lambda: 0.5)
    assert action == Rewrite(body=change)
    assert corrupt.describe().startswith("corrupt")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "must have one of bytes, json and body"),
        ({"bytes": "1%", "body": ""}, "must have one of bytes, json and body"),
        ("0%", "must be above 0%"),
        ({"body": "x" * 65537}, "at most 65536 characters"),
        ({"json": {"pointer": "price", "value": 0}}, "must be empty or begin with /"),
        ({"json": {"pointer": "/a~2", "value": 0}}, "must write ~ as ~0"),
        ({"json": {"pointer": "/a"}}, "must have one of value and"),
        ({"json": {"pointer": "/a", "value": 1, "remove": True}}, "must have one of value and"),
        ({"json": {"pointer": "", "remove": True}}, "cannot be removed"),
    ],
)
def test_what_is_no_corruption_is_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        Corrupt.model_validate(settings)
