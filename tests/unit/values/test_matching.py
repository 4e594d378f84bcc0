"""A match holds when all of its conditions do."""

import pytest
from pydantic import ValidationError

from counterfault.proxy.values.matching import ExchangeMatch, Match
from counterfault.proxy.values.request import Request

REQUEST = Request(
    b"POST",
    b"Shop.example:8080",
    b"/charge/7?now",
    ((b"X-Beta", b"1"), (b"x-beta", b"2")),
)


@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"method": "POST"},
        {"method": "post"},
        {"method": ["GET", "POST"]},
        {"host": "shop.EXAMPLE"},
        {"path": "/charge/7"},
        {"prefix": "/charge"},
        {"prefix": "/"},
        {"regex": "/charge/[0-9]+"},
        {"headers": {"X-BETA": "1"}},
        {"method": "POST", "host": "shop.example", "prefix": "/c", "headers": {"x-beta": "1"}},
    ],
)
def test_a_request_matches(conditions):
    assert Match.model_validate(conditions).matches(REQUEST)


@pytest.mark.parametrize(
    "conditions",
    [
        {"method": "GET"},
        {"method": []} | {"path": "/"},
        {"host": "example"},
        {"path": "/charge"},
        {"path": "/charge/7/"},
        {"prefix": "/charges"},
        {"regex": "/charge"},
        {"regex": "charge/[0-9]+"},
        {"headers": {"x-beta": "2"}},
        {"headers": {"x-gamma": "1"}},
        {"method": "POST", "path": "/"},
    ],
)
def test_a_request_does_not_match(conditions):
    assert not Match.model_validate(conditions).matches(REQUEST)


def test_a_host_may_be_an_address():
    request = Request(b"GET", b"[::1]:80", b"/", ())
    assert Match(host="[::1]").matches(request)


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ({"method": "G T"}, "must be an HTTP method such as POST, not 'G T'"),
        ({"method": [""]}, "must be an HTTP method such as POST, not ''"),
        ({"path": "charge"}, "must begin with / and have no query, not 'charge'"),
        ({"prefix": "/a?b"}, "must begin with / and have no query, not '/a?b'"),
        ({"headers": {"a:b": "c"}}, "must be a header name, not 'a:b'"),
        ({"path": "/a", "regex": "/b"}, "must have one of path, prefix, regex, not path and regex"),
        ({"regex": "(a"}, "must be a regular expression: missing )"),
        ({"regex": "[[a]"}, "must be a regular expression: Possible nested set"),
        ({"regex": r"(a)\1"}, "must be RE2"),
        ({"regex": "(?=a)"}, "must be RE2"),
        ({"regex": "a++"}, "must be RE2"),
        ({"regex": "(a*)*"}, "must be RE2"),
        ({"status": "2xx"}, "Extra inputs"),
    ],
)
def test_what_cannot_be_matched_is_refused(conditions, said):
    with pytest.raises(ValidationError) as raised:
        Match.model_validate(conditions)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("status", "counted"),
    [
        ([], {200, 404, 503, None}),
        ("2xx", {200}),
        (503, {503}),
        ("503", {503}),
        (["2xx", 404], {200, 404}),
    ],
)
def test_an_outcome_counts_by_status(status, counted):
    outcome = ExchangeMatch.model_validate({"status": status})
    assert {s for s in (200, 404, 503, None) if outcome.counts(s)} == counted


@pytest.mark.parametrize("status", [99, 600, "6xx", "20x", "2XX", True, 200.0, None])
def test_what_is_no_status_is_refused(status):
    with pytest.raises(ValidationError, match="must be a status such as 503 or a class such as"):
        ExchangeMatch.model_validate({"status": status})
