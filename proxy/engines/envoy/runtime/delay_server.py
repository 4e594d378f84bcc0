"""Where Envoy's delayed requests wait: nobody answers, and hanging up ends the delay at once."""

import asyncio
from collections.abc import Collection
from contextlib import suppress

type Epoch = tuple[str, str]
"""An experiment and the epoch of its run."""


class DelayServer:
    """Each connection is one request that waits in the Lua program, until its time-out or ours."""

    def __init__(self) -> None:
        self._held: dict[asyncio.StreamWriter, Epoch] = {}
        self._server: asyncio.Server | None = None
        self._closed = False

    async def open(self, path: str) -> None:
        self._server = await asyncio.start_unix_server(self._hold, path, backlog=4096)

    @property
    def active(self) -> int:
        return len(self._held)

    def release(self, kept: Collection[Epoch]) -> None:
        """End the delays of all other epochs."""
        for writer, epoch in list(self._held.items()):
            if epoch not in kept:
                writer.close()

    def close(self) -> None:
        """End all delays; whoever comes later does not wait at all."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        self.release(())

    async def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (line := await reader.readline()) and not self._closed:
                parts = line.decode("latin-1").split(" ")[1:2]
                if line.startswith(b"GET /") and parts:
                    experiment, _, epoch = parts[0].removeprefix("/").partition("/")
                    self._held[writer] = (experiment, epoch)
        except (OSError, ValueError):
            pass  # it is over, whichever way
        finally:
            self._held.pop(writer, None)
            with suppress(OSError):
                writer.close()
