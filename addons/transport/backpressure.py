"""Reading waits for writing: what keeps a client connection's memory bounded."""

import asyncio
from collections.abc import Callable

from counterfault.addons.transport.socket_protocol import SocketProtocol

# Seconds between two looks at layers that were full: they do not say when they are empty again.
_POLL = 0.01


class Backpressure:
    """Which sockets of one client connection are not read for now.

    A socket is paused after it brought data while any socket's write buffer was full, or while the
    layers held too much of its data (`congested`). It is read again once neither is so.
    """

    def __init__(
        self,
        client: SocketProtocol,
        congested: Callable[[SocketProtocol], bool],
        fault_held: Callable[[], bool],
        client_closed: Callable[[bool], None],
    ) -> None:
        """All functions are called in the event loop's thread.

        Args:
            client: The client's own socket.
            congested: Returns whether the layers hold too much data from a socket.
            fault_held: Returns whether a fault holds an exchange, in vain if the client has left.
            client_closed: Called when the client has closed while its socket was paused; with
                True after a reset.
        """
        self._client = client
        self._congested, self._fault_held = congested, fault_held
        self._client_closed = client_closed
        self._blocked: set[SocketProtocol] = set()
        """Sockets whose write buffer is full."""
        self._unread: set[SocketProtocol] = set()
        """Sockets that are not read."""
        self._polling = False

    def after_data(self, source: SocketProtocol) -> None:
        """A socket has brought data: pause it if that cannot be passed on."""
        if not self._blocked and not self._congested(source):
            return
        if not source.readable or source.transport.is_closing():
            return
        source.transport.pause_reading()
        self._unread.add(source)
        self._resume()

    def block(self, sink: SocketProtocol) -> None:
        """A socket's write buffer is full."""
        self._blocked.add(sink)

    def unblock(self, sink: SocketProtocol) -> None:
        """A socket's write buffer has room again."""
        self._blocked.discard(sink)
        if self._unread:
            self._resume()

    def remove(self, protocol: SocketProtocol) -> None:
        """A socket has been closed: it neither waits nor keeps others waiting."""
        self._unread.discard(protocol)
        self.unblock(protocol)

    def _resume(self) -> None:
        """Read all sockets for which there is room again; look once more soon at the others."""
        ready = [p for p in self._unread if not self._blocked and not self._congested(p)]
        for protocol in ready:
            self._unread.discard(protocol)
            if not protocol.transport.is_closing():
                protocol.transport.resume_reading()
        # A full write buffer is reported when it empties; the layers and a closing client are not.
        must_poll = self._unread and (not self._blocked or self._client in self._unread)
        if must_poll and not self._polling:
            self._polling = True
            asyncio.get_running_loop().call_later(_POLL, self._poll)

    def _poll(self) -> None:
        self._polling = False
        if self._client in self._unread and self._fault_held():
            self._look_at_client()
        if self._unread:
            self._resume()

    def _look_at_client(self) -> None:
        """If the client has closed meanwhile, then nothing that it sent needs an answer."""
        reset = self._client.closed_by_peer()
        if reset is None:
            return
        if not reset:
            self._unread.discard(self._client)
            self._client.readable = False
        self._client_closed(reset)
