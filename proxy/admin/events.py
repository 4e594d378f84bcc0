"""GET /api/events: the overview every second, as server-sent events."""

import asyncio
from contextlib import suppress
from http import HTTPStatus

from tornado.iostream import StreamClosedError

from counterfault.proxy.admin.route import Route

EVERY = 1.0
MOST_STREAMS = 32
# After how many milliseconds a browser that has lost its stream asks for another.
RETRY = 1000
# A client that reads nothing for so long has its stream closed.
PATIENCE = 10.0


class Events(Route):
    """Ends when the client leaves, stops reading, or the server stops."""

    ended: asyncio.Event | None = None

    def head(self) -> None:
        self.text("", "text/event-stream")

    async def get(self) -> None:
        streams = self.site.streams
        if len(streams) >= MOST_STREAMS or self.site.closing:
            self.set_header("Retry-After", "5")
            self.problem(HTTPStatus.SERVICE_UNAVAILABLE, f"at most {MOST_STREAMS} streams")
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
        self.write(f"retry: {RETRY}\n\n")
        # A new token ends the streams that an old one has opened.
        while not ended.is_set() and self.site.admits(self.request):
            self.write(f"data: {self.site.overview_json()}\n\n")
            await asyncio.wait_for(self.flush(), PATIENCE)
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), EVERY)
