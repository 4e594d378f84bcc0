"""A client of Envoy's admin endpoint, over its Unix socket."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

# Seconds for one request.
_TIMEOUT = 5.0
_HEAD = "host: admin\r\ncontent-length: 0\r\nconnection: close\r\n"


class EnvoyAdmin:
    """Asks the admin endpoint; every failure is an OSError."""

    def __init__(self, path: Callable[[], str]) -> None:
        """Prepare the client; it connects anew for each request.

        Args:
            path: Returns the path of the socket as it is now.
        """
        self._path = path

    async def stats(self, pattern: str) -> dict[str, str]:
        """Return counters, gauges and texts whose names match an RE2 pattern. Raises OSError."""
        text = await self._ask("GET", f"/stats?filter={quote(pattern)}")
        rows = (line.partition(": ") for line in text.decode().splitlines())
        return {name: value.strip('"') for name, _, value in rows}

    async def json_stats(self, pattern: str) -> list[Mapping[str, Any]]:
        """Return counters and histograms whose names match an RE2 pattern, as JSON data.

        Histograms have cumulative buckets. Raises OSError, or ValueError if the JSON is broken.
        """
        query = f"filter={quote(pattern)}&format=json&histogram_buckets=cumulative"
        found: list[Mapping[str, Any]] = json.loads(await self._ask("GET", f"/stats?{query}"))[
            "stats"
        ]
        return found

    async def post(self, path: str) -> None:
        """Send a command such as `/drain_listeners`. Raises OSError."""
        await self._ask("POST", path)

    async def _ask(self, method: str, target: str) -> bytes:
        try:
            async with asyncio.timeout(_TIMEOUT):
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
        return _joined_chunks(body) if b"transfer-encoding: chunked" in head.lower() else body


def _joined_chunks(body: bytes) -> bytes:
    """Return the content of a body in chunked transfer coding."""
    whole, rest = b"", body
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        whole, rest = whole + rest[:length], rest[length + 2 :]
    return whole
