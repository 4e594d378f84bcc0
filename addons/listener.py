"""A worker's side of a listener: accepts clients and runs mitmproxy's layers for each."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mitmproxy import http
from mitmproxy.connection import ConnectionState, Server
from mitmproxy.proxy import commands, events, layer, mode_specs
from mitmproxy.proxy.server import ConnectionIO, LiveConnectionHandler

from addons import tls
from addons.hooks import Hooked, Table
from addons.idle import Activity
from addons.layers import Entry, Leave, backlog, choose, head_pending, streams
from addons.tcp import SidecarTcp

if TYPE_CHECKING:
    from mitmproxy.options import Options
    from mitmproxy.tls import TlsData
    from OpenSSL import SSL

    from addons.exchange import Exchange, Injecting
    from addons.issuer import Issuer
    from addons.live import Live
    from addons.tcp import Raw
    from addons.upstream import Upstreams
    from proxy.sidecar import Limits

log = logging.getLogger("counterfault")

_MODE = mode_specs.ProxyMode.parse("reverse:http://upstream.invalid:1")
_LINGER_0 = struct.pack("ii", 1, 0)
# Bytes a connection may hold inside its layers before its sources are made to wait.
_HIGH_WATER = 256 * 1024
# Upstream connections of one client connection to one node (mitmproxy's 5 would queue HTTP/2).
_UPSTREAM_CONNECTIONS = 100
_POLL = 0.01


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections of a worker have in common."""

    live: Live
    options: Options
    hooks: Callable[[Client], Table]
    injecting: Injecting
    raw: Raw
    ended: Callable[[Exchange, int | None], None]
    upstreams: Upstreams
    clients: set[Client] = field(default_factory=set)
    """Every connection, those of listeners that are gone too."""


class Listener:
    """A listening socket of this worker."""

    def __init__(self, name: str, shared: Shared) -> None:
        self.name = name
        self.tls: SSL.Context | None = None
        self.ca: Path | None = None
        self.issuer: Issuer | None = None
        self._shared = shared
        self._server: asyncio.Server | None = None

    async def start(self, sock: socket.socket) -> None:
        self._server = await asyncio.start_server(self._accept, sock=sock, backlog=4096)

    def close(self) -> None:
        """Accept no more; the clients stay."""
        if self._server is not None:
            self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients, live = self._shared.clients, self._shared.live
        if len(clients) >= live.plan.limits.connections // live.workers:
            writer.transport.abort()
            return
        client = Client(self, self._shared, reader, writer)
        clients.add(client)
        try:
            await client.handle_client()
        finally:
            clients.discard(client)
            client.left()


