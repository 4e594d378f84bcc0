"""The mitmproxy engine's parent side: binds the sockets, runs the workers, keeps them running."""

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from counterfault import __version__
from counterfault.proxy.config.model import Config
from counterfault.proxy.config.sidecar import Sidecar
from counterfault.proxy.engines import fault_budget
from counterfault.proxy.engines.channel import Channel, Message
from counterfault.proxy.engines.mitmproxy.slots import Slot, Slots
from counterfault.proxy.engines.mitmproxy.spawner import Spawner
from counterfault.proxy.engines.ports import why_taken
from counterfault.proxy.measurement.counters import Rows
from counterfault.proxy.values.addresses import host_port

log = logging.getLogger("counterfault")

# A worker that dies younger than this is in a crash loop and is not replaced at once.
_YOUNG = 2.0
_PAUSE = 1.0
_GRACE = 5.0
# How long orphans may take to bring the sockets that a new supervisor finds taken.
_ORPHANS = 2.0


class WorkerPool:
    """N worker processes that share each listener's port."""

    def __init__(
        self,
        count: int,
        cells: Callable[[str, Rows], None],
        gone: Callable[[str], None],
        meeting: str = "",
        authority: Callable[[Path, Sidecar], Path | None] = lambda directory, sidecar: None,
    ) -> None:
        """`meeting`: where orphans find the next supervisor; `authority`: who signs for hosts."""
        self._cells, self._gone = cells, gone
        self._meeting, self._authority = meeting, authority
        self.budget = fault_budget.Budget(fault_budget.create())
        self._nursery = Spawner()
        self._slots = Slots(count)
        self._plan: Message = {}
        self._generation = 0
        self._lease_until = 0.0
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._news = asyncio.Event()

    async def inherit(self, config: Config) -> None:
        """Where somebody has our ports already, give orphans the time to bring them."""
        wanted = {host_port(listener.listen) for listener in config.sidecar.listeners.values()}
        if not any(why_taken(address) for address in wanted):
            return
        # All of them: a socket that came after we made another would take its queue away.
        with suppress(TimeoutError):
            async with asyncio.timeout(_ORPHANS):
                while not all(slot.channel for slot in self._slots):
                    await self._news.wait()

    def adopt(self, channel: Channel, message: Message, fds: list[int]) -> None:
        """Take a worker that has lost its supervisor, with its sockets."""
        *sockets, shared = fds
        slot = next((s for s in self._slots if s.index == message["index"]), None)
        held = {
            n: socket.socket(fileno=fd) for n, fd in zip(message["names"], sockets, strict=True)
        }
        if slot is None or slot.channel is not None or self._keepers or self._stopping.is_set():
            for sock in held.values():
                sock.close()
            os.close(shared)
            channel.send({"type": "drain"})
            return
        if not any(s.channel for s in self._slots):
            self.budget.adopt(shared)
        else:
            os.close(shared)
        slot.sockets.update(held)
        if message["version"] != __version__:
            channel.send({"type": "drain"})  # it may not understand us; its sockets go on
        else:
            self._attach(slot, channel, message["pid"], frozenset(held))
            log.info("worker %d (pid %d) is adopted", slot.index, slot.pid)
        self._tell_news()

    def bind(self, config: Config) -> None:
        """Bind new and changed listeners, let go of those that are gone. Raises PortTaken."""
        self._slots.bind(config)

    def report_to(self, cells: Callable[[str, Rows], None]) -> None:
        """Hand counts to somebody else than at first."""
        self._cells = cells

    def sockets(self) -> dict[str, socket.socket]:
        """One of each listener's sockets."""
        return self._slots.sockets()

    def start(self) -> None:
        self._keepers = [asyncio.ensure_future(self._keep(slot)) for slot in self._slots]

    async def prepare(self, config: Config) -> None:
        """Workers have all they need."""

    def push(self, config: Config, runs: Mapping[str, Any], lease_until: float) -> int:
        """Send a plan to all workers; answers its generation, see `applied`."""
        self._generation += 1
        self._lease_until = lease_until
        authority = self._authority(config.directory, config.sidecar)
        self._plan = {
            "type": "plan",
            "generation": self._generation,
            "config": config.wire(),
            "runs": dict(runs),
            "meeting": self._meeting,
            "authority": str(authority) if authority else None,
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
        return sum(0 < slot.applied == self._generation for slot in self._slots)

    @property
    def serves(self) -> bool:
        """Whether a worker acts on any plan."""
        return any(slot.applied for slot in self._slots)

    @property
    def pids(self) -> list[int]:
        """The worker processes."""
        return [slot.pid for slot in self._slots if slot.channel is not None]

    @property
    def tasks(self) -> int:
        """The asyncio tasks of all of them."""
        return sum(slot.tasks for slot in self._slots)

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
        self._stopping.set()
        self._slots.close()
        for slot in self._slots:
            if slot.channel is not None:
                # Faults end here: nobody leaves later for what one of them holds.
                slot.channel.send({"type": "lease", "until": 0.0})
                slot.channel.send({"type": "drain"})
                _signal(slot.pid, signal.SIGTERM)
        _, late = await asyncio.wait(self._keepers, timeout=grace + _GRACE)
        for slot in self._slots:
            if late and slot.channel is not None:
                log.warning("worker %d does not leave; killed", slot.index)
                _signal(slot.pid, signal.SIGKILL)
        if late:
            await asyncio.wait(late)
        self._nursery.close()

    def abandon(self) -> None:
        """Leave the workers to whoever comes next."""
        self._stopping.set()
        for slot in self._slots:
            if slot.channel is not None:
                slot.channel.close()
        self._nursery.close()

    async def _keep(self, slot: Slot) -> None:
        while not self._stopping.is_set():
            try:
                if slot.channel is None:
                    control, pid = await self._nursery.birth(slot.index, self.budget.fd)
                    if self._stopping.is_set():
                        control.close()  # it was never told what to serve, and leaves
                        return
                    self._attach(slot, Channel(control, _ignore, lambda: None), pid)
            except OSError as e:  # no process or no descriptor to be had
                log.error("worker %d cannot start: %s", slot.index, e)
                await asyncio.sleep(_PAUSE)
                continue
            await slot.ended.wait()
            self._bury(slot)
            if not self._stopping.is_set():
                log.error("worker %d has ended; starting another", slot.index)
                if time.monotonic() - slot.born < _YOUNG:
                    await asyncio.sleep(_PAUSE)

    def _attach(
        self, slot: Slot, channel: Channel, pid: int, told: frozenset[str] = frozenset()
    ) -> None:
        channel.receive, channel.closed = partial(self._receive, slot), slot.ended.set
        slot.channel, slot.pid, slot.born = channel, pid, time.monotonic()
        slot.applied, slot.told, slot.incarnation = 0, told, ""
        slot.ended.clear()
        if self._plan:
            self._tell(slot)

    def _bury(self, slot: Slot) -> None:
        slot.channel, slot.applied, slot.tasks = None, 0, 0
        self._gone(slot.incarnation)
        self.budget.clear_worker(slot.index)
        self._tell_news()

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
            case "tasks":
                slot.tasks = message["count"]
            case "applied":
                slot.applied = message["generation"]
                self._tell_news()
            case other:
                log.error("unknown message %r from worker %d", other, slot.index)

    def _tell_news(self) -> None:
        """Let those who wait look again."""
        self._news.set()
        self._news = asyncio.Event()


def _ignore(message: Message, fds: list[int]) -> None:
    """Nobody listens yet."""


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
