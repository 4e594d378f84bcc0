"""A duplicate is a request that the upstream sees several times."""

import pytest
from pydantic import ValidationError

from counterfault.proxy.experiments.fault_rule import AnyFaultRule
from counterfault.proxy.faults.actions import Repeat
from counterfault.proxy.faults.duplicate import Duplicate
from counterfault.proxy.values.request import Request


def test_times_are_all_of_them():
    duplicate = Duplicate.model_validate(2)
    assert duplicate.act(Request(b"GET", b"a", b"/", ()), lambda: 0.5) == Repeat(2)
    assert duplicate.describe() == "duplicate, 2 times in all"


@pytest.mark.parametrize("settings", [1, 6, "2", {}, True, 2.5])
def test_what_is_no_number_of_times_is_refused(settings):
    with pytest.raises(ValidationError):
        Duplicate.model_validate(settings)


def test_whoever_wants_it_has_to_say_that_it_is_unsafe():
    with pytest.raises(ValidationError, match="duplicate does the work more than once; say `unsa"):
        AnyFaultRule.model_validate({"at": "a", "duplicate": 2})
    rule = AnyFaultRule.model_validate({"at": "a", "duplicate": 2, "unsafe": True})
    assert rule.when == "before"
