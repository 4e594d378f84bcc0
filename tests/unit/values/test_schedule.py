"""`guard.hours` on the clocks of a place."""

from datetime import UTC, datetime

import pytest

from counterfault.proxy.values.schedule import window

OFFICE = "Mon-Fri 09:00-17:00 Europe/London"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-11-24T08:59:59", False),
        ("2026-11-24T09:00:00", True),
        ("2026-11-24T16:59:59", True),
        ("2026-11-24T17:00:00", False),
        ("2026-11-28T12:00:00", False),  # a Saturday
        ("2026-07-07T08:00:00", True),  # summer time: 09:00 in London
        ("2026-07-07T16:00:00", False),
    ],
)
def test_a_window_is_of_local_time(moment: str, is_open: bool) -> None:
    assert window(OFFICE).open(at(moment)) is is_open


def test_without_days_it_is_every_day() -> None:
    assert window("00:00-24:00 UTC").open(at("2026-11-29T23:59:59"))


def test_a_range_of_days_may_pass_the_weeks_end() -> None:
    assert window("Sat-Mon,Wed 10:00-11:00 UTC").days == {5, 6, 0, 2}


@pytest.mark.parametrize("text", [OFFICE, "Sat,Sun 00:00-24:00 UTC", "10:30-11:00 Asia/Tokyo"])
def test_a_window_says_what_it_was_made_of(text: str) -> None:
    assert window(str(window(text))) == window(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("weekdays", "must be days, hours and a time zone like"),
        ("Mon-Fri 9-17 Europe/London", "must be days, hours and a time zone like"),
        ("Mon-Fri 09:00-17:00 Mars/Base", "is no time zone"),
        ("Mon-Fri 09:00-17:00 ../etc/passwd", "is no time zone"),
        ("Mon-Fri 17:00-09:00 UTC", "must begin before it ends"),
        ("Mon-Fri 09:00-24:30 UTC", "must begin before it ends"),
        (9, "must be days, hours and a time zone like"),
    ],
)
def test_other_text_is_refused_with_what_is_allowed(text: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        window(text)
