"""One supervisor follows another: a 0600 socket in `state_dir` where the living are found.

A new supervisor asks the old one to leave its workers alone and go; workers that have lost
theirs bring their listening sockets here and are adopted as they are. No request notices.
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

from counterfault.proxy.engines.channel import Channel, Message

log = logging.getLogger("counterfault")

NAME = "supervisor.sock"
# How long a living supervisor may take to go, in seconds; then it is taken for stalled.
_PATIENCE = 2.0
_CREDENTIALS = struct.Struct("3i")

type Adopt = Callable[[Channel, Message, list[int]], None]


class StillThere(OSError):
    """Another supervisor has this state directory and cannot be made to go."""


async def succeed(state_dir: Path) -> None:
    """Make a supervisor that is there before us go; one that does not answer is killed."""
    try:
        sock = await asyncio.to_thread(_connect, state_dir / NAME)
    except OSError:
        return  # nobody is there, or there is no state directory
    pid = _peer(sock)
    gone = asyncio.Event()
    channel = Channel(sock, lambda message, fds: None, gone.set)
    channel.send({"type": "abdicate"})
    try:
        await _within(_PATIENCE, gone)
    except TimeoutError:
        log.warning("supervisor %d does not answer; killed", pid)
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        try:
            await _within(_PATIENCE, gone)
        except TimeoutError:
            raise StillThere(f"state_dir {state_dir}: supervisor {pid} still has it") from None
    finally:
        channel.close()


class HandoverSocket:
    """Where orphaned workers and a successor knock."""

    def __init__(self, state_dir: Path, adopt: Adopt, abdicate: Callable[[], None]) -> None:
        self._adopt, self._abdicate = adopt, abdicate
        self._visitors: set[Channel] = set()
        self._path = state_dir / NAME
        self._sock: socket.socket | None = None
        self._inode = 0

    def open(self) -> None:
        """Listen; without a usable state directory nobody can follow us, and that is logged."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path.unlink(missing_ok=True)
            mask = os.umask(0o177)
            try:
                sock.bind(str(self._path))
            finally:
                os.umask(mask)
            sock.listen(128)
        except OSError as e:
            sock.close()
            log.warning("%s: %s; no supervisor can take over from this one", self._path, e)
            return
        sock.setblocking(False)
        self._sock, self._inode = sock, self._path.stat().st_ino
        asyncio.get_running_loop().add_reader(sock.fileno(), self._knock)

    def close(self) -> None:
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            with suppress(OSError):
                if self._path.stat().st_ino == self._inode:  # not a successor's
                    self._path.unlink()
            self._sock.close()
            self._sock = None
        for channel in tuple(self._visitors):
            channel.close()

    def _knock(self) -> None:
        if self._sock is None:
            return
        with suppress(BlockingIOError, InterruptedError):
            sock, _ = self._sock.accept()
            channel = Channel(sock, lambda message, fds: None, lambda: None)
            channel.receive = lambda message, fds: self._hear(channel, message, fds)
            channel.closed = lambda: self._visitors.discard(channel)
            self._visitors.add(channel)

    def _hear(self, channel: Channel, message: Message, fds: list[int]) -> None:
        match message["type"]:
            case "orphan":
                self._visitors.discard(channel)
                self._adopt(channel, message, fds)
            case "abdicate":
                self._abdicate()
            case other:
                log.error("unknown message %r at the door", other)


def _connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(_PATIENCE)
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    return sock


def _peer(sock: socket.socket) -> int:
    """The pid of the process that listens at the other end (Linux)."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int = _CREDENTIALS.unpack(raw)[0]
    return pid


async def _within(seconds: float, event: asyncio.Event) -> None:
    async with asyncio.timeout(seconds):
        await event.wait()
