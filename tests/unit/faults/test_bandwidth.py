"""A bandwidth is a pace in small steps."""

import pytest
from pydantic import ValidationError

from counterfault.proxy.faults.actions import Pace, Throttle
from counterfault.proxy.faults.bandwidth import Bandwidth
from counterfault.proxy.values.request import Request


def throttle(settings):
    return Bandwidth.model_validate(settings).act(Request(b"GET", b"a", b"/", ()), lambda: 0.5)


@pytest.mark.parametrize(
    ("said", "rate"),
    [("1B/s", 1), ("50KB/s", 50e3), ("1MiB/s", 1 << 20), ("256kbit/s", 32e3), ("1Gbit/s", 125e6)],
)
def test_the_pace_has_the_rate_that_was_asked_for(said, rate):
    found = throttle(said)
    assert isinstance(found, Throttle)
    assert found.up is None
    assert found.down is not None
    assert found.down.rate == pytest.approx(rate)
    assert found.down.seconds <= max(0.03, 1 / rate)


def test_both_ways_have_paces_of_their_own():
    found = throttle({"up": "1KB/s", "down": "1MB/s"})
    assert found == Throttle(Pace(20, 0.02), Pace(20_000, 0.02))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "must have down, up or both"),
        ("50", "must be a rate such as"),
        (50, "must be a rate such as"),
        ("50kB/s", "must be a rate such as"),
        ("0B/s", "must be 1B/s to 1GB/s"),
        ("2GB/s", "must be 1B/s to 1GB/s"),
        ({"down": "1KB/s", "per": "request"}, "Extra inputs"),
    ],
)
def test_what_is_no_bandwidth_is_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        Bandwidth.model_validate(settings)


def test_it_is_said_in_a_few_words():
    settings = {"up": "256kbit/s", "down": "1MiB/s"}
    assert Bandwidth.model_validate(settings).describe() == "bandwidth 1.049MB/s down, 32KB/s up"
