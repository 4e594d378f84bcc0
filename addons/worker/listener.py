"""A worker's side of a listener: accepts clients and runs mitmproxy's layers for each."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mitmproxy import connection, http
from mitmproxy.connection import ConnectionState, Server
from mitmproxy.proxy import commands, events, layer, mode_specs
from mitmproxy.proxy.context import Context

from counterfault.addons.mitm.hook_dispatch import HookDispatcher, Table
from counterfault.addons.tcp.layer import SidecarTcp
from counterfault.addons.transport import tls
from counterfault.addons.transport.connection import ClientConnection
from counterfault.addons.transport.idle import Activity
from counterfault.addons.transport.socket_protocol import SocketProtocol
from counterfault.addons.worker.layer_stack import (
    Entry,
    Leave,
    backlog,
    choose,
    head_pending,
    streams,
)

if TYPE_CHECKING:
    from mitmproxy.options import Options
    from mitmproxy.tls import TlsData
    from OpenSSL import SSL

    from counterfault.addons.pipeline.exchange import Exchange, Injecting
    from counterfault.addons.pipeline.upstreams import Upstreams
    from counterfault.addons.state import WorkerState
    from counterfault.addons.tcp.enrolment import TcpContext
    from counterfault.addons.transport.certificate_issuer import CertificateIssuer
    from counterfault.proxy.config.sidecar import Limits
    from counterfault.proxy.engines.plan import Route

log = logging.getLogger("counterfault")

_MODE = mode_specs.ProxyMode.parse("reverse:http://upstream.invalid:1")
_LINGER_0 = struct.pack("ii", 1, 0)
# Bytes a connection may hold inside its layers before its sources are made to wait.
_HIGH_WATER = 256 * 1024
# At the end, who has asked for nothing so long is taken to be idle.
_QUIET = 0.5


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections of a worker have in common."""

    live: WorkerState
    options: Options
    hooks: Callable[[AcceptedClient], Table]
    injecting: Injecting
    tcp: TcpContext
    ended: Callable[[Exchange, int | None], None]
    upstreams: Upstreams
    clients: set[AcceptedClient] = field(default_factory=set)
    """Every connection, those of listeners that are gone too."""


