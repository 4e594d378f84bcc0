"""The Unix socket between supervisor and workers: JSON messages and file descriptors."""

import asyncio
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

type Message = dict[str, Any]
type Receive = Callable[[Message, list[int]], None]
type Closed = Callable[[], None]

_LENGTH = struct.Struct("!I")
# Bytes that are read at once.
_CHUNK = 1 << 16
_MOST_FDS = 64
# Bytes that may wait to be sent; a peer that leaves more than this unread has stopped reading.
_BACKLOG = 64 << 20


class Channel:
    """One end of a Unix stream socket, served by the running event loop."""

    def __init__(
        self,
        sock: socket.socket,
        receive: Receive,
        closed: Closed,
        *,
        unread: bytes = b"",
        unread_fds: Sequence[int] = (),
    ) -> None:
        """Begin to read; no callback is called before the event loop's next turn.

        Args:
            sock: A connected socket, which the channel closes.
            receive: Called with each message and the descriptors that came with it.
            closed: Called once, when either end has closed the channel.
            unread: Bytes that were read from the socket and have not been looked at.
            unread_fds: Descriptors that came with them.
        """
        sock.setblocking(False)
        self._sock = sock
        self._receive, self._closed = receive, closed
        self._loop = asyncio.get_running_loop()
        self._incoming = bytearray(unread)
        self._fds = list(unread_fds)
        self._outgoing: deque[tuple[bytes, Sequence[int]]] = deque()
        self._queued = 0
        self._loop.add_reader(sock.fileno(), self._read)
        if unread:
            self._loop.call_soon(self._dispatch)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Queue a message; the descriptors stay the caller's and must be open until it is sent.

        A closed channel drops the message.
        """
        if self._sock.fileno() < 0:
            return
        frame = _frame(message, fds)
        self._outgoing.append((frame, fds))
        self._queued += len(frame)
        self._write()
        if self._queued > _BACKLOG:
            self.close()

    @property
    def stalled(self) -> bool:
        """Whether the peer has left messages unread."""
        return bool(self._outgoing)

    def close(self) -> None:
        """Close the socket and call `closed`, unless the channel is closed already."""
        if self._sock.fileno() < 0:
            return
        self._stop_watching()
        self._sock.close()
        self._closed()

    def hand_over(self, receive: Receive, closed: Closed) -> "Channel":
        """Return a new channel on this open one's socket, which gets all that is still unread.

        This channel is over: it calls none of its callbacks any more and drops what it is sent.
        """
        self._stop_watching()
        unread, fds = bytes(self._incoming), self._fds
        self._incoming, self._fds = bytearray(), []
        sock = socket.socket(fileno=self._sock.detach())
        return Channel(sock, receive, closed, unread=unread, unread_fds=fds)

    def _stop_watching(self) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())

    def _write(self) -> None:
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
            self._loop.add_writer(self._sock.fileno(), self._write)
        except OSError:
            self.close()

    def _read(self) -> None:
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
            fds, self._fds = self._fds[:count], self._fds[count:]
            self._receive(message, fds)


def send_blocking(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send a short message on a blocking socket."""
    socket.send_fds(sock, [_frame(message, fds)], fds)


def receive_blocking(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """Return the next message on a blocking socket and its descriptors, or None at its end."""
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


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name for a Unix socket that the kernel takes however deep its directory lies.

    The address of a Unix socket has 107 bytes at most. On Linux the directory's descriptor stands
    for its path; elsewhere the path stays as it is.

    Raises:
        OSError: The directory cannot be opened.
    """
    if not hasattr(os, "O_PATH"):
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
