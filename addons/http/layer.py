"""mitmproxy's HTTP layer with counterfault's codecs, streams and upstream connections."""

from itertools import count

from mitmproxy.connection import Connection, ConnectionState, Server
from mitmproxy.proxy import commands, events, layers, tunnel
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import (
    GetHttpConnection,
    GetHttpConnectionCompleted,
    HttpLayer,
    HTTPMode,
    RegisterHttpConnection,
)

from counterfault.addons.http.client_codec import Http1FromClient, Http2FromClient
from counterfault.addons.http.discarding_stream import FIRST_STREAM_ID, DiscardingStream
from counterfault.addons.http.faulted_stream import GetUnsharedConnection
from counterfault.addons.http.forward_stream import ForwardStream
from counterfault.addons.http.http1_codec import Generator, nothing
from counterfault.addons.http.stream import SidecarStream
from counterfault.addons.http.upstream_codec import HTTP2, ToUpstream, http1_of
from counterfault.addons.pipeline.exchange import Peer

# Idle upstream connections that are kept open for one client of a forward proxy.
_MOST_IDLE = 8


class GoAway(events.Event):
    """We are about to close the client's connection: an HTTP/2 client gets a GOAWAY frame."""


class SidecarHttp(HttpLayer):
    """All requests of one client connection, or of one intercepted tunnel.

    Unlike mitmproxy's layer it chooses an upstream connection for each request by the request's
    own target, and it reuses upstream connections between requests.
    """

    def __init__(self, context: Context, peer: Peer, mode: HTTPMode) -> None:
        """Prepare the codec for what the client has negotiated."""
        super().__init__(context, mode)
        self._peer = peer
        self._codec: Http2FromClient | None = None
        if context.client.alpn == HTTP2:
            self._codec = Http2FromClient(context.fork(), peer.limits)
        codec = self._codec or Http1FromClient(context.fork(), peer.limits)
        self.connections[context.client] = codec
        self._unshared: set[Connection] = set()
        """Upstream connections that were opened for a copy of a request, and serve no other."""
        self._discarding_ids = count(FIRST_STREAM_ID, 2)

    def make_stream(self, stream_id: int) -> Generator[None]:
        """Make the stream of a new request."""
        context = _fork(self.context)
        kind = ForwardStream if self.mode is HTTPMode.regular else SidecarStream
        self.streams[stream_id] = kind(
            context,
            stream_id,
            self._peer,
            self._codec,
            self.connections,
            self._make_discarding_stream,
        )
        yield from self.event_to_child(self.streams[stream_id], events.Start())

    def _make_discarding_stream(self, server: Connection) -> int:
        """Make a stream that reads a response and drops it. Returns its id."""
        number = next(self._discarding_ids)
        self.streams[number] = DiscardingStream(_fork(self.context), number, server)  # type: ignore[assignment]
        return number

    def get_connection(self, event: GetHttpConnection, *, reuse: bool = True) -> Generator[None]:
        """Give a stream an open connection to the upstream that it names, or open one."""
        self._forget_closed()
        unshared = isinstance(event, GetUnsharedConnection)
        for connection in self.connections if reuse else ():
            if not event.connection_spec_matches(connection) or connection in self._unshared:
                continue
            if connection in self.waiting_for_establishment:
                if unshared:
                    continue
                self.waiting_for_establishment[connection].append(event)
                return
            # An HTTP/1 connection serves one HTTP/2 stream, which closes it.
            multiplexed = connection.alpn == HTTP2 or (
                self.context.client.alpn != HTTP2 and not unshared
            )
            if connection.connected and multiplexed and not connection.error:
                stream = self.command_sources.pop(event)
                done = GetHttpConnectionCompleted(event, (connection, None))
                yield from self.event_to_child(stream, done)
                return
        yield from self._connect(event)

    def _connect(self, event: GetHttpConnection) -> Generator[None]:
        if self.mode is HTTPMode.regular:
            yield from self._close_idle()
        context = self.context.fork()
        server = context.server = Server(address=event.address)
        stack = tunnel.LayerStack()
        if event.tls:
            server.sni = event.address[0]
            stack /= layers.ServerTLSLayer(context)
        stack /= ToUpstream(context)
        self.connections[server] = stack[0]
        if isinstance(event, GetUnsharedConnection):
            self._unshared.add(server)
        self.waiting_for_establishment[server].append(event)
        yield from self.event_to_child(stack[0], events.Start())

    def register_connection(self, command: RegisterHttpConnection) -> Generator[None]:
        """Tell the streams that wait for a connection whether it is open.

        From here on its events go straight to its codec, which saves a call for each.
        """
        codec = http1_of(self.connections.get(command.connection))
        if codec is not None:
            self.connections[command.connection] = codec
        yield from super().register_connection(command)

    def _close_idle(self) -> Generator[None]:
        """Close the oldest idle upstream connections, all but _MOST_IDLE of them.

        A client of a forward proxy may go to any number of hosts, one after another.
        """
        used = {stream.context.server for stream in self.streams.values()}
        servers = [c for c in self.connections if isinstance(c, Server) and c not in used]
        for connection in servers[:-_MOST_IDLE]:
            if connection.connected:
                yield commands.CloseConnection(connection)

    def _forget_closed(self) -> None:
        """Remove closed connections, which mitmproxy keeps.

        Otherwise an upstream that failed once would fail until the client disconnects.
        """
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
                self._unshared.discard(connection)

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
        elif isinstance(event, GoAway):
            return self._codec.send_goaway() if self._codec is not None else nothing()
        else:
            passed = super()._handle_event(event)
        return passed if self._codec is None else self._open_windows(passed, self._codec)

    def _open_windows(self, passed: Generator[None], codec: Http2FromClient) -> Generator[None]:
        """Pass commands on, then let HTTP/2 clients send more on streams that move again."""
        yield from passed
        for stream_id in tuple(codec.held_streams):
            stream = self.streams.get(stream_id)
            if not isinstance(stream, SidecarStream) or not stream.stands_still:
                yield from codec.release_window(stream_id)


def _fork(context: Context) -> Context:
    """Do what Context.fork does, but make no Server, which each stream would throw away."""
    forked = Context.__new__(Context)
    forked.client, forked.options = context.client, context.options
    forked.server, forked.layers = context.server, context.layers.copy()
    return forked
