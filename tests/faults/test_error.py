"""An error is the answer that the user wrote."""

import pytest
from pydantic import ValidationError

from proxy.actions import Respond
from proxy.faults.error import Error
from proxy.http import Request

PLAIN = (b"content-type", b"text/plain; charset=utf-8")


def answer(settings):
    return Error.model_validate(settings).act(Request(b"GET", b"a", b"/", ()), lambda: 0.5)


def test_a_bare_number_is_the_status():
    assert answer(503) == answer({"status": 503}) == Respond(503, (PLAIN,), b"")


def test_body_and_headers_are_sent_as_written():
    settings = {"status": 429, "body": "später", "headers": {"Retry-After": "5"}}
    assert answer(settings) == Respond(429, (PLAIN, (b"retry-after", b"5")), "später".encode())


def test_a_content_type_of_ones_own_replaces_the_plain_one():
    settings = {"status": 500, "headers": {"Content-Type": "application/json"}}
    assert answer(settings).headers == ((b"content-type", b"application/json"),)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (199, "greater than or equal to 200"),
        (600, "less than or equal to 599"),
        ("503", "valid integer"),
        (True, "valid integer"),
        ({}, "must have status, grpc or both"),
        ({"status": 503, "headers": {"Content-Length": "1"}}, "must not be a framing header"),
        ({"status": 503, "headers": {"transfer-encoding": "x"}}, "must not be a framing header"),
        ({"status": 503, "headers": {"a b": "x"}}, "must be a header name, not 'a b'"),
        ({"status": 503, "headers": {"a": "x\r\nb: y"}}, "must be ASCII without line breaks"),
        ({"status": 503, "headers": {"a": "ä"}}, "must be ASCII without line breaks"),
        ({"status": 503, "headers": {"a": 5}}, "valid string"),
        ({"status": 503, "body": "x" * 65537}, "at most 65536 characters"),
        ({"status": 503, "boddy": "x"}, "Extra inputs"),
    ],
)
def test_what_is_no_answer_is_refused(settings, said):
    with pytest.raises(ValidationError) as raised:
        Error.model_validate(settings)
    assert said in str(raised.value)
