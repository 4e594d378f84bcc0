"""mitmproxy's look-ups of headers and its ids, with the same results in a third of the time."""

from functools import lru_cache
from itertools import count
from types import SimpleNamespace
from typing import Any

from mitmproxy import connection, flow
from mitmproxy.http import Headers

_INDEX = "_counterfault"


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
    patched.get_all, patched.__contains__, patched.get = get_all, contains, get
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
