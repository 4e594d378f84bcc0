"""The route /api/events: the overview every second, as server-sent events."""

import asyncio
from contextlib import suppress
from http import HTTPStatus

from tornado.iostream import StreamClosedError

from counterfault.proxy.admin.route import Route

# Seconds between two events.
INTERVAL = 1.0
MAX_STREAMS = 32
# How long a browser waits before it reopens a stream that has broken.
RETRY_MILLISECONDS = 1000
# Seconds after which the stream of a client that reads nothing is closed.
WRITE_TIMEOUT = 10.0


class Events(Route):
    """GET /api/events: ends when the client leaves or stops reading, or when the server stops."""

    ended: asyncio.Event | None = None

    def head(self) -> None:
        self.text("", "text/event-stream")

    async def get(self) -> None:
        streams = self.site.streams
        if len(streams) >= MAX_STREAMS or self.site.closing:
            self.set_header("Retry-After", "5")
            self.problem(HTTPStatus.SERVICE_UNAVAILABLE, f"at most {MAX_STREAMS} streams")
            return
        self.ended = asyncio.Event()
        streams.add(self.ended)
        try:
            await self._stream(self.ended)
        except StreamClosedError:
            return
        except TimeoutError:
            self.on_finish()
            self.detach().close()
        finally:
            streams.discard(self.ended)

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if self.ended is not None:
            self.ended.set()

    async def _stream(self, ended: asyncio.Event) -> None:
        self.set_header("Content-Type", "text/event-stream")
        self.write(f"retry: {RETRY_MILLISECONDS}\n\n")
        # A new token ends the streams that the old one opened.
        while not ended.is_set() and self.site.authorizes(self.request):
            self.write(f"data: {self.site.overview_json()}\n\n")
            await asyncio.wait_for(self.flush(), WRITE_TIMEOUT)
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), INTERVAL)
