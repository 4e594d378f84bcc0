"""Connections of clients: mitmproxy's HTTP servers, with limits on what a client may send."""

from collections import defaultdict
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
from counterfault.addons.http.http1_codec import Generator, Http1, nothing
from counterfault.addons.http.message_checks import exceeds_limits, is_interim
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

# Bytes that an HTTP/2 client may send on one stream before they are read. The connection as a
# whole has no such limit, so that a held stream never keeps the others waiting.
_STREAM_WINDOW = 1 << 20
# Bytes that are handled at once, so that a flood ends before all of it has been handled.
_SLICE = 1 << 16
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class Http1FromClient(Http1, Http1Server):
    """A client's connection that speaks HTTP/1."""

    ReceiveTrailers = RequestTrailers

    def __init__(self, context: Context, limits: Limits) -> None:
        """`limits` bound the headers of a request."""
        super().__init__(context)
        self._limits = limits

    def send(self, event: HttpEvent) -> Generator[None]:
        """Send a part of a response, or an interim response."""
        if not isinstance(event, ResponseHeaders) or not is_interim(event.response):
            return super().send(event)
        return self._send_interim(event.response)

    def _send_interim(self, response: http.Response) -> Generator[None]:
        # HTTP/1.0 knows no interim responses.
        if self.request is not None and self.request.is_http11:
            yield commands.SendData(self.conn, http1.assemble_response_head(response))

    def read_headers(self, event: events.ConnectionEvent) -> Generator[None]:
        """Read a request's head; refuse one that exceeds the limits."""
        for command in super().read_headers(event):
            head = command.event if isinstance(command, ReceiveHttp) else None
            if isinstance(head, RequestHeaders) and exceeds_limits(
                head.request.headers, self._limits
            ):
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
    """A client's connection that speaks HTTP/2.

    A stream in `held_streams` gets no new window until `release_window`.
    """

    def __init__(self, context: Context, limits: Limits) -> None:
        """`limits` bound the headers of a request."""
        super().__init__(context)
        self._limits, self._flood_limit = limits, FloodLimit(monotonic)
        self.held_streams: set[int] = set()
        self._unacknowledged: defaultdict[int, int] = defaultdict(int)
        self._pending_resets: dict[int, ResponseProtocolError] = {}
        settings = self.h2_conn.local_settings
        settings.initial_window_size = _STREAM_WINDOW
        settings.max_header_list_size = limits.head_bytes
        # Without this, hyper-h2 would send the values from before.
        settings.acknowledge()
        self.h2_conn.decoder.max_header_list_size = limits.head_bytes

    def handle_h2_event(self, event: H2Event) -> Generator[bool]:
        """Handle an event of hyper-h2. Returns whether the connection is over."""
        stream_id = getattr(event, "stream_id", 0)
        if not self._flood_limit.allows(event):
            yield from self.protocol_error("too many frames", ErrorCodes.ENHANCE_YOUR_CALM)
            return True
        if isinstance(event, RequestReceived) and self._has_too_many_headers(event):
            yield from self._refuse(event)
            return False
        if not isinstance(event, H2Data) or stream_id not in self.held_streams:
            return (yield from super().handle_h2_event(event))
        if event.data and self.streams.get(stream_id) is StreamState.HEADERS_RECEIVED:
            yield ReceiveHttp(RequestData(stream_id, event.data))
        self._unacknowledged[stream_id] += event.flow_controlled_length or 0
        return False

    def _has_too_many_headers(self, event: RequestReceived) -> bool:
        """Count only: the decoder limits how large they are together."""
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
            event.code = ErrorCode.CANCEL  # mitmproxy would send INTERNAL_ERROR
            if self.h2_conn.stream_buffers.get(event.stream_id):
                self._pending_resets[event.stream_id] = event  # after what the client still gets
                return nothing()
        inner: Generator[None] = (
            self._handle_slices(event)
            if isinstance(event, events.DataReceived) and len(event.data) > _SLICE
            else super()._handle_event(event)
        )
        return self._then_reset(inner) if self._pending_resets else inner

    def _handle_slices(self, event: events.DataReceived) -> Generator[None]:
        for i in range(0, len(event.data), _SLICE):
            if self._handle_event == self.done:  # a slice before has ended the connection
                return
            part = events.DataReceived(event.connection, event.data[i : i + _SLICE])
            yield from super()._handle_event(part)

    def _then_reset(self, inner: Generator[None]) -> Generator[None]:
        yield from inner
        waiting = self.h2_conn.stream_buffers
        for stream_id in [s for s in self._pending_resets if not waiting.get(s)]:
            yield from super()._handle_event(self._pending_resets.pop(stream_id))

    def send_goaway(self) -> Generator[None]:
        """Announce that the connection is about to be closed, and which streams were served."""
        self.h2_conn.close_connection()
        yield commands.SendData(self.conn, self.h2_conn.data_to_send())

    def release_window(self, stream_id: int) -> Generator[None]:
        """Read a stream again: give the client back the window that it has used."""
        self.held_streams.discard(stream_id)
        size = self._unacknowledged.pop(stream_id, 0)
        if size and not self.is_closed(stream_id):
            self.h2_conn.acknowledge_received_data(size, stream_id)
            yield commands.SendData(self.conn, self.h2_conn.data_to_send())
