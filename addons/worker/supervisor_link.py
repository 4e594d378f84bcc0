"""A worker's channel to its supervisor, and the search for the next one when that is gone."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from counterfault.proxy.engines.channel import Channel, Message, Receive, short_path

log = logging.getLogger("counterfault")

# Seconds between two attempts to connect to the next supervisor.
_RETRY = 0.1


@dataclass(frozen=True, slots=True)
class Introduction:
    """What an orphaned worker needs to find the next supervisor, and what it brings along."""

    handover_socket: str
    """The path at which a supervisor listens for orphans."""
    patience: float
    """Seconds after which the worker gives up; may be infinite."""
    message: Message
    descriptors: Sequence[int]
    """Of its listening sockets, then of its fault budget."""


class SupervisorLink:
    """The channel to the present supervisor."""

    def __init__(
        self,
        control: socket.socket,
        receive: Receive,
        introduce: Callable[[], Introduction | None],
        joined: Callable[[], None],
        stop: asyncio.Event,
    ) -> None:
        """Begin to read messages.

        Args:
            control: The socket to the supervisor that has started this worker.
            receive: Called with each message and its descriptors.
            introduce: Called once the supervisor is gone; None if the worker serves nothing.
            joined: Called when another supervisor has been found.
            stop: Set here when no supervisor is found, and by the worker when it is to leave.
        """
        self._receive, self._introduce, self._joined = receive, introduce, joined
        self._stop = stop
        self._search: asyncio.Task[None] | None = None
        self.connected = True
        """Whether there is a supervisor."""
        self._channel = Channel(control, receive, self._lost)

    @property
    def stalled(self) -> bool:
        """Whether the supervisor has left messages unread."""
        return self._channel.stalled

    def send(self, message: Message) -> None:
        """Send a message; without a supervisor it is dropped."""
        self._channel.send(message)

    def _lost(self) -> None:
        self.connected = False
        if not self._stop.is_set():
            log.warning("the supervisor is gone; serving on without faults")
            self._search = asyncio.ensure_future(self._find_next())

    async def _find_next(self) -> None:
        """Try to connect to the next supervisor until it accepts or the patience has run out."""
        introduction = self._introduce()
        if introduction is None:
            self._stop.set()
            return
        end = time.monotonic() + introduction.patience
        while not self._stop.is_set():
            if time.monotonic() > end:
                log.warning("no supervisor has come; leaving")
                self._stop.set()
            elif (sock := _connect(introduction.handover_socket)) is not None:
                self._channel = Channel(sock, self._receive, self._lost)
                self._channel.send(introduction.message, introduction.descriptors)
                self.connected = True
                self._joined()
                return
            await asyncio.sleep(_RETRY)


def _connect(handover_socket: str) -> socket.socket | None:
    """Return a connection to the supervisor that listens there, if one does."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_path(Path(handover_socket)) as address:
            sock.connect(address)
    except OSError:
        sock.close()
        return None
    return sock
