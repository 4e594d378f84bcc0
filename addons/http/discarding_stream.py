"""The stream of a copy of a request: it reads the response to its end and discards it."""

from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import DropStream

from counterfault.addons.http.upstream_codec import HTTP2
from counterfault.addons.mitm.private import ResponseEndOfMessage, ResponseProtocolError

# The first id of such a stream. Ids of clients' streams are odd, and below 1 << 31.
FIRST_STREAM_ID = 1 << 40


class DiscardingStream(layer.Layer):
    """A stream without a client. An HTTP/1 connection was opened for it, and it closes that."""

    child_layer: layer.Layer | None = None

    def __init__(self, context: Context, stream_id: int, server: Connection) -> None:
        """Wait for a response from `server`."""
        super().__init__(context)
        context.server = server  # type: ignore[assignment]
        self._stream_id, self._server = stream_id, server

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, (ResponseEndOfMessage, ResponseProtocolError)):
            yield DropStream(self._stream_id)
            if self._server.alpn != HTTP2:
                yield commands.CloseConnection(self._server)
