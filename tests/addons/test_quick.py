"""Our look-ups of headers do what mitmproxy's do."""

from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.http import Headers

from addons import quick

names = st.sampled_from([b"Host", b"host", b"X-A", b"x-a", b"X-\xc3\xa9", b"\xff", b""])
fields = st.lists(st.tuples(names, st.binary(max_size=8)), max_size=8).map(tuple)
asked = st.sampled_from(["host", "HOST", "x-a", "X-é", "\udcff", "", "absent"])


@given(fields, asked)
def test_they_find_the_same(fields: tuple[tuple[bytes, bytes], ...], name: str) -> None:
    headers = Headers(fields)
    assert quick.get_all(headers, name) == headers.get_all(name)
    assert quick.contains(headers, name) == (name in headers)
    assert quick.get(headers, name, "none") == headers.get(name, "none")
