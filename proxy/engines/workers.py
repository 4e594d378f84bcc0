"""The mitmproxy engine's parent side: binds the sockets, runs the workers, keeps them running."""

import asyncio
import logging
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from proxy.config import Config
from proxy.engines import budget
from proxy.engines.wire import Channel, Message
from proxy.sidecar import HostPort, host_port
from proxy.tally import Rows

log = logging.getLogger("counterfault")

_BACKLOG = 4096
# A worker that dies younger than this is in a crash loop and is not replaced at once.
_YOUNG = 2.0
_PAUSE = 1.0
_GRACE = 5.0


class PortTaken(OSError):
    """Somebody else listens where a listener should."""


@dataclass(slots=True)
class Slot:
    """One worker's place: its sockets outlive it, so that its successor serves their queues."""

    index: int
    sockets: dict[str, socket.socket] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None
    channel: Channel | None = None
    born: float = 0.0
    applied: int = 0
    told: frozenset[str] = frozenset()
    incarnation: str = ""


class Workers:
    """N worker processes that share each listener's port."""

    def __init__(
        self,
        count: int,
        cells: Callable[[str, Rows], None],
        gone: Callable[[str], None],
    ) -> None:
        self._cells, self._gone = cells, gone
        self._fd = budget.create()
        self.budget = budget.Budget(self._fd)
        self._slots = [Slot(i) for i in range(count)]
        self._addresses: dict[str, HostPort] = {}
        self._plan: Message = {}
        self._generation = 0
        self._lease_until = 0.0
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False
        self._news = asyncio.Event()

    def bind(self, config: Config) -> None:
        """Bind new and changed listeners, let go of those that are gone. Raises PortTaken."""
        wanted = {n: host_port(x.listen) for n, x in config.sidecar.listeners.items()}
        changed = {n: a for n, a in wanted.items() if self._addresses.get(n) != a}
        for name, address in changed.items():
            _check_free(name, address)
        fresh = {n: _group(a, len(self._slots)) for n, a in changed.items()}
        gone = [n for n in self._addresses if n not in wanted] + list(changed)
        for slot in self._slots:
            for name in gone:
                old = slot.sockets.pop(name, None)
                if old is not None:
                    old.close()
            slot.sockets.update({n: sockets[slot.index] for n, sockets in fresh.items()})
            slot.told -= set(gone)
        self._addresses = wanted

    def address(self, listener: str) -> HostPort:
        """Where a listener really listens; a port of 0 has become a number."""
        host, port = self._slots[0].sockets[listener].getsockname()[:2]
        return host, port

    def start(self) -> None:
        self._keepers = [asyncio.ensure_future(self._keep(slot)) for slot in self._slots]

    def push(self, config: Config, runs: Mapping[str, Any], lease_until: float) -> int:
        """Send a plan to all workers; answers its generation, see `applied`."""
        self._generation += 1
        self._lease_until = lease_until
        self._plan = {
            "type": "plan",
            "generation": self._generation,
            "config": config.wire(),
            "runs": dict(runs),
        }
        for slot in self._slots:
            self._tell(slot)
        return self._generation

    def renew(self, lease_until: float) -> None:
        """Let faults go on until then, in seconds of the monotonic clock."""
        self._lease_until = lease_until
        for slot in self._slots:
            if slot.channel is not None and not slot.channel.stalled:
                slot.channel.send({"type": "lease", "until": lease_until})

    @property
    def ready(self) -> int:
        """How many workers act on the present plan."""
        return sum(slot.applied == self._generation for slot in self._slots)

    async def applied(self, generation: int) -> None:
        """Wait until every living worker acts on a plan at least as new."""
        while not all(s.applied >= generation for s in self._slots if s.channel):
            await self._news.wait()

    async def serving(self) -> None:
        """Wait until every worker serves."""
        while self.ready < len(self._slots):
            await self._news.wait()

    async def stop(self, grace: float) -> None:
        """Drain all workers; what has not left after `grace` seconds is killed."""
        self._stopping = True
        for slot in self._slots:
            for sock in slot.sockets.values():
                sock.close()
            if slot.process is not None and slot.process.returncode is None:
                slot.process.terminate()
        _, late = await asyncio.wait(self._keepers, timeout=grace + _GRACE)
        for slot in self._slots:
            if late and slot.process is not None and slot.process.returncode is None:
                log.warning("worker %d does not leave; killed", slot.index)
                slot.process.kill()
        if late:
            await asyncio.wait(late)

    async def _keep(self, slot: Slot) -> None:
        while not self._stopping:
            try:
                await self._run(slot)
            except OSError as e:  # no process or no descriptor to be had
                log.error("worker %d cannot start: %s", slot.index, e)
            if not self._stopping:
                log.error("worker %d ended; starting another", slot.index)
                if time.monotonic() - slot.born < _YOUNG:
                    await asyncio.sleep(_PAUSE)

    async def _run(self, slot: Slot) -> None:
        ours, theirs = socket.socketpair()
        slot.born = time.monotonic()
        slot.applied, slot.told, slot.incarnation = 0, frozenset(), ""
        try:
            slot.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-O", "-m", "addons.worker"),
                *("--control", str(theirs.fileno())),
                *("--budget", str(self._fd), "--index", str(slot.index)),
                pass_fds=(theirs.fileno(), self._fd),
            )
        finally:
            theirs.close()
        closed = asyncio.Event()
        slot.channel = Channel(ours, partial(self._receive, slot), closed.set)
        if self._plan:
            self._tell(slot)
        await slot.process.wait()
        # Its last counts may still be in the socket, before the end of file.
        await closed.wait()
        slot.channel, slot.applied = None, 0
        self._tell_news()
        self._gone(slot.incarnation)
        self.budget.clear_worker(slot.index)

    def _tell(self, slot: Slot) -> None:
        if slot.channel is None:
            return
        slot.channel.send({**self._plan, "lease_until": self._lease_until})
        names = [name for name in slot.sockets if name not in slot.told]
        if names:
            fds = [slot.sockets[name].fileno() for name in names]
            slot.channel.send({"type": "listen", "names": names}, fds)
            slot.told |= set(names)

    def _receive(self, slot: Slot, message: Message, _: list[int]) -> None:
        match message["type"]:
            case "cells":
                slot.incarnation = message["from"]
                self._cells(slot.incarnation, [(tuple(k), v) for k, v in message["rows"]])
            case "applied":
                slot.applied = message["generation"]
                self._tell_news()
            case other:
                log.error("unknown message %r from worker %d", other, slot.index)

    def _tell_news(self) -> None:
        """Let those who wait look again."""
        self._news.set()
        self._news = asyncio.Event()


def _group(address: HostPort, count: int) -> list[socket.socket]:
    """Sockets on one port, between which the kernel spreads the connections."""
    first = _listening(address)
    host, port = first.getsockname()[:2]
    return [first, *(_listening((host, port)) for _ in range(count - 1))]


def _listening(address: HostPort) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _check_free(name: str, address: HostPort) -> None:
    """Without SO_REUSEPORT, a port that anybody listens on cannot be bound."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(address)
        except OSError as e:
            raise PortTaken(f"listener {name}: {address[0]}:{address[1]}: {e.strerror}") from e
