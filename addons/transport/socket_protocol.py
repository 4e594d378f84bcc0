"""The asyncio protocol of one TCP socket, of a client or to an upstream."""

import asyncio
import select
from collections.abc import Callable
from typing import Protocol, cast

from mitmproxy.connection import Connection

# Seconds in which data that a client still sends after a lingering close is read and discarded.
_LINGER = 1.0
# macOS has no such event: there, a closed peer shows only once all that it sent has been read.
_PEER_CLOSED = getattr(select, "POLLRDHUP", 0)
_RESET = select.POLLERR | select.POLLHUP


class SocketOwner(Protocol):
    """The client connection that a socket belongs to. It is called in the event loop's thread."""

    def data_received(self, protocol: "SocketProtocol", data: bytes) -> None:
        """The peer has sent `data`."""

    def eof_received(self, protocol: "SocketProtocol") -> None:
        """The peer will send no more; it may still read."""

    def connection_lost(self, protocol: "SocketProtocol") -> None:
        """The socket is closed in both directions."""

    def writing_blocked(self, protocol: "SocketProtocol") -> None:
        """The write buffer is full: the peer reads more slowly than we write."""

    def writing_unblocked(self, protocol: "SocketProtocol") -> None:
        """The write buffer has room again."""


class SocketProtocol(asyncio.Protocol):
    """Hands what happens to a socket to its owner at once: no task, no buffer, no loop turn."""

    def __init__(self, opened: Callable[["SocketProtocol"], None]) -> None:
        """`opened` is called once the socket is connected.

        It sets `owner` and `connection`, or closes the transport.
        """
        self._opened = opened
        self.owner: SocketOwner | None = None
        self.connection: Connection
        """What the layers call this socket."""
        self.transport: asyncio.Transport
        self.readable = True
        """False once the peer has sent its last byte."""
        self._linger_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.transport = cast("asyncio.Transport", transport)
        self._opened(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self.owner is not None:
            self.owner.data_received(self, data)

    def eof_received(self) -> bool:
        """See asyncio.Protocol. True keeps our half open, until the layers close it."""
        self.readable = False
        if self._linger_timer is not None or self.owner is None:
            return False
        self.owner.eof_received(self)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        if self.owner is not None:
            self.owner.connection_lost(self)
            self.owner = None

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        if self.owner is not None:
            self.owner.writing_blocked(self)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        if self.owner is not None:
            self.owner.writing_unblocked(self)

    def closed_by_peer(self) -> bool | None:
        """Ask the kernel whether the peer has closed; asyncio does not see it while not reading.

        Returns:
            True after a reset, False after an orderly close, None if the peer has not closed or
            the kernel has more unread data in front of its close than its buffers hold.
        """
        sock = self.transport.get_extra_info("socket")
        poll = select.poll()
        poll.register(sock.fileno(), _PEER_CLOSED)
        found = poll.poll(0)
        return bool(found[0][1] & _RESET) if found else None

    def lingering_close(self) -> None:
        """Close our half, and the rest when the peer closes or `_LINGER` seconds have passed.

        If a socket is closed with unread data in it, the kernel sends a reset, and the peer may
        lose the end of what it was sent.
        """
        transport = self.transport
        if self._linger_timer is not None or transport.is_closing() or not self.readable:
            transport.close()
            return
        transport.write_eof()
        transport.resume_reading()
        self._linger_timer = asyncio.get_running_loop().call_later(_LINGER, transport.close)
