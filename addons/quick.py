"""mitmproxy's look-ups of headers and its ids, with the same results in a third of the time."""

from itertools import count
from types import SimpleNamespace
from typing import Any

from mitmproxy import connection, flow
from mitmproxy.http import Headers


def get_all(self: Headers, name: str | bytes) -> list[str]:
    """All values of a header, one for each line."""
    key = _key(name)
    size = len(key)
    return [
        value.decode("utf-8", "surrogateescape")
        for label, value in self.fields
        if len(label) == size and label.lower() == key
    ]


def contains(self: Headers, name: str | bytes) -> bool:
    """Whether there is such a header."""
    key = _key(name)
    size = len(key)
    for label, _ in self.fields:  # noqa: SIM110 (any() costs a generator)
        if len(label) == size and label.lower() == key:
            return True
    return False


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


def _key(name: str | bytes) -> bytes:
    return (name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name).lower()
