"""The stream of a request to a forward proxy: it names its target, or asks for a tunnel to it."""

from mitmproxy import http
from mitmproxy.connection import ConnectionState, Server
from mitmproxy.proxy import commands, events, layer, layers

from counterfault.addons.http.http1_codec import Generator
from counterfault.addons.http.stream import SidecarStream
from counterfault.addons.mitm.private import (
    ErrorCode,
    RequestEndOfMessage,
    RequestHeaders,
    ResponseProtocolError,
)

# Headers for the proxy alone; curl and others send the first one (RFC 9110, section 11.7.1).
_FOR_PROXY = ("proxy-connection", "proxy-authorization")


class ForwardStream(SidecarStream):
    """A request in absolute form, or CONNECT (RFC 9112, section 3.2)."""

    def state_wait_for_request_headers(self, event: RequestHeaders) -> Generator[None]:
        """Handle the request's head."""
        if event.request.method != "CONNECT":
            _address_to_target(event.request)
        yield from super().state_wait_for_request_headers(event)

    def check_invalid(self, request: bool) -> Generator[bool]:
        """Refuse an invalid head, and a request without a target. Returns whether it did."""
        invalid = yield from super().check_invalid(request)
        # A request in origin form may be meant for the proxy itself, or come from it: to follow
        # its Host header would make a loop.
        if not invalid and request and not self.flow.request.host:
            yield from self.refuse("not a proxy request: its target is no URL", request)
            return True
        return invalid

    def handle_connect(self) -> Generator[None]:
        """Connect the tunnel; or if its host is intercepted, read the requests in it."""
        self.client_state = self.state_done
        host, port = self.flow.request.host, self.flow.request.port
        server = self.context.server = self.flow.server_conn = Server(address=(host, port))
        if self._peer.intercepts(host):
            self.child_layer = layer.NextLayer(self.context)
        else:
            err = yield commands.OpenConnection(server)
            if (yield from self.check_killed(False)):
                return
            if err is not None:
                failed = ErrorCode.CONNECT_FAILED
                error = ResponseProtocolError(self.stream_id, f"upstream: {err}", failed)
                yield from self.handle_protocol_error(error)
                return
            self.child_layer = layers.TCPLayer(self.context, ignore=True)
        yield from self.handle_connect_finish()  # type: ignore[no-untyped-call]

    def passthrough(self, event: events.Event) -> Generator[None]:
        """Pass on what is in a tunnel; the client may close its half and still read."""
        server = self.context.server
        for command in super().passthrough(event):
            if (
                isinstance(event, RequestEndOfMessage)
                and isinstance(command, commands.CloseConnection)
                and command.connection is server
                and server.state & ConnectionState.CAN_READ
            ):
                yield commands.CloseTcpConnection(server, half_close=True)
            else:
                yield command


def _address_to_target(request: http.Request) -> None:
    """Take the Host header from the target, which outranks it (RFC 9112, section 3.2.2)."""
    if request.authority and request.headers.get("host") != request.authority:
        request.headers["host"] = request.authority
    for name in _FOR_PROXY:
        if name in request.headers:
            del request.headers[name]
