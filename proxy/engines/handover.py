"""Handover between supervisors over a Unix socket (mode 0600) in `state_dir`.

A new supervisor asks the old one to leave its workers alone and go. Workers that have lost their
supervisor connect to the new one's socket with their listening sockets, and it adopts them as they
are: no request notices.
"""

import asyncio
import logging
import os
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from counterfault.proxy.engines.channel import Channel, Message, short_path

log = logging.getLogger("counterfault")

SOCKET_NAME = "supervisor.sock"
# Seconds that a running supervisor may take to leave; then it is taken for stalled and killed.
_PATIENCE = 2.0
# Of struct ucred: pid, uid, gid.
_CREDENTIALS = struct.Struct("3i")

type Adopt = Callable[[Channel, Message, list[int]], None]


class StateDirTaken(OSError):
    """Another supervisor uses this state directory and cannot be made to leave."""


async def replace_predecessor(state_dir: Path) -> None:
    """Make the supervisor that runs on this state directory leave, if there is one.

    A supervisor that does not answer within two seconds is killed. Raises StateDirTaken if it is
    still there two seconds later.
    """
    try:
        sock = await asyncio.to_thread(_connect, state_dir / SOCKET_NAME)
    except OSError:
        return  # no supervisor listens, or there is no state directory
    pid = _peer_pid(sock)
    left = asyncio.Event()
    channel = Channel(sock, lambda message, fds: None, left.set)
    channel.send({"type": "abdicate"})
    try:
        await _wait(left)
    except TimeoutError:
        log.warning("supervisor %d does not answer; killed", pid)
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        try:
            await _wait(left)
        except TimeoutError:
            raise StateDirTaken(f"state_dir {state_dir}: supervisor {pid} still has it") from None
    finally:
        channel.close()


class HandoverSocket:
    """The socket to which orphaned workers and the next supervisor connect."""

    def __init__(self, state_dir: Path, adopt: Adopt, step_down: Callable[[], None]) -> None:
        """Prepare the socket; `open` makes it.

        Args:
            state_dir: The directory of the socket.
            adopt: Called with an orphan's channel, its first message and the descriptors of its
                listening sockets; it takes over the channel.
            step_down: Called when the next supervisor asks this one to leave.
        """
        self._adopt, self._step_down = adopt, step_down
        self._visitors: set[_Visitor] = set()
        self._path = state_dir / SOCKET_NAME
        self._sock: socket.socket | None = None
        self._inode = 0

    def open(self) -> None:
        """Listen. Without a usable state directory no supervisor can follow; the log says so."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path.unlink(missing_ok=True)
            mask = os.umask(0o177)
            try:
                with short_path(self._path) as address:
                    sock.bind(address)
            finally:
                os.umask(mask)
            sock.listen(128)
        except OSError as e:
            sock.close()
            log.warning("%s: %s; no supervisor can take over from this one", self._path, e)
            return
        sock.setblocking(False)
        self._sock, self._inode = sock, self._path.stat().st_ino
        asyncio.get_running_loop().add_reader(sock.fileno(), self._accept)

    def close(self) -> None:
        """Stop listening, and close the connections of visitors that were not adopted."""
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            with suppress(OSError):
                if self._path.stat().st_ino == self._inode:  # not the next supervisor's socket
                    self._path.unlink()
            self._sock.close()
            self._sock = None
        for visitor in tuple(self._visitors):
            visitor.channel.close()

    def _accept(self) -> None:
        if self._sock is None:
            return
        with suppress(BlockingIOError, InterruptedError):
            sock, _ = self._sock.accept()
            self._visitors.add(_Visitor(sock, self._receive, self._visitors.discard))

    def _receive(self, visitor: "_Visitor", message: Message, fds: list[int]) -> None:
        match message["type"]:
            case "orphan":
                self._visitors.discard(visitor)
                self._adopt(visitor.channel, message, fds)
            case "abdicate":
                self._step_down()
            case other:
                log.error("unknown message %r at %s", other, self._path)


class _Visitor:
    """A process that has connected to the handover socket and not said yet what it is."""

    def __init__(
        self,
        sock: socket.socket,
        receive: Callable[["_Visitor", Message, list[int]], None],
        left: Callable[["_Visitor"], None],
    ) -> None:
        self.channel = Channel(
            sock, lambda message, fds: receive(self, message, fds), lambda: left(self)
        )


def _connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(_PATIENCE)
        with short_path(path) as address:
            sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


def _peer_pid(sock: socket.socket) -> int:
    """The pid of the process that listens at the other end (Linux)."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int = _CREDENTIALS.unpack(raw)[0]
    return pid


async def _wait(event: asyncio.Event) -> None:
    async with asyncio.timeout(_PATIENCE):
        await event.wait()
