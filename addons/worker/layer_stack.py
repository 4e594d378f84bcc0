"""mitmproxy's protocol layers, taught what a sidecar needs of them.

Entry ─ SidecarTcp, at a tcp listener
Entry ─ NextLayer ─┬─ ClientTLSLayer ─ SidecarHttp ─ SidecarStream (one per request)
                   ├─ SidecarHttp …              └── upstream connections
                   └─ SidecarHttp ─ ForwardStream ─ NextLayer, as above, where it is intercepted
"""

from collections.abc import Iterable
from itertools import count
from typing import Any, Protocol

from mitmproxy.connection import Connection, ConnectionState, Server
from mitmproxy.proxy import commands, events, layer, layers, tunnel
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import (
    GetHttpConnection,
    GetHttpConnectionCompleted,
    HttpLayer,
    HTTPMode,
)

from counterfault.addons.http.client_codec import Http1FromClient, Http2FromClient
from counterfault.addons.http.discarding_stream import FIRST, DiscardingStream
from counterfault.addons.http.faulted_stream import OwnConnection
from counterfault.addons.http.forward_stream import ForwardStream
from counterfault.addons.http.stream import SidecarStream
from counterfault.addons.http.upstream_codec import HTTP2, ToUpstream, nothing
from counterfault.addons.mitm.private import queued_bytes
from counterfault.addons.pipeline.exchange import Peer
from counterfault.addons.tcp.enrolment import TcpContext
from counterfault.addons.tcp.layer import SidecarTcp

type Generator[T] = layer.CommandGenerator[T]

_H2_PREFACE = b"PRI"
# Idle upstream connections of a forward proxy's client.
_KEPT = 8
# The first byte of a TLS record with a handshake (RFC 8446, 5.1).
_HANDSHAKE = b"\x16"


class ConnectionOwner(Peer, Protocol):
    """A client's connection that knows its layers."""

    parts: list[layer.Layer]
    """Those of TLS and HTTP, from the outside in."""


class Entry(layer.Layer):
    """The outermost layer of a client's connection."""

    def __init__(self, context: Context, peer: ConnectionOwner, tcp: TcpContext) -> None:
        super().__init__(context)
        # Each request names its upstream; this placeholder never matches one.
        context.server.address = ("upstream.invalid", 1)
        self._child: layer.Layer
        if peer.route.scheme == "tcp":
            self._child = SidecarTcp(context, peer, tcp)
            peer.parts.append(self._child)
        else:
            self._child = layer.NextLayer(context)

    def handle_event(self, event: events.Event) -> Generator[None]:
        # NextLayer puts the chosen one's in place of its own.
        return self._child.handle_event(event)

    _handle_event = handle_event


def choose(nextlayer: layer.NextLayer, peer: ConnectionOwner, tls: bool) -> None:
    """What the client speaks: TLS where the listener has a certificate, else HTTP/1 or h2c."""
    context = nextlayer.context
    if isinstance(context.layers[-1], ForwardStream):
        nextlayer.layer = _tunnelled(nextlayer)
    elif context.client.tls:
        nextlayer.layer = SidecarHttp(context, peer, HTTPMode.transparent)
    elif tls:
        nextlayer.layer = layers.ClientTLSLayer(context)
    elif peer.route.forward:
        nextlayer.layer = SidecarHttp(context, peer, HTTPMode.regular)
    else:
        start = nextlayer.data_client()[: len(_H2_PREFACE)]
        if _H2_PREFACE.startswith(start):
            if len(start) < len(_H2_PREFACE):
                return  # too little to tell; asked again with the next data
            context.client.alpn = b"h2"
        nextlayer.layer = SidecarHttp(context, peer, HTTPMode.transparent)
    peer.parts.append(nextlayer.layer)


def _tunnelled(nextlayer: layer.NextLayer) -> layer.Layer:
    """What is in a tunnel to a host that is intercepted; it need not be TLS."""
    context = nextlayer.context
    if not nextlayer.data_client().startswith(_HANDSHAKE):
        return layers.TCPLayer(context, ignore=True)
    context.server.tls = True
    return layers.ClientTLSLayer(context)


class Leave(events.Event):
    """The connection is about to be closed by us."""


