"""A TCP connection, of a client or to an upstream: what it brings goes to the layers at once."""

import asyncio
import select
from collections.abc import Callable
from typing import Protocol, cast

from mitmproxy.connection import Connection

# How long what a client still sends is read and thrown away.
_LINGER = 1.0
# macOS does not tell that a peer has closed before what it sent is read.
_ENDED = getattr(select, "POLLRDHUP", 0)
_RESET = select.POLLERR | select.POLLHUP


class Receiver(Protocol):
    """Whom a connection belongs to."""

    def received(self, link: "SocketProtocol", data: bytes) -> None:
        """The peer has sent something."""

    def ended(self, link: "SocketProtocol") -> None:
        """The peer sends no more, and may still read."""

    def lost(self, link: "SocketProtocol") -> None:
        """The connection is gone."""

    def blocked(self, link: "SocketProtocol") -> None:
        """The peer reads too slowly: there is enough to send."""

    def unblocked(self, link: "SocketProtocol") -> None:
        """There is room again."""


class SocketProtocol(asyncio.Protocol):
    """Between the event loop and a Receiver, without a task, a buffer or a turn of the loop."""

    def __init__(self, opened: Callable[["SocketProtocol"], None]) -> None:
        """`opened` says whose it is, or closes it."""
        self._opened = opened
        self.owner: Receiver | None = None
        self.connection: Connection
        """Set by its owner."""
        self.transport: asyncio.Transport
        self.reads = True
        """Whether the peer may still send."""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._opened(self)

    def data_received(self, data: bytes) -> None:
        if self.owner is not None:
            self.owner.received(self, data)

    def eof_received(self) -> bool:
        self.reads = False
        if self._timer is not None or self.owner is None:
            return False
        self.owner.ended(self)
        return True  # the layers say when our half is closed

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.owner is not None:
            self.owner.lost(self)
            self.owner = None

    def pause_writing(self) -> None:
        if self.owner is not None:
            self.owner.blocked(self)

    def resume_writing(self) -> None:
        if self.owner is not None:
            self.owner.unblocked(self)

    def hung_up(self) -> bool | None:
        """What a transport that is not read does not see: whether the peer has closed.

        True if with a reset; None: it has not, or not yet. Its kernel says so after all that is
        still to be sent, so with more than our buffers hold it is not to be seen.
        """
        sock = self.transport.get_extra_info("socket")
        poll = select.poll()
        poll.register(sock.fileno(), _ENDED)
        found = poll.poll(0)
        return bool(found[0][1] & _RESET) if found else None

    def close_politely(self) -> None:
        """Close so that the peer reads what it was sent; unread data would make it a reset."""
        transport = self.transport
        if self._timer is not None or transport.is_closing() or not self.reads:
            transport.close()
            return
        transport.write_eof()
        transport.resume_reading()
        self._timer = asyncio.get_running_loop().call_later(_LINGER, transport.close)
