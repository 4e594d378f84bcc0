"""HTTP connections to and from mitmproxy's events, with what its own leave out.

Interim answers (1xx) are passed on, chunked bodies keep their trailers, and a body that HTTP/2
sends without a length goes on over HTTP/1 in chunks.
"""

import time
from dataclasses import dataclass
from typing import Any

from h2.errors import ErrorCodes
from h2.events import DataReceived as H2Data
from h2.events import Event as H2Event
from h2.events import InformationalResponseReceived
from h11 import Data, EndOfMessage
from hyperframe.frame import GoAwayFrame
from mitmproxy import http
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HttpClient, RegisterHttpConnection

from counterfault.addons.mitm.private import (
    BufferedH2Connection,
    ChunkedReader,
    ErrorCode,
    Http1Client,
    Http1Connection,
    Http2Client,
    HttpEvent,
    ReceiveBuffer,
    ReceiveHttp,
    RequestEndOfMessage,
    RequestHeaders,
    RequestTrailers,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
    SendH2Data,
    parse_h2_response_headers,
)

type Generator[T] = layer.CommandGenerator[T]

HTTP2 = b"h2"
_LAST_CHUNK = b"0\r\n\r\n"
# What an HTTP/2 upstream may send of one answer that nobody reads. Others on the connection go on.
_STREAM_WINDOW = 4 << 20


def is_interim(response: http.Response) -> bool:
    """Whether it announces another answer; after a 101 there is none."""
    return 100 <= response.status_code < 200 and response.status_code != 101


def nothing() -> Generator[None]:
    """No commands. A method that passes another's generator on is a step less for each of them."""
    yield from ()


class Http1(Http1Connection):
    """Both ends' part: trailers."""

    ReceiveTrailers: type[RequestTrailers | ResponseTrailers]
    _unsent: http.Headers | None = None

    def _handle_event(self, event: events.Event) -> Generator[None]:
        """mitmproxy's, a step shorter."""
        if isinstance(event, HttpEvent):
            return self.send(event)
        if isinstance(event, events.DataReceived) and self.state != self.passthrough:
            self.buf += event.data
        passed: Generator[None] = self.state(event)
        return passed

    def read_body(self, event: events.Event) -> Generator[None]:
        if type(self.body_reader) is ChunkedReader:
            self.body_reader = _Chunks()
        if isinstance(self.body_reader, _Chunks):
            return self._read_chunks(event)
        return super().read_body(event)

    def _read_chunks(self, event: events.Event) -> Generator[None]:
        for command in super().read_body(event):
            # A pipelined request is read in here too, by a reader of its own.
            reader = self.body_reader
            if (
                isinstance(reader, _Chunks)
                and reader.trailers is not None
                and isinstance(command, ReceiveHttp)
                and isinstance(command.event, self.ReceiveEndOfMessage)
            ):
                trailers, reader.trailers = reader.trailers, None
                yield ReceiveHttp(self.ReceiveTrailers(command.event.stream_id, trailers))
            yield command

    def send(self, event: HttpEvent) -> Generator[None]:
        if isinstance(event, (RequestTrailers, ResponseTrailers)):
            self._unsent = event.trailers
            return nothing()
        return super().send(event) if self._unsent is None else self._send_trailers(event)

    def _send_trailers(self, event: HttpEvent) -> Generator[None]:
        trailers = None
        if isinstance(event, (RequestEndOfMessage, ResponseEndOfMessage)):
            trailers, self._unsent = self._unsent, None
        for command in super().send(event):
            if trailers and isinstance(command, commands.SendData) and command.data == _LAST_CHUNK:
                command.data = b"0\r\n%s\r\n" % bytes(trailers)
            yield command


class Http1ToUpstream(Http1, Http1Client):
    """Where requests go out."""

    ReceiveTrailers = ResponseTrailers

    def send(self, event: HttpEvent) -> Generator[None]:
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
        announced = True
        while announced:
            announced = False
            for command in super().read_headers(event):
                yield command
                answer = command.event if isinstance(command, ReceiveHttp) else None
                if isinstance(answer, ResponseHeaders) and is_interim(answer.response):
                    # What follows is a head again, and not the end of this one's body.
                    self.response = None
                    announced = True
                    break


@dataclass
class GoingAway(H2Event):
    """An orderly GOAWAY: the streams up to this one are still served."""

    last_stream_id: int


