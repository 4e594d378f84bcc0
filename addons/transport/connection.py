"""Runs the layers of one client connection: events go in, commands come out and are carried out.

It takes the place of mitmproxy's ConnectionHandler, whose task, buffer and locks for each
connection cost several turns of the event loop for every read.
"""

import asyncio
from collections import defaultdict, deque
from functools import partial
from typing import Protocol

from mitmproxy.connection import Client, Connection, ConnectionState, Server
from mitmproxy.proxy import commands, events, layer

from counterfault.addons.transport.backpressure import Backpressure
from counterfault.addons.transport.idle import Activity
from counterfault.addons.transport.socket_protocol import SocketProtocol
from counterfault.proxy.config.sidecar import Limits

# Upstream connections of one client connection to one address; HTTP/2 to HTTP/1 needs many.
_UPSTREAM_CONNECTIONS = 100


class OutermostLayer(Protocol):
    """The layer that encloses all others of a connection."""

    def handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Return the commands that follow from an event."""


class ClientConnection:
    """A client's connection, and the upstream connections that its layers ask for.

    Its end comes in two steps. `client_removed`: the layers have lost the client, and get no more
    events; bytes already written may still be flushing. `client_closed`: its socket is closed.

    A subclass sets `layer` before the first `feed`. All methods run in the event loop's thread.
    """

    layer: OutermostLayer

    def __init__(self, client: Client, protocol: SocketProtocol, activity: Activity) -> None:
        """Take over a client's socket, which is open."""
        self.client = client
        self.activity = activity
        self.client_protocol = protocol
        protocol.owner, protocol.connection = self, client
        self._protocols: dict[Connection, SocketProtocol] = {client: protocol}
        """The open sockets that the layers know."""
        self.connecting: dict[Connection, asyncio.Task[None]] = {}
        """Upstream connections that are not established yet."""
        self._permits: defaultdict[tuple[str, int], asyncio.Semaphore] = defaultdict(
            partial(asyncio.Semaphore, _UPSTREAM_CONNECTIONS)
        )
        """By upstream address."""
        self._events: deque[events.Event] = deque()
        self._closing: deque[Connection] = deque()
        self._feeding = self._ended = False
        self._backpressure = Backpressure(
            protocol, self.congested, lambda: self.holds_fault, self._paused_client_closed
        )

    # --- what a subclass decides

    @property
    def limits(self) -> Limits:
        """The limits of the present plan."""
        raise NotImplementedError

    @property
    def holds_fault(self) -> bool:
        """Whether a fault holds an exchange of this client."""
        raise NotImplementedError

    def congested(self, protocol: SocketProtocol) -> bool:
        """Return whether the layers hold so much data that this socket is not to be read."""
        raise NotImplementedError

    def upstream_connected(self, server: Server) -> None:
        """An upstream connection is established; the layers have not been told yet."""
        raise NotImplementedError

    def client_removed(self) -> None:
        """The layers have lost the client; bytes already written may still be flushing."""
        raise NotImplementedError

    def client_closed(self) -> None:
        """The client's socket is closed."""
        raise NotImplementedError

    def failed(self, where: str, error: Exception) -> None:
        """Count and log an error of ours."""
        raise NotImplementedError

    # --- events to the layers, and their commands

    def feed(self, event: events.Event) -> None:
        """Hand an event to the layers and carry out their commands.

        Events that arise from these commands are handed over after it, in their order. An error
        of the layers closes the client's connection.
        """
        if self._ended:
            return
        self._events.append(event)
        if self._feeding:
            return
        self._feeding = True
        self.activity.register_activity()
        try:
            while self._events:
                for command in self.layer.handle_event(self._events.popleft()):
                    if isinstance(command, commands.SendData):
                        protocol = self._protocols.get(command.connection)
                        if protocol is not None and not protocol.transport.is_closing():
                            protocol.transport.write(command.data)
                    else:
                        self._execute(command)
                while self._closing:
                    self._close_socket(self._closing.popleft())
        except Exception as e:
            self.failed("protocol", e)
            self.close()
        finally:
            self._feeding = False
        self._end_without_client()

    def _execute(self, command: commands.Command) -> None:
        match command:
            case commands.OpenConnection(connection=server):
                task = asyncio.ensure_future(self._connect(command, server))
                if not task.done():
                    self.connecting[server] = task
            case commands.CloseTcpConnection(connection=connection, half_close=True):
                self._close_half(connection)
            case commands.CloseConnection(connection=connection):
                self._close(connection)
            case commands.RequestWakeup(delay=delay):
                loop = asyncio.get_running_loop()
                loop.call_later(delay, self.feed, events.Wakeup(command))
            case _:
                raise RuntimeError(f"unexpected command: {command}")

    # --- closing

    def close(self) -> None:
        """Close the client's socket once all that was written is sent."""
        self.client_protocol.transport.close()

    def drop_upstreams(self) -> None:
        """Close all upstream connections: a request that has no answer yet gets a 502."""
        while self.connecting:
            self.connecting.popitem()[1].cancel("the worker leaves")
        for server in [c for c in self._protocols if c is not self.client]:
            self._lose(server)

    def _close_half(self, connection: Connection) -> None:
        protocol = self._protocols.get(connection)
        if protocol is None or not connection.state & ConnectionState.CAN_WRITE:
            return
        if not protocol.transport.is_closing():
            protocol.transport.write_eof()
        connection.state &= ~ConnectionState.CAN_WRITE
        if connection.state is ConnectionState.CLOSED:
            self._closing.append(connection)

    def _close(self, connection: Connection) -> None:
        if connection in self._protocols:
            connection.state = ConnectionState.CLOSED
            self._closing.append(connection)
        elif connection in self.connecting:
            connection.state = ConnectionState.CLOSED
            self.connecting.pop(connection).cancel()

    def _close_socket(self, connection: Connection) -> None:
        """Close what the layers have closed, and report that to them."""
        protocol = self._remove(connection)
        if protocol is None:
            return
        if protocol.readable:
            self._events.append(events.ConnectionClosed(connection))
        if protocol is self.client_protocol:
            protocol.lingering_close()
        else:
            protocol.transport.close()

    def _lose(self, connection: Connection) -> None:
        """A socket is closed, not by the layers: report that to them."""
        protocol = self._remove(connection)
        if protocol is None:
            return
        connection.state = ConnectionState.CLOSED
        protocol.transport.close()
        if protocol.readable:
            self.feed(events.ConnectionClosed(connection))
        self._end_without_client()

    def _end_without_client(self) -> None:
        """Once the layers have lost the client, close everything else."""
        if self._ended or self.client in self._protocols:
            return
        self._ended = True
        for task in self.connecting.values():
            task.cancel()
        for server in tuple(self._protocols):
            server.state = ConnectionState.CLOSED
            if (protocol := self._remove(server)) is not None:
                protocol.transport.close()
        self.client_removed()

    def _remove(self, connection: Connection) -> SocketProtocol | None:
        protocol = self._protocols.pop(connection, None)
        if protocol is not None:
            self._backpressure.remove(protocol)
            if isinstance(connection, Server):
                self._permits[connection.address or ("", 0)].release()
        return protocol

    # --- connecting to upstreams

    async def _connect(self, command: commands.OpenConnection, server: Server) -> None:
        address = server.address or ("", 0)
        permit = self._permits[address]
        await permit.acquire()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.limits.connect):
                await loop.create_connection(
                    lambda: SocketProtocol(partial(self._opened, command)), *address
                )
        except (OSError, TimeoutError, asyncio.CancelledError) as e:
            if server.timestamp_start is None:
                permit.release()
                server.error = str(e) or "connect timed out"
                self.connecting.pop(server, None)
                self.feed(events.OpenConnectionCompleted(command, server.error))
            else:  # connected in the same moment: uvloop has closed it without a callback
                self._lose(server)
            if isinstance(e, asyncio.CancelledError):
                raise

    def _opened(self, command: commands.OpenConnection, protocol: SocketProtocol) -> None:
        server = command.connection
        if self.connecting.pop(server, None) is None or self._ended:
            protocol.transport.abort()  # the layers have given it up meanwhile
            return
        protocol.owner, protocol.connection = self, server
        server.state = ConnectionState.OPEN
        server.peername = protocol.transport.get_extra_info("peername")
        server.sockname = protocol.transport.get_extra_info("sockname")
        self.upstream_connected(server)
        self._protocols[server] = protocol
        self.feed(events.OpenConnectionCompleted(command, None))

    # --- SocketOwner

    def data_received(self, protocol: SocketProtocol, data: bytes) -> None:
        """Pass data to the layers; after a lingering close it is discarded."""
        if protocol.connection in self._protocols:
            self.feed(events.DataReceived(protocol.connection, data))
            if protocol.connection in self._protocols:
                self._backpressure.after_data(protocol)

    def eof_received(self, protocol: SocketProtocol) -> None:
        """Report to the layers that the peer sends no more."""
        if protocol.connection in self._protocols:
            protocol.connection.state &= ~ConnectionState.CAN_READ
            self.feed(events.ConnectionClosed(protocol.connection))

    def connection_lost(self, protocol: SocketProtocol) -> None:
        """Report to the layers that a socket is closed."""
        self._lose(protocol.connection)
        if protocol is self.client_protocol:
            self.client_closed()

    def writing_blocked(self, protocol: SocketProtocol) -> None:
        """See SocketOwner."""
        self._backpressure.block(protocol)

    def writing_unblocked(self, protocol: SocketProtocol) -> None:
        """See SocketOwner."""
        self._backpressure.unblock(protocol)

    def _paused_client_closed(self, reset: bool) -> None:
        if reset:
            self.connection_lost(self.client_protocol)
        else:
            self.eof_received(self.client_protocol)
