"""The head of a request, and how to find values in its headers.

All values are raw bytes. Of a repeated header, the first value counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass

type Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request. `target` is the path with its query, undecoded."""

    method: bytes
    host: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]


def first(headers: Headers, name: bytes) -> bytes | None:
    """Return the first value of a header, or None; `name` in lower case."""
    for key, value in headers:
        if key.lower() == name:
            return value
    return None


def cookie(headers: Headers, name: bytes) -> bytes | None:
    """Return the raw value of a cookie, or None.

    HTTP/2 may split the cookies over several headers (RFC 9113, 8.2.3).
    """
    for key, value in headers:
        if key.lower() == b"cookie":
            for pair in value.split(b";"):
                label, separator, content = pair.strip().partition(b"=")
                if separator and label == name:
                    return content
    return None


def baggage(headers: Headers, name: bytes) -> bytes | None:
    """Return the raw value of a W3C baggage member without its properties, or None."""
    for key, value in headers:
        if key.lower() == b"baggage":
            for member in value.split(b","):
                label, separator, content = member.partition(b";")[0].partition(b"=")
                if separator and label.strip() == name:
                    return content.strip()
    return None
