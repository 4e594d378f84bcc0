"""A request as the core sees it: raw bytes, the first value of a repeated header wins."""

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
    """The first value of a header; `name` in lower case."""
    for key, value in headers:
        if key.lower() == name:
            return value
    return None


def cookie(headers: Headers, name: bytes) -> bytes | None:
    """A cookie's raw value. HTTP/2 may split the cookies over several headers (RFC 9113, 8.2.3)."""
    for key, value in headers:
        if key.lower() == b"cookie":
            for pair in value.split(b";"):
                label, separator, content = pair.strip().partition(b"=")
                if separator and label == name:
                    return content
    return None


def baggage(headers: Headers, name: bytes) -> bytes | None:
    """A W3C baggage member's raw value, without its properties."""
    for key, value in headers:
        if key.lower() == b"baggage":
            for member in value.split(b","):
                label, separator, content = member.partition(b";")[0].partition(b"=")
                if separator and label.strip() == name:
                    return content.strip()
    return None
