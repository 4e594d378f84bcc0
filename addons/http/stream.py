"""One request and its answer inside mitmproxy's layers.

Bodies stream. An injected answer replaces the upstream's, an interim one (1xx) is passed on, and
`Expect: 100-continue` is for the upstream to answer.
"""

import re
from collections.abc import Callable, Mapping
from itertools import chain

from mitmproxy import flow as mflow
from mitmproxy import http
from mitmproxy.connection import Connection, Server
from mitmproxy.net.http.http1 import expected_http_body_size
from mitmproxy.proxy import commands, events, layer, layers
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import GetHttpConnection, SendHttp

from counterfault.addons.http.client_codec import Http2FromClient
from counterfault.addons.http.faulted_stream import HIGH_WATER, FaultedStream, OwnConnection
from counterfault.addons.http.upstream_codec import codec_of, is_interim, nothing
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
from counterfault.addons.websocket.message_layer import MessageLayer, by_message
from counterfault.proxy.values.addresses import HostPort

type Generator[T] = layer.CommandGenerator[T]

_OF_REQUEST = (RequestHeaders, RequestData, RequestTrailers, RequestEndOfMessage)
_OF_ANSWER = (ResponseHeaders, ResponseData, ResponseTrailers, ResponseEndOfMessage)
# An answer that an injected one replaces is read to its end, if that is near.
_SHORT = 1 << 20
_UNCLEAN = re.compile(rb"[\r\n\0]")


class SidecarStream(FaultedStream):
    """One request and its answer; bodies stream, injected answers replace the upstream's."""

    def __init__(
        self,
        context: Context,
        stream_id: int,
        peer: Peer,
        codec: Http2FromClient | None,
        connections: Mapping[Connection, layer.Layer],
        sink: Callable[[Connection], int],
    ) -> None:
        super().__init__(context, stream_id)
        self._peer, self._connections, self._sink = peer, connections, sink
        self._codec = codec
        self._exchange: Exchange | None = None
        self._expecting: tuple[tuple[bytes, bytes], ...] | None = None

    @property
    def exchange(self) -> Exchange | None:
        if self._exchange is None and hasattr(self, "flow"):
            self._exchange = exchange_of(self.flow)
        return self._exchange

    def handle_event(self, event: events.Event) -> Generator[None]:
        if isinstance(event, RequestProtocolError) and is_paused(self) and self.exchange:
            self.exchange.release_faults()
        inner = super().handle_event(event)
        return inner if self._codec is None else self._windowed(inner, self._codec)

    def _windowed(self, inner: Generator[None], codec: Http2FromClient) -> Generator[None]:
        """A client that speaks HTTP/2 gets no new window for what nobody reads yet."""
        yield from inner
        if self.waits:
            codec.held.add(self.stream_id)

    @property
    def waits(self) -> bool:
        """Whether the request stands still: for a hook, a connection, or an upstream's window."""
        if is_paused(self) or self.shaped_up > HIGH_WATER:
            return True
        upstream = codec_of(self._connections.get(self.context.server))
        return upstream is not None and upstream.unsent(self.stream_id) > HIGH_WATER

    def _handle_event(self, event: events.Event) -> Generator[None]:
        if isinstance(event, _OF_REQUEST):
            return run_hooks_inline(self._peer.run_inline, self.client_state(event))
        if not isinstance(event, _OF_ANSWER):
            return run_hooks_inline(self._peer.run_inline, super()._handle_event(event))
        if isinstance(event, ResponseHeaders) and is_interim(event.response):
            return self._pass_interim(event)
        return run_hooks_inline(self._peer.run_inline, self.server_state(event))

    def _pass_interim(self, event: ResponseHeaders) -> Generator[None]:
        if self.server_state == self.state_wait_for_response_headers:
            yield SendHttp(event, self.context.client)

    def check_killed(self, emit_error_hook: bool) -> Generator[bool]:
        killed = yield from super().check_killed(emit_error_hook)
        is_head = self.client_state == self.state_wait_for_request_headers
        headers = self.flow.request.data.headers
        if is_head and self.exchange is not None and self.exchange.effects is not None:
            self.shape(self.exchange.effects)
        if not killed and is_head and self.flow.response is None and "expect" in headers:
            # mitmproxy is about to answer it, which is for the upstream to do.
            self._expecting = headers.fields
            del headers["expect"]
        return killed

    def start_request_stream(self) -> Generator[None]:
        if self._expecting is not None:
            self.flow.request.data.headers.fields = self._expecting
        yield from super().start_request_stream()

    def unshaped(self, event: events.Event) -> Generator[None]:
        return SidecarStream._handle_event(self, event)

    def sink(self, server: Connection) -> int:
        return self._sink(server)

    def connect_again(self) -> Generator[Connection | None]:
        address, tls = self._direct(self._peer.upstreams.candidates(self._nodes())[0])
        connection: Connection | None
        connection, _ = yield OwnConnection(address, tls, None, "tcp")
        return connection

    def read_upstream(self, on: bool) -> Generator[None]:
        server = self.context.server
        upstream = codec_of(self._connections.get(server))
        if upstream is not None and upstream.read(self.stream_id, on):
            # Nothing, but with it goes what else there is to send: the window.
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
        if self.exchange is not None:
            return self.exchange.nodes
        return nodes_of(self._peer.route, self.flow.request)

    def _direct(self, node: str) -> tuple[HostPort, bool]:
        """Address the request to a node. Returns the node's address and whether it speaks TLS."""
        address, tls = endpoint_of(node)
        self.flow.request.data.host, self.flow.request.data.port = address
        self.flow.request.data.scheme = b"https" if tls else b"http"
        return address, tls

    def check_invalid(self, request: bool) -> Generator[bool]:
        exchange = self.exchange
        if exchange is not None and not request:
            exchange.status = 502
        invalid = yield from super().check_invalid(request)
        message = self.flow.request if request else self.flow.response
        if not invalid and message is not None:
            invalid = yield from self._refuse_unclean(message, request)
        if exchange is not None and not invalid:
            exchange.status = None
        return invalid

    def _refuse_unclean(self, message: http.Message, request: bool) -> Generator[bool]:
        """Refuse what the next server might read as two headers; mitmproxy lets values pass."""
        if not _UNCLEAN.search(b"".join(chain.from_iterable(message.headers.fields))):
            return False
        yield from self.refuse("a header with CR, LF or NUL", request)
        return True

    def refuse(self, why: str, request: bool) -> Generator[None]:
        """Answer a request, or its answer, with an error and be done with it."""
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
        if exchange.effects is not None and self._shape is None:
            self.shape(exchange.effects)
        killed = self.flow.error and self.flow.error.msg == mflow.Error.KILLED_MESSAGE
        if killed:
            yield from self.cancel_upstream()
        elif exchange.replaced and not _is_short(self.flow.request, upstream):
            yield from self.cancel_upstream()
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
        if self.exchange is not None and by_message(self.flow.response):
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


def _is_short(request: http.Request, response: http.Response) -> bool:
    try:
        size = expected_http_body_size(request, response)
    except ValueError:
        return False
    return size is not None and 0 <= size <= _SHORT
