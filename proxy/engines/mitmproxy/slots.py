"""The workers' slots and their sockets, which outlive the processes that serve them."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from counterfault.proxy.config.model import Config
from counterfault.proxy.engines.graceful_close import refuse_new_clients
from counterfault.proxy.engines.mitmproxy.worker_process import WorkerProcess
from counterfault.proxy.engines.ports import PortTaken, bound_address, listening_socket, why_taken
from counterfault.proxy.values.addresses import HostPort, host_port


@dataclass(slots=True)
class Slot:
    """One worker's sockets and process. The sockets stay when the process ends.

    So the next worker in this slot serves the connections in their accept queues.
    """

    index: int
    sockets: dict[str, socket.socket] = field(default_factory=dict)
    worker: WorkerProcess | None = None


class Slots:
    """The slots of all workers; each has a socket on each listener's port."""

    def __init__(self, count: int) -> None:
        """Make `count` empty slots."""
        self._slots = [Slot(i) for i in range(count)]
        self._addresses: dict[str, HostPort] = {}

    def __iter__(self) -> Iterator[Slot]:
        """Iterate over the slots by their index."""
        return iter(self._slots)

    def __len__(self) -> int:
        """Return the number of slots."""
        return len(self._slots)

    def bind(self, config: Config) -> None:
        """Bind new and changed listeners, close removed ones. Raises PortTaken."""
        wanted = {n: host_port(x.listen) for n, x in config.sidecar.listeners.items()}
        kept = {n for n, a in wanted.items() if self._has(n, a)}
        fresh: list[tuple[Slot, str, socket.socket]] = []
        try:
            for name, address in wanted.items():
                fresh += self._missing(name, address, name in kept)
        except OSError:
            for _, _, sock in fresh:
                sock.close()
            raise
        for slot in self._slots:
            for name in [n for n in slot.sockets if n not in kept]:
                _close_gracefully(slot.sockets.pop(name))
        for slot, name, sock in fresh:
            slot.sockets[name] = sock
        self._addresses = wanted

    def close(self) -> None:
        """Close our sockets for new connections; the workers still serve their accept queues."""
        for slot in self._slots:
            for sock in slot.sockets.values():
                _close_gracefully(sock)

    def sockets(self) -> dict[str, socket.socket]:
        """One of each listener's sockets."""
        return {name: sock for slot in self._slots for name, sock in slot.sockets.items()}

    def _has(self, name: str, address: HostPort) -> bool:
        """Whether the listener was bound to this address, or adopted sockets are bound to it."""
        if self._addresses.get(name) == address:
            return True
        held = [s.sockets[name] for s in self._slots if name in s.sockets]
        return bool(held) and all(bound_address(sock) == address for sock in held)

    def _missing(
        self, name: str, address: HostPort, kept: bool
    ) -> list[tuple[Slot, str, socket.socket]]:
        """Make the sockets that slots still need for a listener, all on one port."""
        lacking = [s for s in self._slots if not kept or name not in s.sockets]
        held = next((s.sockets[name] for s in self._slots if kept and name in s.sockets), None)
        if held is not None:
            address = bound_address(held)
        elif reason := why_taken(address):
            raise PortTaken(f"listener {name}: {address[0]}:{address[1]}: {reason}")
        made: list[tuple[Slot, str, socket.socket]] = []
        for slot in lacking:
            sock = listening_socket(address)
            address = bound_address(sock)
            made.append((slot, name, sock))
        return made


def _close_gracefully(sock: socket.socket) -> None:
    with suppress(OSError):  # no such filters on this system
        refuse_new_clients(sock)
    sock.close()
