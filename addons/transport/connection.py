"""Runs the layers of a client's connection: what happens goes in, what to do comes out.

In place of mitmproxy's ConnectionHandler, whose task, buffer and locks for each connection cost
turns of the event loop for every read.
"""

import asyncio
from collections import defaultdict, deque
from functools import partial
from typing import Protocol

from mitmproxy.connection import Client, Connection, ConnectionState, Server
from mitmproxy.proxy import commands, events, layer

from counterfault.addons.transport.idle import Activity
from counterfault.addons.transport.socket_protocol import SocketProtocol
from counterfault.proxy.config.sidecar import Limits

# Upstream connections of one client connection to one node; HTTP/2 to HTTP/1 needs many.
_UPSTREAM_CONNECTIONS = 100
_POLL = 0.01


class Outermost(Protocol):
    """The layer that all others are in."""

    def handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        """What to do about it."""


class ClientConnection:
    """A client's connection and the upstream connections made for it."""

    layer: Outermost

    def __init__(self, client: Client, link: SocketProtocol, activity: Activity) -> None:
        self.client = client
        self.activity = activity
        self.own = link
        link.owner, link.connection = self, client
        self._links: dict[Connection, SocketProtocol] = {client: link}
        self.opening: dict[Connection, asyncio.Task[None]] = {}
        """Upstream connections that are not there yet."""
        self._room: defaultdict[tuple[str, int], asyncio.Semaphore] = defaultdict(
            partial(asyncio.Semaphore, _UPSTREAM_CONNECTIONS)
        )
        self._events: deque[events.Event] = deque()
        self._closing: deque[Connection] = deque()
        self._feeding = self._over = self._polling = False
        self._full: set[SocketProtocol] = set()
        """Whose peers read too slowly."""
        self._unread: set[SocketProtocol] = set()
        """Those that are not read until there is room again."""

    @property
    def limits(self) -> Limits:
        """As they are now."""
        raise NotImplementedError

    def connected(self, server: Server) -> None:
        """An upstream is there, and the layers do not know yet."""
        raise NotImplementedError

    def congested(self, link: SocketProtocol) -> bool:
        """Whether the layers hold so much that no more should come from there."""
        raise NotImplementedError

    def failed(self, where: str, error: Exception) -> None:
        """Count and log an error of ours."""
        raise NotImplementedError

    def left(self) -> None:
        """For the layers the client is gone; the last of its answer may be on the way."""
        raise NotImplementedError

    def gone(self) -> None:
        """The client's connection is no more."""
        raise NotImplementedError

    @property
    def holding(self) -> bool:
        """Whether something is held that is held in vain once the client has closed."""
        raise NotImplementedError

    # --- what the layers are told, and what they say

    def feed(self, event: events.Event) -> None:
        """Tell the layers and do as they say; what this leads to they are told after it."""
        if self._over:
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
                        link = self._links.get(command.connection)
                        if link is not None and not link.transport.is_closing():
                            link.transport.write(command.data)
                    else:
                        self._carry_out(command)
                while self._closing:
                    self._shut(self._closing.popleft())
        except Exception as e:
            self.failed("protocol", e)
            self.close()
        finally:
            self._feeding = False
        self._leave_if_alone()

    def _carry_out(self, command: commands.Command) -> None:
        match command:
            case commands.OpenConnection(connection=server):
                task = asyncio.ensure_future(self._open(command, server))
                if not task.done():
                    self.opening[server] = task
            case commands.CloseTcpConnection(connection=connection, half_close=True):
                self._close_half(connection)
            case commands.CloseConnection(connection=connection):
                self._close(connection)
            case commands.RequestWakeup(delay=delay):
                loop = asyncio.get_running_loop()
                loop.call_later(delay, self.feed, events.Wakeup(command))
            case _:
                raise RuntimeError(f"unexpected command: {command}")

    def _close_half(self, connection: Connection) -> None:
        link = self._links.get(connection)
        if link is None or not connection.state & ConnectionState.CAN_WRITE:
            return
        if not link.transport.is_closing():
            link.transport.write_eof()
        connection.state &= ~ConnectionState.CAN_WRITE
        if connection.state is ConnectionState.CLOSED:
            self._closing.append(connection)

    def _close(self, connection: Connection) -> None:
        if connection in self._links:
            connection.state = ConnectionState.CLOSED
            self._closing.append(connection)
        elif connection in self.opening:
            connection.state = ConnectionState.CLOSED
            self.opening.pop(connection).cancel()

    def _shut(self, connection: Connection) -> None:
        """Close as the layers said, who then hear that it is closed."""
        link = self._forget(connection)
        if link is None:
            return
        if link.reads:
            self._events.append(events.ConnectionClosed(connection))
        if link is self.own:
            link.close_politely()
        else:
            link.transport.close()

    def _leave_if_alone(self) -> None:
        if self._over or self.client in self._links:
            return
        self._over = True
        for task in self.opening.values():
            task.cancel()
        for server in tuple(self._links):
            server.state = ConnectionState.CLOSED
            if (link := self._forget(server)) is not None:
                link.transport.close()
        self.left()

    def _forget(self, connection: Connection) -> SocketProtocol | None:
        link = self._links.pop(connection, None)
        if link is not None:
            self._unread.discard(link)
            self.unblocked(link)
            if isinstance(connection, Server):
                self._room[connection.address or ("", 0)].release()
        return link

    # --- connections

    def close(self) -> None:
        """Close the client's connection when all is sent."""
        self.own.transport.close()

    def give_up(self) -> None:
        """Wait for upstreams no longer: what has no answer yet gets a 502."""
        while self.opening:
            self.opening.popitem()[1].cancel("the worker leaves")
        for server in [c for c in self._links if c is not self.client]:
            self._lose(server)

    async def _open(self, command: commands.OpenConnection, server: Server) -> None:
        address = server.address or ("", 0)
        room = self._room[address]
        await room.acquire()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.limits.connect):
                await loop.create_connection(
                    lambda: SocketProtocol(partial(self._opened, command)), *address
                )
        except (OSError, TimeoutError, asyncio.CancelledError) as e:
            if server.timestamp_start is None:
                room.release()
                server.error = str(e) or "connect timed out"
                self.opening.pop(server, None)
                self.feed(events.OpenConnectionCompleted(command, server.error))
            else:  # in time after all, but the loop has closed it again, and tells nobody
                self._lose(server)
            if isinstance(e, asyncio.CancelledError):
                raise

    def _opened(self, command: commands.OpenConnection, link: SocketProtocol) -> None:
        server = command.connection
        if self.opening.pop(server, None) is None or self._over:
            link.transport.abort()  # nobody waits for it any more
            return
        link.owner, link.connection = self, server
        server.state = ConnectionState.OPEN
        server.peername = link.transport.get_extra_info("peername")
        server.sockname = link.transport.get_extra_info("sockname")
        self.connected(server)
        self._links[server] = link
        self.feed(events.OpenConnectionCompleted(command, None))

    def received(self, link: SocketProtocol, data: bytes) -> None:
        if link.connection not in self._links:
            return  # closed by us, and read only to its end
        self.feed(events.DataReceived(link.connection, data))
        if self._full or self.congested(link):
            self._pause(link)

    def ended(self, link: SocketProtocol) -> None:
        if link.connection in self._links:
            link.connection.state &= ~ConnectionState.CAN_READ
            self.feed(events.ConnectionClosed(link.connection))

    def lost(self, link: SocketProtocol) -> None:
        self._lose(link.connection)
        if link is self.own:
            self.gone()

    def _lose(self, connection: Connection) -> None:
        link = self._forget(connection)
        if link is None:
            return
        connection.state = ConnectionState.CLOSED
        link.transport.close()
        if link.reads:
            self.feed(events.ConnectionClosed(connection))
        self._leave_if_alone()

    # --- a source waits for its sinks

    def blocked(self, link: SocketProtocol) -> None:
        self._full.add(link)

    def unblocked(self, link: SocketProtocol) -> None:
        self._full.discard(link)
        if self._unread:
            self._go_on()

    def _pause(self, link: SocketProtocol) -> None:
        if link.connection not in self._links or not link.reads or link.transport.is_closing():
            return
        link.transport.pause_reading()
        self._unread.add(link)
        self._go_on()

    def _go_on(self) -> None:
        """Read again where there is room; who waits for the layers looks again soon."""
        for link in [link for link in self._unread if not self._full and not self.congested(link)]:
            self._unread.discard(link)
            if not link.transport.is_closing():
                link.transport.resume_reading()
        waits = self._unread and (not self._full or self.own in self._unread)
        if waits and not self._polling:
            self._polling = True  # what empties the layers tells nobody
            asyncio.get_running_loop().call_later(_POLL, self._look_again)

    def _look_again(self) -> None:
        self._polling = False
        if self.own in self._unread and self.holding:
            self._look_after(self.own)
        if self._unread:
            self._go_on()

    def _look_after(self, link: SocketProtocol) -> None:
        """The client may have left while it was not read; then what it has sent is for nobody."""
        reset = link.hung_up()
        if reset:
            self.lost(link)
        elif reset is not None:
            self._unread.discard(link)
            link.reads = False
            self.ended(link)