class Listener:
    """A listening socket of this worker."""

    def __init__(self, shared: Shared, route: Route) -> None:
        self.route = route
        self.tls: SSL.Context | None = None
        self.ca: Path | None = None
        self.issuer: CertificateIssuer | None = None
        self._shared = shared
        self._server: asyncio.Server | None = None

    async def start(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: SocketProtocol(self._accept), sock=sock, backlog=4096
        )

    def close(self, sock: socket.socket) -> Coroutine[Any, Any, None]:
        """Accept no more; the clients stay. What it answers serves those who were in the queue."""
        if self._server is not None:
            self._server.close()
        waiting = list(_accepted(sock))
        sock.close()
        return self._serve(waiting)

    async def _serve(self, accepted: list[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        for each in accepted:
            await loop.connect_accepted_socket(lambda: SocketProtocol(self._accept), each)

    def _accept(self, link: SocketProtocol) -> None:
        clients, live = self._shared.clients, self._shared.live
        if link.transport.get_extra_info("peername") is None:
            link.transport.abort()  # it has left already, with a reset
            return
        if len(clients) >= live.plan.limits.connections // live.workers:
            link.transport.abort()
            return
        try:
            client = AcceptedClient(self, self._shared, link)
        except Exception as e:
            live.failed("protocol", e)
            link.transport.abort()
            return
        clients.add(client)
        client.feed(events.Start())


class AcceptedClient(ClientConnection):
    """A client's connection with its layers, our addons' part of it, and its faults."""

    def __init__(self, listener: Listener, shared: Shared, link: SocketProtocol) -> None:
        peer = connection_of(link, shared.live.clock())
        super().__init__(peer, link, Activity(shared.live.clock))
        self.route = listener.route
        self.upstreams, self.injecting = shared.upstreams, shared.injecting
        self.exchanges: set[Exchange] = set()
        self._of = listener
        self._shared = shared
        self._tasks: set[asyncio.Task[None]] = set()
        self.parts: list[layer.Layer] = []
        entry = Entry(Context(peer, shared.options), self, shared.tcp)
        self.layer = hooked = HookDispatcher(self, shared.hooks(self), entry)
        self.run_inline = hooked.run_inline

    @property
    def limits(self) -> Limits:
        return self._shared.live.plan.limits

    @property
    def busy(self) -> bool:
        return streams(self.parts) > 0

    @property
    def holds_fault(self) -> bool:
        return any(exchange.held_faults for exchange in self.exchanges)

    def close_if_idle(self) -> None:
        """Close a connection that has outlived its limits; called now and then."""
        pending = head_pending(self.parts)
        if not self.activity.expired(pending, self.limits.idle, self.limits.head_time):
            return
        if self.client_protocol.transport.is_closing():
            self.client_protocol.transport.abort()  # closed, but the client does not read the rest
        else:
            self.close()

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """While the worker drains, ask HTTP/1 clients to come back to another one."""
        if self._shared.live.draining and flow.response and not flow.request.is_http2:
            flow.response.headers["connection"] = "close"

    def reset(self) -> None:
        """Cut the connection with a TCP RST."""
        sock = self.client_protocol.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        self.client_protocol.transport.abort()

    def leave(self) -> None:
        """Close a connection on which nothing is under way, and tell an HTTP/2 client first.

        Others cannot be told: who has just asked may ask once more, and hears it with the answer.
        """
        if self.client.alpn == tls.HTTP2 and self.parts:
            self.feed(Leave())
        elif self._shared.live.clock() - self.activity.last < _QUIET:
            return
        if not self.busy:
            self.close()

    def client_removed(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        for exchange in tuple(self.exchanges):
            self._shared.ended(exchange, None)
        for part in self.parts:
            if isinstance(part, SidecarTcp):
                part.client_left()

    def client_closed(self) -> None:
        self._shared.clients.discard(self)

    def next_layer(self, nextlayer: layer.NextLayer) -> None:
        choose(nextlayer, self, self._of.tls is not None)

    def intercepts(self, host: str) -> bool:
        live = self._shared.live
        route = live.plan.routes.get(self.route.name, self.route)
        return self._of.issuer is not None and live.leased() and host.lower() in route.hosts

    def tls_start_client(self, data: TlsData) -> None:
        target = data.context.server.address
        if self._of.tls is not None:
            tls.start_client(data, self._of.tls)
        elif self._of.issuer is not None and target is not None:
            tls.start_client(data, self._of.issuer.context(target[0]))

    def tls_start_server(self, data: TlsData) -> None:
        tls.start_server(data, self._of.ca)

    def failed(self, where: str, error: Exception) -> None:
        self._shared.live.failed(where, error)

    def finish_later(self, hook: commands.StartHook, waiting: Awaitable[None]) -> None:
        task = asyncio.ensure_future(self._finish(hook, waiting))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, hook: commands.StartHook, waiting: Awaitable[None]) -> None:
        with self.activity.suspended():
            await waiting
        if hook.blocking:
            self.feed(events.HookCompleted(hook))

    def upstream_connected(self, server: Server) -> None:
        server.timestamp_start = self._shared.live.clock()
        if self.client.alpn == tls.HTTP2 and not self.client.tls and not server.tls:
            # A client that speaks cleartext HTTP/2 gets an upstream that does: gRPC needs it.
            server.alpn = tls.HTTP2

    def congested(self, link: SocketProtocol) -> bool:
        http2 = self.client.alpn == tls.HTTP2
        # Only what waits for a hook or a connection, or for an HTTP/2 window, is held at all.
        if not self._tasks and not self.connecting and not http2:
            return False
        # An HTTP/2 client's frames open the windows that the backlog waits for: always read them.
        if link is self.client_protocol and http2:
            return False
        return backlog(self.parts, link.connection) > _HIGH_WATER


def _accepted(sock: socket.socket) -> Iterator[socket.socket]:
    """Everybody who is in a listening socket's queue."""
    sock.setblocking(False)
    with suppress(OSError):
        while True:
            client, _ = sock.accept()
            client.setblocking(False)
            yield client


def connection_of(link: SocketProtocol, started: float) -> connection.Client:
    """What the layers know of a client that has just come."""
    return connection.Client(
        peername=link.transport.get_extra_info("peername"),
        sockname=link.transport.get_extra_info("sockname"),
        timestamp_start=started,
        proxy_mode=_MODE,
        state=ConnectionState.OPEN,
    )
