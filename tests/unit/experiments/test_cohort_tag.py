"""The tag: written, read and stripped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterfault.proxy.experiments import cohort_tag
from counterfault.proxy.experiments.cohorts import Cohort, Enrolment

SLOW = Enrolment("slow-payments", Cohort.EXPERIMENT, 17)
SLOW_TEXT = b"slow-payments.experiment.17"

names = st.sampled_from([b"Accept", b"baggage", b"Baggage", b"x-counterfault", b"X_Counterfault"])
values = st.sampled_from(
    [b"", b"a=b", SLOW_TEXT, b"counterfault.tag=" + SLOW_TEXT, b"a=b, counterfault.tag=x;p,c=d"]
)
fields = st.lists(st.tuples(names, values | st.binary(max_size=20)), max_size=8).map(tuple)


def test_an_enrolment_is_carried_in_both_ways() -> None:
    carried = cohort_tag.carry(((b"Host", b"shop"),), SLOW)
    assert carried == (
        (b"Host", b"shop"),
        (b"x-counterfault", SLOW_TEXT),
        (b"baggage", b"counterfault.tag=" + SLOW_TEXT),
    )


def test_the_users_baggage_stays() -> None:
    carried = cohort_tag.carry(((b"Baggage", b"a=b;p=1"),), SLOW)
    assert (b"Baggage", b"a=b;p=1,counterfault.tag=" + SLOW_TEXT) in carried


def test_baggage_that_is_nearly_full_is_left_alone() -> None:
    full = (b"baggage", b"a=" + b"x" * 8180)
    assert cohort_tag.carry((full,), SLOW) == (full, (b"x-counterfault", SLOW_TEXT))


@pytest.mark.parametrize(
    "name", [b"x-counterfault", b"X-CounterFault", b"x_counterfault", b"X_COUNTERFAULT"]
)
def test_every_spelling_is_stripped(name: bytes) -> None:
    stripped = cohort_tag.strip(
        ((name, SLOW_TEXT), (b"Accept", b"*/*"), (name, b"other.control.1"))
    )
    assert stripped.headers == ((b"Accept", b"*/*"),)
    assert stripped.tag == SLOW


def test_only_our_member_of_the_baggage_is_stripped() -> None:
    value = b"a=b, counterfault.tag=" + SLOW_TEXT + b" ,c=d;p"
    stripped = cohort_tag.strip(((b"baggage", value),))
    assert stripped.headers == ((b"baggage", b"a=b,c=d;p"),)
    assert stripped.tag == SLOW


def test_baggage_that_was_ours_alone_is_gone() -> None:
    assert cohort_tag.strip(((b"baggage", b"counterfault.tag=" + SLOW_TEXT),)).headers == ()


def test_the_header_outranks_the_baggage() -> None:
    headers = (
        (b"baggage", b"counterfault.tag=other.control.1"),
        (b"x-counterfault", SLOW_TEXT),
    )
    assert cohort_tag.strip(headers).tag == SLOW


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"x",
        b"a.b.c",
        b"a.control",
        b"a.control.64",
        b"a.control.01",
        b"a.control.-1",
        b"a.bystander.1",
        b"A.control.1",
        b"a" * 41 + b".control.1",
        b"a.control.1.2",
        b"a.control.1\n",
        b"\xff.control.1",
    ],
)
def test_a_malformed_tag_is_no_tag(value: bytes) -> None:
    stripped = cohort_tag.strip(((b"x-counterfault", value),))
    assert stripped == cohort_tag.Stripped((), None) or value.strip() != value


def test_headers_without_a_tag_are_not_touched() -> None:
    headers = ((b"Host", b"shop"), (b"baggage", b"a=b"))
    assert cohort_tag.strip(headers).headers is headers


@given(fields)
def test_nothing_of_the_tag_survives(headers: cohort_tag.Fields) -> None:
    kept = cohort_tag.strip(headers).headers
    assert cohort_tag.strip(kept) == cohort_tag.Stripped(kept, None)


@given(fields)
def test_what_is_carried_is_read_back_alone(headers: cohort_tag.Fields) -> None:
    kept = cohort_tag.strip(headers).headers
    again = cohort_tag.strip(cohort_tag.carry(kept, SLOW))
    assert again.tag == SLOW
    assert trimmed(again.headers) == trimmed(kept)


def trimmed(headers: cohort_tag.Fields) -> list[tuple[bytes, bytes]]:
    """Without the white space around values, which has no meaning, and without empty ones."""
    return [(name, value.strip()) for name, value in headers if value.strip()]
