"""Where the answers to copies of a request go: they are read to their end, and nobody looks."""

from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import DropStream

from counterfault.addons.http.upstream_codec import HTTP2
from counterfault.addons.mitm.private import ResponseEndOfMessage, ResponseProtocolError

# Clients' streams have odd numbers.
FIRST = 1 << 40


class DiscardingStream(layer.Layer):
    """A stream without a client; an HTTP/1 connection has been opened for it and is closed."""

    child_layer: layer.Layer | None = None

    def __init__(self, context: Context, stream_id: int, server: Connection) -> None:
        super().__init__(context)
        context.server = server  # type: ignore[assignment]
        self._stream_id, self._server = stream_id, server

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, (ResponseEndOfMessage, ResponseProtocolError)):
            yield DropStream(self._stream_id)
            if self._server.alpn != HTTP2:
                yield commands.CloseConnection(self._server)
