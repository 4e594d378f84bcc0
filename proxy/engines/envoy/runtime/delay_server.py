"""The server at which Envoy's delayed requests wait; it never responds.

The Lua program sends it a request whose time-out is the delay. The server ends a delay early by
closing the connection.
"""

import asyncio
from collections.abc import Collection
from contextlib import suppress

type RunEpoch = tuple[str, str]
"""The name of an experiment and the epoch of its run."""


class DelayServer:
    """Holds delayed requests, one for each connection, until they time out or are released."""

    def __init__(self) -> None:
        self._held: dict[asyncio.StreamWriter, RunEpoch] = {}
        self._server: asyncio.Server | None = None
        self._closed = False

    async def open(self, path: str) -> None:
        """Listen on a Unix socket. Raises OSError."""
        self._server = await asyncio.start_unix_server(self._hold, path, backlog=4096)

    @property
    def active(self) -> int:
        """How many requests are held."""
        return len(self._held)

    def release_others(self, kept: Collection[RunEpoch]) -> None:
        """End the delays of all epochs but these."""
        for writer, epoch in list(self._held.items()):
            if epoch not in kept:
                writer.close()

    def close(self) -> None:
        """End all delays, and stop listening: later requests go on without a delay."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        self.release_others(())

    async def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (line := await reader.readline()) and not self._closed:
                target = line.decode("latin-1").split(" ")[1:2]
                if line.startswith(b"GET /") and target:
                    experiment, _, epoch = target[0].removeprefix("/").partition("/")
                    self._held[writer] = (experiment, epoch)
        except (OSError, ValueError):
            pass  # the delay has ended; the reason does not matter
        finally:
            self._held.pop(writer, None)
            with suppress(OSError):
                writer.close()