class _Orderly(BufferedH2Connection):
    """hyper-h2's, for which a GOAWAY is the end; in order it only announces it (RFC 9113, 6.8)."""

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Any], list[H2Event]]:
        if frame.error_code != ErrorCodes.NO_ERROR:
            ended: tuple[list[Any], list[H2Event]] = super()._receive_goaway_frame(frame)
            return ended
        return [], [GoingAway(frame.last_stream_id)]

    def end_stream(self, stream_id: int) -> None:
        """With the last data that waits; mitmproxy's empty frame would wait for a window too."""
        waiting = self.stream_buffers.get(stream_id)
        if not waiting or stream_id in self.stream_trailers:
            super().end_stream(stream_id)
        else:
            waiting.append(SendH2Data(waiting.pop().data, True))


class Http2ToUpstream(Http2Client):
    """Where requests go out over HTTP/2."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        settings = self.h2_conn.local_settings
        settings.initial_window_size = _STREAM_WINDOW
        # hyper-h2 would otherwise send the value from before.
        settings.acknowledge()
        self.h2_conn = _Orderly(self.h2_conf)
        self.h2_conn.local_settings = settings
        self._owed: dict[int, int] = {}

    def unsent(self, stream_id: int) -> int:
        """Bytes of a request that the upstream has not let us send."""
        waiting = self.h2_conn.stream_buffers.get(self.our_stream_id.get(stream_id, 0), ())
        return sum(len(item.data) for item in waiting)

    def read(self, stream_id: int, on: bool) -> bool:
        """Give an answer more window as it is read, or not; whether there is news of it to send."""
        ours = self.our_stream_id.get(stream_id, 0)
        if not on:
            self._owed.setdefault(ours, 0)
            return False
        owed = self._owed.pop(ours, 0)
        if not owed or self.is_closed(ours):
            return False
        self.h2_conn.acknowledge_received_data(owed, ours)
        return True

    def _receive(self, event: H2Data) -> Generator[None]:
        """A part of an answer that waits: it gives nothing back yet."""
        stream_id = event.stream_id or 0
        self._owed[stream_id] += event.flow_controlled_length or 0
        if event.data and stream_id in self.streams:
            yield ReceiveHttp(ResponseData(stream_id, event.data))

    def _go(self, last: int) -> Generator[None]:
        """Take no new requests, and end those that the upstream has not seen."""
        self.conn.error = "going away"
        for stream_id in [s for s in self.streams if s > last]:
            del self.streams[stream_id]
            error = "the upstream has gone away"
            yield ReceiveHttp(ResponseProtocolError(stream_id, error, ErrorCode.CONNECT_FAILED))

    def handle_h2_event(self, event: H2Event) -> Generator[bool]:
        if isinstance(event, GoingAway):
            yield from self._go(event.last_stream_id)
            return False
        if self._owed and isinstance(event, H2Data) and event.stream_id in self._owed:
            yield from self._receive(event)
            return False
        if not isinstance(event, InformationalResponseReceived):
            return (yield from super().handle_h2_event(event))
        status, headers = parse_h2_response_headers(event.headers or [])
        now = time.time()
        head = http.Response(b"HTTP/2.0", status, b"", headers, None, None, now, None)
        yield ReceiveHttp(ResponseHeaders(event.stream_id or 0, head))
        return False


def codec_of(top: layer.Layer | None) -> Http2ToUpstream | None:
    """The HTTP/2 at the end of an upstream connection's layers, if that is what it speaks."""
    while top is not None and not isinstance(top, Http2ToUpstream):
        top = getattr(top, "child_layer", None)
    return top


class ToUpstream(HttpClient):
    """An upstream connection, in the HTTP that it turns out to speak."""

    def _handle_event(self, event: events.Event) -> Generator[None]:
        server = self.context.server
        err: str | None = yield commands.OpenConnection(server)
        if not err:
            child = Http2ToUpstream if server.alpn == HTTP2 else Http1ToUpstream
            self.child_layer = child(self.context)
            # From now on it stands in for this layer; but what has come meanwhile waits here.
            self.handle_event = self._handle_event = self.child_layer.handle_event  # type: ignore[method-assign]
            yield from self._handle_event(event)
        yield RegisterHttpConnection(server, err)


class _Chunks(ChunkedReader):
    """h11's, but trailers are set aside; mitmproxy's reader of bodies does not know them."""

    trailers: http.Headers | None = None

    def __call__(self, buf: ReceiveBuffer) -> Data | EndOfMessage | None:
        event = super().__call__(buf)
        if isinstance(event, EndOfMessage) and event.headers:
            self.trailers = http.Headers(event.headers.raw_items())
            return EndOfMessage()
        return event
