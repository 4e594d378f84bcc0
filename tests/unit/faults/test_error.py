"""An error is the answer that the user wrote."""

import pytest
from pydantic import ValidationError

from counterfault.proxy.faults.actions import Respond
from counterfault.proxy.faults.error import Error
from counterfault.proxy.values.request import Request

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


def asked(content_type):
    return Request(b"POST", b"a", b"/", ((b"Content-Type", content_type),))


@pytest.mark.parametrize("kind", [b"application/grpc", b"application/grpc+proto"])
def test_a_grpc_request_gets_trailers_only(kind):
    error = Error.model_validate({"grpc": "UNAVAILABLE", "message": "sold out – 100 %"})
    assert error.act(asked(kind), lambda: 0.5) == Respond(
        200,
        (
            (b"content-type", kind),
            (b"grpc-status", b"14"),
            (b"grpc-message", b"sold out %E2%80%93 100 %25"),
        ),
        b"",
    )


@pytest.mark.parametrize(
    ("settings", "status", "body"),
    [
        ({"grpc": "UNAVAILABLE", "message": "no"}, 503, b"no"),
        ({"grpc": 5}, 404, b""),
        ({"grpc": "INTERNAL", "status": 418, "body": "tea", "message": "no"}, 418, b"tea"),
    ],
)
def test_others_get_the_status_that_belongs_to_the_code_or_the_one_that_is_given(
    settings, status, body
):
    answered = Error.model_validate(settings).act(asked(b"text/plain"), lambda: 0.5)
    assert answered == Respond(status, (PLAIN,), body)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"grpc": "OK"}, "must be one of CANCELLED"),
        ({"grpc": 0}, "must be one of CANCELLED"),
        ({"grpc": 17}, "must be one of CANCELLED"),
        ({"grpc": True}, "must be one of CANCELLED"),
        ({"status": 500, "message": "no"}, "must have grpc with message"),
        ({"status": 500, "body_file": "page.html"}, "cannot read page.html: there are no files"),
        ({"status": 500, "body_file": 5}, "must be a file's name, not 5"),
    ],
)
def test_what_is_no_grpc_answer_is_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        Error.model_validate(settings)


def test_a_body_may_be_in_a_file():
    files = {"page.html": b"\x00<h1>"}
    settings = {"status": 500, "body_file": "page.html"}
    error = Error.model_validate(settings, context={"files": files.__getitem__})
    assert error.act(asked(b"text/plain"), lambda: 0.5) == Respond(500, (PLAIN,), b"\x00<h1>")
    with pytest.raises(ValidationError, match="must be at most 64 KiB"):
        Error.model_validate(settings, context={"files": lambda name: b"x" * 65537})