class Client(LiveConnectionHandler):
    """A client's connection with its layers and the upstream connections made for it."""

    def __init__(
        self,
        listener: Listener,
        shared: Shared,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        super().__init__(reader, writer, shared.options, _MODE)
        self.route = shared.live.plan.routes[listener.name]
        self.upstreams, self.injecting = shared.upstreams, shared.injecting
        self.exchanges: set[Exchange] = set()
        self._activity = Activity(shared.live.clock)
        self.timeout_watchdog = self._activity  # type: ignore[assignment]
        self.max_conns = defaultdict(lambda: asyncio.Semaphore(_UPSTREAM_CONNECTIONS))
        self._of = listener
        self._shared = shared
        self._writer = writer
        self._tasks: set[asyncio.Task[None]] = set()
        self.parts: list[layer.Layer] = []
        entry = Entry(self.layer.context, self, shared.raw)
        self.layer = Hooked(self, shared.hooks(self), entry)  # type: ignore[assignment]

    @property
    def limits(self) -> Limits:
        return self._shared.live.plan.limits

    @property
    def busy(self) -> bool:
        return streams(self.parts) > 0

    def close_if_idle(self) -> None:
        """Close a connection that has outlived its limits; called now and then."""
        pending = head_pending(self.parts)
        if self._activity.too_long(pending, self.limits.idle, self.limits.head_time):
            self.close()

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """While the worker drains, ask HTTP/1 clients to come back to another one."""
        if self._shared.live.draining and flow.response and not flow.request.is_http2:
            flow.response.headers["connection"] = "close"

    def reset(self) -> None:
        """Cut the connection with a TCP RST."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        self._writer.transport.abort()

    def close(self) -> None:
        self._writer.close()

    async def leave(self) -> None:
        """Close a connection on which nothing is under way, and tell an HTTP/2 client first."""
        if self.client.alpn == tls.HTTP2 and self.parts:
            await self.server_event(Leave())
        if not self.busy:
            self.close()

    def give_up(self) -> None:
        """Wait for upstreams no longer: what has no answer yet gets a 502, in that order."""
        for connection, io in tuple(self.transports.items()):
            if connection is not self.client and io.handler is not None:
                io.handler.cancel("the worker leaves")

    def left(self) -> None:
        """The connection is gone, and with it whatever waited for it or was unanswered."""
        for task in tuple(self._tasks):
            task.cancel()
        for exchange in tuple(self.exchanges):
            self._shared.ended(exchange, None)
        for part in self.parts:
            if isinstance(part, SidecarTcp):
                part.left()

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
        with self.timeout_watchdog.disarm():
            await waiting
        if hook.blocking:
            await self.server_event(events.HookCompleted(hook))

    async def handle_hook(self, hook: commands.StartHook) -> None:
        """Hooks from outside the layers (a client came, an upstream left): nobody needs them."""

    def log(self, message: str, level: int = logging.INFO, exc_info: Any = None) -> None:
        if level >= logging.ERROR:
            log.error("%s: %s", self.route.name, message, exc_info=exc_info)

    async def drain_writers(self) -> None:
        """Make a source wait for the sinks; mostly there is nothing to wait for."""
        for io in self.transports.values():
            writer = io.writer
            if isinstance(writer, asyncio.StreamWriter) and (
                writer.transport.get_write_buffer_size() or writer.is_closing()
            ):
                await super().drain_writers()  # type: ignore[no-untyped-call]
                break
        if self._tasks or self.client.alpn == tls.HTTP2:
            await self._wait_for_backlog()

    async def _wait_for_backlog(self) -> None:
        own, task = self.transports.get(self.client), asyncio.current_task()
        source = next((c for c, io in self.transports.items() if io.handler is task), None)
        # An HTTP/2 client's frames open the windows that the backlog waits for: always read them.
        if own is None or (own.handler is task and self.client.alpn == tls.HTTP2):
            return
        while (  # noqa: ASYNC110 (what empties it tells nobody)
            backlog(self.parts, source) > _HIGH_WATER
            and self.client in self.transports
            and not self._writer.is_closing()
        ):
            await asyncio.sleep(_POLL)

    async def open_connection(self, command: commands.OpenConnection) -> None:
        """mitmproxy's, over TCP only and with a limit on the time to connect."""
        server = command.connection
        address = server.address or ("", 0)
        async with self.max_conns[address]:
            try:
                async with asyncio.timeout(self._shared.live.plan.limits.connect):
                    reader, writer = await asyncio.open_connection(*address)
            except (OSError, TimeoutError, asyncio.CancelledError) as e:
                server.error = str(e) or "connect timed out"
                self.transports.pop(server, None)
                await self.server_event(events.OpenConnectionCompleted(command, server.error))
                if isinstance(e, asyncio.CancelledError):
                    raise
                return
            await self._serve_upstream(command, server, reader, writer)

    async def _serve_upstream(
        self,
        command: commands.OpenConnection,
        server: Server,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        server.state = ConnectionState.OPEN
        server.peername = writer.get_extra_info("peername")
        server.sockname = writer.get_extra_info("sockname")
        server.timestamp_start = self._shared.live.clock()
        if self.client.alpn == tls.HTTP2 and not self.client.tls and not server.tls:
            # A client that speaks cleartext HTTP/2 gets an upstream that does: gRPC needs it.
            server.alpn = tls.HTTP2
        handler = asyncio.current_task()
        self.transports[server] = ConnectionIO(handler=handler, reader=reader, writer=writer)
        await self.server_event(events.OpenConnectionCompleted(command, None))
        try:
            await self.handle_connection(server)
        finally:
            writer.close()  # who is cancelled twice does not come to that
