"""A client connection with its layers, its hooks and its faults."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol

from mitmproxy import connection, http
from mitmproxy.connection import ConnectionState, Server
from mitmproxy.proxy import commands, events, layer, mode_specs
from mitmproxy.proxy.context import Context

from counterfault.addons.http.layer import GoAway
from counterfault.addons.mitm.hook_dispatch import HookDispatcher
from counterfault.addons.tcp.layer import SidecarTcp
from counterfault.addons.transport import tls
from counterfault.addons.transport.connection import ClientConnection
from counterfault.addons.transport.idle import Activity
from counterfault.addons.worker.layer_queries import active_requests, head_unfinished, held_bytes
from counterfault.addons.worker.layer_stack import RootLayer, choose_layer

if TYPE_CHECKING:
    from mitmproxy.tls import TlsData

    from counterfault.addons.pipeline.exchange import Exchange
    from counterfault.addons.transport.socket_protocol import SocketProtocol
    from counterfault.addons.worker.listener import ListenerSettings
    from counterfault.addons.worker.worker_context import WorkerContext
    from counterfault.proxy.config.sidecar import Limits

# mitmproxy's Client needs a mode; no layer uses its address.
_MODE = mode_specs.ProxyMode.parse("reverse:http://upstream.invalid:1")
# struct linger: on, with zero seconds; close() then sends a RST.
_LINGER_0 = struct.pack("ii", 1, 0)
# Bytes that the layers of a connection may hold before its sockets are no longer read.
_HIGH_WATER = 256 * 1024
# While draining, a client that sent nothing for this many seconds is idle.
_QUIET = 0.5


class ClientListener(Protocol):
    """The listener that has accepted a client."""

    settings: ListenerSettings


class AcceptedClient(ClientConnection):
    """A client connection, with the layers that serve it and the handlers of their hooks."""

    def __init__(
        self, listener: ClientListener, context: WorkerContext, protocol: SocketProtocol
    ) -> None:
        """Make the layers for a client whose socket is open."""
        client = _mitmproxy_client(protocol, context.state.clock())
        super().__init__(client, protocol, Activity(context.state.clock))
        self.route = listener.settings.route
        self.upstreams, self.message_faults = context.upstreams, context.message_faults
        self.exchanges: set[Exchange] = set()
        self._listener = listener
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()
        self.layers: list[layer.Layer] = []
        root = RootLayer(Context(client, context.options), self, context.tcp)
        self.layer = dispatcher = HookDispatcher(self, context.hooks(self), root)
        self.run_inline = dispatcher.run_inline

    @property
    def limits(self) -> Limits:
        """The limits of the present plan."""
        return self._context.state.plan.limits

    @property
    def busy(self) -> bool:
        """Whether a request, a turn or a tunnel is under way."""
        return active_requests(self.layers) > 0

    @property
    def holds_fault(self) -> bool:
        """Whether a fault holds an exchange of this client."""
        return any(exchange.held_faults for exchange in self.exchanges)

    def close_if_expired(self) -> None:
        """Close a connection that has outlived its limits; the worker calls this every second."""
        unfinished = head_unfinished(self.layers)
        if not self.activity.expired(unfinished, self.limits.idle, self.limits.head_time):
            return
        if self.client_protocol.transport.is_closing():
            self.client_protocol.transport.abort()  # closed, but the client does not read the rest
        else:
            self.close()

    def reset(self) -> None:
        """Cut the connection with a TCP RST."""
        sock = self.client_protocol.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        self.client_protocol.transport.abort()

    def drain(self) -> None:
        """Close the connection if nothing is under way on it; an HTTP/2 client gets a GOAWAY first.

        HTTP/1 has no GOAWAY: a client that was active within _QUIET seconds is left open and gets
        `connection: close` with its next response.
        """
        if self.client.alpn == tls.HTTP2 and self.layers:
            self.feed(GoAway())
        elif self._context.state.clock() - self.activity.last < _QUIET:
            return
        if not self.busy:
            self.close()

    # --- what ClientConnection asks for

    def client_removed(self) -> None:
        """End what the client was waiting for."""
        for task in tuple(self._tasks):
            task.cancel()
        for exchange in tuple(self.exchanges):
            self._context.ended(exchange, None)
        for each in self.layers:
            if isinstance(each, SidecarTcp):
                each.client_left()

    def client_closed(self) -> None:
        """Forget the client, whose socket is closed."""
        self._context.clients.discard(self)

    def failed(self, where: str, error: Exception) -> None:
        """Count and log an internal error."""
        self._context.state.failed(where, error)

    def upstream_connected(self, server: Server) -> None:
        """Choose the protocol of an upstream connection before the layers use it."""
        server.timestamp_start = self._context.state.clock()
        if self.client.alpn == tls.HTTP2 and not self.client.tls and not server.tls:
            # A client that speaks cleartext HTTP/2 gets an upstream that does: gRPC needs it.
            server.alpn = tls.HTTP2

    def congested(self, protocol: SocketProtocol) -> bool:
        """Return whether the layers hold so much data that this socket is not to be read."""
        http2 = self.client.alpn == tls.HTTP2
        # Layers hold data only while a hook, a connection or an HTTP/2 window is waited for.
        if not self._tasks and not self.connecting and not http2:
            return False
        # Frames of an HTTP/2 client open the windows that held data waits for: always read them.
        if protocol is self.client_protocol and http2:
            return False
        return held_bytes(self.layers, protocol.connection) > _HIGH_WATER

    # --- what HookDispatcher asks for

    def finish_later(self, hook: commands.StartHook, waiting: Awaitable[None]) -> None:
        """Await a hook's handlers in a task, then tell the layers that the hook is done."""
        task = asyncio.ensure_future(self._finish(hook, waiting))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, hook: commands.StartHook, waiting: Awaitable[None]) -> None:
        with self.activity.suspended():
            await waiting
        if hook.blocking:
            self.feed(events.HookCompleted(hook))

    # --- handlers of mitmproxy's hooks

    def next_layer(self, next_layer: layer.NextLayer) -> None:
        """Choose the next layer."""
        choose_layer(next_layer, self, self._listener.settings.tls is not None)

    def tls_start_client(self, data: TlsData) -> None:
        """Serve TLS: with the listener's certificate, or with one for the intercepted host."""
        settings, target = self._listener.settings, data.context.server.address
        if settings.tls is not None:
            tls.start_client(data, settings.tls)
        elif settings.issuer is not None and target is not None:
            tls.start_client(data, settings.issuer.context(target[0]))

    def tls_start_server(self, data: TlsData) -> None:
        """Speak TLS to an upstream."""
        tls.start_server(data, self._listener.settings.ca)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """While the worker drains, ask an HTTP/1 client to open another connection."""
        if self._context.state.draining and flow.response and not flow.request.is_http2:
            flow.response.headers["connection"] = "close"

    # --- what streams ask for

    def intercepts(self, host: str) -> bool:
        """Whether the TLS inside a CONNECT tunnel to this host is to be decrypted."""
        state, issuer = self._context.state, self._listener.settings.issuer
        route = state.plan.routes.get(self.route.name, self.route)
        return issuer is not None and state.leased() and host.lower() in route.hosts


def _mitmproxy_client(protocol: SocketProtocol, started: float) -> connection.Client:
    """Describe a client that has just connected; `started` in monotonic seconds."""
    return connection.Client(
        peername=protocol.transport.get_extra_info("peername"),
        sockname=protocol.transport.get_extra_info("sockname"),
        timestamp_start=started,
        proxy_mode=_MODE,
        state=ConnectionState.OPEN,
    )
