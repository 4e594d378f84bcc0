"""Headers are removed and set; framing and the cohort's tag are out of reach."""

import pytest
from pydantic import ValidationError

from counterfault.proxy.faults.actions import Edit, Rewrite
from counterfault.proxy.faults.headers import Headers
from counterfault.proxy.values.request import Request


def test_both_heads_have_edits_of_their_own():
    settings = {
        "request": {"set": {"X-A": "1"}},
        "response": {"remove": "ETag", "set": {"x-b": "2"}},
    }
    headers = Headers.model_validate(settings)
    assert headers.act(Request(b"GET", b"a", b"/", ()), lambda: 0.5) == Rewrite(
        Edit((), ((b"x-a", b"1"),)), Edit((b"etag",), ((b"x-b", b"2"),))
    )
    assert headers.describe() == "headers request x-a: 1; response without etag, x-b: 2"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "must set or remove something"),
        ({"set": {"Content-Length": "1"}}, "must not be a framing header"),
        ({"remove": ["Transfer-Encoding"]}, "must not be a framing header"),
        ({"set": {"host": "b"}}, "must not be a framing header"),
        ({"remove": "X_Counterfault"}, "must not be a header with the cohort's tag"),
        ({"set": {"baggage": "a=b"}}, "must not be a header with the cohort's tag"),
        ({"set": {"x": "a\r\nb: c"}}, "must be ASCII without line breaks"),
        ({"set": {"x": "y" * 8193}}, "at most 8192 characters"),
        ({"remove": [f"x{i}" for i in range(51)]}, "at most 50 items"),
        ({"remove": ["a b"]}, "must be a header name"),
    ],
)
@pytest.mark.parametrize("side", ["request", "response"])
def test_what_may_not_be_touched_is_refused(side, changes, said):
    with pytest.raises(ValidationError, match=said):
        Headers.model_validate({side: changes})
