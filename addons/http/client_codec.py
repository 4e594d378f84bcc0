"""Where requests come in: mitmproxy's HTTP servers, bounded in what a client makes us hold."""

from collections import defaultdict
from itertools import chain
from time import monotonic

from h2.errors import ErrorCodes
from h2.events import DataReceived as H2Data
from h2.events import Event as H2Event
from h2.events import RequestReceived
from mitmproxy import http
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context

from counterfault.addons.http.flood_limit import FloodLimit
from counterfault.addons.http.upstream_codec import Generator, Http1, is_interim, nothing
from counterfault.addons.mitm.private import (
    ErrorCode,
    Http1Server,
    Http2Server,
    HttpEvent,
    ReceiveHttp,
    RequestData,
    RequestHeaders,
    RequestTrailers,
    ResponseHeaders,
    ResponseProtocolError,
    StreamState,
)
from counterfault.proxy.config.sidecar import Limits

# What one HTTP/2 stream may send before it is read; the connection as a whole is not limited,
# so that a stream that is held never keeps the others waiting.
_STREAM_WINDOW = 1 << 20
# Bytes that are read at once: a flood is seen for one before all of it has been read.
_SLICE = 1 << 16
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


def too_large(headers: http.Headers, limits: Limits) -> bool:
    """Whether a request's headers are more than a client may send."""
    fields = headers.fields
    size = sum(map(len, chain.from_iterable(fields)))
    return len(fields) > limits.head_count or size > limits.head_bytes


class Http1FromClient(Http1, Http1Server):
    """HTTP/1 from a client."""

    ReceiveTrailers = RequestTrailers

    def __init__(self, context: Context, limits: Limits) -> None:
        super().__init__(context)
        self._limits = limits

    def send(self, event: HttpEvent) -> Generator[None]:
        if not isinstance(event, ResponseHeaders) or not is_interim(event.response):
            return super().send(event)
        return self._send_interim(event.response)

    def _send_interim(self, response: http.Response) -> Generator[None]:
        if self.request is not None and self.request.is_http11:  # HTTP/1.0 has none
            yield commands.SendData(self.conn, http1.assemble_response_head(response))

    def read_headers(self, event: events.ConnectionEvent) -> Generator[None]:
        for command in super().read_headers(event):
            head = command.event if isinstance(command, ReceiveHttp) else None
            if isinstance(head, RequestHeaders) and too_large(head.request.headers, self._limits):
                yield from self._refuse()
                return
            yield command
        if self.state == self.read_headers and len(self.buf) > self._limits.head_bytes:
            yield from self._refuse()

    def _refuse(self) -> Generator[None]:
        self.state = self.done
        yield commands.SendData(self.conn, _TOO_LARGE)
        yield commands.CloseConnection(self.conn)


class Http2FromClient(Http2Server):
    """HTTP/2 from a client; a stream that waits for a fault gets no new window meanwhile."""

    def __init__(self, context: Context, limits: Limits) -> None:
        super().__init__(context)
        self._limits, self._calm = limits, FloodLimit(monotonic)
        self.held: set[int] = set()
        self._owed: defaultdict[int, int] = defaultdict(int)
        self._doomed: dict[int, ResponseProtocolError] = {}
        settings = self.h2_conn.local_settings
        settings.initial_window_size = _STREAM_WINDOW
        settings.max_header_list_size = limits.head_bytes
        # hyper-h2 would otherwise send the values from before.
        settings.acknowledge()
        self.h2_conn.decoder.max_header_list_size = limits.head_bytes

    def handle_h2_event(self, event: H2Event) -> Generator[bool]:
        stream_id = getattr(event, "stream_id", 0)
        if not self._calm.keeps(event):
            yield from self.protocol_error("too many frames", ErrorCodes.ENHANCE_YOUR_CALM)
            return True
        if isinstance(event, RequestReceived) and self._too_many(event):
            yield from self._refuse(event)
            return False
        if not isinstance(event, H2Data) or stream_id not in self.held:
            return (yield from super().handle_h2_event(event))
        if event.data and self.streams.get(stream_id) is StreamState.HEADERS_RECEIVED:
            yield ReceiveHttp(RequestData(stream_id, event.data))
        self._owed[stream_id] += event.flow_controlled_length or 0
        return False

    def _too_many(self, event: RequestReceived) -> bool:
        """Of how large they are together, the decoder has seen to."""
        fields = [name for name, _ in event.headers or [] if not name.startswith(b":")]
        return len(fields) > self._limits.head_count

    def _refuse(self, event: RequestReceived) -> Generator[None]:
        stream_id = event.stream_id or 0
        self.h2_conn.send_headers(stream_id, [(b":status", b"431")], end_stream=True)
        if not event.stream_ended:
            self.h2_conn.reset_stream(stream_id, ErrorCodes.NO_ERROR)  # RFC 9113, 8.1
        yield commands.SendData(self.conn, self.h2_conn.data_to_send())

    def _handle_event(self, event: events.Event) -> Generator[None]:
        if isinstance(event, ResponseProtocolError) and event.code is ErrorCode.KILL:
            event.code = ErrorCode.CANCEL  # INTERNAL_ERROR would say that it is our failure
            if self.h2_conn.stream_buffers.get(event.stream_id):
                self._doomed[event.stream_id] = event  # once the client has what is its due
                return nothing()
        inner: Generator[None] = (
            self._by_slices(event)
            if isinstance(event, events.DataReceived) and len(event.data) > _SLICE
            else super()._handle_event(event)
        )
        return self._ending(inner) if self._doomed else inner

    def _by_slices(self, event: events.DataReceived) -> Generator[None]:
        for i in range(0, len(event.data), _SLICE):
            if self._handle_event == self.done:  # it was too much
                return
            part = events.DataReceived(event.connection, event.data[i : i + _SLICE])
            yield from super()._handle_event(part)

    def _ending(self, inner: Generator[None]) -> Generator[None]:
        yield from inner
        for stream_id in [s for s in self._doomed if not self.h2_conn.stream_buffers.get(s)]:
            yield from super()._handle_event(self._doomed.pop(stream_id))

    def go_away(self) -> Generator[None]:
        """Before the connection is closed: whatever the client sends now was not seen here."""
        self.h2_conn.close_connection()
        yield commands.SendData(self.conn, self.h2_conn.data_to_send())

    def let_go(self, stream_id: int) -> Generator[None]:
        """The stream is read again: give the client back the window it has used."""
        self.held.discard(stream_id)
        owed = self._owed.pop(stream_id, 0)
        if owed and not self.is_closed(stream_id):
            self.h2_conn.acknowledge_received_data(owed, stream_id)
            yield commands.SendData(self.conn, self.h2_conn.data_to_send())
