"""What mitmproxy does with each message's headers, with the same results in less time."""

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import count
from types import SimpleNamespace
from typing import Any

from mitmproxy import connection, flow
from mitmproxy.http import Headers, Request, Response
from mitmproxy.net.http import http1

_INDEX = "_counterfault"
_SIZE = re.compile(rb"0|[1-9][0-9]*")
# With these an answer has a body, unless its status forbids it.
_ASKING = frozenset((b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
_BODILESS = frozenset((*range(200), 204, 304))

_made = Headers.__init__
_body_size = http1.expected_http_body_size


def made(self: Headers, fields: Iterable[Any] = (), **headers: Any) -> None:
    """Headers of these fields; those given by name are mitmproxy's to spell."""
    if headers:
        _made(self, fields, **headers)
        return
    given: Any = tuple(map(tuple, fields))
    for name, value in given:
        if not isinstance(name, bytes) or not isinstance(value, bytes):
            raise TypeError("Header fields must be bytes.")
    self.fields = given


def body_size(request: Request, response: Response | None = None) -> int | None:
    """Bytes that a message's head promises, None if they come in chunks, -1 if up to the end."""
    head = request.data if response is None else response.data
    index = _index(head.headers)
    sizes = index.get(b"content-length", ())
    plain = b"transfer-encoding" not in index and all(map(_SIZE.fullmatch, sizes))
    if response is not None and plain:
        plain = request.data.method in _ASKING and response.data.status_code not in _BODILESS
    if not plain or len(sizes) > 1:
        return _body_size(request, response)
    if sizes:
        return int(sizes[0])
    return 0 if response is None else -1


def get_all(self: Headers, name: str | bytes) -> list[str]:
    """All values of a header, one for each line."""
    values = _index(self).get(_key(name))
    return [value.decode("utf-8", "surrogateescape") for value in values] if values else []


def contains(self: Headers, name: str | bytes) -> bool:
    """Whether there is such a header."""
    return _key(name) in _index(self)


def get(self: Headers, name: str | bytes, default: Any = None) -> Any:
    """All values of a header as one, or `default`."""
    values = get_all(self, name)
    return ", ".join(values) if values else default


def install() -> None:
    """Put them in place, in a process that does nothing but serve."""
    patched: Any = Headers
    patched.__init__ = made
    patched.get_all, patched.__contains__, patched.get = get_all, contains, get
    patched = http1
    patched.expected_http_body_size = body_size
    # mitmproxy asks the kernel for the id of each connection and flow; nobody reads them here.
    numbers = count()
    ids: Any = SimpleNamespace(uuid4=lambda: next(numbers))
    for module in (connection, flow):
        vars(module)["uuid"] = ids
    # A connection is itself and no other; its id takes a call to compare.
    same: Any = connection.Connection
    same.__eq__, same.__hash__ = object.__eq__, object.__hash__


def _index(headers: Headers) -> dict[bytes, list[bytes]]:
    """Values by name in lower case: a message's headers are asked for a dozen times."""
    known = vars(headers)
    found: tuple[object, dict[bytes, list[bytes]]] | None = known.get(_INDEX)
    # The fields are a tuple, and another one after each change.
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
