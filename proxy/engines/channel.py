"""The local socket between supervisor and workers: JSON messages, file descriptors beside them."""

import asyncio
import json
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

type Message = dict[str, Any]
type Receive = Callable[[Message, list[int]], None]

_LENGTH = struct.Struct("!I")
_CHUNK = 1 << 16
_MOST_FDS = 64
# A peer that does not read is stalled, not slow: past this the channel is closed.
_BACKLOG = 64 << 20


class Channel:
    """One end of a Unix stream socket in the running loop.

    `receive` gets each message with the descriptors that came with it; `closed` is called once,
    when the peer is gone.
    """

    def __init__(self, sock: socket.socket, receive: Receive, closed: Callable[[], None]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.receive = receive
        self.closed = closed
        self._loop = asyncio.get_running_loop()
        self._incoming = bytearray()
        self._fds: list[int] = []
        self._outgoing: deque[tuple[bytes, Sequence[int]]] = deque()
        self._queued = 0
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Queue a message; the descriptors stay the caller's and must be open until it is sent."""
        if self._sock.fileno() < 0:
            return
        frame = _frame(message, fds)
        self._outgoing.append((frame, fds))
        self._queued += len(frame)
        self._writable()
        if self._queued > _BACKLOG:
            self.close()

    @property
    def stalled(self) -> bool:
        """Whether the peer has left messages unread."""
        return bool(self._outgoing)

    def close(self) -> None:
        if self._sock.fileno() < 0:
            return
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self.closed()

    def _writable(self) -> None:
        try:
            while self._outgoing:
                data, fds = self._outgoing[0]
                sent = socket.send_fds(self._sock, [data], fds) if fds else self._sock.send(data)
                self._queued -= sent
                if sent < len(data):
                    self._outgoing[0] = (data[sent:], ())
                else:
                    self._outgoing.popleft()
            self._loop.remove_writer(self._sock.fileno())
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._sock.fileno(), self._writable)
        except OSError:
            self.close()

    def _readable(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, _CHUNK, _MOST_FDS)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, fds = b"", []
        self._fds.extend(fds)
        if not data:
            self.close()
            return
        self._incoming += data
        self._dispatch()

    def _dispatch(self) -> None:
        while len(self._incoming) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._incoming)[0]
            if len(self._incoming) < end:
                return
            message: Message = json.loads(self._incoming[_LENGTH.size : end])
            del self._incoming[:end]
            count = message.pop("fds")
            own, self._fds = self._fds[:count], self._fds[count:]
            self.receive(message, own)


def send_now(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send a short message on a blocking socket."""
    socket.send_fds(sock, [_frame(message, fds)], fds)


def receive_now(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message on a blocking socket, None at its end."""
    head, fds, _, _ = socket.recv_fds(sock, _LENGTH.size, _MOST_FDS)
    if len(head) < _LENGTH.size:
        return None
    size: int = _LENGTH.unpack(head)[0]
    message: Message = json.loads(sock.recv(size, socket.MSG_WAITALL))
    message.pop("fds")
    return message, list(fds)


def _frame(message: Message, fds: Sequence[int]) -> bytes:
    body = json.dumps({**message, "fds": len(fds)}, separators=(",", ":")).encode()
    return _LENGTH.pack(len(body)) + body