class SidecarHttp(HttpLayer):
    """mitmproxy's HTTP layer with codecs and upstream connections of our own."""

    def __init__(self, context: Context, peer: Peer, mode: HTTPMode) -> None:
        super().__init__(context, mode)
        self._peer = peer
        self._codec: Http2FromClient | None = None
        if context.client.alpn == HTTP2:
            self._codec = Http2FromClient(context.fork(), peer.limits)
        codec = self._codec or Http1FromClient(context.fork(), peer.limits)
        self.connections[context.client] = codec
        self._own: set[Connection] = set()
        self._sinks = count(FIRST, 2)

    def make_stream(self, stream_id: int) -> Generator[None]:
        context = _fork(self.context)
        kind = ForwardStream if self.mode is HTTPMode.regular else SidecarStream
        self.streams[stream_id] = kind(
            context, stream_id, self._peer, self._codec, self.connections, self._sink
        )
        yield from self.event_to_child(self.streams[stream_id], events.Start())

    def _sink(self, server: Connection) -> int:
        """A stream for an answer that nobody reads."""
        number = next(self._sinks)
        self.streams[number] = DiscardingStream(_fork(self.context), number, server)  # type: ignore[assignment]
        return number

    def get_connection(self, event: GetHttpConnection, *, reuse: bool = True) -> Generator[None]:
        """An open connection to that node, or a new one."""
        self._forget_closed()
        own = isinstance(event, OwnConnection)
        for connection in self.connections if reuse else ():
            if not event.connection_spec_matches(connection) or connection in self._own:
                continue
            if connection in self.waiting_for_establishment:
                if own:
                    continue
                self.waiting_for_establishment[connection].append(event)
                return
            # A HTTP/1 connection serves one HTTP/2 stream, and is closed by it.
            multiplexed = connection.alpn == HTTP2 or (
                self.context.client.alpn != HTTP2 and not own
            )
            if connection.connected and multiplexed and not connection.error:
                stream = self.command_sources.pop(event)
                done = GetHttpConnectionCompleted(event, (connection, None))
                yield from self.event_to_child(stream, done)
                return
        yield from self._connect(event)

    def _connect(self, event: GetHttpConnection) -> Generator[None]:
        if self.mode is HTTPMode.regular:
            yield from self._make_room()
        context = self.context.fork()
        server = context.server = Server(address=event.address)
        stack = tunnel.LayerStack()
        if event.tls:
            server.sni = event.address[0]
            stack /= layers.ServerTLSLayer(context)
        stack /= ToUpstream(context)
        self.connections[server] = stack[0]
        if isinstance(event, OwnConnection):
            self._own.add(server)
        self.waiting_for_establishment[server].append(event)
        yield from self.event_to_child(stack[0], events.Start())

    def _make_room(self) -> Generator[None]:
        """A forward proxy's client may go to any number of hosts, to one at a time."""
        used = {stream.context.server for stream in self.streams.values()}
        servers = [c for c in self.connections if isinstance(c, Server) and c not in used]
        for connection in servers[:-_KEPT]:
            if connection.connected:
                yield commands.CloseConnection(connection)

    def _forget_closed(self) -> None:
        """mitmproxy keeps them, and what failed once would fail for as long as the client stays."""
        if all(c.state is not ConnectionState.CLOSED for c in self.connections):
            return
        used = {stream.context.server for stream in self.streams.values()}
        for connection in tuple(self.connections):
            if (
                connection.state is ConnectionState.CLOSED
                and connection not in self.waiting_for_establishment
                and connection not in used
            ):
                del self.connections[connection]
                self._own.discard(connection)

    def _handle_event(self, event: events.Event) -> Generator[None]:
        passed: Generator[None]
        if isinstance(event, events.ConnectionEvent):
            child = self.connections.get(event.connection)
            if child is not None:
                passed = self.event_to_child(child, event)
            elif event.connection is self.context.server:
                passed = super()._handle_event(event)
            else:
                return nothing()
        elif isinstance(event, Leave):
            return self._codec.go_away() if self._codec is not None else nothing()
        else:
            passed = super()._handle_event(event)
        return passed if self._codec is None else self._windowed(passed, self._codec)

    def _windowed(self, passed: Generator[None], codec: Http2FromClient) -> Generator[None]:
        """Streams that stand still no more may be sent more."""
        yield from passed
        for stream_id in tuple(codec.held):
            stream = self.streams.get(stream_id)
            if not isinstance(stream, SidecarStream) or not stream.waits:
                yield from codec.let_go(stream_id)


def _fork(context: Context) -> Context:
    """mitmproxy's, without the Server that it makes and that is thrown away."""
    forked = Context.__new__(Context)
    forked.client, forked.options = context.client, context.options
    forked.server, forked.layers = context.server, context.layers.copy()
    return forked


def backlog(parts: Iterable[layer.Layer], source: Connection | None = None) -> int:
    """Bytes that wait inside a connection's layers, for a held exchange or a slow HTTP/2 peer.

    What a pace holds counts for the connection that it came from alone.
    """
    waiting = sum(part.held_bytes(source) for part in parts if isinstance(part, SidecarTcp))
    for http_layer in (part for part in parts if isinstance(part, SidecarHttp)):
        if source in http_layer.waiting_for_establishment:
            return 0  # its TLS handshake is what the others wait for
        for stream in http_layer.streams.values():
            waiting += queued_bytes(stream)
            if isinstance(stream, SidecarStream):
                waiting += _paced(stream, source)
        for connection in http_layer.connections.values():
            waiting += _h2_backlog(connection)
    return waiting


def _paced(stream: SidecarStream, source: Connection | None) -> int:
    if source is stream.context.client:
        return stream.shaped_up
    # An HTTP/2 upstream has a window for each stream, and serves others meanwhile.
    paused = source is stream.context.server and source.alpn != HTTP2
    return stream.shaped_down if paused else 0


def streams(parts: Iterable[layer.Layer]) -> int:
    """Requests and tunnels under way on a connection; an intercepted tunnel is its requests."""
    found = (s for part in parts if isinstance(part, SidecarHttp) for s in part.streams.values())
    turns = sum(part.turns.current is not None for part in parts if isinstance(part, SidecarTcp))
    return turns + sum(not isinstance(stream.child_layer, layer.NextLayer) for stream in found)


def _h2_backlog(connection: Any) -> int:
    h2_conn = getattr(connection, "h2_conn", None)
    if h2_conn is None:
        return 0
    return sum(len(item.data) for queue in h2_conn.stream_buffers.values() for item in queue)


def head_pending(parts: Iterable[layer.Layer]) -> bool:
    """Whether a client has begun a TLS handshake or a request's head, and not finished it."""
    for part in parts:
        if isinstance(part, layers.ClientTLSLayer):
            if part.tunnel_state is tunnel.TunnelState.ESTABLISHING and part.recv_buffer:
                return True
        elif isinstance(part, SidecarHttp):
            connection = part.connections.get(part.context.client)
            if isinstance(connection, Http1FromClient) and connection.buf:
                return bool(connection.state == connection.read_headers)
    return False
