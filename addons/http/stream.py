"""The stream of one request and its response: mitmproxy's HttpStream with a sidecar's rules.

Theory of operation. HttpStream is two state machines, `client_state` for events of the request and
`server_state` for events of the response; each state is a method that handles an event and yields
commands (see `addons.mitm` for events and commands). What differs here:

- Bodies stream; nothing is collected, unless a fault needs the whole body.
- Hooks run in place, if no handler waits. The handlers assign the request, decide on its faults
  and keep them in its Exchange.
- The request goes to the first of the exchange's nodes that accepts a connection.
- An injected response replaces the upstream's (`Exchange.replaced`). A short one is read to its
  end first, so that its connection stays usable; for a long one the upstream is cancelled.
- Interim responses (1xx) are passed on, and `Expect: 100-continue` is left to the upstream.
- Over HTTP/2, a client gets no new window for a request that stands still, and an upstream gets
  none for a response that a fault holds. So memory is bounded, and other streams go on.

    client_state:  wait_for_request_headers ─▶ stream_request_body ────────────────────────▶ done
    server_state:  wait_for_response_headers ─┬─▶ stream_response_body ────────────────────▶ done
                                              └─▶ consume_response_body ─▶ send_response ──▶ done
                   (any) ─▶ errored                                   done ─▶ passthrough (101)
"""

from collections.abc import Callable, Mapping

from mitmproxy import flow as mflow
from mitmproxy.connection import Connection, Server
from mitmproxy.proxy import commands, events, layer, layers
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import GetHttpConnection, SendHttp

from counterfault.addons.http.client_codec import Http2FromClient
from counterfault.addons.http.faulted_stream import FaultedStream, GetUnsharedConnection
from counterfault.addons.http.http1_codec import Generator, nothing
from counterfault.addons.http.message_checks import is_interim, is_short, splits_headers
from counterfault.addons.http.paced_stream import HIGH_WATER
from counterfault.addons.http.upstream_codec import http2_of
from counterfault.addons.mitm.hook_dispatch import run_hooks_inline
from counterfault.addons.mitm.private import (
    ErrorCode,
    HttpErrorHook,
    HttpRequestHeadersHook,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    RequestTrailers,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
    is_paused,
)
from counterfault.addons.pipeline.exchange import Exchange, Peer, exchange_of
from counterfault.addons.pipeline.upstreams import endpoint_of, nodes_of
from counterfault.addons.websocket.message_layer import MessageLayer, is_websocket
from counterfault.proxy.values.addresses import HostPort

_REQUEST_EVENTS = (RequestHeaders, RequestData, RequestTrailers, RequestEndOfMessage)
_RESPONSE_EVENTS = (ResponseHeaders, ResponseData, ResponseTrailers, ResponseEndOfMessage)


