"""mitmproxy's protocol layers, taught what a sidecar needs of them.

Entry ─ NextLayer ─┬─ ClientTLSLayer ─ SidecarHttp ─ SidecarStream (one per request)
                   └─ SidecarHttp …              └── upstream connections
"""

from typing import Any

from mitmproxy import flow as mflow
from mitmproxy import http
from mitmproxy.connection import ConnectionState, Server
from mitmproxy.net.http.http1 import expected_http_body_size
from mitmproxy.proxy import events, layer, layers, tunnel
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import (
    GetHttpConnection,
    GetHttpConnectionCompleted,
    HttpLayer,
    HTTPMode,
    HttpStream,
    SendHttp,
)
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestData,
    RequestProtocolError,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
)

from addons.codecs import HTTP2, Http1FromClient, ToUpstream, is_interim
from addons.exchange import Exchange, Peer, exchange_of
from addons.upstream import address_of

type Generator[T] = layer.CommandGenerator[T]

# An answer that an injected one replaces is read to its end, if that is near.
_SHORT = 1 << 20
_H2_PREFACE = b"PRI"


class Entry(layer.Layer):
    """The outermost layer of a client's connection."""

    def __init__(self, context: Context, tcp: tuple[str, int] | None) -> None:
        super().__init__(context)
        # Each request names its upstream; this placeholder never matches one.
        context.server.address = tcp or ("upstream.invalid", 1)
        self._child: layer.Layer
        if tcp is None:
            self._child = layer.NextLayer(context)
        else:
            self._child = layers.TCPLayer(context, ignore=True)

    def _handle_event(self, event: events.Event) -> Generator[None]:
        self._handle_event = self._child.handle_event  # type: ignore[method-assign]
        yield from self._child.handle_event(event)


def choose(nextlayer: layer.NextLayer, peer: Peer, tls: bool) -> None:
    """What the client speaks: TLS where the listener has a certificate, else HTTP/1 or h2c."""
    context = nextlayer.context
    if tls and not context.client.tls:
        nextlayer.layer = layers.ClientTLSLayer(context)
        return
    start = nextlayer.data_client()[: len(_H2_PREFACE)]
    if not context.client.tls and _H2_PREFACE.startswith(start):
        if len(start) < len(_H2_PREFACE):
            return  # too little to tell; asked again with the next data
        context.client.alpn = b"h2"
    nextlayer.layer = SidecarHttp(context, peer)


class SidecarHttp(HttpLayer):
    """mitmproxy's HTTP layer with codecs and upstream connections of our own."""

    def __init__(self, context: Context, peer: Peer) -> None:
        super().__init__(context, HTTPMode.transparent)
        self._peer = peer
        if context.client.alpn != HTTP2:
            self.connections[context.client] = Http1FromClient(context.fork())

    def make_stream(self, stream_id: int) -> Generator[None]:
        self.streams[stream_id] = SidecarStream(self.context.fork(), stream_id, self._peer)
        yield from self.event_to_child(self.streams[stream_id], events.Start())

    def get_connection(self, event: GetHttpConnection, *, reuse: bool = True) -> Generator[None]:
        """An open connection to that node, or a new one."""
        self._forget_closed()
        for connection in self.connections if reuse else ():
            if not event.connection_spec_matches(connection):
                continue
            if connection in self.waiting_for_establishment:
                self.waiting_for_establishment[connection].append(event)
                return
            # A HTTP/1 connection serves one HTTP/2 stream, and is closed by it.
            multiplexed = connection.alpn == HTTP2 or self.context.client.alpn != HTTP2
            if connection.connected and multiplexed:
                stream = self.command_sources.pop(event)
                done = GetHttpConnectionCompleted(event, (connection, None))
                yield from self.event_to_child(stream, done)
                return
        yield from self._connect(event)

    def _connect(self, event: GetHttpConnection) -> Generator[None]:
        context = self.context.fork()
        server = context.server = Server(address=event.address)
        stack = tunnel.LayerStack()
        if event.tls:
            server.sni = event.address[0]
            stack /= layers.ServerTLSLayer(context)
        stack /= ToUpstream(context)
        self.connections[server] = stack[0]
        self.waiting_for_establishment[server].append(event)
        yield from self.event_to_child(stack[0], events.Start())

    def _forget_closed(self) -> None:
        """mitmproxy keeps them, and what failed once would fail for as long as the client stays."""
        used = {stream.context.server for stream in self.streams.values()}
        for connection in tuple(self.connections):
            if (
                connection.state is ConnectionState.CLOSED
                and connection not in self.waiting_for_establishment
                and connection not in used
            ):
                del self.connections[connection]

    def _handle_event(self, event: events.Event) -> Generator[None]:
        if (
            isinstance(event, events.ConnectionEvent)
            and event.connection not in self.connections
            and event.connection is not self.context.server
        ):
            return
        yield from super()._handle_event(event)


