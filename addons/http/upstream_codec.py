"""Connections to upstreams: mitmproxy's HTTP clients, with what they leave out.

Interim responses (1xx) are passed on, and a body that came over HTTP/2 without a length is sent
over HTTP/1 in chunks. An HTTP/2 upstream may announce that it goes away, and gets no window for
responses that faults hold.
"""

import time

from h2.events import DataReceived as H2Data
from h2.events import Event as H2Event
from h2.events import InformationalResponseReceived
from mitmproxy import http
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HttpClient, RegisterHttpConnection

from counterfault.addons.http.h2_connection import GoingAway, UpstreamH2Connection
from counterfault.addons.http.http1_codec import Generator, Http1
from counterfault.addons.http.message_checks import is_interim
from counterfault.addons.mitm.private import (
    ErrorCode,
    Http1Client,
    Http2Client,
    HttpEvent,
    ReceiveHttp,
    RequestHeaders,
    ResponseData,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
    parse_h2_response_headers,
)

HTTP2 = b"h2"
# Bytes that an HTTP/2 upstream may send of one response before that is read. The connection as a
# whole has no such limit, so that its other responses go on.
_STREAM_WINDOW = 4 << 20


class Http1ToUpstream(Http1, Http1Client):
    """A connection to an upstream that speaks HTTP/1."""

    ReceiveTrailers = ResponseTrailers

    def send(self, event: HttpEvent) -> Generator[None]:
        """Send a part of a request."""
        if (
            isinstance(event, RequestHeaders)
            and event.request.is_http2
            and not event.end_stream
            and "content-length" not in event.request.headers
        ):
            chunked = event.request.copy()
            chunked.headers["transfer-encoding"] = "chunked"
            event = RequestHeaders(event.stream_id, chunked, end_stream=False)
        return super().send(event)

    def read_headers(self, event: events.ConnectionEvent) -> Generator[None]:
        """Read the heads of interim responses, and the final one."""
        expects_head = True
        while expects_head:
            expects_head = False
            for command in super().read_headers(event):
                yield command
                head = command.event if isinstance(command, ReceiveHttp) else None
                if isinstance(head, ResponseHeaders) and is_interim(head.response):
                    # What follows is a head again, and not this response's body.
                    self.response = None
                    expects_head = True
                    break


class Http2ToUpstream(Http2Client):
    """A connection to an upstream that speaks HTTP/2."""

    def __init__(self, context: Context) -> None:
        """Announce our window for streams."""
        super().__init__(context)
        settings = self.h2_conn.local_settings
        settings.initial_window_size = _STREAM_WINDOW
        # Without this, hyper-h2 would send the value from before.
        settings.acknowledge()
        self.h2_conn = UpstreamH2Connection(self.h2_conf)
        self.h2_conn.local_settings = settings
        self._unacknowledged: dict[int, int] = {}
        """By stream whose response is not read: bytes for which the upstream gets no window."""

    def unsent_bytes(self, stream_id: int) -> int:
        """Return how many bytes of a request wait for a window of the upstream."""
        waiting = self.h2_conn.stream_buffers.get(self.our_stream_id.get(stream_id, 0), ())
        return sum(len(item.data) for item in waiting)

    def set_reading(self, stream_id: int, on: bool) -> bool:
        """Give window back for a response as it comes, or no more.

        Returns:
            Whether a WINDOW_UPDATE is due; it goes out with the next frame.
        """
        ours = self.our_stream_id.get(stream_id, 0)
        if not on:
            self._unacknowledged.setdefault(ours, 0)
            return False
        size = self._unacknowledged.pop(ours, 0)
        if not size or self.is_closed(ours):
            return False
        self.h2_conn.acknowledge_received_data(size, ours)
        return True

    def handle_h2_event(self, event: H2Event) -> Generator[bool]:
        """Handle an event of hyper-h2. Returns whether the connection is over."""
        if isinstance(event, GoingAway):
            yield from self._end_unseen_streams(event.last_stream_id)
            return False
        if (
            self._unacknowledged
            and isinstance(event, H2Data)
            and event.stream_id in self._unacknowledged
        ):
            yield from self._receive_unacknowledged(event)
            return False
        if not isinstance(event, InformationalResponseReceived):
            return (yield from super().handle_h2_event(event))
        status, headers = parse_h2_response_headers(event.headers or [])
        now = time.time()
        head = http.Response(b"HTTP/2.0", status, b"", headers, None, None, now, None)
        yield ReceiveHttp(ResponseHeaders(event.stream_id or 0, head))
        return False

    def _receive_unacknowledged(self, event: H2Data) -> Generator[None]:
        """Receive data of a response that is not read: no window is given back for it yet."""
        stream_id = event.stream_id or 0
        self._unacknowledged[stream_id] += event.flow_controlled_length or 0
        if event.data and stream_id in self.streams:
            yield ReceiveHttp(ResponseData(stream_id, event.data))

    def _end_unseen_streams(self, last: int) -> Generator[None]:
        """End the streams above `last`, which the upstream has not seen, and open no others."""
        self.conn.error = "going away"
        for stream_id in [s for s in self.streams if s > last]:
            del self.streams[stream_id]
            error = "the upstream has gone away"
            yield ReceiveHttp(ResponseProtocolError(stream_id, error, ErrorCode.CONNECT_FAILED))


class ToUpstream(HttpClient):
    """A connection to an upstream, in the HTTP version that it turns out to speak.

    It opens the connection, and hands all later events to the codec for that version. Events that
    come while it opens wait in this layer, and go to the codec then.
    """

    codec: Http1ToUpstream | Http2ToUpstream | None = None
    """None until the connection is open."""

    def handle_event(self, event: events.Event) -> Generator[None]:
        """Handle an event."""
        if self.codec is None:
            return super().handle_event(event)
        return self.codec.handle_event(event)

    def _handle_event(self, event: events.Event) -> Generator[None]:
        return self._open(event) if self.codec is None else self.codec.handle_event(event)

    def _open(self, event: events.Event) -> Generator[None]:
        server = self.context.server
        err: str | None = yield commands.OpenConnection(server)
        if not err:
            kind = Http2ToUpstream if server.alpn == HTTP2 else Http1ToUpstream
            self.codec = self.child_layer = kind(self.context)
            yield from self.codec.handle_event(event)
        yield RegisterHttpConnection(server, err)


def http1_of(top: layer.Layer | None) -> Http1ToUpstream | None:
    """Return the codec of an open upstream connection without TLS, if that speaks HTTP/1."""
    codec = top.codec if isinstance(top, ToUpstream) else None
    return codec if isinstance(codec, Http1ToUpstream) else None


def http2_of(top: layer.Layer | None) -> Http2ToUpstream | None:
    """Return the HTTP/2 codec among an upstream connection's layers; None if it has none."""
    while top is not None and not isinstance(top, Http2ToUpstream):
        top = getattr(top, "child_layer", None)
    return top
