"""What we do with headers is what mitmproxy does."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.http import Headers, Request, Response
from mitmproxy.net.http.http1 import expected_http_body_size

from counterfault.addons.mitm import fast_headers

names = st.sampled_from([b"Host", b"host", b"X-A", b"x-a", b"X-\xc3\xa9", b"\xff", b""])
fields = st.lists(st.tuples(names, st.binary(max_size=8)), max_size=8).map(tuple)
asked = st.sampled_from(["host", "HOST", "x-a", "X-é", "\udcff", "", "absent"])


@given(fields, asked)
def test_they_find_the_same(fields: tuple[tuple[bytes, bytes], ...], name: str) -> None:
    headers = Headers(fields)
    assert fast_headers.get_all(headers, name) == headers.get_all(name)
    assert fast_headers.contains(headers, name) == (name in headers)
    assert fast_headers.get(headers, name, "none") == headers.get(name, "none")


@given(fields, st.booleans())
def test_they_are_made_the_same(fields: tuple[tuple[bytes, bytes], ...], named: bool) -> None:
    more = {"x_a": "b"} if named else {}
    ours = Headers.__new__(Headers)
    fast_headers.init(ours, list(fields), **more)
    assert ours.fields == Headers(fields, **more).fields


def test_fields_of_text_are_refused_like_mitmproxys() -> None:
    text: Any = [("host", b"a")]
    for make in (Headers, lambda fields: fast_headers.init(Headers.__new__(Headers), fields)):
        with pytest.raises(TypeError, match="must be bytes"):
            make(text)


sizes = st.one_of(
    st.sampled_from(
        [b"0", b"7", b"12", b"012", b"+1", b"-1", b"", b"7, 7", b"1_0", b"7\n", b"\xb2"]
    ),
    st.integers(0, 10**20).map(lambda n: b"%d" % n),
)
framing = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([b"Content-Length", b"content-length"]), sizes),
        st.tuples(
            st.just(b"Transfer-Encoding"), st.sampled_from([b"chunked", b"gzip", b"identity", b"x"])
        ),
        st.just((b"host", b"a")),
    ),
    max_size=3,
)
methods = st.sampled_from(["GET", "POST", "HEAD", "head", "CONNECT", "connect", "OPTIONS", "BREW"])
statuses = st.sampled_from([100, 101, 199, 200, 204, 206, 299, 304, 404, 503])


@given(methods, framing, st.none() | st.tuples(statuses, framing))
def test_bodies_are_as_long(
    method: str,
    asked: list[tuple[bytes, bytes]],
    answered: tuple[int, list[tuple[bytes, bytes]]] | None,
) -> None:
    request = Request.make(method, "http://a/")
    request.headers = Headers(asked)
    response = None
    if answered is not None:
        response = Response.make(answered[0])
        response.headers = Headers(answered[1])

    def of(size: Callable[[Request, Response | None], int | None]) -> int | str | None:
        try:
            return size(request, response)
        except ValueError as e:
            return str(e)

    assert of(fast_headers.body_size) == of(expected_http_body_size)
