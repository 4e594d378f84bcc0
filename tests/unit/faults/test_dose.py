"""A dose is a share or a limit."""

import pytest
from pydantic import ValidationError

from counterfault.proxy.experiments.fault_rule import AnyFaultRule
from counterfault.proxy.faults.dose import Dose, Limit


@pytest.mark.parametrize(
    ("settings", "share", "limit", "said"),
    [
        ("100%", 1.0, None, "each of them"),
        ("0.5%", 0.005, None, "0.5% of them"),
        ({"share": "5%"}, 0.05, None, "5% of them"),
        ({"first": 3}, 1.0, Limit(3, None), "the first 3 of each user"),
        ({"burst": 5, "every": "1m"}, 1.0, Limit(5, 60.0), "bursts of 5 every 1m"),
    ],
)
def test_a_dose_is_a_share_or_a_limit(settings, share, limit, said):
    dose = Dose.model_validate(settings)
    assert (dose.share, dose.limit, str(dose)) == (share, limit, said)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "must be a share, or have one of first and burst, not none of them"),
        ({"share": "1%", "first": 3}, "not share and first"),
        ({"burst": 5}, "must have burst and every together"),
        ({"first": 5, "every": "1m"}, "must have burst and every together"),
        ({"first": 0}, "greater than or equal to 1"),
        ({"burst": 10**7, "every": "1m"}, "less than or equal to 1000000"),
        ({"burst": 1, "every": "2d"}, "less than or equal to 86400"),
        ("1", "must be a share"),
        (3, "must be a share"),
    ],
)
def test_what_is_no_dose_is_refused(settings, said):
    with pytest.raises(ValidationError) as raised:
        Dose.model_validate(settings)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"truncate": "1KB", "when": "before"}, "`when: before` cannot be for truncate"),
        ({"bandwidth": "1KB/s", "when": "after"}, "`when` says nothing for bandwidth"),
        ({"error": 500, "per": "message"}, "`per: message` is for drop, latency, not for error"),
        ({"drop": "hang", "per": "message", "dose": {"first": 1}}, "takes a share as its dose"),
        ({"truncate": "1KB", "match": {"method": "POST"}}, "truncate loses the answer to a POST"),
    ],
)
def test_what_does_not_go_together_is_refused(rule, said):
    with pytest.raises(ValidationError) as raised:
        AnyFaultRule.model_validate({"at": "a", **rule})
    assert said in str(raised.value)


def test_what_befalls_an_answers_body_comes_after_the_work_was_done():
    rule = AnyFaultRule.model_validate({"at": "a", "corrupt": "1%"})
    assert (rule.when, rule.spares("POST"), rule.spares("GET")) == ("after", True, False)
