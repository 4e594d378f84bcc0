"""Faster versions of mitmproxy's functions for headers and body lengths, with the same results.

A message's headers are asked for a dozen times. The values by lower-case name are kept beside
`Headers.fields`, and made anew when that is another tuple.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from mitmproxy.http import Headers, Request, Response
from mitmproxy.net.http import http1

from counterfault.addons.mitm.private import (
    BODY_SIZE,
    HEADER_CONTAINS,
    HEADER_GET,
    HEADER_GET_ALL,
    HEADER_INIT,
)
from counterfault.addons.mitm.replacement import Replacement

_INDEX = "_counterfault"
_SIZE = re.compile(rb"0|[1-9][0-9]*")
# The answer to one of these methods has a body, unless its status forbids it.
_METHODS = frozenset((b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
_BODILESS = frozenset((*range(200), 204, 304))

_original_init = Headers.__init__
_original_body_size = http1.expected_http_body_size


def init(self: Headers, fields: Iterable[Any] = (), **headers: Any) -> None:
    """Stand in for `Headers.__init__`, which still does the work for headers given by name."""
    if headers:
        _original_init(self, fields, **headers)
        return
    given: Any = tuple(map(tuple, fields))
    for name, value in given:
        if not isinstance(name, bytes) or not isinstance(value, bytes):
            raise TypeError("Header fields must be bytes.")
    self.fields = given


def body_size(request: Request, response: Response | None = None) -> int | None:
    """Return how many bytes of body follow a head: None in chunks, -1 up to the connection's end.

    Stands in for `expected_http_body_size`, which still does the work for unusual heads.

    Raises:
        ValueError: The head's content-length or transfer-encoding is invalid.
    """
    head = request.data if response is None else response.data
    index = _index(head.headers)
    sizes = index.get(b"content-length", ())
    plain = b"transfer-encoding" not in index and all(map(_SIZE.fullmatch, sizes))
    if response is not None and plain:
        plain = request.data.method in _METHODS and response.data.status_code not in _BODILESS
    if not plain or len(sizes) > 1:
        return _original_body_size(request, response)
    if sizes:
        return int(sizes[0])
    return 0 if response is None else -1


def get_all(self: Headers, name: str | bytes) -> list[str]:
    """Return all values of a header, one for each line of the head."""
    values = _index(self).get(_key(name))
    return [value.decode("utf-8", "surrogateescape") for value in values] if values else []


def contains(self: Headers, name: str | bytes) -> bool:
    """Return whether there is such a header."""
    return _key(name) in _index(self)


def get(self: Headers, name: str | bytes, default: Any = None) -> Any:
    """Return all values of a header joined by commas, or `default` if there is none."""
    values = get_all(self, name)
    return ", ".join(values) if values else default


def _index(headers: Headers) -> dict[bytes, list[bytes]]:
    """Return the values by name in lower case."""
    known = vars(headers)
    found: tuple[object, dict[bytes, list[bytes]]] | None = known.get(_INDEX)
    # A change to the headers puts another tuple in place of `fields`.
    if found is not None and found[0] is headers.fields:
        return found[1]
    index: dict[bytes, list[bytes]] = {}
    for name, value in headers.fields:
        index.setdefault(name.lower(), []).append(value)
    known[_INDEX] = headers.fields, index
    return index


@lru_cache(1024)
def _key(name: str | bytes) -> bytes:
    return (name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name).lower()


REPLACEMENTS = (
    Replacement("Headers.__init__", Headers, "__init__", init, HEADER_INIT, "2aa81f2797027235"),
    Replacement("Headers.get_all", Headers, "get_all", get_all, HEADER_GET_ALL, "c7f3addbebef3924"),
    Replacement(
        "Headers.__contains__",
        Headers,
        "__contains__",
        contains,
        HEADER_CONTAINS,
        "e73f00cc53f48491",
    ),
    Replacement("Headers.get", Headers, "get", get, HEADER_GET, "5dc6266d6f5f6f38"),
    Replacement(
        "expected_http_body_size",
        http1,
        "expected_http_body_size",
        body_size,
        BODY_SIZE,
        "f6cd7668fe3a73cd",
    ),
)