class SidecarStream(FaultedStream):
    """One request and its response, or what follows an upgrade to another protocol."""

    def __init__(
        self,
        context: Context,
        stream_id: int,
        peer: Peer,
        codec: Http2FromClient | None,
        connections: Mapping[Connection, layer.Layer],
        add_discarding_stream: Callable[[Connection], int],
    ) -> None:
        """Wait for a request.

        Args:
            context: mitmproxy's, of this stream alone.
            stream_id: The number that HTTP events for this stream carry.
            peer: The client's connection.
            codec: The client's, if it speaks HTTP/2.
            connections: The layers of each connection to an upstream.
            add_discarding_stream: Returns the id of a new stream that discards its response.
        """
        super().__init__(context, stream_id)
        self._peer, self._connections = peer, connections
        self._add_discarding_stream = add_discarding_stream
        self._codec = codec
        self._exchange: Exchange | None = None
        self._fields_with_expect: tuple[tuple[bytes, bytes], ...] | None = None

    @property
    def exchange(self) -> Exchange | None:
        """The request's exchange; None before its head has come, or if making one failed."""
        if self._exchange is None and hasattr(self, "flow"):
            self._exchange = exchange_of(self.flow)
        return self._exchange

    def handle_event(self, event: events.Event) -> Generator[None]:
        """Handle an event; an error of the client releases the faults that hold its request."""
        if isinstance(event, RequestProtocolError) and is_paused(self) and self.exchange:
            self.exchange.release_faults()
        commands_of_event = super().handle_event(event)
        if self._codec is None:
            return commands_of_event
        return self._then_hold_window(commands_of_event, self._codec)

    def _then_hold_window(
        self, commands_of_event: Generator[None], codec: Http2FromClient
    ) -> Generator[None]:
        """While the request stands still, give an HTTP/2 client no new window for it."""
        yield from commands_of_event
        if self.stands_still:
            codec.held_streams.add(self.stream_id)

    @property
    def stands_still(self) -> bool:
        """Whether the request waits for a hook, a connection, a fault or an upstream's window."""
        if is_paused(self) or self.held_request_bytes > HIGH_WATER:
            return True
        upstream = http2_of(self._connections.get(self.context.server))
        return upstream is not None and upstream.unsent_bytes(self.stream_id) > HIGH_WATER

    def handle_unfaulted(self, event: events.Event) -> Generator[None]:
        """Handle an event as if there were no faults."""
        return self._handle_event(event, faulted=False)

    def _handle_event(self, event: events.Event, *, faulted: bool = True) -> Generator[None]:
        # Nearly all streams are without effects: they take one call per event, and not two.
        if self._effects is not None and faulted:
            return self.handle_faulted(self._effects, event)
        if isinstance(event, _REQUEST_EVENTS):
            return run_hooks_inline(self._peer.run_inline, self.client_state(event))
        if not isinstance(event, _RESPONSE_EVENTS):
            return run_hooks_inline(self._peer.run_inline, super()._handle_event(event))
        if isinstance(event, ResponseHeaders) and is_interim(event.response):
            return self._pass_interim(event)
        return run_hooks_inline(self._peer.run_inline, self.server_state(event))

    def _pass_interim(self, event: ResponseHeaders) -> Generator[None]:
        if self.server_state == self.state_wait_for_response_headers:
            yield SendHttp(event, self.context.client)

    # --- the request

    def check_killed(self, emit_error_hook: bool) -> Generator[bool]:
        """See HttpStream. It is called right after the hooks of the request's head have run."""
        killed = yield from super().check_killed(emit_error_hook)
        is_head = self.client_state == self.state_wait_for_request_headers
        headers = self.flow.request.data.headers
        if is_head and self.exchange is not None and self.exchange.effects is not None:
            self.apply_effects(self.exchange.effects)
        if not killed and is_head and self.flow.response is None and "expect" in headers:
            # Hide it from mitmproxy, which would answer it: that is left to the upstream.
            self._fields_with_expect = headers.fields
            del headers["expect"]
        return killed

    def start_request_stream(self) -> Generator[None]:
        """Send the request's head, with the Expect header that was hidden."""
        if self._fields_with_expect is not None:
            self.flow.request.data.headers.fields = self._fields_with_expect
        yield from super().start_request_stream()

    def add_discarding_stream(self, server: Connection) -> int:
        """Return the id of a new stream that discards its response."""
        return self._add_discarding_stream(server)

    def connect_for_copy(self) -> Generator[Connection | None]:
        """Return a connection for a copy of the request, or None if the node refuses."""
        address, tls = self._direct(self._peer.upstreams.candidates(self._nodes())[0])
        connection: Connection | None
        connection, _ = yield GetUnsharedConnection(address, tls, None, "tcp")
        return connection

    def set_upstream_reading(self, on: bool) -> Generator[None]:
        """Let an HTTP/2 upstream send more of this response, or no more."""
        server = self.context.server
        upstream = http2_of(self._connections.get(server))
        if upstream is not None and upstream.set_reading(self.stream_id, on):
            # An empty DATA event makes the codec send the WINDOW_UPDATE that is due.
            yield SendHttp(RequestData(self.stream_id, b""), server)

    def make_server_connection(self) -> Generator[bool]:
        """Connect to the first node that accepts; a unit's own node is tried first."""
        error = yield from self._peer.upstreams.connect(self._nodes(), self._connect_to)
        if error is None:
            return True
        yield from self.handle_protocol_error(
            ResponseProtocolError(self.stream_id, f"upstream: {error}", ErrorCode.CONNECT_FAILED)
        )
        return False

    def _connect_to(self, node: str) -> Generator[str | None]:
        address, tls = self._direct(node)
        connection: Server
        error: str | None
        connection, error = yield GetHttpConnection(address, tls, None, "tcp")
        if error is None:
            self.context.server = self.flow.server_conn = connection
        return error

    def _nodes(self) -> tuple[str, ...]:
        """The nodes to try, in their order."""
        exchange = self.exchange
        if exchange is not None:
            return exchange.nodes
        return nodes_of(self._peer.route, self.flow.request)

    def _direct(self, node: str) -> tuple[HostPort, bool]:
        """Address the request to a node. Returns the node's address and whether it speaks TLS."""
        address, tls = endpoint_of(node)
        self.flow.request.data.host, self.flow.request.data.port = address
        self.flow.request.data.scheme = b"https" if tls else b"http"
        return address, tls

    # --- refusing

    def check_invalid(self, request: bool) -> Generator[bool]:
        """Refuse an invalid head, of the request or of the response. Returns whether it is."""
        exchange = self.exchange
        if exchange is not None and not request:
            exchange.status = 502
        invalid = yield from super().check_invalid(request)
        message = self.flow.request if request else self.flow.response
        if not invalid and message is not None:
            invalid = splits_headers(message)  # mitmproxy lets such values pass
            if invalid:
                yield from self.refuse("a header with CR, LF or NUL", request)
        if exchange is not None and not invalid:
            exchange.status = None
        return invalid

    def refuse(self, why: str, request: bool) -> Generator[None]:
        """Send the client an error in place of the request's response, and end the stream.

        Args:
            why: The error's text.
            request: Whether the request is refused, or the upstream's response.
        """
        self.flow.error = mflow.Error(why)
        if request:
            yield HttpRequestHeadersHook(self.flow)
            code = ErrorCode.REQUEST_VALIDATION_FAILED
        else:
            yield commands.CloseConnection(self.flow.server_conn)
            code = ErrorCode.RESPONSE_VALIDATION_FAILED
        yield HttpErrorHook(self.flow)
        yield SendHttp(ResponseProtocolError(self.stream_id, why, code), self.context.client)
        self.flow.live = False
        self.client_state = self.server_state = self.state_errored

    def state_done(self, _: events.Event) -> Generator[None]:
        """Ignore what an upstream still sends of a response that was cancelled.

        mitmproxy asserts that nothing comes.
        """
        return nothing()

    # --- the response

    def state_consume_request_body(self, event: events.Event) -> Generator[None]:
        """Discard the rest of a request that has been answered."""
        if self.flow.response and isinstance(event, RequestData):
            return
        yield from super().state_consume_request_body(event)

    def state_wait_for_response_headers(self, event: ResponseHeaders) -> Generator[None]:
        """Run the hooks of the response's head, which may replace the response."""
        upstream = event.response
        yield from super().state_wait_for_response_headers(event)
        exchange = self.exchange
        if exchange is None or event.end_stream:
            return
        if exchange.effects is not None and self._effects is None:
            self.apply_effects(exchange.effects)
        killed = self.flow.error and self.flow.error.msg == mflow.Error.KILLED_MESSAGE
        if killed:
            yield from self.cancel_upstream()
        elif exchange.replaced and not is_short(self.flow.request, upstream):
            yield from self.cancel_upstream()
            yield from self.send_response()

    def state_consume_response_body(self, event: events.Event) -> Generator[None]:
        """Discard the body of a response that was replaced, then send the injected one."""
        exchange = self.exchange
        if exchange is None or not exchange.replaced:
            yield from super().state_consume_response_body(event)
        elif isinstance(event, ResponseEndOfMessage):
            yield from self.send_response()

    def start_response_stream(self) -> Generator[None]:
        """Send the response's head."""
        if self.exchange and self.flow.response:
            self.exchange.status = self.flow.response.status_code
        yield from super().start_response_stream()

    def handle_protocol_error(
        self, event: RequestProtocolError | ResponseProtocolError
    ) -> Generator[None]:
        """Note the status that the client gets for an error: none once the head has been sent."""
        exchange = self.exchange
        if exchange is not None:
            answered = exchange.status is not None or isinstance(event, RequestProtocolError)
            exchange.status = None if answered else event.code.http_status_code()
        yield from super().handle_protocol_error(event)

    def flow_done(self) -> Generator[None]:
        """Pass on as it is what follows a 101; mitmproxy would look into it."""
        if self.flow.response is None or self.flow.response.status_code != 101:
            yield from super().flow_done()
            return
        self.flow.live = False
        if self.exchange is not None and is_websocket(self.flow.response):
            self.child_layer = MessageLayer(
                self.context,
                self.exchange,
                self._peer.message_faults,
                compressed="sec-websocket-extensions" in self.flow.response.headers,
            )
        else:
            self.child_layer = layers.TCPLayer(self.context, ignore=True)
        self._handle_event = self.passthrough  # type: ignore[method-assign]
        yield from self.child_layer.handle_event(events.Start())
        yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)
