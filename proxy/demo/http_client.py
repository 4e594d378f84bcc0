"""A small HTTP/1.1 client that reuses connections.

A new connection for each call would cost more CPU than all else in the demo.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

type Address = tuple[str, int]
type Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

# The most idle connections kept for an address.
_IDLE = 50


class BadAnswer(Exception):
    """A response without a status or a content-length."""


# What a failed call raises: no connection or too late, cut, a head that is too long, not HTTP.
FAILED = (OSError, EOFError, asyncio.LimitOverrunError, BadAnswer)


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A response: its status and its body."""

    status: int
    body: bytes

    @property
    def good(self) -> bool:
        """Whether the status is a success."""
        return 200 <= self.status < 300


class HttpClient:
    """Calls servers. A request has a connection to itself, an idle one if there is one."""

    def __init__(self) -> None:
        self._idle: defaultdict[Address, list[Connection]] = defaultdict(list)

    async def ask(
        self, url: str, headers: Mapping[str, str], body: Any = None, timeout: float = 10.0
    ) -> HttpAnswer:
        """Return the response to a GET or, with a body that becomes JSON, to a POST.

        `timeout` is in seconds. Raises one of FAILED.
        """
        parts = urlsplit(url)
        address = (parts.hostname or "", parts.port or 80)
        head = _head(parts.netloc, parts.path, headers, body)
        async with asyncio.timeout(timeout):
            connection = self._reusable(address) or await asyncio.open_connection(*address)
            reader, writer = connection
            try:
                writer.write(head)
                answer, lasts = await _read(reader)
            except BaseException:
                writer.transport.abort()
                raise
        if lasts and len(self._idle[address]) < _IDLE:
            self._idle[address].append(connection)
        else:
            writer.close()
        return answer

    def close(self) -> None:
        """Close all idle connections."""
        for connections in self._idle.values():
            for _, writer in connections:
                writer.close()
        self._idle.clear()

    def idle(self, url: str) -> list[Connection]:
        """Return the idle connections to the URL's address."""
        parts = urlsplit(url)
        return self._idle[parts.hostname or "", parts.port or 80]

    def _reusable(self, address: Address) -> Connection | None:
        while self._idle[address]:
            reader, writer = self._idle[address].pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return None


def _head(host: str, path: str, headers: Mapping[str, str], body: Any) -> bytes:
    """Return the bytes of a whole request."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{'GET' if body is None else 'POST'} {path or '/'} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


async def _read(reader: asyncio.StreamReader) -> tuple[HttpAnswer, bool]:
    """Return a response, and whether its connection can be used again."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
    fields = {n.strip().lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
    try:
        status = int(first.split()[1])
        length = int(fields["content-length"])
        body = await reader.readexactly(length)
    except (LookupError, ValueError) as e:
        raise BadAnswer(f"{first!r} without a status or a content-length") from e
    return HttpAnswer(status, body), fields.get("connection", "").lower() != "close"
