"""Envoy's admin endpoint, over its Unix socket."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

_PATIENCE = 5.0
_HEAD = "host: admin\r\ncontent-length: 0\r\nconnection: close\r\n"


class EnvoyAdmin:
    """`path` answers where the socket is now. Whatever goes wrong is an OSError."""

    def __init__(self, path: Callable[[], str]) -> None:
        self._path = path

    async def stats(self, pattern: str) -> dict[str, str]:
        """The counters, gauges and texts whose names match an RE2 pattern."""
        said = await self._ask("GET", f"/stats?filter={quote(pattern)}")
        rows = (line.partition(": ") for line in said.decode().splitlines())
        return {name: value.strip('"') for name, _, value in rows}

    async def numbers(self, pattern: str) -> list[Mapping[str, Any]]:
        """Counters and histograms in JSON, the latter in cumulative buckets."""
        query = f"filter={quote(pattern)}&format=json&histogram_buckets=cumulative"
        found: list[Mapping[str, Any]] = json.loads(await self._ask("GET", f"/stats?{query}"))[
            "stats"
        ]
        return found

    async def post(self, path: str) -> None:
        await self._ask("POST", path)

    async def _ask(self, method: str, target: str) -> bytes:
        try:
            async with asyncio.timeout(_PATIENCE):
                reader, writer = await asyncio.open_unix_connection(self._path())
                try:
                    writer.write(f"{method} {target} HTTP/1.1\r\n{_HEAD}\r\n".encode())
                    answer = await reader.read(-1)
                finally:
                    writer.close()
        except TimeoutError as e:
            raise OSError("Envoy's admin endpoint does not answer") from e
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise OSError(f"Envoy's admin endpoint: {head[:80]!r}")
        return _joined(body) if b"transfer-encoding: chunked" in head.lower() else body


def _joined(body: bytes) -> bytes:
    """The content of chunks."""
    whole, rest = b"", body
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        whole, rest = whole + rest[:length], rest[length + 2 :]
    return whole