class SidecarStream(HttpStream):
    """One request and its answer; bodies stream, injected answers replace the upstream's."""

    def __init__(self, context: Context, stream_id: int, peer: Peer) -> None:
        super().__init__(context, stream_id)
        self._peer = peer
        self._expecting: tuple[tuple[bytes, bytes], ...] | None = None

    @property
    def exchange(self) -> Exchange | None:
        request = getattr(self, "flow", None)
        return exchange_of(request) if request is not None else None

    def handle_event(self, event: events.Event) -> Generator[None]:
        if self._paused and isinstance(event, RequestProtocolError) and self.exchange:
            self.exchange.release()
        yield from super().handle_event(event)

    def _handle_event(self, event: events.Event) -> Generator[None]:
        if not isinstance(event, ResponseHeaders) or not is_interim(event.response):
            yield from super()._handle_event(event)
        elif self.server_state == self.state_wait_for_response_headers:
            yield SendHttp(event, self.context.client)

    def check_killed(self, emit_error_hook: bool) -> Generator[bool]:
        killed = yield from super().check_killed(emit_error_hook)
        is_head = self.client_state == self.state_wait_for_request_headers
        headers = self.flow.request.data.headers
        if not killed and is_head and self.flow.response is None and "expect" in headers:
            # mitmproxy is about to answer it, which is for the upstream to do.
            self._expecting = headers.fields
            del headers["expect"]
        return killed

    def start_request_stream(self) -> Generator[None]:
        if self._expecting is not None:
            self.flow.request.data.headers.fields = self._expecting
        yield from super().start_request_stream()

    def make_server_connection(self) -> Generator[bool]:
        """Connect to the first node that takes us, sticky by unit."""
        exchange, upstreams = self.exchange, self._peer.upstreams
        nodes = exchange.nodes if exchange else self._peer.route.upstreams
        err: str | None = None
        for node in upstreams.likely(nodes):
            address, tls = address_of(node)
            self.flow.request.data.host, self.flow.request.data.port = address
            self.flow.request.data.scheme = b"https" if tls else b"http"
            connection, err = yield GetHttpConnection(address, tls, None, "tcp")
            if err is None:
                self.context.server = self.flow.server_conn = connection
                upstreams.works(node)
                return True
            upstreams.fails(node)
        yield from self.handle_protocol_error(
            ResponseProtocolError(self.stream_id, f"upstream: {err}", ErrorCode.CONNECT_FAILED)
        )
        return False

    def check_invalid(self, request: bool) -> Generator[bool]:
        exchange = self.exchange
        if exchange is not None and not request:
            exchange.status = 502
        invalid = yield from super().check_invalid(request)
        if exchange is not None and not invalid:
            exchange.status = None
        return invalid

    def state_consume_request_body(self, event: events.Event) -> Generator[None]:
        if self.flow.response and isinstance(event, RequestData):
            return  # already answered: nobody reads it
        yield from super().state_consume_request_body(event)

    def state_wait_for_response_headers(self, event: ResponseHeaders) -> Generator[None]:
        upstream = event.response
        yield from super().state_wait_for_response_headers(event)
        exchange = self.exchange
        if exchange is None or event.end_stream:
            return
        killed = self.flow.error and self.flow.error.msg == mflow.Error.KILLED_MESSAGE
        if killed:
            yield from self._cancel_upstream()
        elif exchange.replaced and not _is_short(self.flow.request, upstream):
            yield from self._cancel_upstream()
            yield from self.send_response()

    def state_consume_response_body(self, event: events.Event) -> Generator[None]:
        exchange = self.exchange
        if exchange is None or not exchange.replaced:
            yield from super().state_consume_response_body(event)
        elif isinstance(event, ResponseEndOfMessage):
            yield from self.send_response()

    def start_response_stream(self) -> Generator[None]:
        if self.exchange and self.flow.response:
            self.exchange.status = self.flow.response.status_code
        yield from super().start_response_stream()

    def handle_protocol_error(
        self, event: RequestProtocolError | ResponseProtocolError
    ) -> Generator[None]:
        exchange = self.exchange
        if exchange is not None:
            # Once the head is out, a broken body is no answer; before, the client gets a status.
            answered = exchange.status is not None or isinstance(event, RequestProtocolError)
            exchange.status = None if answered else event.code.http_status_code()
        yield from super().handle_protocol_error(event)

    def flow_done(self) -> Generator[None]:
        """mitmproxy's, but whatever follows a 101 is passed on as it is."""
        if self.flow.response is None or self.flow.response.status_code != 101:
            yield from super().flow_done()
            return
        self.flow.live = False
        self.child_layer = layers.TCPLayer(self.context, ignore=True)
        self._handle_event = self.passthrough  # type: ignore[method-assign]
        yield from self.child_layer.handle_event(events.Start())
        yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)

    def _cancel_upstream(self) -> Generator[None]:
        yield SendHttp(
            RequestProtocolError(self.stream_id, "answered by a fault", ErrorCode.CANCEL),
            self.context.server,
        )


def backlog(top: layer.Layer) -> int:
    """Bytes that wait inside a connection's layers, for a held exchange or a slow HTTP/2 peer."""
    waiting = 0
    for http_layer in (x for x in top.context.layers if isinstance(x, SidecarHttp)):
        for stream in http_layer.streams.values():
            waiting += sum(len(getattr(e, "data", b"")) for e in stream._paused_event_queue)
        for connection in http_layer.connections.values():
            waiting += _h2_backlog(connection)
    return waiting


def streams(top: layer.Layer) -> int:
    """Requests under way on a connection."""
    return sum(len(x.streams) for x in top.context.layers if isinstance(x, SidecarHttp))


def _h2_backlog(connection: Any) -> int:
    h2_conn = getattr(connection, "h2_conn", None)
    if h2_conn is None:
        return 0
    return sum(len(item.data) for queue in h2_conn.stream_buffers.values() for item in queue)


def _is_short(request: http.Request, response: http.Response) -> bool:
    try:
        size = expected_http_body_size(request, response)
    except ValueError:
        return False
    return size is not None and 0 <= size <= _SHORT


def head_pending(top: layer.Layer) -> bool:
    """Whether a client has begun a TLS handshake or a request's head, and not finished it."""
    for part in top.context.layers:
        if isinstance(part, layers.ClientTLSLayer):
            if part.tunnel_state is tunnel.TunnelState.ESTABLISHING and part.recv_buffer:
                return True
        elif isinstance(part, SidecarHttp):
            connection = part.connections.get(part.context.client)
            if isinstance(connection, Http1FromClient):
                return connection.state == connection.read_headers and bool(connection.buf)
    return False
