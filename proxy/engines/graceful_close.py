"""Ports that close without a reset: who has come in is served, who comes later is refused.

Whoever the kernel has let in but nobody has accepted is reset when the listening socket closes. So
first nobody else is let in: their SYN is dropped, a second later they try again, and find the port
closed. Handshakes under way end well, and the queue runs empty.
"""

import asyncio
import ctypes
import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from counterfault.proxy.engines.ports import bound, family
from counterfault.proxy.values.addresses import HostPort

# Of asm-generic/socket.h and net/tcp_states.h.
_FILTER, _STEER = 26, 51
_SYN_RECV, _LISTEN = 0x03, 0x0A
# Instructions of classic BPF (linux/filter.h), as code, jumps if true and if not, operand.
type _Program = tuple[tuple[int, int, int, int], ...]
_LOAD_BYTE, _AND, _EQUAL, _RETURN = 0x30, 0x54, 0x15, 0x06
_FLAGS, _SYN, _ACK = 13, 0x02, 0x10  # of a TCP header
_ALL = 0xFFFFFFFF
_NO_SYN: _Program = (
    (_LOAD_BYTE, 0, 0, _FLAGS),
    (_AND, 0, 0, _SYN | _ACK),
    (_EQUAL, 0, 1, _SYN),
    (_RETURN, 0, 0, 0),
    (_RETURN, 0, 0, _ALL),
)

# The others accept whoever waits, and close, in a moment; unless they are stalled.
_SOON, _LOOK = 1.0, 0.005

log = logging.getLogger("counterfault")


@asynccontextmanager
async def closing(ports: Iterable[HostPort]) -> AsyncIterator[None]:
    """While another process is told, inside, to close these ports.

    Where the system has no such filters, whoever has just come is reset.
    """
    doors: list[PortGate] = []
    try:
        for port in ports:
            try:
                doors.append(PortGate(port))
            except OSError as e:
                log.debug("%s:%d is not shut before it closes: %s", *port, e)
        await _soon(lambda: all(door.empty for door in doors))
        yield
        await _soon(lambda: all(door.alone for door in doors))
    finally:
        for door in doors:
            door.close()


async def _soon(done: Callable[[], bool]) -> None:
    """Wait for that, but not long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_SOON):
            while not done():  # noqa: ASYNC110 (the kernel tells nobody)
                await asyncio.sleep(_LOOK)


def shut(sock: socket.socket) -> None:
    """Let nobody in from here on, at a socket that listens or will. Raises OSError."""
    _attach(sock, _FILTER, _NO_SYN)


class PortGate:
    """Shuts a port at which another process listens, with sockets that may be shared.

    As many of ours join them, all shut, and the kernel is told to choose the first of these. When
    one of theirs closes, our last one takes its number; so that first one's stays ours to the end.
    """

    def __init__(self, address: HostPort) -> None:
        """Raises OSError."""
        self._address = address
        theirs = sum(state == _LISTEN for state, _ in _sockets(address))
        self._own: list[socket.socket] = []
        try:
            for _ in range(theirs):
                self._own.append(bound(address))
                shut(self._own[-1])
                self._own[-1].listen(1)
            if self._own:
                _attach(self._own[0], _STEER, ((_RETURN, 0, 0, theirs),))
        except OSError:
            self.close()
            raise

    @property
    def empty(self) -> bool:
        """Whether nobody is left who has come in, or is about to, and is not accepted."""
        return not any(state == _SYN_RECV or queue for state, queue in _sockets(self._address))

    @property
    def alone(self) -> bool:
        """Whether the others have closed."""
        states = [state for state, _ in _sockets(self._address)]
        return states.count(_LISTEN) <= len(self._own)

    def close(self) -> None:
        """From here on the port is closed, or theirs."""
        for sock in self._own:
            sock.close()


def _attach(sock: socket.socket, option: int, program: _Program) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    where = struct.pack("HP", len(program), ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, option, where)


def _sockets(address: HostPort) -> Iterator[tuple[int, int]]:
    """State and queue of a port's sockets that are not yet somebody's connection."""
    host, port = address
    v6 = family(address) == socket.AF_INET6
    local = f"{_as_listed(socket.inet_pton(family(address), host))}:{port:04X}"
    with suppress(OSError):
        for line in Path("/proc/net/tcp6" if v6 else "/proc/net/tcp").read_text().splitlines()[1:]:
            _, where, _, state, queues = line.split(maxsplit=5)[:5]
            listens = int(state, 16) == _LISTEN and where == local
            if listens or (int(state, 16) == _SYN_RECV and where.endswith(local[-5:])):
                yield int(state, 16), int(queues.rpartition(":")[2], 16)


def _as_listed(packed: bytes) -> str:
    """An address as /proc/net shows it: words of 32 bits, each in the order of this machine."""
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words)
