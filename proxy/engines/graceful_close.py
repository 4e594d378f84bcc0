"""Closes listening ports gracefully: clients that have connected are served, others are refused.

When a listening socket closes, the kernel resets the connections in its accept queue. Therefore a
filter drops each new SYN first, handshakes under way finish, and the listening process empties the
queue. The client of a dropped SYN tries again a second later and finds the port closed.
"""

import asyncio
import ctypes
import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from counterfault.proxy.engines.ports import bound_socket, family
from counterfault.proxy.values.addresses import HostPort

# SO_ATTACH_FILTER and SO_ATTACH_REUSEPORT_CBPF (asm-generic/socket.h).
_ATTACH_FILTER, _ATTACH_STEERING = 26, 51
# TCP states (net/tcp_states.h).
_SYN_RECV, _LISTEN = 0x03, 0x0A
# Instructions of classic BPF (linux/filter.h): code, jumps if true and if false, operand.
type _Program = tuple[tuple[int, int, int, int], ...]
_LOAD_BYTE, _AND, _EQUAL, _RETURN = 0x30, 0x54, 0x15, 0x06
# Offset of the flags in a TCP header, and two of them.
_FLAGS, _SYN, _ACK = 13, 0x02, 0x10
_ALL = 0xFFFFFFFF
_DROP_SYN: _Program = (
    (_LOAD_BYTE, 0, 0, _FLAGS),
    (_AND, 0, 0, _SYN | _ACK),
    (_EQUAL, 0, 1, _SYN),
    (_RETURN, 0, 0, 0),
    (_RETURN, 0, 0, _ALL),
)

# Seconds for the other process to accept its clients and to close; it takes a moment unless it is
# stalled. Then seconds between two looks.
_PATIENCE, _POLL = 1.0, 0.005

log = logging.getLogger("counterfault")


@asynccontextmanager
async def closing(ports: Iterable[HostPort]) -> AsyncIterator[None]:
    """Shut ports of another process; inside the block, the caller has that process close them.

    On a system without such filters, clients in the accept queue are reset.
    """
    gates: list[PortGate] = []
    try:
        for port in ports:
            try:
                gates.append(PortGate(port))
            except OSError as e:
                log.debug("%s:%d is not shut before it closes: %s", *port, e)
        await _poll_until(lambda: all(gate.drained for gate in gates))
        yield
        await _poll_until(lambda: all(gate.others_closed for gate in gates))
    finally:
        for gate in gates:
            gate.close()


async def _poll_until(done: Callable[[], bool]) -> None:
    """Wait until `done()`, at most _PATIENCE seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            while not done():  # noqa: ASYNC110 (the kernel sends no event)
                await asyncio.sleep(_POLL)


def refuse_new_clients(sock: socket.socket) -> None:
    """Drop every SYN that comes for a socket, which listens or will. Raises OSError."""
    _attach(sock, _ATTACH_FILTER, _DROP_SYN)


class PortGate:
    """Shuts a port at which sockets of another process listen with SO_REUSEPORT.

    As many sockets of ours join them, all of which drop new SYNs, and a steering program has the
    kernel choose the first of ours for every new client. When one of theirs closes, the last of
    ours takes its number; so the first of ours keeps its number to the end.
    """

    def __init__(self, address: HostPort) -> None:
        """Shut the port. Raises OSError where the system has no such filters."""
        self._address = address
        theirs = sum(state == _LISTEN for state, _ in _sockets(address))
        self._own: list[socket.socket] = []
        try:
            for _ in range(theirs):
                self._own.append(bound_socket(address))
                refuse_new_clients(self._own[-1])
                self._own[-1].listen(1)
            if self._own:
                _attach(self._own[0], _ATTACH_STEERING, ((_RETURN, 0, 0, theirs),))
        except OSError:
            self.close()
            raise

    @property
    def drained(self) -> bool:
        """Whether the SYN and accept queues of the port are empty."""
        return not any(state == _SYN_RECV or queue for state, queue in _sockets(self._address))

    @property
    def others_closed(self) -> bool:
        """Whether our sockets are the only ones that listen on the port."""
        states = [state for state, _ in _sockets(self._address)]
        return states.count(_LISTEN) <= len(self._own)

    def close(self) -> None:
        """Close our sockets. The port stays open only if another process still listens."""
        for sock in self._own:
            sock.close()


def _attach(sock: socket.socket, option: int, program: _Program) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    where = struct.pack("HP", len(program), ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, option, where)


def _sockets(address: HostPort) -> Iterator[tuple[int, int]]:
    """Yield state and queue length of a port's listening and half-open sockets."""
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
    """Format an address as /proc/net does: words of 32 bits in this machine's byte order."""
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words)
